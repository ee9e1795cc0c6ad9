"""Benchmarks on the sound world at a small size: the Llama beside the built-in GPT-2, and which mapper to keep."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import checkpoints, llama_twin
from benchmarks.sound_world import WORLD_SEED, Plan
from textcap.config import TrainingConfig
from textcap.models.backbone import Backbone, BackboneNames
from tiny.language import new_gpt2
from tiny.settings import BACKBONE, Round, Settings


def test_llama_has_the_size_and_the_tokenizer_of_the_built_in_gpt2(tmp_path: Path) -> None:
    rounds = (Round(2, 1e-3), Round(1, 1e-3), Round(1, 1e-3, blends=True))
    folder = llama_twin.build_llama(tmp_path, replace(Settings().language, rounds=rounds, batch_size=4))
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert llama_twin.build_llama(tmp_path, Settings().language) == folder  # it is not trained again
    assert (folder / "model.safetensors").stat().st_mtime_ns == written

    own, other = Backbone.load("tiny"), Backbone.load(BackboneNames("tiny", language_model=str(folder)))
    assert llama_twin.n_parameters(other) == pytest.approx(llama_twin.n_parameters(own), rel=0.01)
    texts = ["A dog barks while rain falls far away", "Ünïcode, 12 times!"]
    assert other.tokenizer.encode(texts) == own.tokenizer.encode(texts)
    assert other.tokenizer.end_id == own.tokenizer.end_id and other.tokenizer.lead == []
    assert replace(other.config, language_model=own.config.language_model) == own.config


def test_training_of_a_gpt2_and_a_llama_starts_from_their_seeds() -> None:
    for make in (new_gpt2, llama_twin.new_llama):
        one, same, other = (make(BACKBONE.language_model, seed).get_input_embeddings().weight for seed in (1, 1, 2))
        assert one.equal(same) and not one.equal(other)


def test_best_mappers_are_those_of_the_least_loss_and_all_runs_take_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = TrainingConfig(epochs=4, batch_size=16, learning_rate=1e-3, held_out_captions=0, patience=9)
    plan = Plan(tmp_path, checkpoints.BACKBONE, WORLD_SEED, 40, None, training)
    checkpoints.write_inputs(tmp_path, 40, 4)
    captions = (tmp_path / "validation.txt").read_text().splitlines()
    rows = (tmp_path / "validation.csv").read_text().splitlines()[1:]
    assert [row.split(",", 1)[1].strip('"') for row in rows] == captions
    assert (tmp_path / "captions.txt").read_text().count("\n") == 40

    np.save(tmp_path / "held_out.npy", np.eye(2, 256, dtype=np.float32))
    kept = {name: checkpoints.run_part(plan, name, 0) for name in checkpoints.KEPT}
    runs = {name: checkpoints.measurements(plan, name, 0) for name in checkpoints.KEPT}
    assert len({tuple(one["loss"] for one in runs[name]) for name in checkpoints.KEPT[:3]}) == 1
    text, sounds = ([one["held_out_loss"] for one in runs[name]] for name in checkpoints.KEPT[1:3])
    assert text != sounds
    assert (kept[checkpoints.LAST].step, kept[checkpoints.SHORT].step) == (12, 6)
    for name, losses in ((checkpoints.BY_TEXT, text), (checkpoints.BY_SOUNDS, sounds)):
        assert kept[name].step == 3 * (1 + int(np.argmin(losses)))
        assert len(kept[name].captions) == 2
    monkeypatch.setattr(checkpoints, "train", None)
    assert checkpoints.run_part(plan, checkpoints.BY_TEXT, 0) == kept[checkpoints.BY_TEXT]  # it is not run again
