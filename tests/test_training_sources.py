"""Training on weighted text files, on pairs, on both, with measured noise and with an adapter."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from safetensors.torch import load_file
from typer.testing import CliRunner

import tiny_random
from textcap.captioner import Captioner
from textcap.cli.app import app
from textcap.config import AdapterFacts, BridgeConfig, TrainingConfig
from textcap.data.captions import CaptionFile, CaptionSet, load_captions, split_weight
from textcap.data.pairs import PairSet, SkippedPair, read_pairs
from textcap.embedding.pairs import embed_pairs
from textcap.errors import CheckpointError, InputError
from textcap.gap.adapter import LinearAdapter, load_adapter, save_adapter
from textcap.gap.bridge import Bridge
from textcap.gap.calibrate import measure_pair_gap
from textcap.model_folder import load_model
from textcap.models.backbone import Backbone
from textcap.training import train
from textcap.training.data import make_examples, split_held_out
from textcap.training.events import Event, Started
from textcap.training.sources import AUDIO, TEXT, MixedEmbeddings, Source, count_source, draw_epoch, group_captions

RATE_HZ, N_CLIPS = 8000, 40
CAPTIONS = tiny_random.tiny_captions(100)
QUICK = TrainingConfig(epochs=2, batch_size=16, learning_rate=5e-3, held_out_captions=10, seed=3)


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 40 sounds and a pairs file with two captions for each, in the form of Clotho's table."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    captions = tiny_random.tiny_captions(300)[200:]
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "caption_1", "caption_2"])
        for i in range(N_CLIPS):
            tone = np.sin(np.arange(RATE_HZ) * (0.05 + 0.02 * i)) * 0.3 + rng.normal(size=RATE_HZ) * 0.01
            soundfile.write(folder / f"{i:02d}.wav", tone, RATE_HZ)
            writer.writerow([f"{i:02d}.wav", captions[2 * i], captions[2 * i + 1]])
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def pairs(pairs_file: Path) -> PairSet:
    return read_pairs(pairs_file)


def texts(weight: float = 1.0) -> CaptionSet:
    files = (CaptionFile("a.txt", "0" * 64, 60), CaptionFile("b.txt", "1" * 64, 40, weight))
    return CaptionSet(CAPTIONS, files)


def run_training(backbone_folder: Path, output: Path, captions: CaptionSet | None, **options: Any) -> Path:
    return train(captions, output, backbone=backbone_folder, **{"config": QUICK, "device": "cpu", **options})


def same_mapper(a: Path, b: Path) -> bool:
    return (a / "mapper.safetensors").read_bytes() == (b / "mapper.safetensors").read_bytes()


# What an epoch draws


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    weights=st.lists(st.sampled_from([0.1, 0.5, 1.0, 1.5, 2.0, 3.25]), min_size=4, max_size=4),
    seed=st.integers(0, 5),
)
def test_sources_are_drawn_by_weight_and_evenly(sizes: list[int], weights: list[float], seed: int) -> None:
    ends = np.cumsum(sizes).tolist()
    sources = [
        Source(str(i), TEXT, end - size, end, weight)
        for i, (size, end, weight) in enumerate(zip(sizes, ends, weights, strict=False))
    ]
    training = np.arange(ends[-1])
    drawn: Counter[int] = Counter()
    n_epochs = 20
    for epoch in range(n_epochs):
        places = draw_epoch(sources, training, seed, epoch)
        drawn.update(places.tolist())
        for source in sources:
            of_source = places[(places >= source.first) & (places < source.end)]
            assert len(of_source) == count_source(source, training).n_per_epoch
            # No caption is drawn more than once more than another.
            counts = [drawn[i] for i in range(source.first, source.end)]
            assert max(counts) - min(counts) <= 1
    for source in sources:
        wanted = max(1, round(source.weight * (source.end - source.first))) * n_epochs
        assert sum(drawn[i] for i in range(source.first, source.end)) == wanted


def test_sources_of_weight_one_give_every_caption_in_order() -> None:
    training = np.array([0, 2, 3, 7, 9])
    sources = [Source("a", TEXT, 0, 5), Source("b", AUDIO, 5, 10)]
    assert draw_epoch(sources, training, 0, 4).tolist() == [0, 1, 2, 3, 4]


def test_draws_follow_from_the_seed_and_the_epoch() -> None:
    sources, training = [Source("a", TEXT, first=0, end=50, weight=0.5)], np.arange(50)
    first, again, later, other = (
        draw_epoch(sources, training, seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert first == again
    assert sorted(first + later) == list(range(50))
    assert first != other


@given(
    captions=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30),
    clips=st.lists(st.integers(-1, 6), min_size=30, max_size=30),
)
def test_copies_and_clips_are_grouped(captions: list[str], clips: list[int]) -> None:
    groups = group_captions(captions, clips)
    for i in range(len(captions)):
        for j in range(i):
            if captions[i] == captions[j] or clips[i] == clips[j] >= 0:
                assert groups[i] == groups[j]
    # Nothing else is grouped: a slow search for chains of copies and clips finds as many groups.
    ungrouped, n_groups = set(range(len(captions))), 0
    while ungrouped:
        n_groups, pending = n_groups + 1, [ungrouped.pop()]
        while pending:
            i = pending.pop()
            linked = {j for j in ungrouped if captions[i] == captions[j] or clips[i] == clips[j] >= 0}
            ungrouped -= linked
            pending += linked
    assert len(set(groups.tolist())) == n_groups


def test_clips_are_held_out_with_all_their_captions() -> None:
    captions = [f"caption {i}" for i in range(200)]
    clips = [i // 5 for i in range(200)]
    held_out = split_held_out(captions, 20, 0, clips)
    assert len(held_out) == 20
    assert {clips[i] for i in held_out}.isdisjoint(clips[i] for i in set(range(200)) - set(held_out.tolist()))


def test_mixed_embeddings_read_from_both_tables() -> None:
    text, audio = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    mixed = MixedEmbeddings(text, np.array([0, 2, 0, 1]), audio, np.array([3, 3, 0]))
    assert len(mixed) == 7
    np.testing.assert_array_equal(mixed[np.array([6, 1, 4, 0])], [audio[0], text[2], audio[3], text[0]])


def test_text_and_audio_go_through_their_sides_of_the_bridge(backbone: Backbone) -> None:
    rng = np.random.default_rng(0)
    text, audio = (torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(n, 24)))).float() for n in (60, 20))
    mixed = MixedEmbeddings(text.numpy(), np.arange(60), audio.numpy(), np.repeat(np.arange(20), 2))
    sources = (Source("t", TEXT, 0, 60), Source("p", AUDIO, 60, 100))
    examples = make_examples(CAPTIONS, mixed, backbone.tokenizer, sources=sources)
    bridge = Bridge(BridgeConfig(noise_variance=0.01))
    indices = np.array([99, 3, 60, 5])
    found = examples.bridged(indices, bridge, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[[0, 2]], audio[[19, 0]])
    noisy = bridge.text_side(text[[3, 5]], torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[[1, 3]], noisy)
    assert not torch.allclose(found[1], text[3], atol=1e-3)


# Names with weights


def test_weight_is_split_off_only_if_the_rest_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "b.txt:2"):
        Path(name).write_text("a dog barks\n", encoding="utf-8")
    assert split_weight("a.txt:0.5") == ("a.txt", 0.5)
    assert split_weight("a.txt") == ("a.txt", 1.0)
    assert split_weight("b.txt:2") == ("b.txt:2", 1.0)  # a file with the whole name exists
    assert split_weight("c.txt:2") == ("c.txt:2", 1.0)  # no file c.txt exists
    assert split_weight("a.txt:high") == ("a.txt:high", 1.0)
    assert split_weight("-:3") == ("-", 3.0)
    loaded = load_captions(["a.txt:0.5", "b.txt"])
    assert [(file.name, file.weight) for file in loaded.files] == [("a.txt", 0.5), ("b.txt", 1.0)]
    for weight in ("0", "-1", "nan", "inf", "1e9"):
        with pytest.raises(InputError, match=r"the weight of a.txt is .*must be above 0 and at most 1000"):
            split_weight(f"a.txt:{weight}")


# Whole runs


def test_training_on_pairs_alone(backbone_folder: Path, pairs: PairSet, tmp_path: Path) -> None:
    events: list[Event] = []
    longer = replace(QUICK, epochs=6)
    folder = run_training(backbone_folder, tmp_path / "m", None, pairs=pairs, config=longer, report=events.append)
    started = next(event for event in events if isinstance(event, Started))
    assert [(s.kind, s.n_captions, s.n_per_epoch) for s in started.sources] == [("audio", 72, 72)]
    config = load_model(folder).config
    assert (config.bridge.noise_variance, config.bridge.audio_noise_variance) == (0.0, 0.0)
    assert [(file.name, file.n_captions) for file in config.pair_files] == [(pairs.file.name, 80)]
    assert config.caption_files == ()
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "trained on pairs of sound and text" in card and "No audio" not in card
    sounds = [pair.audio for pair in pairs.pairs[:2]]
    assert all(not result.error for result in Captioner.load(folder, device="cpu").caption(sounds))


def test_training_on_text_and_pairs_reports_each_source(backbone_folder: Path, pairs: PairSet, tmp_path: Path) -> None:
    events: list[Event] = []
    folder = run_training(backbone_folder, tmp_path / "m", texts(0.5), pairs=[pairs], report=events.append)
    started = next(event for event in events if isinstance(event, Started))
    assert [source.kind for source in started.sources] == ["text", "text", "audio"]
    assert sum(source.n_captions for source in started.sources) == started.model.n_training_captions
    assert started.model.n_training_captions + started.model.n_held_out_captions == 180
    assert started.sources[1].n_per_epoch == round(started.sources[1].n_captions / 2)
    drawn = sum(source.n_per_epoch for source in started.sources)
    assert started.total_steps == 2 * -(-drawn // 16)
    config = load_model(folder).config
    assert [file.weight for file in config.caption_files] == [1.0, 0.5]
    assert "b.txt: 40 captions, weight 0.5" in (folder / "README.md").read_text(encoding="utf-8")
    assert not (tmp_path / "m.partial").exists()


RUN_UNTIL_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_training_sources as t
from pathlib import Path
from textcap.training import loop
loop.SAVE_EVERY_S = 0.0
def kill(event):
    if type(event).__name__ == "Stepped" and event.step == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)
t.run_training(Path(sys.argv[2]), Path(sys.argv[3]), t.texts(0.5), pairs=sys.argv[4], report=kill)
"""


@pytest.mark.long
def test_killed_run_on_text_and_pairs_continues_to_the_same_result(
    backbone_folder: Path, pairs_file: Path, pairs: PairSet, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_training(backbone_folder, whole, texts(0.5), pairs=pairs)
    where = [str(Path(__file__).parent), str(backbone_folder), str(killed), str(pairs_file)]
    for step in (4, 13):  # in the first epoch and in the second
        command = [sys.executable, "-c", RUN_UNTIL_KILLED, *where, str(step)]
        done = subprocess.run(command, timeout=300, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    events: list[Event] = []
    run_training(backbone_folder, killed, texts(0.5), pairs=pairs, report=events.append)
    assert next(event for event in events if isinstance(event, Started)).first_step == 12
    assert same_mapper(whole, killed)


@pytest.mark.long
def test_two_processes_give_the_same_mapper_from_pairs(backbone_folder: Path, pairs: PairSet, tmp_path: Path) -> None:
    slow = replace(QUICK, learning_rate=TrainingConfig.learning_rate)
    for name, n_processes in (("one", 1), ("two", 2)):
        options = {"pairs": pairs, "noise_from": pairs, "config": slow, "n_processes": n_processes}
        run_training(backbone_folder, tmp_path / name, texts(2.0), **options)
    one, two = (load_model(tmp_path / name) for name in ("one", "two"))
    assert one.config.bridge == two.config.bridge
    for alone, shared in zip(one.mapper.parameters(), two.mapper.parameters(), strict=True):
        torch.testing.assert_close(shared, alone, atol=1e-6, rtol=0)


def test_training_on_nothing_is_refused(backbone_folder: Path, pairs: PairSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is nothing to train on"):
        run_training(backbone_folder, tmp_path / "m", None)
    with pytest.raises(InputError, match="for text were given, but no captions"):
        run_training(backbone_folder, tmp_path / "m", None, pairs=pairs, noise_from=pairs)


def test_unfinished_run_on_other_pairs_is_not_continued(backbone_folder: Path, pairs: PairSet, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if type(event).__name__ == "Stepped" and event.step > 12:  # type: ignore[union-attr]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(backbone_folder, tmp_path / "m", texts(), pairs=pairs, report=stop)
    fewer = replace(pairs, pairs=pairs.pairs[:-1])
    with pytest.raises(InputError, match="unfinished run that differs in pairs"):
        run_training(backbone_folder, tmp_path / "m", texts(), pairs=fewer)
    with pytest.raises(InputError, match="unfinished run that differs in weights"):
        run_training(backbone_folder, tmp_path / "m", texts(2.0), pairs=pairs)


# Measured noise and the adapter


def test_measured_noise_follows_the_paper_and_is_recorded(
    backbone_folder: Path, backbone: Backbone, pairs: PairSet, tmp_path: Path
) -> None:
    bridge = BridgeConfig(noise_variance=1.0, audio_noise_variance=0.002)
    folder = run_training(backbone_folder, tmp_path / "m", texts(), noise_from=pairs.file.name, bridge=bridge)
    gap = measure_pair_gap(pairs, backbone, torch.device("cpu"))
    rng = np.random.default_rng([0, 0])
    chosen = np.sort(rng.choice(len(gap.pairs.pairs), 30, replace=False))
    audio = embed_pairs(pairs, backbone, torch.device("cpu")).audio
    std = np.mean([np.abs(audio[i].astype(np.float64) - gap.text[i]).max() for i in chosen])
    stored = load_model(folder).config.bridge
    assert stored.noise_std == pytest.approx(std, rel=1e-6)
    assert stored.audio_noise_variance == 0.002
    assert stored.calibration is not None
    assert stored.calibration.pairs_sha256 == pairs.file.sha256
    assert (stored.calibration.n_pairs, stored.calibration.rule) == (30, "mean infinity norm")
    assert "measured on 30 pairs" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_pairs_drawn_do_not_depend_on_how_many_are_embedded(backbone: Backbone, pairs: PairSet) -> None:
    few, all_pairs = (
        measure_pair_gap(pairs, backbone, torch.device("cpu"), n=3, draws=4, most=most) for most in (0, 1000)
    )
    assert len(few.pairs.pairs) == 12 < len(all_pairs.pairs.pairs)
    assert few.report == all_pairs.report


def test_too_few_pairs_to_measure_the_noise_are_refused(backbone_folder: Path, pairs: PairSet, tmp_path: Path) -> None:
    few = replace(pairs, pairs=pairs.pairs[:29])
    with pytest.raises(InputError, match="has 29 pairs with a readable sound file, but must have at least 30"):
        run_training(backbone_folder, tmp_path / "m", texts(), noise_from=few)
    assert list(tmp_path.iterdir()) == []


def make_adapter(clap_hash: str) -> LinearAdapter:
    generator = torch.Generator().manual_seed(0)
    facts = AdapterFacts(
        clap_name="x",
        clap_hash=clap_hash,
        method="ridge",
        strength=0.0,
        n_pairs=40,
        n_captions=80,
        n_held_out=8,
        pairs_name="p.csv",
        pairs_sha256="0" * 64,
        seed=0,
        cosine_before=0.0,
        cosine_after=0.0,
        recall_at_1_before=0.0,
        recall_at_1_after=0.0,
        recall_at_10_before=0.0,
        recall_at_10_after=0.0,
    )
    return LinearAdapter(torch.randn(24, 24, generator=generator), torch.randn(24, generator=generator), facts)


def test_adapter_is_used_in_training_and_saved_with_the_model(
    backbone_folder: Path, backbone: Backbone, tmp_path: Path
) -> None:
    adapter = make_adapter(backbone.clap.content_hash)
    save_adapter(tmp_path / "h.safetensors", adapter)
    noiseless = BridgeConfig(noise_variance=0.0)
    path = tmp_path / "h.safetensors"
    folder = run_training(backbone_folder, tmp_path / "m", texts(), adapter=path, bridge=noiseless)
    loaded = run_training(backbone_folder, tmp_path / "loaded", texts(), adapter=adapter, bridge=noiseless)
    assert same_mapper(folder, loaded)
    plain = run_training(backbone_folder, tmp_path / "plain", texts(), bridge=noiseless)
    assert not same_mapper(folder, plain)
    kept = load_adapter(folder / "adapter.safetensors")
    assert torch.equal(kept.matrix, adapter.matrix) and kept.facts == adapter.facts
    assert load_model(folder).config.adapter == adapter.facts
    assert not (plain / "adapter.safetensors").exists()
    # Captioning ignores the adapter; audio embeddings are only scaled to unit length.
    audio = torch.randn(3, 24)
    torch.testing.assert_close(Bridge(noiseless, kept).audio_side(audio), torch.nn.functional.normalize(audio))


def test_adapter_of_another_backbone_is_refused(backbone_folder: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "h.safetensors", make_adapter("another"))
    with pytest.raises(CheckpointError, match="was fitted on x with weights another, not "):
        run_training(backbone_folder, tmp_path / "m", texts(), adapter=tmp_path / "h.safetensors")


# The command line


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def write_texts(folder: Path) -> list[Path]:
    paths = [folder / "a.txt", folder / "b.txt"]
    paths[0].write_text("\n".join(CAPTIONS[:60]), encoding="utf-8")
    paths[1].write_text("\n".join(CAPTIONS[60:]), encoding="utf-8")
    return paths


def test_command_trains_on_everything(backbone_folder: Path, pairs_file: Path, tmp_path: Path) -> None:
    a, b = write_texts(tmp_path)
    flags = ("--backbone", backbone_folder, "--epochs", 1, "--device", "cpu", "-o", tmp_path / "m")
    code, out, said = run("train", a, f"{b}:0.5", "--pairs", pairs_file, "--noise-from", pairs_file, *flags)
    assert (code, out) == (0, f"{tmp_path / 'm'}\n")
    assert f"measured on {pairs_file}" in said
    assert f"{b}: " in said and "text captions, " in said
    assert f"{pairs_file}: " in said and "audio captions, " in said
    stored = load_model(tmp_path / "m").config
    assert [file.weight for file in stored.caption_files] == [1.0, 0.5]
    assert stored.bridge.calibration is not None


def test_skipped_sounds_are_reported(backbone_folder: Path, pairs_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "pairs"
    broken.mkdir()
    for path in pairs_file.parent.glob("*.wav"):
        os.link(path, broken / path.name)
    (broken / "00.wav").unlink()
    soundfile.write(broken / "nan.wav", np.full(RATE_HZ, np.nan, np.float32), RATE_HZ, subtype="FLOAT")
    rows = pairs_file.read_text(encoding="utf-8").replace("01.wav", "nan.wav")
    (broken / "pairs.csv").write_text(rows, encoding="utf-8")
    flags = ("--backbone", backbone_folder, "--epochs", 1, "--device", "cpu", "-o", tmp_path / "m")
    code, _, said = run("train", "--pairs", broken / "pairs.csv", *flags)
    assert code == 0
    assert f"{broken / '00.wav'} does not exist" in said
    assert "nan.wav contains NaN or infinite samples" in said
    assert load_model(tmp_path / "m").config.pair_files[0].n_captions == 76


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give a text file of captions, or --pairs"),
        (
            ["a.txt", "--noise-from", "p.csv", "--noise-std", "0.1"],
            "give only one of --noise-from, --noise-variance and --noise-std",
        ),
        (["--pairs", "p.csv", "--noise-from", "p.csv"], "--noise-from applies to text, but no text file is given"),
        (["--pairs", "p.csv", "--noise-std", "0.1"], "--noise-std applies to text, but no text file is given"),
        (["--pairs", "p.csv", "--adapter", "h"], "--adapter applies to text, but no text file is given"),
        (["a.txt", "--audio-noise-variance", "0.1"], "--audio-noise-variance: needs --pairs"),
        (["a.txt", "--audio-dir", "x"], "--audio-dir: needs --pairs, --noise-from or --val"),
        (
            ["--pairs", "p", "--pairs", "q", "--pairs", "r", "--audio-dir", "x", "--audio-dir", "y"],
            "--audio-dir: is given 2 times, but must be given once, or once for each pairs file",
        ),
    ],
)
def test_misuse_exits_2(flags: list[str], message: str) -> None:
    code, out, error = run("train", *flags)
    assert (code, out) == (2, "")
    assert message in " ".join(error.replace("│", " ").split())


def test_table_is_trained_on_for_its_captions_unless_plain_text_is_asked_for(
    backbone_folder: Path, pairs_file: Path, tmp_path: Path
) -> None:
    flags = ("--backbone", backbone_folder, "--epochs", 1, "--device", "cpu")
    table, text = read_pairs(pairs_file), pairs_file.read_text(encoding="utf-8")
    for name, more, expected in (
        ("table", (), sum(len(pair.captions) for pair in table.pairs)),
        ("lines", ("--plain-text",), len(text.splitlines())),
    ):
        code, _, said = run("train", pairs_file, "-o", tmp_path / name, *flags, *more)
        assert code == 0
        assert "warning: only " in said and "distinct captions" in said
        config = json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))
        (file,) = config["caption_files"]
        assert file["n_captions"] == expected
        assert file["sha256"] == hashlib.sha256(pairs_file.read_bytes()).hexdigest()


def test_skipped_sounds_are_logged(
    backbone_folder: Path, pairs: PairSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = replace(pairs, skipped=(SkippedPair("a.wav", "a.wav is odd"),))
    run_training(backbone_folder, tmp_path / "m", None, pairs=odd)
    assert f"{pairs.file.name}: skipped: a.wav is odd" in caplog.messages


def test_two_text_files_of_weight_one_equal_one_file(backbone_folder: Path, tmp_path: Path) -> None:
    one = CaptionSet(CAPTIONS, (CaptionFile("all.txt", "2" * 64, 100),))
    run_training(backbone_folder, tmp_path / "one", one)
    run_training(backbone_folder, tmp_path / "two", texts())
    assert same_mapper(tmp_path / "one", tmp_path / "two")
    assert load_file(tmp_path / "one" / "mapper.safetensors")
