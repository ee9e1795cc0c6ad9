"""The commands gap, fit-adapter and embed, through the command line."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from light import run_without_torch
from textcap.cli.app import app
from textcap.data.pairs import read_pairs
from textcap.demo.folder import training_pairs, write_sounds
from textcap.embedding.captions import embed_captions
from textcap.embedding.pairs import embed_pairs
from textcap.gap.adapter import LinearAdapter, load_adapter
from textcap.gap.fit import FittedAdapter
from textcap.gap.plot import draw_gap, plot_gap
from textcap.gap.retrieval import Retrieval, unit_rows
from textcap.models.backbone import Backbone

N_CLIPS = 36


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pairs file with clips of the sound world, two of which have the same caption."""
    folder = tmp_path_factory.mktemp("world")
    clips = training_pairs(N_CLIPS, seed=77)
    names = write_sounds(clips, folder)
    captions = [clip.captions[0] for clip in clips]
    captions[1] = captions[0]
    rows = [f'{name},"{caption}"' for name, caption in zip(names, captions, strict=True)]
    (folder / "pairs.csv").write_text("\n".join(["file_name,caption", *rows]) + "\n", encoding="utf-8")
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _shared_cache(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEXTCAP_CACHE", str(cache))  # shared, so that sounds are embedded once for all tests here
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> tuple[int, str, str]:
    """Run a command with the embedded backbone on the CPU, and return the exit code, stdout and stderr."""
    flags = () if "--backbone" in arguments else ("--backbone", "tiny")
    command = [str(argument) for argument in (*arguments, *flags, "--device", "cpu")]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def one_line(text: str) -> str:
    """Return the text of an error box as one line."""
    return " ".join(text.replace("│", " ").split())


# gap


def test_gap_prints_the_figures(pairs_file: Path) -> None:
    code, out, err = run("gap", pairs_file)
    assert code == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == [
        "mean_cosine",
        "modality_distance",
        "mean_infinity_norm",
        "max_infinity_norm",
        "noise_std",
        "noise_variance",
        "cosine_variance",
        "shift",
        "spread",
        "private",
        "shift_share",
    ]
    assert f"30 of {N_CLIPS} pairs" in err
    assert f"use it with: textcap train captions.txt --noise-from {pairs_file}" in err


def test_gap_equals_a_direct_computation(pairs_file: Path) -> None:
    code, out, err = run("gap", pairs_file, "--n", N_CLIPS, "--json")
    assert code == 0
    backbone = Backbone.load("tiny")
    embedded = embed_pairs(read_pairs(pairs_file), backbone, torch.device("cpu"))
    text = embed_captions(embedded.captions, backbone, torch.device("cpu"))
    audio, text = unit_rows(embedded.audio), unit_rows(text)
    found = json.loads(out)
    norms = np.abs(audio - text).max(axis=1)
    cosine = (audio * text).sum(axis=1).mean()
    assert found["sample"]["noise_std"] == pytest.approx(norms.mean(), rel=1e-9)
    assert found["sample"]["noise_variance"] == pytest.approx(norms.mean() ** 2, rel=1e-9)
    assert found["sample"]["max_infinity_norm"] == pytest.approx(norms.max(), rel=1e-9)
    assert found["sample"]["mean_cosine"] == pytest.approx(cosine, rel=1e-9)
    assert found["sample"]["cosine_variance"] == pytest.approx((1 / cosine**2 - 1) / 256, rel=1e-9)
    assert found["every_pair"] == found["sample"]
    assert found["spread"]["mean_cosine"]["std"] == pytest.approx(0, abs=1e-12)  # every draw has all pairs
    assert "--noise-std" in err  # --noise-from would measure the gap on other pairs


def test_gap_depends_only_on_the_seed(pairs_file: Path) -> None:
    assert run("gap", pairs_file, "--json")[1] == run("gap", pairs_file, "--json")[1]
    assert run("gap", pairs_file, "--seed", 1)[1] != run("gap", pairs_file)[1]


def test_gap_names_skipped_sounds(pairs_file: Path, tmp_path: Path) -> None:
    rows = pairs_file.read_text(encoding="utf-8") + "gone.wav,A dog barks\nnan.wav,A dog barks\n"
    (tmp_path / "more.csv").write_text(rows, encoding="utf-8")
    nan = pairs_file.parent / "nan.wav"
    soundfile.write(nan, np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    code, out, err = run("gap", "more.csv", "--audio-dir", pairs_file.parent)
    assert code == 0 and out
    assert f"warning: more.csv: skipped: {pairs_file.parent / 'gone.wav'} does not exist" in err
    assert f"skipped: {nan} contains NaN or infinite samples" in err


def test_many_skipped_sounds_are_counted(pairs_file: Path, tmp_path: Path) -> None:
    rows = pairs_file.read_text(encoding="utf-8") + "".join(f"gone{i}.wav,A dog barks\n" for i in range(25))
    (tmp_path / "more.csv").write_text(rows, encoding="utf-8")
    code, _, err = run("fit-adapter", "more.csv", "--audio-dir", pairs_file.parent)
    assert code == 0
    assert err.count("does not exist") == 10 and "more.csv: skipped: 15 more sounds" in err


def test_too_few_pairs_are_refused(tmp_path: Path, pairs_file: Path) -> None:
    (tmp_path / "one.csv").write_text(f"file,caption\n{pairs_file.parent / '001.wav'},x\n", encoding="utf-8")
    for command, n in (("gap", 30), ("fit-adapter", 20)):
        code, out, err = run(command, "one.csv")
        assert (code, out) == (1, "")
        assert f"one.csv has 1 pair with a readable sound file, but must have at least {n}" in err


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_gap_plots_are_repeatable_and_not_overwritten(pairs_file: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"gap.{suffix}"
    assert run("gap", pairs_file, "--plot", path)[0] == 0
    first = path.read_bytes()
    assert first[:4] in (b"\x89PNG", b"<?xm", b"%PDF")
    code, _, err = run("gap", pairs_file, "--plot", path)
    assert code == 1 and f"{path} already exists (choose another name, or use --force to overwrite it)" in err
    assert run("gap", pairs_file, "--plot", path, "--force")[0] == 0
    assert path.read_bytes() == first


def test_plot_shows_a_scatter_plot_with_lines_and_two_histograms() -> None:
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(50, 8))
    figure = draw_gap(audio, audio + 0.3 * rng.normal(size=(50, 8)), n_lines=30)
    left, right = figure.axes
    assert len(left.lines) == 30
    assert [len(cloud.get_offsets()) for cloud in left.collections] == [50, 50]
    for line in left.lines:  # each joins a sound and its own caption
        ends = np.column_stack(line.get_data())
        distances = [
            np.abs(cloud.get_offsets() - end).sum(axis=1) for cloud, end in zip(left.collections, ends, strict=True)
        ]
        assert distances[0].argmin() == distances[1].argmin() and distances[0].min() < 1e-12
    assert {text.get_text() for text in left.get_legend().get_texts()} == {"audio", "text"}
    labels = {text.get_text() for text in right.get_legend().get_texts()}
    assert {"pairs", "others"} < labels


def test_degenerate_pairs_can_be_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    same = np.tile(np.eye(3)[:1], (2, 1))
    plot_gap(tmp_path / "a.png", same, same)
    assert (tmp_path / "a.png").stat().st_size > 0


def test_plot_errors_are_reported_before_any_work(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textcap.gap.calibrate.measure_pair_gap", lambda *a, **k: pytest.fail("the gap was measured"))
    code, _, err = run("gap", pairs_file, "--plot", "gap.jpg")
    assert code == 1 and "gap.jpg is not a valid plot file name (use a name ending in .png or .svg or .pdf)" in err
    (tmp_path / "gap.png").mkdir()
    assert "is a folder" in run("gap", pairs_file, "--plot", "gap.png")[2]
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run("gap", pairs_file, "--plot", "other.png")
    assert code == 1 and "plotting needs matplotlib (pip install 'textcap[plot]')" in err


# fit-adapter


def test_fit_adapter_writes_an_adapter_that_training_accepts(pairs_file: Path, tmp_path: Path) -> None:
    code, out, err = run("fit-adapter", pairs_file)
    assert (code, out) == (0, "adapter.safetensors\n")
    adapter = load_adapter(tmp_path / "adapter.safetensors")
    assert adapter.facts.clap_hash == Backbone.load("tiny").clap.content_hash
    assert (adapter.facts.n_pairs, adapter.facts.n_held_out) == (N_CLIPS, N_CLIPS // 5)
    assert f"mean cosine  {adapter.facts.cosine_before:.3f} -> {adapter.facts.cosine_after:.3f}" in err
    assert "warning: too few sounds to tell whether the adapter helps: at least 250 are needed" in err
    assert "use it with" not in err
    (tmp_path / "captions.txt").write_text("A dog barks\nRain falls\n", encoding="utf-8")
    code, out, err = run("train", "captions.txt", "--adapter", "adapter.safetensors", "--epochs", 1)
    assert (code, out) == (0, "textcap-model\n")
    assert f"linear adapter fitted on {pairs_file}" in err
    assert err.count("the tiny backbone knows only the synthetic sounds of textcap demo") == 1
    assert (tmp_path / "textcap-model" / "adapter.safetensors").exists()


def test_fit_adapter_as_json(pairs_file: Path) -> None:
    code, out, _ = run("fit-adapter", pairs_file, "--json", "--method", "sgd", "--epochs", 3, "-o", "h.safetensors")
    found = json.loads(out)
    assert code == 0
    assert (found["output"], found["method"], found["strength"]) == ("h.safetensors", "sgd", 0.0)
    assert found["helps"] is None and 0 <= found["recall_at_10_after"] <= 1


def test_existing_outputs_and_inputs_are_not_overwritten(pairs_file: Path, tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").write_text("mine", encoding="utf-8")
    for command in (["fit-adapter", pairs_file], ["embed", "--text", "A dog barks"]):
        code, _, err = run(*command, "-o", "there.safetensors")
        assert code == 1 and "there.safetensors already exists (choose another name, or use --force" in err
    assert (tmp_path / "there.safetensors").read_text(encoding="utf-8") == "mine"
    before = pairs_file.read_bytes()
    inputs = pairs_file.rename(pairs_file.with_suffix(""))
    try:
        for command in (["fit-adapter", inputs], ["embed", inputs]):
            code, _, err = run(*command, "-o", inputs, "--force")
            assert code == 1 and "is the input" in err
        assert inputs.read_bytes() == before
    finally:
        inputs.rename(pairs_file)
    assert run("embed", "--text", "x", "-o", "there.safetensors", "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit-adapter", "p.csv", "--method", "magic"], "magic"),
        (["fit-adapter", "p.csv", "--strength", "-1"], "--strength"),
        (["gap", "p.csv", "--n", "1"], "--n"),
        (["embed"], "give a sound file, a .txt file, or --text"),
    ],
)
def test_misuse_exits_2(arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in one_line(err)


def test_learning_rate_out_of_range_exits_2(pairs_file: Path) -> None:
    code, _, err = run("fit-adapter", pairs_file, "--method", "sgd", "--learning-rate", "1")
    assert code == 2 and "--learning-rate: is 1.0, but must be above 0 and below 1" in one_line(err)


@pytest.mark.parametrize(
    ("n_held_out", "after", "advice"),
    [
        (50, (0.6, 0.5, 0.9), "use it with: textcap train captions.txt --adapter 'the adapter.safetensors'"),
        (49, (0.9, 0.9, 1.0), "warning: too few sounds to tell whether the adapter helps: at least 250 are needed"),
        (50, (0.9, 0.4, 1.0), "but find them less often: whether it helps is uncertain"),
        (50, (0.9, 0.6, 0.8), "but find them less often: whether it helps is uncertain"),
        (50, (0.5, 0.9, 1.0), "warning: the adapter does not help: held-out sounds are no nearer to their captions"),
        (1000, (0.4, 0.4, 0.8), "warning: the adapter does not help: held-out sounds are no nearer to their captions"),
    ],
)
def test_adapter_is_advised_only_if_enough_figures_agree(
    pairs_file: Path, monkeypatch: pytest.MonkeyPatch, n_held_out: int, after: tuple[float, float, float], advice: str
) -> None:
    fit = FittedAdapter.adapter

    def pretend(self: FittedAdapter, *arguments: Any) -> LinearAdapter:
        return fit(
            replace(self, n_held_out=n_held_out, before=Retrieval(0.5, 0.5, 0.9), after=Retrieval(*after)), *arguments
        )

    monkeypatch.setattr(FittedAdapter, "adapter", pretend)
    code, _, err = run("fit-adapter", pairs_file, "-o", "the adapter.safetensors")
    assert code == 0 and advice in one_line(err)
    assert ("use it with" in err) == ("use it with" in advice)


# embed


@pytest.mark.parametrize("command", [["embed", "--text", "x"], ["fit-adapter", "p.csv"]])
def test_output_is_refused_whose_name_is_of_another_format(command: list[str], tmp_path: Path) -> None:
    code, _, err = run(*command, "-o", "e.npy")
    assert code == 2 and "--output: ends in .npy, but must end in .safetensors" in one_line(err)
    assert not list(tmp_path.iterdir())


def test_embed_takes_folders_and_patterns_once(pairs_file: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        shutil.copy(pairs_file.parent / f"00{number}.wav", tmp_path / "in" / f"{number}.wav")
    code, _, err = run("embed", "in", "./in/1.w*")
    assert code == 0 and "1 input named more than once, and taken once" in err
    with safe_open("embeddings.safetensors", "np") as file:
        assert json.loads(file.metadata()["names"]) == ["in/1.wav", "in/2.wav"]


def test_embed_looks_at_its_inputs_before_torch_is_loaded() -> None:
    done = run_without_torch("embed", "missing.wav", "no*")
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == [
        "skipped: missing.wav does not exist",
        "skipped: no* does not exist, and as a pattern it matches nothing",
    ]


def test_embed_keeps_the_order_and_the_names(pairs_file: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("\ufeffA dog barks\r\n\r\nRain falls\r\n", encoding="utf-8")
    sounds = [pairs_file.parent / name for name in ("002.wav", "001.wav")]
    code, out, _ = run("embed", sounds[0], "captions.txt", sounds[1], "--text", "A cat meows", "--text", "Rain falls")
    assert (code, out) == (0, "embeddings.safetensors\n")
    with safe_open("embeddings.safetensors", "np") as file:
        vectors, metadata = file.get_tensor("embeddings"), file.metadata()
    names, kinds = json.loads(metadata["names"]), json.loads(metadata["kinds"])
    assert names == [str(sounds[0]), "A dog barks", "Rain falls", str(sounds[1]), "A cat meows", "Rain falls"]
    assert kinds == ["audio", "text", "text", "audio", "text", "text"]
    assert (vectors.shape, vectors.dtype) == ((6, 256), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors[2], vectors[5], atol=1e-6)
    backbone = Backbone.load("tiny")
    assert (metadata["clap"], metadata["clap_hash"]) == ("tiny", backbone.clap.content_hash)
    expected = backbone.text_encoder().encode(["A dog barks"]).numpy()
    np.testing.assert_allclose(vectors[1:2], expected, atol=1e-6)
    embedded = embed_pairs(read_pairs(pairs_file), backbone, torch.device("cpu"))
    np.testing.assert_allclose(vectors[[3, 0]], embedded.audio[:2], atol=1e-6)


def test_embed_continues_after_unreadable_inputs(pairs_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no sound", encoding="utf-8")
    code, out, err = run("embed", "broken.wav", "gone.txt", pairs_file.parent / "001.wav")
    assert (code, out) == (3, "embeddings.safetensors\n")
    assert "broken.wav cannot be read as sound" in err and "gone.txt does not exist" in err
    with safe_open("embeddings.safetensors", "np") as file:
        assert json.loads(file.metadata()["names"]) == [str(pairs_file.parent / "001.wav")]
    code, out, _ = run("embed", "broken.wav", "-o", "none.safetensors")
    assert (code, out) == (1, "")
    assert not (tmp_path / "none.safetensors").exists()


@pytest.mark.parametrize("caption", [" ", "\udcff"])
def test_embed_refuses_an_empty_caption(caption: str) -> None:
    code, _, err = run("embed", "--text", caption)
    assert code == 1 and "a caption to embed is empty" in err


def test_embed_takes_an_argument_that_is_not_utf8() -> None:
    assert run("embed", "--text", "a dog \udcff barks")[0] == 0


@pytest.mark.parametrize("command", ["gap", "fit-adapter", "embed"])
def test_help_ends_with_two_commands(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], catch_exceptions=False)
    assert result.exit_code == 0
    examples = [line for line in result.stdout.splitlines() if line.strip().startswith(f"textcap {command}")]
    assert len(examples) == 2


@pytest.mark.parametrize("command", ["gap", "fit-adapter"])
def test_warning_of_the_store_of_captions_is_shown_once(
    command: str, pairs_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(command, pairs_file)[0] == 0
    for store in (cache / "embeddings").glob("text-*"):
        store.write_bytes(b"no database at all" * 300)
    code, _, stderr = run(command, pairs_file, *(["--force"] if command == "fit-adapter" else []))
    assert code == 0
    assert stderr.count(".sqlite was damaged, so it was deleted and is filled anew") == 1
    (tmp_path / "file").touch()
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / "file"))
    code, _, stderr = run(command, pairs_file, *(["--force"] if command == "fit-adapter" else []))
    assert code == 0
    assert stderr.count("nothing can be kept in") == 1
