"""Files and folders are written completely or not at all, and existing ones are protected."""

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from textcap.errors import FileError, InputError
from textcap.files import (
    FolderKind,
    atomic_folder,
    atomic_write_bytes,
    atomic_write_text,
    atomic_write_with,
    check_folder_place,
    file_identity,
    parse_json,
    read_json,
    seal,
    sha256_of_file,
    sweep,
    unseal,
)

OURS = FolderKind("ours", "mark.json", r"mark\.json|old|new|more(/\w+)?", before_mark="new")


def write_ours(folder: Path) -> Path:
    """Write a folder of the kind `OURS` with a file `old`."""
    folder.mkdir(parents=True)
    (folder / "mark.json").write_text('{"kind": "ours"}')
    (folder / "old").write_text("old")
    return folder


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
    path = write_ours(tmp_path / "model")
    with atomic_folder(path, kind=OURS, force=True) as folder:
        (folder / "new").write_text("new")
        assert (path / "old").exists()
    assert paths_in(tmp_path) == ["model", "model/new"]


def test_force_keeps_the_old_folder_when_the_block_raises(tmp_path):
    path = write_ours(tmp_path / "model")
    with pytest.raises(ZeroDivisionError), atomic_folder(path, kind=OURS, force=True):
        raise ZeroDivisionError
    assert paths_in(tmp_path) == ["model", "model/mark.json", "model/old"]


def test_force_replaces_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty", force=True) as folder:
        (folder / "new").write_text("new")
    assert paths_in(tmp_path) == ["empty", "empty/new"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("canary", ["thesis.doc", "more/thesis.doc", ".hidden", "more/a/b", "old2"])
def test_folder_with_anything_else_is_never_replaced_and_the_refusal_names_it(tmp_path, canary, force):
    path = write_ours(tmp_path / "model")
    (path / canary).parent.mkdir(parents=True, exist_ok=True)
    (path / canary).write_text("years of work")
    before = paths_in(tmp_path)
    with pytest.raises(InputError, match=rf"model already exists and contains {canary}, which textcap did not write"):
        check_folder_place(path, kind=OURS, force=force)
    with pytest.raises(InputError), atomic_folder(path, kind=OURS, force=force):
        pytest.fail("the block ran")
    assert paths_in(tmp_path) == before


@pytest.mark.parametrize("mark", [None, "{}", "[]", '{"kind": "theirs"}', "{", "[" * 9999])
def test_folder_without_our_mark_is_never_replaced(tmp_path, mark):
    path = write_ours(tmp_path / "model")
    (path / "mark.json").unlink() if mark is None else (path / "mark.json").write_text(mark)
    with pytest.raises(InputError, match="contains .*, which textcap did not write"):
        check_folder_place(path, kind=OURS, force=True)
    (path / "old").unlink()
    (path / "mark.json").unlink(missing_ok=True)
    (path / "new").touch()
    check_folder_place(path, kind=OURS, force=True)  # what may be there before the mark


def test_link_in_our_folder_is_not_ours(tmp_path):
    path = write_ours(tmp_path / "model")
    (path / "old").unlink()
    (path / "old").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="contains old, which textcap did not write"):
        check_folder_place(path, kind=OURS, force=True)


def test_folder_of_no_kind_is_never_replaced(tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with (
        pytest.raises(InputError, match=r"contains thesis\.doc, which textcap did not write \(choose another name\)"),
        atomic_folder(tmp_path, force=True),
    ):
        pytest.fail("the block ran")
    assert paths_in(tmp_path) == ["thesis.doc"]


def older(path: Path) -> Path:
    """Kill the replacement of a folder between its two renames, and return the older version's name."""
    before = set(path.parent.iterdir())
    os.replace(path, path.parent / f".textcap-{hashlib.sha256(path.name.encode()).hexdigest()[:12]}.old")
    (name,) = set(path.parent.iterdir()) - before
    return name


@pytest.mark.parametrize("force", [False, True])
def test_older_version_of_a_killed_replacement_is_put_back_and_that_is_said(tmp_path, caplog, force):
    path = write_ours(tmp_path / "model")
    older(path)
    if force:
        check_folder_place(path, kind=OURS, force=True)
    else:
        with pytest.raises(InputError, match="already exists"):
            check_folder_place(path, kind=OURS)
    assert paths_in(tmp_path) == ["model", "model/mark.json", "model/old"]
    assert f"{path} was put back" in caplog.text


def test_older_version_is_deleted_only_if_a_folder_of_ours_has_taken_its_place(tmp_path):
    path = write_ours(tmp_path / "model")
    old = older(path)
    path.mkdir()
    (path / "thesis.doc").write_text("theirs")
    with pytest.raises(InputError):
        check_folder_place(path, kind=OURS, force=True)
    assert old.is_dir()
    (path / "thesis.doc").unlink()
    path.rmdir()
    write_ours(path)
    check_folder_place(path, kind=OURS, force=True)
    assert paths_in(tmp_path) == ["model", "model/mark.json", "model/old"]


def test_sweep_deletes_only_old_temporary_names_and_follows_no_link(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.doc").write_text("years of work")
    link = tmp_path / f".textcap-{'0' * 12}.tmp"
    link.symlink_to(theirs)
    old = f".textcap-{'3' * 12}.old"
    for name in (f".textcap-{'1' * 12}.tmp", f".textcap-{'2' * 12}.tmp", ".textcap-mine.tmp", old):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").touch()
    os.utime(tmp_path / f".textcap-{'1' * 12}.tmp", (0, 0))
    os.utime(tmp_path / old, (0, 0))
    os.utime(tmp_path / ".textcap-mine.tmp", (0, 0))
    os.utime(link, (0, 0), follow_symlinks=False)
    atomic_write_bytes(tmp_path / "any", b"")  # every write sweeps
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f".textcap-{'2' * 12}.tmp", old, ".textcap-mine.tmp", "any", "theirs"]
    assert (theirs / "thesis.doc").exists()
    sweep(tmp_path, after_s=0)
    assert not (tmp_path / f".textcap-{'2' * 12}.tmp").exists()


@pytest.mark.parametrize("name", [".", "..", "../.."])
def test_current_folder_and_its_parents_are_never_replaced(tmp_path, monkeypatch, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    with (
        pytest.raises(InputError, match="is the current folder or contains it"),
        atomic_folder(Path(name), kind=OURS, force=True),
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
            check_folder_place(folder, force=True, kind=OURS, inputs=[name])
    check_folder_place(write_ours(tmp_path / "ours"), force=True, kind=OURS, inputs=[tmp_path / "other.txt"])


def test_name_that_is_too_long_is_an_error_only_when_writing(tmp_path):
    check_folder_place(tmp_path / ("n" * 300))
    with (
        pytest.raises(InputError, match="cannot be written: File name too long"),
        atomic_folder(tmp_path / ("n" * 300)),
    ):
        pass
    assert paths_in(tmp_path) == []


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


def test_seal_notices_every_change():
    values = {"a": 1, "b": [1.5, None], "c": "é\udce9"}
    sealed = json.loads(json.dumps(seal(values)))
    assert unseal(sealed, "here") == values
    for change in ({"a": 2}, {"b": [1.5]}, {"d": 0}, {"sha256": "0"}, {"sha256": None}):
        with pytest.raises(FileError, match="here is damaged"):
            unseal({**sealed, **change}, "here")
    for other in ([], None, {}, values):
        with pytest.raises(FileError, match="here lacks its SHA-256"):
            unseal(other, "here")


def test_sha256_of_file_equals_hashlib_over_several_blocks(tmp_path):
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_sha256_of_file_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="gone does not exist"):
        sha256_of_file(tmp_path / "gone")


# Writing by a function of a library


def test_atomic_write_with_gives_a_path_of_the_same_name_and_the_mode_of_new_files(tmp_path):
    def write(path: Path) -> None:
        assert path.name == "a.bin"
        (path.parent / ".tmpXYZ").write_bytes(b"a library's own temporary file")
        path.touch(0o600)
        path.write_bytes(b"x")

    before = os.umask(0o022)
    try:
        atomic_write_with(tmp_path / "deep" / "a.bin", write)
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"x"
    assert os.name == "nt" or stat.S_IMODE((tmp_path / "deep" / "a.bin").stat().st_mode) == 0o644
    assert paths_in(tmp_path) == ["deep", "deep/a.bin"]


def test_failed_atomic_write_with_keeps_the_old_file_and_leaves_no_other(tmp_path):
    (tmp_path / "a").write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"a cannot be written: No space left.*free some space"):
        atomic_write_with(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "old"
    assert paths_in(tmp_path) == ["a"]


# What identifies a file


def test_file_identity_changes_with_a_replacement_of_the_same_size_and_time(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    before = path.stat()
    (tmp_path / "new").write_bytes(b"two")
    os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(tmp_path / "new", path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert file_identity(path.stat()) != file_identity(before)
    assert file_identity(path.stat()) == file_identity(path.stat())


# JSON from outside


@pytest.mark.parametrize("value", [None, True, -(2**63), 2**64 - 1, 1.5, "a\u2028b", [{"a": [1, {}]}]])
def test_json_within_the_limits_is_read(tmp_path, value):
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "a.json") == value
    assert parse_json(json.dumps(value), "here") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        (b"\xff", "can't decode byte"),
        ("1" + "0" * 40, "the integer 10000000000000000000 has more than 64 bits"),
        ("1" * 9999, "has more than 64 bits"),
        (str(2**64), "has more than 64 bits"),
        ("1e999", "the number 1e999 is NaN or infinite"),
        ("NaN", "the number NaN is NaN or infinite"),
        ("[-Infinity]", "is NaN or infinite"),
        ("[" * 51 + "]" * 51, "nested more than 50 levels deep"),
        ("[" * 100_000, "nested more than 50 levels deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than 50 levels deep"),
        (" " * 1_000_001, "larger than 1,000,000 bytes"),
    ],
)
def test_json_beyond_the_limits_is_one_error(tmp_path, text, reason):
    with pytest.raises(FileError, match=f"here is not valid JSON: .*{reason}"):
        parse_json(text, "here")
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError, match=r"a\.json is not valid JSON: "):
        read_json(tmp_path / "a.json")


def test_read_json_names_a_missing_file_and_waits_for_no_pipe(tmp_path):
    with pytest.raises(FileError, match=r"gone does not exist"):
        read_json(tmp_path / "gone")
    with pytest.raises(FileError, match="cannot be read: Is a directory"):
        read_json(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FileError, match="pipe cannot be read: Not a regular file"):
            read_json(tmp_path / "pipe")
