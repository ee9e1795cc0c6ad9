"""Write files and folders atomically, hash files, and read JSON that others may have written.

Everything is written under a temporary name next to its final place, flushed to the disk and then renamed, so a reader
sees all of it or none. Disk errors become an InputError that names the path.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from textcap.errors import FileError, InputError

MAX_JSON_BYTES = 1_000_000
SETTLED_S = 2.0

_MAX_JSON_DEPTH = 50
_INTEGERS = range(-(2**63), 2**64)
_BLOCK_BYTES = 1 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
OVERWRITE_HINT = "choose another name, or use --force to overwrite it"

_logger = logging.getLogger("textcap")

_TEMPORARY = re.compile(r"\.textcap-[0-9a-f]{12}\.tmp")
_SWEEP_AFTER_S = 86_400.0  # far longer than anything is being written


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that textcap writes, and how to tell one from the folders of others."""

    mark: str  # the value of "kind" in the mark file
    mark_file: str  # name of a JSON file
    contents: str  # regular expression of the paths of all files and folders in it, relative and with "/"
    before_mark: str = ""  # the same for what may be in it while it has no mark file yet

    def in_the_way(self, folder: Path) -> str | None:
        """Return the relative path of something in a folder that textcap did not write, or None if there is nothing.

        Links are never ours. Without a mark file, nothing is, even if the names are right.

        Raises:
            OSError: The folder cannot be read.
        """
        paths = sorted(_paths_in(folder))
        if foreign := [path for path, is_link in paths if is_link or not re.fullmatch(self.contents, path)]:
            return foreign[0]
        marked = [path for path, _ in paths if not re.fullmatch(self.before_mark, path)]
        return marked[0] if marked and not self._has_mark(folder) else None

    def _has_mark(self, folder: Path) -> bool:
        try:
            values = read_json(folder / self.mark_file)
        except FileError:
            return False
        return isinstance(values, dict) and values.get("kind") == self.mark


_MODEL_FILES = r"config\.json|mapper\.safetensors|adapter\.safetensors|README\.md|metrics\.jsonl"
_STORED_FILES = r"captions\.(txt|json)|stdin\.txt|(ends|rows|firsts|(text|tokens)-[\w-]+)\.npy"
_BEFORE_MARK = rf"lock|(captions|with-pairs)(/({_STORED_FILES}))?"
_WORK_FILES = rf"settings\.json|state\.safetensors|metrics\.jsonl|{_BEFORE_MARK}"

MODEL_FOLDER = FolderKind("textcap model", "config.json", _MODEL_FILES)
WORK_FOLDER = FolderKind("textcap training run", "settings.json", _WORK_FILES, before_mark=_BEFORE_MARK)
DEMO_FOLDER = FolderKind(
    "textcap demo",
    "demo.json",
    r"demo\.json|captions\.txt|references\.json|pairs\.csv|(sounds|pairs)(/\d{3}\.wav)?"
    rf"|textcap-model(/({_MODEL_FILES}))?|textcap-model\.partial(/({_WORK_FILES}))?",
)


def atomic_write_text(path: Path, text: str) -> None:
    """Write text to a file as UTF-8, without newline translation; an existing file is replaced.

    Args:
        path: The file to write; its folder is created if it does not exist.
        text: The content of the file.

    Raises:
        InputError: The file cannot be written; an existing file is left unchanged.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, each with its end, to a file as `atomic_write_text` does; only one at a time is in memory.

    Raises:
        InputError: The file cannot be written; an existing file is left unchanged.
    """

    def write(new: Path) -> None:
        with open(new, "w", encoding="utf-8", newline="") as file:
            file.writelines(lines)

    atomic_write_with(path, write)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file; an existing file is replaced.

    Args:
        path: The file to write; its folder is created if it does not exist.
        content: The content of the file.

    Raises:
        InputError: The file cannot be written; an existing file is left unchanged.
    """
    atomic_write_with(path, lambda new: new.write_bytes(content))


def atomic_write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file by a function that wants a path, such as one of a library; an existing file is replaced.

    Args:
        path: The file to write; its folder is created if it does not exist.
        write: Called with a path of the same name in a fresh folder beside the file. It may leave other files there.

    Raises:
        InputError: The file cannot be written; an existing file is left unchanged.
    """
    try:
        with workspace(path.parent) as beside:
            new = beside / path.name
            write(new)
            os.chmod(new, beside.stat().st_mode & 0o666)  # libraries may make files that only their owner can read
            _sync(new)
            rename_durably(new, path)
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """Yield a new folder with a temporary name in a folder, which need not exist, and delete it at the end.

    What killed processes have left in the folder is deleted, too.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    # Not tempfile, because other users cannot read its files, and caches may be shared.
    beside = folder / f".textcap-{secrets.token_hex(6)}.tmp"
    beside.mkdir()  # fails if anything has the name, even a link
    try:
        yield beside
    finally:
        remove_quietly(beside)


def check_writable(path: Path) -> None:
    """Check that a file can be written at a path, before any work is done for it; its folder is created.

    Raises:
        InputError: Nothing can be written there.
    """
    try:
        with workspace(path.parent):
            pass
    except OSError as error:
        raise unwritable(path, error) from error


def sweep(folder: Path, *, after_s: float = _SWEEP_AFTER_S) -> None:
    """Delete the temporary folders in a folder that killed processes have left there.

    Args:
        after_s: The age from which they cannot belong to a running process.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime >= after_s:
                remove_quietly(Path(entry.path))


def discard(folder: Path) -> None:
    """Delete a folder in one step, by its new name among the temporary ones; at any moment it is there or not.

    Raises:
        OSError: It cannot be renamed.
    """
    with workspace(folder.parent) as beside:
        os.replace(folder, beside / folder.name)


def check_folder_place(
    path: Path, *, kind: FolderKind | None = None, force: bool = False, inputs: Iterable[str | Path] = ()
) -> None:
    """Check that a folder may be written at a path, before any work is done for it.

    A file, the current folder and folders with other content are never overwritten. If a process was killed while it
    replaced the folder, the older version is put back first.

    Args:
        path: The folder to write.
        kind: The kind of the folder; only one of the same kind may be overwritten.
        force: Allow overwriting an existing folder if it is empty or ours.
        inputs: Files to be read; a folder that contains one is never overwritten.

    Raises:
        InputError: The path exists and may not be overwritten.
    """
    try:
        _put_back(Path(os.path.abspath(path)), kind)
        # For a name that is too long or in an inaccessible folder, os.path returns False where Path raises.
        if not os.path.lexists(path):
            return
        if not os.path.isdir(path):
            raise InputError(f"{path} is a file, but must be a folder", hint="choose another name")
        real = Path(os.path.realpath(path))
        if Path(os.path.realpath(".")).is_relative_to(real):
            raise InputError(f"{path} is the current folder or contains it", hint="choose another name")
        for name in inputs:
            if Path(os.path.realpath(name)).is_relative_to(real):
                raise InputError(f"{path} contains the input file {name}", hint="choose another name")
        if foreign := (kind or _NO_KIND).in_the_way(path):
            message = f"{path} already exists and contains {foreign}, which textcap did not write"
            raise InputError(message, hint="choose another name")
    except OSError as error:
        raise unwritable(path, error) from error
    if not force:
        raise InputError(f"{path} already exists", hint=OVERWRITE_HINT)


def check_file_place(path: Path, *, force: bool = False, inputs: Iterable[str | Path] = ()) -> None:
    """Check that a file may be written at a path, before any work is done for it.

    Args:
        path: The file to write.
        force: Allow overwriting an existing file.
        inputs: Files to be read; they are never overwritten.

    Raises:
        InputError: The path exists and may not be overwritten.
    """
    if not os.path.lexists(path):
        return
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, but must be a file", hint="choose another name")
    real = os.path.realpath(path)
    for name in inputs:
        if os.path.realpath(name) == real:
            raise InputError(f"{path} is the input file {name}", hint="choose another name")
    if not force:
        raise InputError(f"{path} already exists", hint=OVERWRITE_HINT)


@contextmanager
def atomic_folder(
    path: Path, *, kind: FolderKind | None = None, force: bool = False, within: Path | None = None
) -> Iterator[Path]:
    """Create an empty folder to fill, and rename it to its final name when the block ends without an error.

    Args:
        path: The final name of the folder; its parent folders are created if they do not exist.
        kind: The kind of the folder; only one of the same kind may be overwritten.
        force: Overwrite an existing folder if it is empty or ours. The old folder stays until the new one is complete,
            and is then renamed to make room for it. If the process is killed between the two renames, the next command
            that writes the folder puts the old one back.
        within: A folder on the same disk to keep the new one in until then; by default that beside it.

    Yields:
        The temporary folder to write into. If the block raises, it is deleted.

    Raises:
        InputError: The path exists and may not be overwritten, or it cannot be written.
    """
    path = Path(os.path.abspath(path))
    check_folder_place(path, kind=kind, force=force)
    beside = within or path.parent
    try:
        with workspace(beside) as beside:
            new = beside / path.name
            new.mkdir()
            yield new
            for inner in (*new.rglob("*"), new):
                _sync(inner)
            check_folder_place(path, kind=kind, force=force)  # it may have been created while the block ran
            _swap(new, path, beside)
    except OSError as error:
        # The block may also fail to read other files: report only errors that certainly concern this folder.
        if is_disk_full(error) or str(error.filename or "").startswith(str(beside)):
            raise unwritable(path, error) from error
        raise


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in 64 lower-case hexadecimal digits.

    Args:
        path: The file, which may be larger than memory; it is read in blocks.

    Raises:
        InputError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        try:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        except OSError as error:
            raise unreadable(path, error) from error
    return digest.hexdigest()


def sizes_in(path: Path) -> list[int]:
    """Return the bytes of each file in a folder and below it, or of a file itself; a link counts as itself."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return [file.lstat().st_size for file in inside if file.is_symlink() or not file.is_dir()]


def file_identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes if a file is changed or replaced: device, inode, size, and times of content and of inode."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_settled(status: os.stat_result) -> bool:
    """Return whether a later change of a file would change its identity; its clock may be too coarse for a recent one.

    The hash of a file that is not settled must not be remembered under its identity.
    """
    return time.time() - status.st_ctime > SETTLED_S


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading in binary mode, but nothing that could be waited for without end.

    Raises:
        FileError: The path does not exist, cannot be read, or is a folder, a pipe or a device.
    """
    try:
        # Opening a pipe that has no writer waits for one, unless it is told not to.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise unreadable(path, error) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        is_folder = stat.S_ISDIR(mode)
        raise FileError(path, f"cannot be read: {os.strerror(errno.EISDIR) if is_folder else 'Not a regular file'}")
    return open(descriptor, "rb")


def unreadable(path: str | Path, error: OSError | ValueError) -> FileError:
    """Return the error to raise for a file that cannot be opened or read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FileError(path, "does not exist")
    if isinstance(error, IsADirectoryError) or (isinstance(error, PermissionError) and os.path.isdir(path)):
        return FileError(path, "is a folder", hint="name the files in it")
    return FileError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")


def unwritable(path: Path, error: OSError) -> FileError:
    """Return the error to raise for a file or folder that cannot be written."""
    hint = "free some space, or write elsewhere" if is_disk_full(error) else None
    return FileError(path, f"cannot be written: {error.strerror or error}", hint=hint)


def read_regular(path: Path, max_bytes: int = -1) -> bytes:
    """Return the bytes of a file, or the first `max_bytes` of them; the errors are those of `open_regular`."""
    with open_regular(path) as file:
        try:
            return file.read(max_bytes)
        except OSError as error:
            raise unreadable(path, error) from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file that others may have written, as `parse_json` does.

    Raises:
        FileError: The file does not exist, cannot be read, or is not valid JSON within the limits.
    """
    return parse_json(read_regular(path, MAX_JSON_BYTES + 1), path)


def parse_json(text: str | bytes, name: str | Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of JSON text that others may have written.

    Args:
        text: The JSON text, in UTF-8 if it is bytes.
        name: The file or place that the text comes from, for error messages.
        max_bytes: The largest size of the text.

    Raises:
        FileError: The text is not valid JSON, too long or too deeply nested, or it has an integer beyond 64 bits or a
            number that is NaN or infinite.
    """
    try:
        if len(text) > max_bytes:
            raise ValueError(f"it is larger than {max_bytes:,} bytes")
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_parse_float)
        level = [value]
        for _ in range(_MAX_JSON_DEPTH):
            level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inner(outer)]
            if not level:
                return value
    except RecursionError:
        pass
    except ValueError as error:
        raise FileError(name, f"is not valid JSON: {error}") from error
    raise FileError(name, f"is not valid JSON: it is nested more than {_MAX_JSON_DEPTH} levels deep")


def is_disk_full(error: OSError) -> bool:
    """Return whether writing failed because the disk or the user's quota is full."""
    return error.errno in _DISK_FULL


def sha256_of_json(values: Any) -> str:
    """Return the SHA-256 of values in canonical JSON: sorted keys, no spaces, ASCII."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(values: dict[str, Any]) -> dict[str, Any]:
    """Return values for a JSON file with the SHA-256 of all others as "sha256"."""
    return {**values, "sha256": sha256_of_json(values)}


def unseal(values: Any, name: str | Path) -> dict[str, Any]:
    """Return the values that `seal` was given.

    Args:
        name: The file that they were read from, for the error message.

    Raises:
        FileError: They are not an object with a SHA-256, or it is not theirs, so one of them was changed.
    """
    if not isinstance(values, dict) or "sha256" not in values:
        raise FileError(name, "lacks its SHA-256")
    rest = {key: value for key, value in values.items() if key != "sha256"}
    if values["sha256"] != sha256_of_json(rest):
        raise FileError(name, "is damaged: its SHA-256 is not that of its content")
    return rest


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the values in a JSON file that `seal` was given; the errors are those of `read_json` and `unseal`."""
    return unseal(read_json(path), path)


def _inner(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _parse_int(text: str) -> int:
    if len(text) > 20 or int(text) not in _INTEGERS:
        raise ValueError(f"the integer {text[:20]} has more than 64 bits")
    return int(text)


def _parse_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:20]} is NaN or infinite")
    return value


_NO_KIND = FolderKind("", "", "(?!)")


def _paths_in(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the relative path of everything in a folder but temporary folders, and whether it is a link."""
    for entry in os.scandir(folder):
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and _TEMPORARY.fullmatch(entry.name):
            continue
        yield entry.name, entry.is_symlink()
        if is_folder:
            yield from ((f"{entry.name}/{path}", is_link) for path, is_link in _paths_in(Path(entry.path)))


def _older(path: Path) -> Path:
    """Return the name of a folder's older version while a new one takes its place."""
    # The name is short, because a final name near the file system's limit has no room for a suffix.
    return path.parent / f".textcap-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}.old"


def _swap(new: Path, path: Path, beside: Path) -> None:
    """Replace a folder by two renames; in between, no folder has the final name."""
    if not os.path.lexists(path):
        rename_durably(new, path)
        return
    old = _older(path)
    os.replace(path, old)
    try:
        rename_durably(new, path)
    except OSError:
        os.replace(old, path)
        raise
    os.replace(old, beside / "old")


def _put_back(path: Path, kind: FolderKind | None) -> None:
    """Finish what a process that was killed in `_swap` has begun: undo the first rename, or delete the old folder."""
    old = _older(path)
    if not os.path.lexists(old):
        return
    if not os.path.lexists(path):
        os.replace(old, path)
        _logger.warning("%s was put back as it was: a process was killed while it replaced it", path)
    elif kind and os.path.isdir(path) and os.listdir(path) and not (kind.in_the_way(path) or kind.in_the_way(old)):
        discard(old)


def _sync(path: Path) -> None:
    """Flush a file or a folder, whose content is its list of names, to the disk."""
    if os.name == "nt":  # Windows flushes only files opened for writing, which copied files may not allow
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_durably(source: Path, path: Path) -> None:
    """Rename a file or folder that is flushed to the disk, and flush its new name, too.

    Raises:
        OSError: It cannot be renamed.
    """
    os.replace(source, path)
    with suppress(OSError):  # some file systems cannot flush folders
        _sync(path.parent)


def remove_quietly(path: Path) -> None:
    """Delete a file or a folder with its content, if it can be deleted."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # where writing fails, deleting may fail too; the caller reports the first error
            path.unlink(missing_ok=True)
