"""Write files and folders so that a reader sees all of them or nothing, and hash them.

Knows nothing of what it writes. Everything is written beside its final place and renamed.
What goes wrong with the disk comes out as an InputError that names the path.
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


def atomic_write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, without newline translation, replacing what is at the path.

    Args:
        path: The file to write; its folder is made if it is missing.
        text: The whole content.

    Raises:
        InputError: The file cannot be written; what was there before is untouched.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, replacing what is at the path.

    Args:
        path: The file to write; its folder is made if it is missing.
        content: The whole content.

    Raises:
        InputError: The file cannot be written; what was there before is untouched.
    """
    beside = _name_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened with "x" and not through tempfile, whose files nobody else may read: caches are shared.
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
    """Give a file the mode that new files have here, where a library has made it for its owner alone.

    Raises:
        OSError: The folder or the file's mode cannot be written.
    """
    beside = _name_beside(path)
    try:
        with open(beside, "xb") as file:  # the umask cannot be read without setting it
            mode = os.fstat(file.fileno()).st_mode & 0o777
        os.chmod(path, mode)
    finally:
        _remove_quietly(beside)


def _is_nobodys(folder: Path) -> bool:
    return False


def check_folder_place(
    path: Path,
    *,
    force: bool = False,
    is_ours: Callable[[Path], bool] = _is_nobodys,
    inputs: Iterable[str | Path] = (),
) -> None:
    """Make sure that a folder may be written at a path; what may not be lost is never replaced.

    Args:
        force: A folder that is there may be replaced if it is empty or ours.
        is_ours: Whether a folder is one that would be written there.
        inputs: Files that are read; a folder that holds one is not replaced.

    Raises:
        InputError: The path is taken and may not be replaced.
    """
    # The functions of os.path say no to a name that is too long or lies in a closed folder; Path's raise.
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise InputError(f"{path} is a file, and a folder was to be written there")
    real = Path(os.path.realpath(path))
    if Path(os.path.realpath(".")).is_relative_to(real):
        raise InputError(f"{path} is the current folder, or holds it", hint="choose another name")
    for name in inputs:
        if Path(os.path.realpath(name)).is_relative_to(real):
            raise InputError(f"{path} holds the input {name}", hint="choose another name")
    try:
        is_empty = not os.listdir(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not is_empty and not is_ours(path):
        raise InputError(f"{path} is there already, and is not of textcap's making", hint="choose another name")
    if not force:
        raise InputError(f"{path} is there already", hint="choose another name, or --force to replace it")


def check_file_place(path: Path, *, force: bool = False, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure that a file may be written at a path, before any work is done for it.

    Args:
        force: A file that is there may be replaced.
        inputs: Files that are read; none of them is ever replaced.

    Raises:
        InputError: The path is taken and may not be replaced.
    """
    if not os.path.lexists(path):
        return
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, and a file was to be written there", hint="choose another name")
    real = os.path.realpath(path)
    for name in inputs:
        if os.path.realpath(name) == real:
            raise InputError(f"{path} is the input {name}", hint="choose another name")
    if not force:
        raise InputError(f"{path} is there already", hint="choose another name, or --force to replace it")


@contextmanager
def atomic_folder(path: Path, *, force: bool = False, is_ours: Callable[[Path], bool] = _is_nobodys) -> Iterator[Path]:
    """Give an empty folder to fill, which takes its final name when the block ends without an error.

    Args:
        path: The folder's final name; the folders above it are made if they are missing.
        force: Replace a folder that is there already, if it is empty or ours. It stays until the new one is whole,
            then makes room by a rename; whoever is killed between that and the next rename leaves both beside
            the path, as `.textcap-*.tmp`. Such folders are never swept: they may be all there is.
        is_ours: Whether a folder is one that would be written there.

    Yields:
        The folder to write into, beside the final one. It is gone when the block raises.

    Raises:
        InputError: The path is taken and may not be replaced, or it cannot be written.
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
        check_folder_place(path, force=force, is_ours=is_ours)  # it may have appeared while the block ran
        _swap(beside, path)
    except OSError as error:
        # The block may fail at reading, too: only what is certainly about this folder is put in its name.
        if is_disk_full(error) or str(error.filename or "").startswith(str(beside)):
            raise _cannot_write(path, error) from error
        raise
    finally:
        _remove_quietly(beside)


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes.

    Args:
        path: The file to read, in blocks: it may be larger than memory.

    Returns:
        The SHA-256 in 64 lower-case hexadecimal digits.

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
    """Hash a large file once: again only when its size or its time of change is another.

    Args:
        path: The file to hash; links are followed.
        memory: JSON file with what was hashed before; one that cannot be read or written costs only time.

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
    """Say whether writing failed for want of space."""
    return error.errno in _DISK_FULL


def _read_memory(memory: Path) -> dict[str, object]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _name_beside(path: Path) -> Path:
    # Short, whatever the final name is: a name near the file system's limit has no room for a suffix.
    return path.parent / f".textcap-{secrets.token_hex(6)}.tmp"


def _swap(beside: Path, path: Path) -> None:
    """Put a folder in the place of another by two renames; between them nothing has the final name."""
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
    if os.name == "nt":  # Windows flushes only what is open for writing, which a copied file may not allow
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
        except OSError:  # what could not be written may not be removable either; the first error is the one to tell
            return


def _cannot_write(path: Path, error: OSError) -> InputError:
    hint = "free some space, or write elsewhere" if is_disk_full(error) else None
    return InputError(f"cannot write {path}: {error.strerror or error}", hint=hint)
