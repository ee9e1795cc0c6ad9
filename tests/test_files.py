"""Files and folders are there as a whole or not at all."""

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from textcap.errors import InputError
from textcap.files import (
    atomic_folder,
    atomic_write_bytes,
    atomic_write_text,
    check_folder_place,
    follow_umask,
    sha256_of_file,
)


def has_old(folder: Path) -> bool:
    return (folder / "old").exists()


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_atomic_write_text_keeps_newlines_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.txt"
    atomic_write_text(path, "räv\r\nhund\n")
    assert path.read_bytes() == "räv\r\nhund\n".encode()
    assert everything_in(tmp_path) == ["a", "a/b.txt"]


def test_atomic_write_replaces_the_old_content(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write_bytes(path, b"a long first version")
    atomic_write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert everything_in(tmp_path) == ["a.bin"]


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
def test_atomic_write_follows_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write_bytes(tmp_path / "shared", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o644


def test_atomic_write_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*a\.txt: No space left.*free some space"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert everything_in(tmp_path) == ["a.txt"]


def test_atomic_write_accepts_a_name_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 255)
    atomic_write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_atomic_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "model"
    with atomic_folder(path) as folder:
        (folder / "config.json").write_text("{}")
        assert not path.exists()
    assert everything_in(tmp_path) == ["deep", "deep/model", "deep/model/config.json"]


def test_atomic_folder_is_gone_when_the_block_raises(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert everything_in(tmp_path) == []


def test_atomic_folder_refuses_a_taken_name_before_any_work(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="is there already.*--force"), atomic_folder(tmp_path / "model"):
        pytest.fail("the block ran")


def test_atomic_folder_refuses_a_name_taken_while_the_block_ran(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(InputError, match="is there already"), atomic_folder(path):
        path.mkdir()
        (path / "theirs").write_text("kept")
    assert everything_in(tmp_path) == ["model", "model/theirs"]


def test_atomic_folder_force_replaces_the_whole_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with atomic_folder(path, force=True, is_ours=has_old) as folder:
        (folder / "new").write_text("new")
        assert (path / "old").exists()
    assert everything_in(tmp_path) == ["model", "model/new"]


def test_atomic_folder_force_keeps_the_old_folder_when_the_block_raises(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(path, force=True, is_ours=has_old):
        raise ZeroDivisionError
    assert everything_in(tmp_path) == ["model", "model/old"]


def test_atomic_folder_force_replaces_an_empty_folder_and_no_strangers(tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with (
        pytest.raises(InputError, match=r"is there already, and is not of textcap's making \(choose another name\)"),
        atomic_folder(tmp_path, force=True, is_ours=has_old),
    ):
        pytest.fail("the block ran")
    assert everything_in(tmp_path) == ["thesis.doc"]
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty", force=True) as folder:
        (folder / "new").write_text("new")
    assert everything_in(tmp_path) == ["empty", "empty/new", "thesis.doc"]


@pytest.mark.parametrize("name", [".", "..", "../.."])
def test_atomic_folder_never_replaces_where_one_stands(tmp_path, monkeypatch, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    with (
        pytest.raises(InputError, match="is the current folder, or holds it"),
        atomic_folder(Path(name), force=True, is_ours=lambda folder: True),
    ):
        pytest.fail("the block ran")
    assert inside.is_dir()


def test_folder_that_holds_an_input_is_not_replaced(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "captions.txt").write_text("a dog barks")
    (tmp_path / "link.txt").symlink_to(folder / "captions.txt")
    for name in (folder / "captions.txt", tmp_path / "link.txt"):
        with pytest.raises(InputError, match=f"model holds the input {name}"):
            check_folder_place(folder, force=True, is_ours=lambda folder: True, inputs=[name])
    check_folder_place(folder, force=True, is_ours=lambda folder: True, inputs=[tmp_path / "other.txt"])


def test_place_with_a_name_too_long_is_left_to_the_writing(tmp_path):
    check_folder_place(tmp_path / ("n" * 300))
    with pytest.raises(InputError, match="cannot write .*: File name too long"), atomic_folder(tmp_path / ("n" * 300)):
        pass
    assert everything_in(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_follow_umask_gives_the_mode_of_new_files(tmp_path, umask):
    path = tmp_path / "a"
    path.touch(0o600)
    before = os.umask(umask)
    try:
        follow_umask(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert everything_in(tmp_path) == ["a"]


def test_atomic_folder_never_replaces_a_file(tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(InputError, match="is a file"), atomic_folder(tmp_path / "model", force=True):
        pytest.fail("the block ran")
    assert (tmp_path / "model").read_text() == "a file"


def test_atomic_folder_names_the_final_path_when_the_disk_is_full(tmp_path):
    with (
        pytest.raises(InputError, match=r"cannot write .*model: No space left"),
        atomic_folder(tmp_path / "model"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_atomic_folder_lets_foreign_errors_through(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "model"):
        open(tmp_path / "captions.txt")


def test_sha256_of_file_equals_hashlib_over_several_blocks(tmp_path):
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_sha256_of_file_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*gone: No such file"):
        sha256_of_file(tmp_path / "gone")
