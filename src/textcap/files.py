"""Write files and folders atomically, and hash files.

Everything is written under a temporary name next to its final place and then renamed, so a reader sees all of it or
none. Disk errors become an InputError that names the path.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from textcap.errors import FileError, InputError

_BLOCK_BYTES = 1 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_OVERWRITE_HINT = "choose another name, or use --force to overwrite it"


def atomic_write_text(path: Path, text: str) -> None:
    """Write text to a file as UTF-8, without newline translation; an existing file is replaced.

    Args:
        path: The file to write; its folder is created if it does not exist.
        text: The content of the file.

    Raises:
        InputError: The file cannot be written; an existing file is left unchanged.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file; an existing file is replaced.

    Args:
        path: The file to write; its folder is created if it does not exist.
        content: The content of the file.

    Raises:
        InputError: The file cannot be written; an existing file is left unchanged.
    """
    beside = _name_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile, because other users cannot read its files, and caches may be shared.
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        _remove_quietly(beside)


def follow_umask(path: Path) -> None:
    """Give a file the mode of a newly created file, for files that a library has made readable by their owner only.

    Raises:
        OSError: The folder or the mode of the file cannot be written.
    """
    beside = _name_beside(path)
    try:
        with open(beside, "xb") as file:  # the umask can be read only by setting it, so look at a new file
            mode = os.fstat(file.fileno()).st_mode & 0o777
        os.chmod(path, mode)
    finally:
        _remove_quietly(beside)


def _never_ours(folder: Path) -> bool:
    return False


def check_folder_place(
    path: Path,
    *,
    force: bool = False,
    is_ours: Callable[[Path], bool] = _never_ours,
    inputs: Iterable[str | Path] = (),
) -> None:
    """Check that a folder may be written at a path, before any work is done for it.

    A file, the current folder and folders with other content are never overwritten.

    Args:
        path: The folder to write.
        force: Allow overwriting an existing folder if it is empty or ours.
        is_ours: Returns whether a folder was written by textcap and may be overwritten.
        inputs: Files to be read; a folder that contains one is never overwritten.

    Raises:
        InputError: The path exists and may not be overwritten.
    """
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
    try:
        is_empty = not os.listdir(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not is_empty and not is_ours(path):
        raise InputError(f"{path} already exists and was not written by textcap", hint="choose another name")
    if not force:
        raise InputError(f"{path} already exists", hint=_OVERWRITE_HINT)


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
        raise InputError(f"{path} already exists", hint=_OVERWRITE_HINT)


@contextmanager
def atomic_folder(path: Path, *, force: bool = False, is_ours: Callable[[Path], bool] = _never_ours) -> Iterator[Path]:
    """Create an empty folder to fill, and rename it to its final name when the block ends without an error.

    Args:
        path: The final name of the folder; its parent folders are created if they do not exist.
        force: Overwrite an existing folder if it is empty or ours. The old folder stays until the new one is complete
            and is then renamed to make room for it. If the process is killed between the two renames, both folders
            remain next to the path as `.textcap-*.tmp`. Such folders are never deleted, because they may be the only
            copy.
        is_ours: Returns whether a folder was written by textcap and may be overwritten.

    Yields:
        The temporary folder to write into. If the block raises, it is deleted.

    Raises:
        InputError: The path exists and may not be overwritten, or it cannot be written.
    """
    path = Path(os.path.abspath(path))
    check_folder_place(path, force=force, is_ours=is_ours)
    beside = _name_beside(path)
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield beside
        _sync_files(beside)
        check_folder_place(path, force=force, is_ours=is_ours)  # it may have been created while the block ran
        _swap(beside, path)
    except OSError as error:
        # The block may also fail to read other files: report only errors that certainly concern this folder.
        if is_disk_full(error) or str(error.filename or "").startswith(str(beside)):
            raise _cannot_write(path, error) from error
        raise
    finally:
        _remove_quietly(beside)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in 64 lower-case hexadecimal digits.

    Args:
        path: The file, which may be larger than memory; it is read in blocks.

    Raises:
        InputError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def sha256_remembered(path: Path, memory: Path) -> str:
    """Return the SHA-256 of a large file, and hash it again only if its size or modification time has changed.

    Args:
        path: The file to hash; links are followed.
        memory: JSON file that stores earlier hashes; if it cannot be read or written, the file is hashed every time.

    Returns:
        The SHA-256 in 64 lower-case hexadecimal digits.

    Raises:
        InputError: The file cannot be read.
    """
    path = path.resolve()
    try:
        now = path.stat()
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from error
    state = [now.st_size, now.st_mtime_ns]
    known = _read_memory(memory)
    entry = known.get(str(path))
    if isinstance(entry, list) and entry[:2] == state and len(entry) == 3 and isinstance(entry[2], str):
        return entry[2]
    digest = sha256_of_file(path)
    kept = {name: value for name, value in _read_memory(memory).items() if os.path.exists(name)}
    try:
        atomic_write_text(memory, json.dumps({**kept, str(path): [*state, digest]}, indent=1))
    except InputError:  # a read-only cache
        pass
    return digest


def is_disk_full(error: OSError) -> bool:
    """Return whether writing failed because the disk or the user's quota is full."""
    return error.errno in _DISK_FULL


def _read_memory(memory: Path) -> dict[str, object]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _name_beside(path: Path) -> Path:
    # The name is short, because a final name near the file system's limit has no room for a suffix.
    return path.parent / f".textcap-{secrets.token_hex(6)}.tmp"


def _swap(beside: Path, path: Path) -> None:
    """Replace a folder by two renames; in between, no folder has the final name."""
    if not os.path.lexists(path):
        os.replace(beside, path)
        return
    old = _name_beside(path)
    os.replace(path, old)
    try:
        os.replace(beside, path)
    except OSError:
        os.replace(old, path)
        raise
    _remove_quietly(old)


def _sync_files(folder: Path) -> None:
    if os.name == "nt":  # Windows flushes only files opened for writing, which copied files may not allow
        return
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _remove_quietly(path: Path) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # where writing fails, deleting may fail too; the caller reports the first error
            return


def _cannot_write(path: Path, error: OSError) -> InputError:
    hint = "free some space, or write elsewhere" if is_disk_full(error) else None
    return FileError(path, f"cannot be written: {error.strerror or error}", hint=hint)
