"""The dial of the modality gap: what it turns, and the bridges that are written for it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import memory
from benchmarks.dial import narrow as narrow_files
from benchmarks.dial import run as dial
from benchmarks.dial import tables
from benchmarks.dial.bridges import TEXT_SIDES, CovarianceNoise, Sides, audio_sides, text_side
from benchmarks.dial.narrow import weights_hash
from benchmarks.dial.plan import SHARES, Part, Plan, World, clips, parts_of
from benchmarks.dial.plot import draw_dial
from benchmarks.dial.run import turn
from benchmarks.dial.tables import main_bridges, noise_by_the_rule, results
from textcap.gap.retrieval import Array, unit_rows

SMALL = Plan(n_captions=600, n_sounds=300, n_pairs=200, n_seen=40, n_unseen=20)
WIDTH = 64


def narrow() -> dict[tuple[str, str], Array]:
    """Return embeddings of the small world's clips, whose pairs have a cosine of about .87."""
    rng = np.random.default_rng(0)
    found = {}
    kinds: dict[str, Array] = {}
    for role, several in clips(SMALL).items():
        heard = np.stack(
            [sum(kinds.setdefault(k, rng.standard_normal(WIDTH)) for k in clip.scene.kinds) for clip in several]
        )
        for side in ("audio", "text"):
            found[role, side] = unit_rows(unit_rows(heard) + 0.045 * rng.standard_normal(heard.shape))
            found[role, side] = found[role, side].astype(np.float32)
    return found


@pytest.mark.parametrize("share", SHARES)
def test_dial_sets_the_cosine_and_the_share_of_the_shift(share: float) -> None:
    moved = dict(turn(SMALL, narrow(), share))
    for role in ("training", "test"):
        audio, text = moved[role, "audio"], moved[role, "text"]
        np.testing.assert_allclose(np.linalg.norm(audio, axis=1), 1, rtol=1e-5)
        assert (audio * text).sum(axis=1).mean() == pytest.approx(0.4, abs=0.04)
        distance = np.square(audio - text).sum(axis=1).mean()
        shift = np.square(audio.mean(axis=0) - text.mean(axis=0)).sum()
        assert shift / distance == pytest.approx(share, abs=0.07)


def test_parts_are_at_most_fifty_and_have_different_names() -> None:
    names = [part.name for part in parts_of(Plan())]
    assert len(set(names)) == len(names) <= 50
    assert Part(0.5).name in names and Part(0.5, seed=2).name in names
    assert Plan().n_steps * Plan().batch_size % Plan().n_captions == 0


@pytest.fixture(scope="module")
def sides() -> Sides:
    moved = dict(turn(SMALL, narrow(), 0.5))
    pairs = moved["sounds", "text"][: SMALL.n_pairs]
    return Sides(moved["training", "text"], moved["sounds", "audio"], pairs, moved["sounds", "audio"][:30])


def test_bridges_return_unit_rows_for_both_sides(sides: Sides) -> None:
    rows = sides.sounds[:7]
    for name in TEXT_SIDES:
        np.testing.assert_allclose(np.linalg.norm(text_side(name, sides), axis=1), 1, rtol=1e-5)
        for across, move in audio_sides(name, sides, (30,)).items():
            moved = move(rows)
            assert moved.shape == rows.shape, across
            np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, rtol=1e-5)


def test_bridges_bring_sounds_nearer_to_their_captions(sides: Sides) -> None:
    def cosine(audio: Array) -> float:
        return float((audio[: SMALL.n_pairs] * sides.pairs_text).sum(axis=1).mean())

    across = audio_sides("text", sides, (30,))
    for name in ("centre", "coral"):
        assert cosine(across[name](sides.sounds)) > cosine(sides.sounds) + 0.1


def test_memory_answers_from_the_captions(sides: Sides) -> None:
    remembered = audio_sides("text", sides, (30,))["none, memory"](sides.text[:5])
    np.testing.assert_allclose((remembered * sides.text[:5]).sum(axis=1), 1, atol=0.05)


def test_covariance_noise_has_the_covariance_of_the_pairs(sides: Sides) -> None:
    bridge = CovarianceNoise(sides, 0.0)
    rows = torch.zeros(20_000, WIDTH)
    weights = torch.randn(len(rows), SMALL.n_pairs, generator=torch.Generator().manual_seed(0)) @ bridge._rest
    rest = sides.pairs_audio - sides.pairs_text
    np.testing.assert_allclose(np.cov(weights.numpy().T), np.cov(rest.T, bias=True), atol=0.01)
    moved = bridge.text_side(torch.from_numpy(sides.text[:4]).float(), torch.Generator().manual_seed(1))
    torch.testing.assert_close(moved.norm(dim=-1), torch.ones(4))


def test_a_part_captions_across_all_its_bridges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for (role, side), rows in narrow().items():
        np.save(tmp_path / f"{role}-{side}.npy", rows)
    monkeypatch.setattr(dial, "narrow_backbone", lambda folder: "tiny")
    monkeypatch.setattr(dial, "train_mapper", lambda *arguments: arguments)
    monkeypatch.setattr(dial, "caption_embeddings", lambda _, rows: ["A dog barks"] * len(rows))
    part = Part(0.5)
    assert dial.run_part(SMALL, tmp_path, part) == part.name
    worlds = {gap: dial.world_at(SMALL, tmp_path, gap) for gap in (0.5, "narrow")}
    assert dial.run_part(SMALL, tmp_path, Part(0.5, "audio", 0.0, rate=0.5)) == "0.5-audio-noise0-rate0.5-0"
    for value, shown in ((float("nan"), "| – |"), (0.25, "| 0.250 |"), (0.5, "| 0.250 |")):  # kept once computed
        monkeypatch.setattr(tables, "cider_d", lambda _, captions, value=value: dict.fromkeys(captions, value))
        text = results(SMALL, tmp_path, worlds, tmp_path / "dial.svg")
        assert shown in text
    bridges = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| text |")]
    assert {"none", "centre", "coral", "coral, 10 sounds", "64 components", "coral, half memory"} <= set(bridges)
    assert text.count("## Gap") == 2 and "Mean cosine 0.4" in text and "Picked on 200 pairs: {'" in text
    assert "Shares are of audio-text at 0.5 times the learning rate" in text
    rows = [line.split("\t") for line in (tmp_path / "results.tsv").read_text().splitlines()]
    assert ["0.5-text-0", "coral"] in [row[:2] for row in rows] and {len(row) for row in rows} == {7}


def test_rule_depends_on_the_basis_of_a_shift() -> None:
    rng = np.random.default_rng(0)
    text = unit_rows(rng.standard_normal((40, WIDTH)))
    shift = np.full(WIDTH, 2 * WIDTH**-0.5)
    world = World(text, text, unit_rows(text + shift), text, text, text, text, text)
    spread, narrow_basis = noise_by_the_rule(world)
    assert narrow_basis > 1.5 * spread


@pytest.mark.long
def test_change_of_domain_has_clips_of_twelve_kinds() -> None:
    for role in memory.SEEDS:
        clips_of_kinds = memory.clips_of("12 kinds", role)
        assert len(clips_of_kinds) == memory.N_CLIPS
        assert {kind for clip in clips_of_kinds for kind in clip.scene.kinds} == memory.DOMAIN
    assert len(memory.of_kinds(memory.N_OF_KINDS, 6010)) == memory.N_OF_KINDS


def test_plot_has_a_line_for_each_bridge_that_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = main_bridges({(Part(share), "none"): [{"F1": share}, {"F1": share + 0.1}] for share in SHARES})
    assert [point[:2] for point in lines["noise"]] == [(share, pytest.approx(share + 0.05)) for share in SHARES]
    assert {label for label, points in lines.items() if points} == {"noise"}
    for name in ("a.svg", "b.svg"):
        assert name in draw_dial(tmp_path / name, lines)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_hash_of_the_weights_changes_with_the_narrow_projections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights_hash()
    tensors = {key: tensor + 1 for key, tensor in load_file(narrow_files.PROJECTIONS).items()}
    save_file(tensors, tmp_path / "other.safetensors")
    monkeypatch.setattr(narrow_files, "PROJECTIONS", tmp_path / "other.safetensors")
    assert weights_hash() != before
