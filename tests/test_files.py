"""Files and folders are written completely or not at all, and existing ones are protected."""

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


def is_ours(folder: Path) -> bool:
    return (folder / "old").exists()


def paths_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_atomic_write_text_keeps_newlines_and_creates_folders(tmp_path):
    path = tmp_path / "a" / "b.txt"
    atomic_write_text(path, "räv\r\nhund\n")
    assert path.read_bytes() == "räv\r\nhund\n".encode()
    assert paths_in(tmp_path) == ["a", "a/b.txt"]


def test_atomic_write_replaces_the_old_content(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write_bytes(path, b"a long first version")
    atomic_write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert paths_in(tmp_path) == ["a.bin"]


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
def test_atomic_write_follows_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write_bytes(tmp_path / "shared", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o644


def test_failed_atomic_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=r"a\.txt cannot be written: No space left.*free some space"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert paths_in(tmp_path) == ["a.txt"]


def test_atomic_write_accepts_the_longest_name_of_the_file_system(tmp_path):
    path = tmp_path / ("n" * 255)
    atomic_write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_atomic_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "model"
    with atomic_folder(path) as folder:
        (folder / "config.json").write_text("{}")
        assert not path.exists()
    assert paths_in(tmp_path) == ["deep", "deep/model", "deep/model/config.json"]


def test_atomic_folder_is_deleted_when_the_block_raises(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert paths_in(tmp_path) == []


def test_existing_folder_is_an_error_before_the_block_runs(tmp_path):
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(InputError, match=r"already exists \(choose another name, or use --force to overwrite it\)"),
        atomic_folder(tmp_path / "model"),
    ):
        pytest.fail("the block ran")


def test_folder_created_while_the_block_runs_is_an_error(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(InputError, match="already exists"), atomic_folder(path):
        path.mkdir()
        (path / "theirs").write_text("kept")
    assert paths_in(tmp_path) == ["model", "model/theirs"]


def test_force_replaces_the_whole_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with atomic_folder(path, force=True, is_ours=is_ours) as folder:
        (folder / "new").write_text("new")
        assert (path / "old").exists()
    assert paths_in(tmp_path) == ["model", "model/new"]


def test_force_keeps_the_old_folder_when_the_block_raises(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(path, force=True, is_ours=is_ours):
        raise ZeroDivisionError
    assert paths_in(tmp_path) == ["model", "model/old"]


def test_force_replaces_an_empty_folder_but_no_folder_of_others(tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with (
        pytest.raises(InputError, match=r"already exists and was not written by textcap \(choose another name\)"),
        atomic_folder(tmp_path, force=True, is_ours=is_ours),
    ):
        pytest.fail("the block ran")
    assert paths_in(tmp_path) == ["thesis.doc"]
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty", force=True) as folder:
        (folder / "new").write_text("new")
    assert paths_in(tmp_path) == ["empty", "empty/new", "thesis.doc"]


@pytest.mark.parametrize("name", [".", "..", "../.."])
def test_current_folder_and_its_parents_are_never_replaced(tmp_path, monkeypatch, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    with (
        pytest.raises(InputError, match="is the current folder or contains it"),
        atomic_folder(Path(name), force=True, is_ours=lambda folder: True),
    ):
        pytest.fail("the block ran")
    assert inside.is_dir()


def test_folder_that_contains_an_input_is_not_replaced(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "captions.txt").write_text("a dog barks")
    (tmp_path / "link.txt").symlink_to(folder / "captions.txt")
    for name in (folder / "captions.txt", tmp_path / "link.txt"):
        with pytest.raises(InputError, match=f"model contains the input file {name}"):
            check_folder_place(folder, force=True, is_ours=lambda folder: True, inputs=[name])
    check_folder_place(folder, force=True, is_ours=lambda folder: True, inputs=[tmp_path / "other.txt"])


def test_name_that_is_too_long_is_an_error_only_when_writing(tmp_path):
    check_folder_place(tmp_path / ("n" * 300))
    with (
        pytest.raises(InputError, match="cannot be written: File name too long"),
        atomic_folder(tmp_path / ("n" * 300)),
    ):
        pass
    assert paths_in(tmp_path) == []


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
    assert paths_in(tmp_path) == ["a"]


def test_atomic_folder_never_replaces_a_file(tmp_path):
    (tmp_path / "model").write_text("a file")
    with (
        pytest.raises(InputError, match=r"is a file, but must be a folder \(choose another name\)"),
        atomic_folder(tmp_path / "model", force=True),
    ):
        pytest.fail("the block ran")
    assert (tmp_path / "model").read_text() == "a file"


def test_error_names_the_final_path_when_the_disk_is_full(tmp_path):
    with (
        pytest.raises(InputError, match=r"model cannot be written: No space left"),
        atomic_folder(tmp_path / "model"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_other_errors_of_the_block_are_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "model"):
        open(tmp_path / "captions.txt")


def test_sha256_of_file_equals_hashlib_over_several_blocks(tmp_path):
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_sha256_of_file_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone cannot be read: No such file"):
        sha256_of_file(tmp_path / "gone")
