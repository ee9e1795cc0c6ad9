"""The harness of the benchmarks on toy contenders, and each benchmark at a tiny size."""

import importlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import __main__ as program
from benchmarks import (
    audio_tower,
    busy,
    caption,
    corpus,
    gpu,
    growth,
    machine,
    page,
    precision,
    reading,
    reference,
    short_files,
    startup,
    store,
    text_tower,
    training_step,
)
from benchmarks.harness import Bar, Bench, Contender, OutputsDifferError, seconds
from benchmarks.machine import count_gflop
from benchmarks.options import option, parse_sizes
from benchmarks.processes import ROOT, CannotRunError, Measured, made, run_function, run_process
from full_size import STOP_TOKEN, randomise, save_gpt2, save_pth
from reference_models import gpt2_config
from textcap.config import BackboneConfig
from textcap.models.htsat import Htsat
from textcap.models.mapper import _clapcap_name
from textcap.store import Store
from tiny_random import random_mapper, tiny_config, write_tokenizer

NAMES = (*program.QUESTIONS, *program.OTHERS)


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the speed of the machine with small arrays: here it does not matter."""
    monkeypatch.setattr(machine, "_GEMM_SIZE", 128)
    monkeypatch.setattr(machine, "_BANDWIDTH_BYTES", 2**20)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny model in the files and under the names of msclap, made from transformers' models."""
    folder, config = tmp_path_factory.mktemp("weights"), tiny_config()
    write_tokenizer(folder)
    gpt2 = {
        name: reference.GPT2Model(gpt2_config(sizes)).state_dict()
        for name, sizes in (("text", config.clap.text_tower), ("decoder", config.language_model))
    }
    random = {name: randomise(state, seed) for seed, (name, state) in enumerate(sorted(gpt2.items()))}
    text = with_prefix("caption_encoder.base.", random["text"]) | projection(config, "caption_encoder.", 16)
    save_pth(audio_tensors(config, "audio_encoder.") | text, folder / "clap.pth")
    decoder = with_prefix("gpt.transformer.", random["decoder"])
    decoder["gpt.transformer.wte.weight"][STOP_TOKEN] = 0  # never ends a caption
    mapper = {f"clap_project.{_clapcap_name(name)}": x for name, x in random_mapper(config.mapper).state_dict().items()}
    save_pth(audio_tensors(config, "clap.") | decoder | mapper, folder / "clapcap.pth")
    save_gpt2(random["decoder"], folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(config)), encoding="utf-8")
    return folder


def with_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in tensors.items()}


def projection(config: BackboneConfig, prefix: str, width: int) -> dict[str, torch.Tensor]:
    wide = config.clap.embedding_width
    empty = {"linear1.weight": torch.empty(wide, width), "linear2.weight": torch.empty(wide, wide)}
    empty |= {"layer_norm.weight": torch.empty(wide), "layer_norm.bias": torch.empty(wide)}
    return with_prefix(f"{prefix}projection.", randomise(empty, 7))


def audio_tensors(config: BackboneConfig, prefix: str) -> dict[str, torch.Tensor]:
    tower = randomise(Htsat(config.clap.audio_tower, config.clap.audio.n_mels).state_dict(), 3)
    tower["logmel_extractor.melW"] = torch.rand(config.clap.audio.n_fft // 2 + 1, config.clap.audio.n_mels)
    return with_prefix(f"{prefix}base.htsat.", tower) | projection(config, prefix, config.clap.audio_tower.width)


@pytest.fixture
def bench(tmp_path: Path, weights: Path) -> Bench:
    """A benchmark with tiny weights in its work folder."""
    bench = new_bench(tmp_path)
    (bench.work / "weights").symlink_to(weights)
    return bench


def new_bench(folder: Path, **options: Any) -> Bench:
    (folder / "work").mkdir(exist_ok=True)
    console = Console(file=StringIO(), width=140, highlight=False)
    return Bench("toy", folder / "work", results=folder / "results", console=console, **options)


def printed(bench: Bench) -> str:
    file = bench._console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


def same(ours: object, theirs: object) -> str:
    return "" if ours == theirs else f"gives {theirs}, not {ours}"


def test_contenders_take_turns_and_are_warmed_up(bench):
    calls: list[str] = []

    def contender(name: str, **options: Any) -> Contender:
        return Contender(name, lambda: calls.append(name), before=lambda: calls.append(f"before {name}"), **options)

    slow = contender("slow", n_rounds=1, warms_up=False)
    found = bench.compare("work", [contender("a"), contender("b", n_rounds=2), slow], same, n_rounds=3)
    named = [call for call in calls if not call.startswith("before")]
    assert named == ["a", "b", "slow", "a", "b", "a", "b", "a"]
    assert calls[::2] == [f"before {name}" for name in named]
    assert [len(timing.wall_s) for timing in found.values()] == [3, 2, 1]


def test_times_are_per_item_and_the_median_is_reported(bench):
    times = iter([9.0, 3.0, 1.0, 2.0])  # the first is that of the warm-up
    contender = Contender("a", lambda: Measured("out", next(times), 0.5, peak_mb=7.0), n_items=2)
    timing = bench.compare("work", [contender], same, n_rounds=3)["a"]
    assert (timing.wall_s, timing.cpu_s) == ([1.5, 0.5, 1.0], [0.25] * 3)
    assert (timing.median_s, timing.peak_mb) == (1.0, 7.0)


def test_time_before_a_call_does_not_count(bench):
    waiting = Contender("a", lambda: None, before=lambda: time.sleep(0.2))
    assert max(bench.compare("work", [waiting], same, n_rounds=2)["a"].wall_s) < 0.2


def test_wrong_output_stops_before_anything_is_timed(bench):
    calls: list[int] = []
    right, wrong = Contender("right", lambda: calls.append(1) or 1), Contender("wrong", lambda: calls.append(2) or 2)
    with pytest.raises(OutputsDifferError, match="^sums: wrong gives 2, not 1$"):
        bench.compare("sums", [right, wrong, right], same)
    assert calls == [1, 2] and bench.timings == []


def test_operations_are_counted_and_compared_with_the_peak(bench):
    a, b = torch.ones(64, 32), torch.ones(32, 16)
    timing = bench.compare("product", [Contender("mm", lambda: a @ b, n_items=2)], lambda x, y: "", counts_flops=True)
    gflop = 2 * 64 * 32 * 16 / 1e9 / 2
    assert timing["mm"].gflop == pytest.approx(gflop)
    assert 0 < timing["mm"].share_of_peak < 1


def test_operations_of_attention_on_the_cpu_are_counted():
    batch, heads, n, width = 2, 3, 40, 8
    q, k, v = (torch.ones(batch, heads, n, width, requires_grad=True) for _ in range(3))
    products = batch * heads * 2 * n * n * width  # one product of the size of the attention matrix
    forward = count_gflop(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))
    both = count_gflop(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward())
    assert forward == pytest.approx(2 * products / 1e9)
    assert both == pytest.approx(7 * products / 1e9)


def test_bars_name_question_ratio_and_verdict():
    assert str(Bar("speed", "msclap", 2.71, 2.7)) == "speed, against msclap: 2.71 times, at least 2.7 times: met"
    late = Bar("memory", "the limit", 7.0, 6, unit="GB", is_most=True)
    assert str(late) == "memory, against the limit: 7 GB, at most 6 GB: missed"


def test_results_are_printed_and_written(tmp_path):
    bench = new_bench(tmp_path)
    bench.compare("adding", [Contender("a", lambda: 1), Contender("b", lambda: 1)], same, n_rounds=2)
    bench.bar("adding", "b", 1.5, 2)
    bench.note("a note")
    report = json.loads(bench.finish().read_text(encoding="utf-8"))
    assert report["benchmark"] == "toy" and report["date"].endswith(" UTC")
    assert report["machine"]["n_cores"] >= 1 and report["machine"]["gemm_gflops"] > 0
    assert report["machine"]["memory_gb_per_s"] > 0 and report["machine"]["versions"]["torch"] == torch.__version__
    assert [(one["what"], one["contender"], len(one["wall_s"])) for one in report["timings"]] == [
        ("adding", "a", 2),
        ("adding", "b", 2),
    ]
    assert report["bars"] == [
        {"question": "adding", "against": "b", "measured": 1.5, "limit": 2, "unit": "times"}
        | {"is_most": False, "is_met": False}
    ]
    assert report["notes"] == ["a note"]
    lines = printed(bench).splitlines()
    assert lines[-2:] == ["a note", "adding, against b: 1.5 times, at least 2 times: missed"]


def test_seconds_have_three_digits():
    assert [seconds(value) for value in (12.345, 1.0, 0.98765)] == ["12.3 s", "1 s", "988 ms"]


def test_process_reports_its_own_peak_and_not_that_of_its_parent(tmp_path):
    held = bytearray(400_000_000)  # this process is larger than the child
    held[::4096] = b"x" * len(held[::4096])
    used = run_process([sys.executable, "-S", "-c", "x = bytearray(b'x') * 100_000_000; print('done')"], tmp_path)
    assert used.output == "done\n" and 100 < used.peak_mb < 200
    assert used.wall_s > 0 and used.cpu_s > 0


def test_failed_process_is_named_with_its_last_line(tmp_path):
    with pytest.raises(RuntimeError, match="failed: ValueError: no$"):
        run_process([sys.executable, "-c", "raise ValueError('no')"], tmp_path)


def test_function_runs_in_a_process_of_its_own(tmp_path):
    path = tmp_path / "store.sqlite"
    Store(path, 4).vectors(store.make_keys(3), lambda indices: np.ones((len(indices), 4)))
    used = run_function("store.open_store", tmp_path, str(path), "3", "4", "random")
    assert len(used.output.split()) == 3


def test_made_files_are_made_once_and_completely(tmp_path):
    calls = []

    def make(path: Path) -> None:
        calls.append(path)
        path.write_text("x", encoding="utf-8")
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "file", make)
    assert not (tmp_path / "file").exists()
    assert made(tmp_path / "file", make) == made(tmp_path / "file", make)
    assert len(calls) == 2


def test_sizes_are_options():
    @dataclass(frozen=True)
    class Sizes:
        many_clips: int = option(3, "clips")
        lengths: tuple[int, ...] = option((1, 2), "lengths")

    assert parse_sizes(Sizes, "toy", "", []) == Sizes()
    assert parse_sizes(Sizes, "toy", "", ["--many-clips", "5", "--lengths", "7", "8"]) == Sizes(5, (7, 8))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_sizes_with_defaults_and_a_description(name):
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    assert parse_sizes(module.Sizes, name, module.__doc__, []) == module.Sizes()
    assert callable(module.run) and module.__doc__


def test_program_returns_1_for_a_wrong_output_only(tmp_path, monkeypatch, capsys):
    def fail_with(error: Exception) -> int:
        def run(bench: Bench, sizes: object) -> None:
            raise error

        monkeypatch.setattr(importlib.import_module("benchmarks.reading"), "run", run)
        monkeypatch.setattr(sys, "argv", ["benchmarks", "reading", "--work", str(tmp_path)])
        return program.main()

    assert fail_with(OutputsDifferError("sound 3 differs")) == 1
    assert capsys.readouterr().err == "reading: sound 3 differs\n"
    assert fail_with(CannotRunError("needs librosa")) == 0
    assert capsys.readouterr().err == "reading: needs librosa\n"


def test_gpu_is_refused_without_a_cuda_device(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CannotRunError, match="^needs a CUDA device$"):
        gpu.run(new_bench(tmp_path), gpu.Sizes())


def rows_of(bench: Bench) -> list[tuple[str, str]]:
    return [(one.what, one.contender) for one in bench.timings]


def test_captions_of_transformers_are_the_same(bench):
    caption.run(bench, caption.Sizes(clips=3, single_clips=1, tokens=6))
    assert rows_of(bench) == [
        (what, who)
        for what in ("captions, batch of 3", "captions, one at a time")
        for who in ("textcap", "transformers")
    ]
    assert [(bar.question, bar.against, bar.limit) for bar in bench.bars] == [
        ("captions, batch of 3", "transformers", 2.7),
        ("captions, one at a time", "transformers", 1.9),
    ]


def test_another_weight_in_transformers_is_found(bench, monkeypatch):
    class Wrong(reference.Captioner):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            with torch.no_grad():
                self.gpt2.transformer.h[0].mlp.c_fc.weight.mul_(-1)

    monkeypatch.setattr(reference, "Captioner", Wrong)
    with pytest.raises(OutputsDifferError, match="transformers differs in . of 3 captions"):
        caption.run(bench, caption.Sizes(clips=3, single_clips=1, tokens=6))


def test_audio_towers_agree(bench):
    audio_tower.run(bench, audio_tower.Sizes(windows=2))
    assert rows_of(bench) == [("audio tower, batch of 2", who) for who in ("textcap", "transformers")]


def test_text_towers_agree(bench):
    text_tower.run(bench, text_tower.Sizes(captions=12, padded_captions=5))
    assert rows_of(bench) == [("text tower, 12 captions", who) for who in ("textcap", "transformers, padded")]


def test_gradients_of_the_padded_loop_are_the_same(bench):
    training_step.run(bench, training_step.Sizes(captions=8, part=3, memory_processes=0))
    assert rows_of(bench) == [("training step, 8 captions", who) for who in ("textcap", "padded loop")]
    assert [bar.unit for bar in bench.bars] == ["times", "%"]


def test_another_learning_signal_is_found(bench, monkeypatch):
    monkeypatch.setattr(training_step, "BETA", 0.8)
    with pytest.raises(OutputsDifferError, match="padded loop has gradients that differ by 5.0e-01 of their length"):
        training_step.run(bench, training_step.Sizes(captions=8, part=3, memory_processes=0))


@pytest.mark.long
def test_memory_of_a_training_step_is_that_of_its_process(bench):
    training_step.run(bench, training_step.Sizes(captions=8, part=3))
    assert rows_of(bench)[2:] == [
        ("process of one step, 8 captions", "our step"),
        ("process of one step, 3 captions", "padded step"),
    ]
    assert bench.bars[-1].unit == "GB" and 0.1 < bench.bars[-1].measured < 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from librosa's own imports
def test_reading_agrees_with_librosa(bench):
    pytest.importorskip("librosa")
    reading.run(bench, reading.Sizes(files=16))
    assert [bar.against for bar in bench.bars] == ["librosa"]


def test_recipe_and_captions_of_the_gpu_benchmark_run_on_the_cpu(bench):
    gpu.run(bench, gpu.Sizes(device="cpu", captions=130, clips=3, batch=2, tokens=4))
    assert [bar.unit for bar in bench.bars] == ["minutes", "clips a second"]
    assert all(one.median_s > 0 for one in bench.timings)


def test_older_code_is_taken_from_the_history(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository's history")
    short_files.extract_source("HEAD", tmp_path / "now")
    assert (tmp_path / "now" / "src" / "textcap" / "captioner.py").is_file()
    with pytest.raises(CannotRunError, match="needs commit 0123456 of the repository's history"):
        short_files.extract_source("0123456", tmp_path / "never")


def test_one_line_in_a_thousand_may_differ():
    lines = [f"{index}" for index in range(1000)]
    one, two = ["x", *lines[1:]], ["x", "y", *lines[2:]]
    assert short_files.differing_lines("\n".join(lines), "\n".join(one)) == ""
    assert short_files.differing_lines("\n".join(lines), "\n".join(two)) == "differs in 2 of 1,000 lines"
    assert short_files.differing_lines("a\nb", "a") == "prints 1 lines, not 2"


@pytest.mark.slow
def test_growth_is_measured_in_processes_and_drawn(tmp_path):
    bench = new_bench(tmp_path)
    growth.run(bench, growth.Sizes(captions=(200,), repeats=(), files=(4,)))
    expected = ["train, up to the first step, 200", "continue, up to the next step, 200", "caption, 4"]
    assert [one.what for one in bench.timings] == expected
    assert all(one.peak_mb > 50 for one in bench.timings)
    for name in ("growth-captions.png", "growth-files.png"):
        assert (bench.results / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_startup_and_short_files_measure_the_command_line(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository's history")
    bench = new_bench(tmp_path, n_rounds=1)
    startup.run(bench, startup.Sizes())
    short_files.run(bench, short_files.Sizes(files=3))
    assert [bar.against for bar in bench.bars] == ["import torch", "the older code"]


@pytest.mark.slow
def test_busy_measures_both_commands(tmp_path):
    bench = new_bench(tmp_path, n_rounds=1)
    busy.run(bench, busy.Sizes(files=4, steps=1, processes=1, idle_rounds=0))
    assert [bar.against for bar in bench.bars] == ["one thread", "one thread"]


@pytest.mark.long
def test_precisions_are_compared_at_full_size_and_on_the_sound_world(bench: Bench):
    precision.run(bench, precision.Sizes(tokens=3, batches=(1, 2), captions=64, clips=3))
    assert [timing.contender for timing in bench.timings] == ["float32", "int8"] * 2
    assert [note.split(":")[0] for note in bench.notes] == [
        "batch of 1",
        "batch of 2",
        "float32",
        "int8",
        "captions that are equal",
    ]


@pytest.mark.long
def test_corpora_are_captioned_exported_and_searched(tmp_path):
    pytest.importorskip("ray")
    bench = new_bench(tmp_path, n_rounds=1)
    corpus.run(bench, corpus.Sizes(files=4, rows=30, vectors=200, width=8))
    assert [bar.unit for bar in bench.bars] == ["times", "MB", "MB", "s", "MB"]


@pytest.mark.long
def test_page_is_made_decoded_and_shown(tmp_path):
    bench = new_bench(tmp_path, n_rounds=1)
    page.run(bench, page.Sizes(rows=6, few_rows=3, sounds=2, seconds=1.0, visits=1))
    units = [bar.unit for bar in bench.bars]
    assert units[:3] == ["MB", "times", "MB more"] and units[3:] in ([], ["s", "ms"])
    assert bool(units[3:]) is not any("not measured in a browser" in note for note in bench.notes)
    assert page.differing_lengths([1.0, 2.0], [1.0, 2.5]) == "differs in the length of 1 sounds"
    assert not list(bench.work.glob("*.html"))
