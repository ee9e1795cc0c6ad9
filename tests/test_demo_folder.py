"""Tests of the demo's folder: its content, and that no other folder is overwritten."""

import json
from pathlib import Path

import pytest

from textcap.demo import folder as demo_folder
from textcap.demo.folder import write_demo_folder
from textcap.errors import InputError


@pytest.fixture(autouse=True)
def _few_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_folder, "N_SEEN", 1)
    monkeypatch.setattr(demo_folder, "N_UNSEEN", 1)
    monkeypatch.setattr(demo_folder, "N_PAIRS", 2)


def test_force_overwrites_only_a_demo_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write_demo_folder(folder, n_captions=5, seed=1)
    before = (folder / "captions.txt").read_text()
    assert len(before.splitlines()) == 5
    assert sorted(json.loads((folder / "references.json").read_text())) == ["001.wav", "002.wav"]
    assert len((folder / "pairs.csv").read_text().splitlines()) == 3
    with pytest.raises(InputError, match="already exists .*--force"):
        write_demo_folder(folder, n_captions=5, seed=2)
    write_demo_folder(folder, n_captions=5, seed=2, force=True)
    assert (folder / "captions.txt").read_text() != before

    other = tmp_path / "texts"
    other.mkdir()
    (other / "captions.txt").write_text("mine")
    with pytest.raises(InputError, match="was not written by textcap"):
        write_demo_folder(other, n_captions=5, force=True)
    assert [path.name for path in other.iterdir()] == ["captions.txt"]
