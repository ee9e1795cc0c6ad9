"""Find files of the catalogue on this machine: in folders, jars, zip files and the package pycocoevalcap.

The files are only read here; `jar_fetching` copies them into the cache.
"""

import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import textcap.scoring.jar_catalogue as jar_catalogue
from textcap.errors import InputError
from textcap.files import sha256_of_file
from textcap.scoring.jar_catalogue import JarFile

MOST_BYTES = 1 << 30  # limit for one file; the largest has 378 MB
_BLOCK_BYTES = 1 << 20
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)\b", re.IGNORECASE)
_AGAIN = "download it again"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, gzip.BadGzipFile)


@dataclass(frozen=True)
class Candidate:
    """A file that may be one of the catalogue: its name matches, its hash is not yet checked."""

    file: JarFile
    path: Path  # the file, or the zip file that contains it
    member: str | None = None  # its name in the zip file; None if it is not in one

    @property
    def label(self) -> str:
        """The name of the candidate in messages."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def blocks(self) -> Iterator[bytes]:
        """Yield the content in blocks.

        Raises:
            InputError: The content cannot be read to its end, or is larger than `MOST_BYTES`.
        """
        n_bytes = 0
        try:
            with self._open() as stream:
                while block := stream.read(_BLOCK_BYTES):
                    n_bytes += len(block)
                    if n_bytes > MOST_BYTES:
                        raise InputError(
                            f"{self.label} is larger than {MOST_BYTES:,} bytes, so it is not a file of the metrics"
                        )
                    yield block
        except _DAMAGED as error:
            raise InputError(f"{self.label} is damaged: {error}", hint=_AGAIN) from error
        except OSError as error:
            raise InputError(f"{self.label} cannot be read: {error.strerror or error}") from error

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if self.member is None:
            with open(self.path, "rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                yield stream


def find_candidates(sources: Iterable[Path]) -> list[Candidate]:
    """Return the files of the catalogue in the files and folders that the user named.

    Args:
        sources: Jars, zip files and wheels that contain jars, or folders that contain any of these.

    Raises:
        InputError: A source does not exist, cannot be read, or contains no file of the catalogue.
    """
    found = []
    for source in sources:
        inside = _in_folder(source) if source.is_dir() else _in_file(source)
        if not inside:
            message = f"{source} contains none of the files that the metrics need"
            raise InputError(message, hint=f"expected files such as {', '.join(list(_by_name())[:3])}")
        found += inside
    return found


def packaged_candidate(file: JarFile) -> Candidate | None:
    """Return a file from the installed package pycocoevalcap, without importing it, or None if it is not there."""
    package = find_spec("pycocoevalcap")
    if file.packaged is None or package is None:
        return None
    for folder in package.submodule_search_locations or []:
        path = Path(folder).joinpath(*file.packaged.split("/"))
        if path.is_file():
            return Candidate(file, path)
    return None


def candidates_in_zip(path: Path) -> list[Candidate]:
    """Return the files of the catalogue in a zip file.

    Raises:
        InputError: The zip file is incomplete or damaged, or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except _DAMAGED as error:
        raise InputError(f"{path} is not a complete zip file", hint=_AGAIN) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    by_name = _by_name()
    inside = ((by_name.get(name.rpartition("/")[2]), name) for name in names)
    return [Candidate(file, path, name) for file, name in inside if file is not None]


def check_whole(path: Path, label: str) -> None:
    """Make sure that a file with an unknown hash is at least a complete jar or gzip file.

    Args:
        path: The file, under any name.
        label: Its name in messages.

    Raises:
        InputError: The file is incomplete or damaged, or is another kind of file.
    """
    start = _start(path)
    if _WEB_PAGE.match(start):
        raise InputError(f"{label} is a web page, not the file it is named after", hint=_AGAIN)
    try:
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(path) as stream:
                while stream.read(_BLOCK_BYTES):
                    pass
            return
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except _DAMAGED as error:
        raise InputError(f"{label} is damaged or incomplete", hint=_AGAIN) from error
    if bad is not None:
        raise InputError(f"{label} is damaged at {bad}", hint=_AGAIN)


def _in_folder(folder: Path) -> list[Candidate]:
    found = []
    by_name = _by_name()
    for above, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(above, name)
            if name in by_name:
                found.append(Candidate(by_name[name], path))
            elif path.suffix.lower() in (".zip", ".whl") and zipfile.is_zipfile(path):
                found += candidates_in_zip(path)
    return found


def _in_file(path: Path) -> list[Candidate]:
    start = _start(path)
    named = _by_name().get(path.name)
    if named is not None:
        return [Candidate(named, path)]
    if _WEB_PAGE.match(start):
        raise InputError(f"{path} is a web page, not a zip file", hint=_AGAIN)
    if start.startswith(b"PK"):
        inside = candidates_in_zip(path)
        if inside:
            return inside
    sha256 = sha256_of_file(path)
    return [Candidate(file, path) for file in jar_catalogue.CATALOGUE if file.sha256 == sha256]


def _by_name() -> dict[str, JarFile]:
    return {file.name: file for file in jar_catalogue.CATALOGUE}


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(512)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
