"""Captions stored in a folder: the same as those in memory, read once, and mapped."""

import pickle
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcap.data import stored
from textcap.data.captions import CaptionSet, load_captions
from textcap.data.stored import StoredCaptions, distinct, store_captions
from textcap.errors import InputError

CAPTIONS = st.lists(st.sampled_from(["a", "b", "a dog", "ein Hund bellt, ä", "雨"]), min_size=1, max_size=40)


@given(CAPTIONS)
def test_stored_captions_equal_those_in_memory(tmp_path_factory: pytest.TempPathFactory, captions: list[str]) -> None:
    folder = tmp_path_factory.mktemp("stored")
    found = store_captions(CaptionSet(captions, ()), folder, plain_text=False)
    assert list(found.captions) == captions and found.captions[1:3] == captions[1:3]
    assert found.content_hash == CaptionSet(captions, ()).content_hash
    different, rows = distinct(found.captions)
    expected, expected_rows = distinct(captions)
    assert list(different) == expected == list(dict.fromkeys(captions)) and different[:2] == expected[:2]
    np.testing.assert_array_equal(rows, expected_rows)
    assert list(pickle.loads(pickle.dumps(found.captions))) == captions


def test_files_are_read_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = tmp_path / "c.txt", tmp_path / "stored"
    path.write_text("a\nb\na\n")
    read = stored.read_captions
    n_read = 0

    def counting(*arguments: object, **options: object) -> object:
        nonlocal n_read
        n_read += 1
        return read(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(stored, "read_captions", counting)
    for text, expected in ((None, 1), (None, 1), ("a\nb\nc\n", 2), ("a\nb\nc\n", 2)):
        if text is not None:
            path.write_text(text)
        found = store_captions([f"{path}:0.5"], folder, plain_text=False)
        assert (found.captions[:], found.files) == (load_captions([path]).captions, found.files) and n_read == expected
        assert found.files == load_captions([f"{path}:0.5"]).files
    store_captions([f"{path}:0.25"], folder, plain_text=False)  # another weight
    store_captions([f"{path}:0.25"], folder, plain_text=True)
    assert n_read == 4


def test_what_was_made_of_other_captions_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "stored"
    store_captions(CaptionSet(["a"], ()), folder, plain_text=False)
    (folder / "tokens-x.ids.npy").write_bytes(b"of a")
    store_captions(CaptionSet(["b"], ()), folder, plain_text=False)
    assert sorted(path.name for path in folder.iterdir()) == sorted(StoredCaptions.FILES)


def test_standard_input_is_kept_for_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (b"a\nb\n", b"a\nb\n", b"a\n"):
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text)))
        found = store_captions(["-"], tmp_path / "stored", plain_text=False)
        assert "".join(f"{caption}\n" for caption in found.captions).encode() == text
        assert [file.name for file in found.files] == ["standard input"]


def test_the_first_three_odd_lines_are_told_and_the_rest_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.txt"
    path.write_text("a\n" + f"{'x' * 1001}\n" * 5)
    store_captions([path], tmp_path / "stored", plain_text=False)
    places = [f"{path}, line {line}: cut from 1,001 to 1,000 characters" for line in (2, 3, 4)]
    assert caplog.messages == [*places, f"{path}: 5 captions too long in all"]


def test_error_of_a_file_leaves_no_captions_that_are_taken_for_its_own(tmp_path: Path) -> None:
    path, folder = tmp_path / "c.txt", tmp_path / "stored"
    path.write_bytes(b"a\n" * 5000 + b"\xff\n")
    for _ in range(2):
        with pytest.raises(InputError, match="line 5001: byte 0xff is not UTF-8"):
            store_captions([path], folder, plain_text=False)
    path.write_bytes(b"a\n")
    assert list(store_captions([path], folder, plain_text=False).captions) == ["a"]
