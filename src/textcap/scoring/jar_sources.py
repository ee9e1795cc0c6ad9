"""Where the files of the Java metrics can be taken from on this machine: folders, jars, zip files, a package.

Knows what files look like and writes none into their place. What comes back are streams to read, each one of a
file that the catalogue names.
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

MOST_BYTES = 1 << 30  # of one file; the largest has 378 MB
_BLOCK_BYTES = 1 << 20
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)\b", re.IGNORECASE)
_AGAIN = "fetch it again"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, gzip.BadGzipFile)


@dataclass(frozen=True)
class Candidate:
    """Something that may be a file of the catalogue."""

    file: JarFile
    path: Path  # of the file, or of the zip file that it is in
    member: str | None = None  # its name in that

    @property
    def label(self) -> str:
        """How to name it."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def blocks(self) -> Iterator[bytes]:
        """Read it, block by block.

        Raises:
            InputError: It cannot be read to its end, or has no end.
        """
        n_bytes = 0
        try:
            with self._open() as stream:
                while block := stream.read(_BLOCK_BYTES):
                    n_bytes += len(block)
                    if n_bytes > MOST_BYTES:
                        raise InputError(
                            f"{self.label} is larger than {MOST_BYTES:,} bytes, and no file of the metrics"
                        )
                    yield block
        except _DAMAGED as error:
            raise InputError(f"{self.label} is damaged: {error}", hint=_AGAIN) from error
        except OSError as error:
            raise InputError(f"cannot read {self.label}: {error.strerror or error}") from error

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if self.member is None:
            with open(self.path, "rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                yield stream


def find_candidates(sources: Iterable[Path]) -> list[Candidate]:
    """Return what is in the files and folders that a user names.

    Args:
        sources: Jars, zip files and wheels that hold them, folders that hold either.

    Raises:
        InputError: One of them is not there, cannot be read, or holds nothing of use.
    """
    found = []
    for source in sources:
        inside = _in_folder(source) if source.is_dir() else _in_file(source)
        if not inside:
            message = f"{source} holds none of the files that the metrics need"
            raise InputError(message, hint=f"such as {', '.join(list(_by_name())[:3])}")
        found += inside
    return found


def packaged_candidate(file: JarFile) -> Candidate | None:
    """Return a file as it lies in the installed package pycocoevalcap, which is not imported."""
    package = find_spec("pycocoevalcap")
    if file.packaged is None or package is None:
        return None
    for folder in package.submodule_search_locations or []:
        path = Path(folder).joinpath(*file.packaged.split("/"))
        if path.is_file():
            return Candidate(file, path)
    return None


def candidates_in_zip(path: Path) -> list[Candidate]:
    """Return what a zip file holds of the catalogue.

    Raises:
        InputError: It is no whole zip file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except _DAMAGED as error:
        raise InputError(f"{path} is not a whole zip file", hint=_AGAIN) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    by_name = _by_name()
    inside = ((by_name.get(name.rpartition("/")[2]), name) for name in names)
    return [Candidate(file, path, name) for file, name in inside if file is not None]


def check_whole(path: Path, label: str) -> None:
    """Make sure that a file of unknown hash can be read to its end as what its catalogue entry is.

    Args:
        path: A jar, or a file compressed by gzip, whatever its name.
        label: How to name it.

    Raises:
        InputError: It cannot.
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
        raise InputError(f"{label} is damaged, or was not fetched to its end", hint=_AGAIN) from error
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
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
