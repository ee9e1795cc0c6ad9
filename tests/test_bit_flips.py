"""One flipped bit in any file that textcap reads back: the file is refused, or what is read is the same."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from test_adapter import FACTS
from test_model_folder import CONFIG, METRICS, SIZES
from textcap.embedding.export import ExportedEmbeddings, save_embeddings
from textcap.errors import TextcapError
from textcap.gap.adapter import LinearAdapter, load_adapter
from textcap.model_folder import load_model, save_model
from textcap.models.backbone import Backbone
from textcap.models.loading import read_tensors
from textcap.models.mapper import Mapper
from textcap.training.state import TrainingProgress, load_state
from work_folders import open_work

N_PLACES = 50
SETTINGS = {"captions": "ab" * 32, "training": {"seed": 3, "learning_rate": 1e-4}}
PROGRESS = TrainingProgress(step=15, loss_sum=1.5, n_tokens=7, metrics=({"epoch": 1, "loss": 0.1},))


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def adapter() -> LinearAdapter:
    return LinearAdapter(torch.randn(6, 6), torch.randn(6), FACTS)


def write_model(folder: Path) -> None:
    save_model(folder / "model", CONFIG, Mapper(SIZES), METRICS, adapter=adapter())


def read_model(folder: Path) -> Any:
    stored, fitted = load_model(folder / "model"), load_adapter(folder / "model" / "adapter.safetensors")
    return stored.config, stored.mapper.state_dict(), fitted.facts, fitted.matrix, fitted.bias


def write_work(folder: Path) -> None:
    work = open_work(folder / "model", SETTINGS)
    work.save(PROGRESS, {f"mapper.{name}": tensor for name, tensor in Mapper(SIZES).state_dict().items()})
    work.close()


def read_work(folder: Path) -> Any:
    work = open_work(folder / "model", SETTINGS)
    try:
        return load_state(work.path)
    finally:
        work.close()


def write_embeddings(folder: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    embeddings = ExportedEmbeddings(vectors, tuple("abcde"), ("audio",) * 5)
    save_embeddings(folder / "embeddings.safetensors", embeddings, Backbone.load("tiny"))


def read_embeddings(folder: Path) -> Any:
    return read_tensors(folder / "embeddings.safetensors", hint="embed again")


CASES = {
    "model/config.json": (write_model, read_model),
    "model/mapper.safetensors": (write_model, read_model),
    "model/adapter.safetensors": (write_model, read_model),
    "model.partial/settings.json": (write_work, read_work),
    "model.partial/state.safetensors": (write_work, read_work),
    "embeddings.safetensors": (write_embeddings, read_embeddings),
}


@pytest.mark.parametrize("name", CASES)
def test_flipped_bit_is_refused_or_changes_nothing(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    write, read = CASES[name]
    write(tmp_path / "intact")
    expected, content = read(tmp_path / "intact"), (tmp_path / "intact" / name).read_bytes()
    rng, n_refused = np.random.default_rng(1), 0
    # Half of the places are in the first bytes: headers are small, but what they say matters most.
    places = [
        *rng.integers(min(len(content), 800), size=N_PLACES // 2),
        *rng.integers(len(content), size=N_PLACES // 2),
    ]
    for place in places:
        folder = tmp_path / "flipped"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "intact", folder)
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        (folder / name).write_bytes(flipped)
        try:
            found = read(folder)
        except TextcapError as error:
            n_refused += 1
            assert "\n" not in str(error)
        else:
            assert same(found, expected), f"byte {place}"
    record_property("refused", n_refused)
    assert n_refused > N_PLACES // 2


@pytest.mark.parametrize(
    "change",
    [{"step": 30}, {"step": 0}, {"metrics": []}, {"n_tokens": 8}],
)
def test_edited_progress_of_a_run_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Edit the file as bytes, keeping its length, as a patch of the JSON inside would."""
    write_work(tmp_path)
    path = tmp_path / "model.partial" / "state.safetensors"
    content = path.read_bytes()
    edits = {
        "step": (b'\\"step\\": 15', b'\\"step\\": %-2d' % change.get("step", 0)),
        "metrics": (b'\\"epoch\\": 1', b'\\"epoch\\": 2'),
        "n_tokens": (b'\\"n_tokens\\": 7', b'\\"n_tokens\\": 8'),
    }
    old, new = edits[next(iter(change))]
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(TextcapError, match=r"state\.safetensors is damaged.*delete .* to start again"):
        read_work(tmp_path)


def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    write_work(tmp_path / "a")
    other = open_work(tmp_path / "b" / "model", {**SETTINGS, "captions": "cd" * 32})
    other.save(PROGRESS, {"mapper.spread.weight": torch.zeros(2)})
    other.close()
    shutil.copy(other.path / "state.safetensors", tmp_path / "a" / "model.partial" / "state.safetensors")
    with pytest.raises(TextcapError, match=r"state\.safetensors is not the state of the run in settings\.json"):
        read_work(tmp_path / "a")
