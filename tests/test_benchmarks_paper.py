"""Tests of the paper's experiments: the captions of the writers, and that each part is run once and from one plan."""

import json
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.paper import parts, plot, scores, tables, worlds
from benchmarks.paper.plan import ADAPTER_PAIRS, CALIBRATION_SEED, EXPERIMENTS, N_REFERENCES, Part, Plan, parts_of
from benchmarks.paper.worlds import captions_of, clips_for_testing, references_by, training_clips
from benchmarks.paper.writers import WRITERS
from benchmarks.sound_world import DEFAULT_BRIDGE, bridge_of, refuse_other_plan
from textcap.config import AdapterFacts
from textcap.demo.folder import training_pairs
from textcap.demo.grammar import event_f1
from textcap.demo.phrases import WORDINGS
from textcap.demo.scenes import Event, Scene, sample_scene
from textcap.gap.adapter import LinearAdapter
from textcap.gap.retrieval import unit_rows
from textcap.models.backbone import Backbone
from textcap.scoring import MetricScore
from tiny.styles import STYLES, is_in_style

ALL_PARTS = parts_of(sorted(EXPERIMENTS))
SMALL = Plan(n_captions=256, n_scarce=64, n_steps=8)


def scenes(n: int) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [sample_scene(rng, unseen=i % 2 == 0) for i in range(n)]


@pytest.mark.parametrize("writer", WRITERS)
def test_captions_of_every_writer_parse_back_without_error(writer: str) -> None:
    rng, drawn = np.random.default_rng(1), scenes(400)
    assert event_f1([WRITERS[writer].word(scene, rng) for scene in drawn], drawn).f1 == 1.0


def shared(one: list[str], other: list[str]) -> list[float]:
    """Return the shares of the words, and of the pairs of words, of some captions that are in others."""
    found = []
    for n in (1, 2):
        ours, theirs = (
            [tuple(words[i : i + n]) for words in map(words_of, captions) for i in range(len(words) - n + 1)]
            for captions in (one, other)
        )
        known = set(theirs)
        found.append(sum(gram in known for gram in ours) / len(ours))
    return found


def words_of(caption: str) -> list[str]:
    return re.findall(r"\w+", caption.lower())


@pytest.mark.long
def test_two_writers_share_as_much_as_clotho_and_audiocaps(test_data: Path) -> None:
    rng, n = random.Random(0), 10_000
    names = ("clotho_dev.txt", "audiocaps_train.txt")
    real = [(test_data / "captions" / name).read_text(encoding="utf-8").splitlines() for name in names]
    clotho, audiocaps = (rng.sample([line for line in lines if line.strip()], n) for lines in real)
    first, second = (captions_of(writer, n) for writer in ("first", "second"))
    assert shared(first, second) == pytest.approx(shared(clotho, audiocaps), abs=0.05)
    assert shared(second, first) == pytest.approx(shared(audiocaps, clotho), abs=0.05)


@pytest.mark.parametrize("writer", ["first", *STYLES])
def test_the_simplest_scene_has_five_different_references(writer: str) -> None:
    rng = np.random.default_rng(3)
    for kind in WORDINGS:
        captions = {WRITERS[writer].word(Scene((Event(kind),), "alone"), rng) for _ in range(500)}
        assert len(captions) >= N_REFERENCES, kind


def test_every_style_is_told_from_all_others() -> None:
    rng = np.random.default_rng(4)
    styles = [name for name in STYLES if name != "plain"]
    assert len(styles) == 5
    for scene in scenes(200):
        for style in styles:
            assert is_in_style(WRITERS[style].word(scene, rng), style)
            assert not any(
                is_in_style(WRITERS[writer].word(scene, rng), style) for writer in WRITERS if writer != style
            )


def test_training_calibration_and_test_clips_are_disjoint() -> None:
    test = {clip.sound_seed for clip in clips_for_testing()}
    training = {clip.sound_seed for clip in training_clips(1000)}
    calibration = {clip.sound_seed for clip in training_pairs(30, CALIBRATION_SEED)}
    assert len(test) == 500
    assert test.isdisjoint(training | calibration)
    assert training.isdisjoint(calibration)


def test_each_test_clip_has_five_references() -> None:
    drawn = [clip.scene for clip in clips_for_testing()]
    for writer in ("first", *STYLES):
        references = references_by(writer)
        assert all(len(set(several)) == N_REFERENCES for several in references)
        assert event_f1([several[-1] for several in references], drawn).f1 == 1.0
    # The second writer has too few captions of a scene with one sound, so some occur twice.
    assert {len(several) for several in references_by("second")} == {N_REFERENCES}


def test_second_writer_describes_other_clips() -> None:
    first, second, styled = (captions_of(writer, 256) for writer in ("first", "second", "question"))
    drawn = [clip.scene for clip in training_clips(256)]
    assert event_f1(first, drawn).f1 == event_f1(styled, drawn).f1 == 1.0
    assert event_f1(second, drawn).f1 < 0.2


def test_parts_have_unique_names_and_the_same_number_of_draws() -> None:
    assert len({part.name for part in ALL_PARTS}) == len(ALL_PARTS)
    plan = Plan()
    assert plan.n_captions % plan.n_scarce == plan.n_captions % plan.batch_size == 0
    assert max(ADAPTER_PAIRS) <= plan.n_captions
    for part in ALL_PARTS:
        assert plan.n_steps * plan.batch_size % (plan.n_captions * len(part.sources)) == 0


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a work folder whose training embeddings hold the numbers of their file and row."""
    for place, name in enumerate((*WRITERS, "audio")):
        rows = np.stack([np.full(256, float(place)), np.arange(256)], axis=1)
        np.save(tmp_path / f"{name}.npy", rows.astype(np.float32))
    rng = np.random.default_rng(5)
    for name, n in (("calibration-audio", 30), ("calibration-text", 30), ("test-audio", 500)):
        rows = rng.standard_normal((n, 2))
        np.save(tmp_path / f"{name}.npy", (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize("sources", [("plain",), ("audio",), ("first:scarce",), ("first:scarce", "second")])
def test_draws_keep_captions_with_their_embeddings(work: Path, sources: tuple[str, ...]) -> None:
    captions, embeddings = parts.draws(SMALL, work, sources)
    assert len(captions) == len(embeddings) == SMALL.n_captions * len(sources)
    names = (*WRITERS, "audio")
    expected = {name: captions_of(name, SMALL.n_captions) for name in names}
    assert captions == [expected[names[int(source)]][int(row)] for source, row in embeddings]
    n_different = sum(SMALL.n_scarce if source.endswith(":scarce") else SMALL.n_captions for source in sources)
    assert len(np.unique(embeddings, axis=0)) == n_different


def test_calibrated_variance_is_the_squared_mean_infinity_norm(work: Path) -> None:
    audio, text = np.load(work / "calibration-audio.npy"), np.load(work / "calibration-text.npy")
    expected = np.abs(audio - text).max(axis=1).mean() ** 2
    assert parts.calibrated_variance(work) == pytest.approx(expected, rel=1e-5)
    facts = AdapterFacts("tiny", "", "ridge", 0.0, 30, 30, 6, "", "", 0, *[0.0] * 6)
    negating = LinearAdapter(-torch.eye(2), torch.zeros(2), facts)
    expected = np.abs(audio + text).max(axis=1).mean() ** 2
    assert parts.calibrated_variance(work, negating) == pytest.approx(expected, rel=1e-5)


def test_default_bridge_centres_both_sides(work: Path) -> None:
    text = np.load(work / "question.npy")
    bridge = parts.default_bridge(replace(SMALL, shift=0.5), work, text)
    assert bridge.affine is not None and (bridge.config.kind, bridge.config.noise_variance) == ("centre", 0.005)
    torch.testing.assert_close(bridge.affine.audio_shift, -torch.from_numpy(np.load(work / "audio.npy").mean(axis=0)))
    torch.testing.assert_close(bridge.affine.text_shift, -torch.from_numpy(text.mean(axis=0)))
    tiny = parts.default_bridge(SMALL, work, text)
    assert tiny.affine is not None and tiny.affine.audio_shift.shape == (256,)


def test_default_bridge_of_a_backbone_without_means_is_its_noise() -> None:
    tiny = Backbone.load("tiny")
    tiny.config = replace(tiny.config, mean_sound=(), mean_text=())
    bridge = bridge_of(tiny, DEFAULT_BRIDGE)
    assert bridge.affine is None and bridge.config.noise_variance == tiny.config.noise_variance > 0


def test_half_shift_turns_all_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vectors(kinds: list[str], seed: int) -> np.ndarray:
        heard = {kind: np.random.default_rng(len(kind) * 1000 + ord(kind[0])).standard_normal(32) for kind in WORDINGS}
        rows = np.stack([sum(heard[kind] for kind in several.split(",")) for several in kinds])
        return (rows + 0.3 * np.random.default_rng(seed).standard_normal(rows.shape)).astype(np.float32)

    def embed_sounds(path: Path, backbone: str, clips: list[Any], n_jobs: int) -> None:
        np.save(path, unit_rows(vectors([",".join(clip.scene.kinds) for clip in clips], 1)).astype(np.float32))

    def embed_texts(path: Path, backbone: str, captions: list[str]) -> None:
        scenes = worlds.scenes_of(path.stem, len(captions)) if path.stem in WRITERS else None
        several = [clip.scene for clip in training_pairs(30, CALIBRATION_SEED)] if scenes is None else scenes
        np.save(path, unit_rows(vectors([",".join(scene.kinds) for scene in several], 2)).astype(np.float32))

    monkeypatch.setattr(worlds, "embed_sounds", embed_sounds)
    monkeypatch.setattr(worlds, "embed_texts", embed_texts)
    worlds.prepare(replace(SMALL, shift=0.5), tmp_path, 1)
    audio, text = np.load(tmp_path / "audio.npy"), np.load(tmp_path / "plain.npy")
    assert (audio * text).sum(axis=1).mean() == pytest.approx(0.4, abs=0.05)
    shift = np.square(audio.mean(axis=0) - text.mean(axis=0)).sum()
    assert shift / np.square(audio - text).sum(axis=1).mean() == pytest.approx(0.5, abs=0.1)
    assert {path.stem for path in tmp_path.glob("*.npy")} == {path.stem for path in (tmp_path / "narrow").glob("*.npy")}


def test_a_part_is_run_once_with_its_own_settings(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(parts, "train_mapper", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(parts, "caption_embeddings", lambda _, embeddings: ["A dog barks"] * len(embeddings))
    part = Part("one", ("first", "second"), 0.25, seed=2)
    assert parts.run_part(SMALL, work, part) == parts.run_part(SMALL, work, part) == "one"
    ((_, captions, embeddings, bridge, training),) = calls
    assert bridge.config.noise_variance == 0.25
    assert bridge.adapter is None
    assert (training.seed, training.epochs, training.held_out_captions) == (2, 2, 0)
    assert len(captions) == len(embeddings) == 512
    assert len(scores.captions_by(work, part)) == 500
    assert tables.facts_of(work, part)["draws"] == SMALL.n_steps * SMALL.batch_size
    assert scores.captions_by(work, part)[0] == "A dog barks"


def test_a_work_folder_of_another_plan_is_refused(tmp_path: Path) -> None:
    refuse_other_plan(tmp_path, SMALL, "abc")
    refuse_other_plan(tmp_path, SMALL, "abc")
    for plan, weights in ((replace(SMALL, n_steps=9), "abc"), (SMALL, "def")):
        with pytest.raises(SystemExit, match="results of another plan or model"):
            refuse_other_plan(tmp_path, plan, weights)


def test_scores_are_kept_and_failed_metrics_are_tried_again(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_scored: list[int] = []
    failing = {"spice"}

    def score_files(references: Path, files: list[Path], *, metrics: str, settings: Any) -> Any:
        n_scored.append(len(files))
        values = {
            name: MetricScore(name, problem="no jars") if name in failing else MetricScore(name, 0.5)
            for name in metrics.split(",")
        }
        report = type("Report", (), {"failed": [values[n] for n in failing], "scoring": type("S", (), {})})
        report.scoring.systems = [values] * len(files)  # type: ignore[attr-defined]
        return report

    monkeypatch.setattr(scores, "score_files", score_files)
    (work / "parts").mkdir()
    four_parts = [Part(f"part-{i}") for i in range(4)]
    perfect = [clip.captions[0] for clip in clips_for_testing()]
    for part in four_parts:
        parts.part_path(work, part).write_text(json.dumps({"captions": perfect, "facts": {}}))
    first = scores.score_parts(work, [*four_parts, Part("no-result")])
    assert [one.part for one in first] == four_parts
    assert "spice" not in first[0].figures
    assert first[0].figures["event_f1"] == first[0].figures["unseen"] == 1.0
    assert sum(n_scored) == 4
    failing.clear()
    assert scores.score_parts(work, four_parts)[0].figures["spice"] == 0.5
    scores.score_parts(work, four_parts)
    assert sum(n_scored) == 8


def test_tables_show_spread_and_dashes() -> None:
    figures = {("a", "plain"): {"cider_d": 1.25}, ("b", "plain"): {"cider_d": 1.75}}
    rows = {"both": [Part("a"), Part("b")], "one": [Part("a")], "none": [Part("c")]}
    text = tables.table(rows, "plain", figures, {"cider_d": "CIDEr-D", "spice": "SPICE"})
    assert text.splitlines()[2:] == ["| both | 1.500 ± .354 | – |", "| one | 1.250 | – |", "| none | – | – |"]


def test_drawing_the_sweep_twice_gives_equal_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [(variance, {"cider_d": 1.0 - variance, "event_f1": 0.5}) for variance in (0.0, 0.01, 1.0)]
    for name in ("a.svg", "b.svg"):
        assert name in plot.draw_sweep(tmp_path / name, points, 0.01)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "from 30 pairs: 0.0100" in (tmp_path / "a.svg").read_text()


def test_sweep_without_matplotlib_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "textcap[plot]" in plot.draw_sweep(tmp_path / "a.svg", [(0.01, {"cider_d": 1.0, "event_f1": 1.0})], 0.01)
