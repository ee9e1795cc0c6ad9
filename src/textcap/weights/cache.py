"""Find the cache folders: those that may contain weights, and the one that textcap writes to; explain its failures.

The environment is read at each call; Hugging Face's own constants keep the values it had at import.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textcap.errors import DownloadError, FileError
from textcap.files import is_disk_full, sha256_of_file
from textcap.store import Store, own_cache_folder, path_in


def cache_folder() -> Path:
    """Return the folder that weights are downloaded to, in the layout of Hugging Face's cache.

    If HF_HUB_CACHE or HF_HOME is set and TEXTCAP_CACHE is not, it is the folder that they name, where msclap and
    transformers find the weights, too.
    """
    named = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
    if not os.environ.get("TEXTCAP_CACHE") and any(os.environ.get(name) for name in named):
        return _hugging_face_folder()
    return own_cache_folder() / "hub"


def known_sha256(path: Path) -> str:
    """Return the SHA-256 of a large file; one that has not changed since it was last hashed is not read.

    Raises:
        FileError: The file cannot be read.
    """
    (key,) = Store(own_cache_folder() / "hashes.sqlite", 0).file_keys([path])
    return key.hex() if key else sha256_of_file(path)  # which says why there is none


def search_folders() -> list[Path]:
    """Return the folders to search for weights: the one they are downloaded to, then Hugging Face's cache."""
    return list(dict.fromkeys([cache_folder(), _hugging_face_folder()]))


def check_space(folder: Path, needed_bytes: int, what: str, variable: str = "TEXTCAP_CACHE") -> None:
    """Check that there is space for files in a folder, which need not exist.

    Args:
        folder: The folder to write to.
        needed_bytes: The bytes that will be written.
        what: What the files are, in plural, for the message.
        variable: The environment variable that sets the folder.

    Raises:
        DownloadError: The disk has too little space.
    """
    existing = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    free = shutil.disk_usage(existing).free
    if needed_bytes > free:
        message = f"{what} need {needed_bytes / 1e6:,.0f} MB more, but {folder} has only {free / 1e6:,.0f} MB free"
        raise DownloadError(message, hint=f"free some space, or set {variable} to a folder on another disk")


@contextmanager
def writing_to(folder: Path, variable: str = "TEXTCAP_CACHE") -> Iterator[None]:
    """Turn failures to write to a cache folder within the block into a DownloadError of one line.

    Args:
        folder: The folder.
        variable: The environment variable that sets it.
    """
    try:
        yield
    except (OSError, FileError) as error:
        cause = error.__cause__ if isinstance(error, FileError) else error
        if not isinstance(cause, OSError):
            raise
        if is_disk_full(cause):
            hint = f"free some space and run the command again to continue, or set {variable} to a folder elsewhere"
            raise DownloadError(f"the disk is full under {folder}", hint=hint) from error
        message = f"the cache folder {folder} cannot be written: {cause.strerror or cause}"
        raise DownloadError(message, hint=f"set {variable} to a folder that you may write to") from error


def _hugging_face_folder() -> Path:
    folder = path_in("HF_HUB_CACHE") or path_in("HUGGINGFACE_HUB_CACHE")
    if folder is not None:
        return folder
    user_cache = path_in("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return (path_in("HF_HOME") or user_cache / "huggingface") / "hub"
