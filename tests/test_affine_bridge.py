"""Bridges that are computed from sounds without captions: moments, what they do to embeddings, the commands."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from textcap import Captioner
from textcap.cli.app import app
from textcap.config import BridgeConfig
from textcap.demo.folder import training_captions, training_pairs, write_sounds
from textcap.errors import CheckpointError, InputError
from textcap.gap.bridge import Bridge
from textcap.gap.bridge.affine import AffineBridge, affine_bridge
from textcap.gap.bridge.moments import Moments, measure_moments
from textcap.gap.compare import best_bridge, compare_bridges, split_gap, unpaired_parts
from textcap.gap.retrieval import unit_rows
from textcap.model_folder import load_model, save_model
from textcap.training import train as train_model

seeds = st.integers(0, 2**32 - 1)


def embeddings(n: int, width: int, seed: int, *, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return paired audio and text embeddings `[N, E]`, each moved by a direction of its own, and blurred."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, width)) * np.linspace(1, 0.2, width)
    moved = [shared + shift * 5 * rng.standard_normal(width) + 0.2 * rng.standard_normal((n, width)) for _ in range(2)]
    return moved[0].astype(np.float32), moved[1].astype(np.float32)


@settings(deadline=None)
@given(n=st.integers(2, 60), width=st.integers(2, 12), seed=seeds)
def test_moments_are_those_of_numpy_and_shrinkage_is_that_of_scikit_learn(n: int, width: int, seed: int) -> None:
    ledoit_wolf = pytest.importorskip("sklearn.covariance").ledoit_wolf
    rows = np.random.default_rng(seed).standard_normal((n, width)) * np.arange(1, width + 1)
    found, unit = measure_moments(rows), unit_rows(rows)
    np.testing.assert_allclose(found.mean, unit.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(unit.T, bias=True), atol=1e-12)
    shrunk, shrinkage = ledoit_wolf(unit)
    assert found.shrinkage == pytest.approx(shrinkage, abs=1e-9)
    np.testing.assert_allclose(found.shrunk, shrunk, atol=1e-9)


def test_moments_of_a_memory_map_are_read_in_parts(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((9_000, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = measure_moments(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    np.testing.assert_allclose(mapped.covariance, np.cov(unit_rows(rows).T, bias=True), atol=1e-12)


def test_equal_rows_have_moments_and_bridges() -> None:
    same = measure_moments(np.ones((5, 4)))
    assert same.shrinkage == 1.0 and same.spread == pytest.approx(0, abs=1e-12)
    moved = Bridge(BridgeConfig(kind="centre"), affine=affine_bridge("centre", same, same)).audio_side(torch.eye(4))
    assert moved.isfinite().all()
    with pytest.raises(InputError, match="too alike for the bridge coral"):
        affine_bridge("coral", same, same)


@settings(deadline=None)
@given(seed=seeds)
def test_centring_leaves_both_sides_without_a_mean(seed: int) -> None:
    audio, text = (unit_rows(side) for side in embeddings(40, 6, seed))
    bridge = affine_bridge("centre", measure_moments(audio), measure_moments(text))
    for side in bridge.moved(audio, text):
        np.testing.assert_allclose(side.mean(axis=0), 0, atol=1e-6)


@settings(deadline=None)
@given(seed=seeds)
def test_coral_gives_sounds_the_mean_and_covariance_of_the_text(seed: int) -> None:
    audio, text = (unit_rows(side) for side in embeddings(200, 6, seed))
    moments = [measure_moments(side) for side in (audio, text)]
    exact = [Moments(one.mean, one.covariance, 0.0) for one in moments]
    sounds, captions = affine_bridge("coral", *exact).moved(audio, text)
    np.testing.assert_allclose(captions, text, atol=1e-7)
    np.testing.assert_allclose(sounds.mean(axis=0), text.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(np.cov(sounds.T), np.cov(text.T), atol=1e-4)


def test_bridge_moves_text_before_the_noise_and_sounds_always() -> None:
    affine = AffineBridge(torch.tensor([0.0, -0.5]), torch.tensor([0.5, 0.0]))
    bridge = Bridge(BridgeConfig(0.0, kind="centre"), affine=affine)
    given_rows = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    normalize = torch.nn.functional.normalize
    expected = normalize(torch.tensor([[1.0, -0.5], [0.0, 0.5]]), dim=-1)
    torch.testing.assert_close(bridge.text_side(given_rows, torch.Generator()), expected)
    torch.testing.assert_close(bridge.moved_text(given_rows), expected)
    expected = normalize(torch.tensor([[1.5, 0.0], [0.5, 1.0]]), dim=-1)
    torch.testing.assert_close(bridge.audio_side(given_rows), expected)
    torch.testing.assert_close(bridge.audio_training_side(given_rows, torch.Generator()), expected)


@settings(deadline=None)
@given(n=st.integers(2, 50), seed=seeds)
def test_parts_of_the_gap_sum_to_the_mean_squared_distance(n: int, seed: int) -> None:
    audio, text = embeddings(n, 5, seed)
    parts = split_gap(audio, text)
    distance = np.square(unit_rows(audio) - unit_rows(text)).sum(axis=1).mean()
    assert parts.shift + parts.spread + parts.private == pytest.approx(distance, abs=1e-9)
    assert min(parts.shift, parts.spread) >= 0 and parts.in_8_directions is None
    moments = [measure_moments(side) for side in (audio, text)]
    unpaired = unpaired_parts(*moments)
    assert (unpaired.shift, unpaired.spread) == pytest.approx((parts.shift, parts.spread), abs=1e-9)


def test_eight_directions_hold_what_lies_in_them() -> None:
    rng = np.random.default_rng(1)
    text = rng.standard_normal((400, 64))
    noise = np.zeros((400, 64))
    noise[:, :8] = rng.standard_normal((400, 8))
    narrow, wide = (split_gap(text + 0.3 * part, text) for part in (noise, rng.standard_normal((400, 64))))
    assert narrow.in_8_directions is not None and wide.in_8_directions is not None
    assert narrow.in_8_directions > 0.8 > 0.4 > wide.in_8_directions


def test_comparison_finds_that_a_shift_needs_centring() -> None:
    audio, text = embeddings(600, 16, 3)
    found = {one.bridge: one for one in compare_bridges(audio, text)}
    assert list(found) == ["none", "centre", "coral", "adapter"]
    assert found["centre"].recall_at_1.value > found["none"].recall_at_1.value + 0.2
    for one in found.values():
        first = one.recall_at_1
        assert 0 <= first.low <= first.value <= first.high <= 1 and one.recall_at_10.value >= first.value
    assert best_bridge(list(found.values())) != "none"
    # An independent reference for the held-out half: distances to the own caption and to all captions.
    order = np.random.default_rng([0, 4_000_000]).permutation(600)[300:]
    a, t = unit_rows(audio)[order], unit_rows(text)[order]
    own, others = np.square(a - t).sum(axis=1).mean(), np.square(a[:, None] - t).sum(axis=2).mean()
    assert found["none"].closeness == pytest.approx(1 - own / others, abs=1e-9)
    assert found["centre"].closeness > found["none"].closeness
    assert compare_bridges(audio, text) == list(found.values())


def test_interval_is_that_of_wilson() -> None:
    audio, text = embeddings(400, 16, 4)
    one = compare_bridges(audio, text)[0]
    n, share, z = 200, one.recall_at_1.value, 1.959964
    # The limits are the shares p from which the measured one is z standard errors away.
    for limit in (one.recall_at_1.low, one.recall_at_1.high):
        assert abs(share - limit) == pytest.approx(z * (limit * (1 - limit) / n) ** 0.5, rel=1e-6)


# The commands


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_sounds(training_pairs(40, seed=31), folder / "recordings")
    (folder / "captions.txt").write_text("\n".join(training_captions(300, seed=3)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _place(cache: Path, world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEXTCAP_CACHE", str(cache))
    for name in ("recordings", "captions.txt"):
        (tmp_path / name).symlink_to(world / name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"], catch_exceptions=False)
    return result.exit_code, result.stdout, " ".join(result.stderr.replace("│", " ").split())


def train(*arguments: object) -> tuple[int, str, str]:
    quick = ("--epochs", "1", "--backbone", "tiny", "--held-out", "0", "-o", "model")
    return run("train", "captions.txt", *quick, *arguments)


def test_model_keeps_the_bridge_of_a_sample_and_captions_without_it(tmp_path: Path, world: Path) -> None:
    sounds = tmp_path / "mine"
    shutil.copytree(world / "recordings", sounds)
    code, out, err = train("--audio-sample", "mine")
    assert (code, out) == (0, "model\n")
    assert "bridge centre, computed from 40 sounds of mine" in err and "mine has only 40 different sounds" in err
    stored = load_model(Path("model"))
    assert stored.config.bridge.kind == "centre" and stored.affine is not None
    assert stored.config.bridge.sample is not None and stored.config.bridge.sample.n_sounds == 40
    assert "centre, computed from 40 sounds of mine" in Path("model/README.md").read_text(encoding="utf-8")
    captioner = Captioner.load("model", device="cpu")
    first = next(iter(captioner.caption(sounds / "001.wav")))
    shutil.rmtree(sounds)
    again = Captioner.load("model", device="cpu")
    assert again.content_hash == captioner.content_hash
    embedding = captioner.embed(world / "recordings" / "001.wav")
    vector = torch.tensor(embedding[0].embedding)[None]  # type: ignore[union-attr]
    assert again.candidates(vector)[0][0].caption == first.caption  # type: ignore[union-attr]
    plain = Captioner(again.backbone, stored.mapper, Bridge(BridgeConfig()), 999, torch.device("cpu"))
    assert plain.content_hash != again.content_hash


@pytest.mark.parametrize(("n", "asked", "kind"), [(299, (), "centre"), (300, (), "coral"), (40, ("coral",), "coral")])
def test_without_a_bridge_the_number_of_different_sounds_chooses_one(
    tmp_path: Path, n: int, asked: tuple[str, ...], kind: str
) -> None:
    (tmp_path / "many").mkdir()
    times = np.arange(4000) / 16000
    for number in range(n):
        soundfile.write(tmp_path / "many" / f"{number}.wav", np.sin(2 * np.pi * (200 + 10 * number) * times), 16000)
    shutil.copyfile(tmp_path / "many" / "0.wav", tmp_path / "many" / "copy.wav")
    assert train("--audio-sample", "many", *(f"--bridge={one}" for one in asked))[0] == 0
    bridge = load_model(Path("model")).config.bridge
    assert bridge.sample is not None and (bridge.kind, bridge.sample.n_sounds) == (kind, n)


def test_names_and_copies_of_the_sounds_change_nothing(tmp_path: Path, world: Path) -> None:
    assert train("--audio-sample", "recordings", "--bridge", "centre")[0] == 0
    first = (tmp_path / "model" / "mapper.safetensors").read_bytes()
    (tmp_path / "renamed").mkdir()
    for place, sound in enumerate(sorted((world / "recordings").iterdir(), reverse=True)):
        shutil.copyfile(sound, tmp_path / "renamed" / f"{place:03d}.wav")
    shutil.copyfile(sound, tmp_path / "renamed" / "copy.wav")
    assert train("--audio-sample", "renamed", "--bridge", "centre", "--force")[0] == 0
    assert (tmp_path / "model" / "mapper.safetensors").read_bytes() == first


def test_weights_with_another_bridge_than_recorded_are_refused(tmp_path: Path) -> None:
    assert train("--audio-sample", "recordings", "--bridge", "centre")[0] == 0
    stored = load_model(Path("model"))
    for kind in ("noise", "coral"):
        config = replace(stored.config, bridge=replace(stored.config.bridge, kind=kind))
        save_model(tmp_path / kind, config, stored.mapper, affine=stored.affine)
        with pytest.raises(CheckpointError, match=r"mapper.safetensors has [\d,]+ numbers, but must have"):
            load_model(tmp_path / kind)
    assert stored.affine is not None
    flat = AffineBridge(stored.affine.text_shift[None], stored.affine.audio_shift)
    save_model(tmp_path / "flat", stored.config, stored.mapper, affine=flat)
    with pytest.raises(CheckpointError, match="lacks the bridge that config.json records"):
        load_model(tmp_path / "flat")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--bridge", "coral"], "the bridge coral is computed from sounds, which tiny does not have"),
        (["--bridge", "noise", "--audio-sample", "recordings"], "--audio-sample"),
        (["--bridge", "none", "--noise-std", "0.1"], "leaves no room for noise"),
        (["--adapter", "a.safetensors", "--audio-sample", "recordings"], "not both"),
        (["--audio-sample", "nowhere"], "nowhere"),
        (["--audio-sample", "few"], "few has 3 different sounds to compute the bridge from, but 10 are needed"),
        (["--audio-sample", "copies"], "1 different sound (11 silent, unreadable or equal to another)"),
        (["--adapter", "a.safetensors", "--bridge", "none"], "not both"),
    ],
)
def test_what_cannot_be_bridged_is_said_in_one_line(
    arguments: list[str], problem: str, tmp_path: Path, world: Path
) -> None:
    (tmp_path / "few").mkdir()
    for name in ("001.wav", "002.wav", "003.wav"):
        shutil.copyfile(world / "recordings" / name, tmp_path / "few" / name)
    (tmp_path / "copies").mkdir()
    for number in range(12):
        shutil.copyfile(world / "recordings" / "001.wav", tmp_path / "copies" / f"{number}.wav")
    code, out, err = train(*arguments)
    assert code in (1, 2) and out == "" and problem in err


def test_library_refuses_what_the_command_refuses(tmp_path: Path) -> None:
    coral, noise = BridgeConfig(kind="coral"), BridgeConfig(kind="noise")
    given = {"captions": "captions.txt", "output": "model", "backbone": "tiny", "device": "cpu"}
    with pytest.raises(InputError, match="the bridge noise uses no sounds"):
        train_model(**given, bridge=noise, audio_sample="recordings")
    with pytest.raises(InputError, match="the bridge coral is computed from sounds"):
        train_model(**given, bridge=coral)
    with pytest.raises(InputError, match="nowhere"):
        train_model(**given, audio_sample=["recordings", "nowhere"])
    with pytest.raises(InputError, match="https://host/a.wav is not a file or folder on this machine"):
        train_model(**given, audio_sample="https://host/a.wav")
    for moving in ({"audio_sample": "recordings"}, {"bridge": BridgeConfig(kind="centre")}):
        with pytest.raises(InputError, match="but no captions"):
            train_model(**{**given, "captions": None}, pairs=pairs_of(tmp_path), **moving)
    with pytest.raises(InputError, match="bridge is 'nonsense', but must be one of noise, centre, coral"):
        BridgeConfig(kind="nonsense")


def pairs_of(folder: Path) -> Path:
    path = folder / "pairs.csv"
    path.write_text("file_name,caption\nrecordings/001.wav,A dog barks\n", encoding="utf-8")
    return path


def test_unreadable_and_silent_sounds_of_a_sample_are_left_out(tmp_path: Path, world: Path) -> None:
    shutil.copytree(world / "recordings", tmp_path / "mixed")
    for number in range(12):
        (tmp_path / "mixed" / f"broken{number}.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "mixed" / "silent.wav", np.zeros(16000), 16000)
    code, _, err = train("--audio-sample", "mixed", "--bridge", "centre")
    assert code == 0 and err.count("skipped:") == 11 and "mixed: skipped: 2 more sounds" in err
    sample = load_model(Path("model")).config.bridge.sample
    assert sample is not None and sample.n_sounds == 40


def test_bridge_none_is_no_noise() -> None:
    assert train("--bridge", "none")[0] == 0
    bridge = load_model(Path("model")).config.bridge
    assert (bridge.kind, bridge.noise_variance) == ("noise", 0.0)


def test_gap_without_pairs_gives_the_parts_that_need_none(tmp_path: Path) -> None:
    command = ("gap", "--audio-sample", "recordings", "--captions", "captions.txt", "--backbone", "tiny")
    code, out, err = run(*command, "--plot", "gap.svg")
    assert code == 0 and [line.split("\t")[0] for line in out.splitlines()] == ["shift", "spread"]
    assert "use it with: textcap train captions.txt --audio-sample recordings" in err
    assert Path("gap.svg").stat().st_size > 10_000
    values = json.loads(run(*command, "--json")[1])
    assert (values["n_sounds"], values["n_captions"]) == (40, 300)
    assert values["parts"]["shift"] > 0 and values["parts"]["private"] is None
    for option in ("--n", "--draws", "--audio-dir"):
        code, _, err = run(*command, option, "5")
        assert code == 2 and f"{option} needs a pairs file" in err.replace("'", "").replace(":", "")
    code, _, err = run("gap", "--audio-sample", "recordings", "--backbone", "tiny")
    assert code == 2 and "give a pairs file, or both" in err


def test_gap_compares_bridges_from_200_pairs_on(tmp_path: Path) -> None:
    clips = training_pairs(200, seed=8)
    names = write_sounds(clips, tmp_path / "pairs")
    rows = [f'{name},"{clip.captions[0]}"' for name, clip in zip(names, clips, strict=True)]
    (tmp_path / "pairs" / "pairs.csv").write_text("\n".join(["file_name,caption", *rows]), encoding="utf-8")
    command = ("gap", "pairs/pairs.csv", "--backbone", "tiny")
    code, out, err = run(*command, "--plot", "gap.png")
    lines = [line.split("\t") for line in out.splitlines()[:-1]]
    figures = {name: list(map(float, values)) for name, *values in lines}
    assert code == 0 and Path("gap.png").stat().st_size > 10_000
    for bridge in ("none", "centre", "coral", "adapter"):
        for k in (1, 10):
            value, low, high = figures[f"recall_at_{k} {bridge}"]
            assert 0 <= low <= value <= high <= 1
    assert 0 < figures["in_8_directions"][0] < 1
    assert "closeness of 100 held-out pairs across each bridge" in err
    values = json.loads(run(*command, "--json")[1])
    most = max(one["closeness"] for one in values["bridges"])
    good = [one["bridge"] for one in values["bridges"] if one["closeness"] >= most - 0.05]
    for one in values["bridges"]:
        assert figures[f"closeness {one['bridge']}"] == [pytest.approx(one["closeness"], abs=5e-4)]
    assert values["best_bridge"] == good[0] and f"best_bridge\t{good[0]}\n" in out
    assert values["parts"]["shift"] == pytest.approx(figures["shift"][0], rel=1e-3)
