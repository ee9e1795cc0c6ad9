"""The demo's folder: what it holds, and what it never replaces."""

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


def test_folder_is_replaced_by_force_only_if_it_is_a_demos(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write_demo_folder(folder, n_captions=5, seed=1)
    before = (folder / "captions.txt").read_text()
    assert len(before.splitlines()) == 5
    assert sorted(json.loads((folder / "references.json").read_text())) == ["001.wav", "002.wav"]
    assert len((folder / "pairs.csv").read_text().splitlines()) == 3
    with pytest.raises(InputError, match="is there already .*--force"):
        write_demo_folder(folder, n_captions=5, seed=2)
    write_demo_folder(folder, n_captions=5, seed=2, force=True)
    assert (folder / "captions.txt").read_text() != before

    strange = tmp_path / "texts"
    strange.mkdir()
    (strange / "captions.txt").write_text("mine")
    with pytest.raises(InputError, match="not of textcap's making"):
        write_demo_folder(strange, n_captions=5, force=True)
    assert [path.name for path in strange.iterdir()] == ["captions.txt"]
