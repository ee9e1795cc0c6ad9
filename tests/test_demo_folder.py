"""Tests of the demo's folder: its content, and that no other folder is overwritten."""

import json
from pathlib import Path

import pytest

from textcap.demo import folder as demo_folder
from textcap.demo.folder import is_demo_folder, write_demo_folder
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
    for force in (False, True):
        with pytest.raises(InputError, match=r"texts already exists and contains captions\.txt, which textcap did not"):
            write_demo_folder(other, n_captions=5, force=force)
    assert [path.name for path in other.iterdir()] == ["captions.txt"]


@pytest.mark.parametrize("canary", ["thesis.doc", "sounds/mine.wav", "textcap-model/notes.txt", "better-model"])
def test_demo_folder_with_anything_else_is_not_overwritten(tmp_path: Path, canary: str) -> None:
    folder = tmp_path / "demo"
    write_demo_folder(folder, n_captions=5)
    for name in ("config.json", "mapper.safetensors", "README.md"):  # what training in the folder adds
        (folder / "textcap-model").mkdir(exist_ok=True)
        (folder / "textcap-model" / name).touch()
    (folder / "textcap-model.partial").mkdir()
    (folder / "textcap-model.partial" / "lock").touch()
    write_demo_folder(folder, n_captions=5, force=True)
    assert not (folder / "textcap-model").exists()
    (folder / canary).parent.mkdir(exist_ok=True)
    (folder / canary).write_text("years of work")
    with pytest.raises(InputError, match=f"contains {canary}, which textcap did not write"):
        write_demo_folder(folder, n_captions=5, force=True)
    assert (folder / canary).exists()


def test_folder_is_that_of_the_demo_only_with_the_same_settings_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    assert not is_demo_folder(folder, n_captions=5, seed=1)
    write_demo_folder(folder, n_captions=5, seed=1)
    assert is_demo_folder(folder, n_captions=5, seed=1)
    assert not is_demo_folder(folder, n_captions=5, seed=2)
    assert not is_demo_folder(folder, n_captions=6, seed=1)
    (folder / "mine.txt").touch()
    assert not is_demo_folder(folder, n_captions=5, seed=1)
