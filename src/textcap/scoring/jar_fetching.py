"""Put the files of the Java programs into the cache: from the user's files, from pycocoevalcap, or by download.

Each file is written beside its place, checked, and renamed. Files are yielded as soon as they are in place.
"""

import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from textcap.errors import DownloadError, InputError
from textcap.files import open_regular, read_regular, rename_durably, sha256_of_file, workspace
from textcap.scoring import jars
from textcap.scoring.jars import FETCH, FoundJar, JarFile, JarState, look_at, metrics_folder, remember_given
from textcap.weights import DownloadProgress, Hub
from textcap.weights.cache import check_space, writing_to
from textcap.weights.download import RemoteFile, download_file, locked, silent
from textcap.weights.hub import check_online

WHEEL = RemoteFile(  # has all files with a path in the package
    "pycocoevalcap-1.2-py3-none-any.whl",
    "https://files.pythonhosted.org/packages/08/f9/"
    "466f289f1628296b5e368940f89e3cfcfb066d15ddc02ff536dc532b1c93/pycocoevalcap-1.2-py3-none-any.whl",
    "083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d",
    104_312_215,
)
MOST_BYTES = 1 << 30  # limit for one file; the largest has 378 MB
_BLOCK_BYTES = 1 << 20
_SUFFIXES = (".jar", ".gz", ".zip", ".whl")  # of the files that are looked for in folders
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, gzip.BadGzipFile)
_AGAIN = "download it again"
_VARIABLE = "AAC_METRICS_CACHE_PATH"
_FROM_HINT = f"run {FETCH} --from PATH with files that you have"
_AGAIN_HINT = f"check the network and HTTPS_PROXY and run the command again to continue, or {_FROM_HINT}"


@dataclass(frozen=True)
class FetchedJar(FoundJar):
    """A file that is in the cache, either the known one or one that the user gave instead."""

    source: str  # where it came from: a path, an address, or "already on disk"
    new: bool  # whether it was written by this call

    @property
    def known(self) -> bool:
        """Whether this is the file of the catalogue rather than one that the user gave instead."""
        return self.state == "right"


@dataclass(frozen=True)
class _Copy:
    """A file on this machine that may be one of the catalogue: its hash is not yet checked."""

    file: JarFile
    path: Path  # the file, or the zip file that contains it
    member: str | None = None  # its name in the zip file; None if it is not in one

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def blocks(self) -> Iterator[bytes]:
        """Yield the content in blocks.

        Raises:
            InputError: The content cannot be read to its end.
        """
        with _reading(str(self)), open(self.path, "rb") as outer:
            stream = zipfile.ZipFile(outer).open(self.member) if self.member else outer
            yield from iter(lambda: stream.read(_BLOCK_BYTES), b"")


def fetch_metrics(
    sources: Sequence[Path] = (), *, progress: DownloadProgress | None = None, hub: Hub | None = None
) -> Iterator[FetchedJar]:
    """Put the files of the Java programs into the cache, one after another; correct files on disk are kept.

    Args:
        sources: The user's jars, zip files, wheels or folders. Files in them take precedence, even if their hash is
            not the one in the catalogue; among several of one name, one with that hash does, else the last.
        progress: Called with the name of the file, the bytes downloaded and the total.
        hub: Timeouts and retries of downloads.

    Yields:
        Each file as soon as it is in its place; files that must be downloaded come last.

    Raises:
        InputError: A source does not exist, is damaged, or contains no file of the catalogue.
        DependencyError: A file in the cache cannot be read.
        DownloadError: A file could not be downloaded or written. Complete files are kept, and the next call continues
            an interrupted download.
    """
    show = progress or silent
    given = [one for source in sources for one in _copies_in(source)]
    missing = []
    for file in jars.CATALOGUE:
        mine = [one for one in given if one.file == file]
        found = look_at(file)
        if done := _place(found, mine, any_hash=True) or _kept(found) or _place(found, _packaged(file)):
            yield done
        else:
            missing.append(file)
            if found.state == "wrong":
                show(file.name, 0, 0, f"{found.path} is not the known file: {file.name} is downloaded again")
    with writing_to(metrics_folder(), _VARIABLE):
        (metrics_folder() / "spice" / "cache").mkdir(parents=True, exist_ok=True)  # aac-metrics requires it
    if missing:
        check_online(_FROM_HINT)
        yield from _download(hub or Hub(), missing, show)


def verify_metrics() -> list[FoundJar]:
    """Return the state of every file of the Java programs in the cache, after reading each of them.

    Raises:
        DependencyError: A file cannot be read.
    """
    return [look_at(file, thorough=True) for file in jars.CATALOGUE]


def _kept(found: FoundJar) -> FetchedJar | None:
    if found.state in ("wrong", "missing"):
        return None
    return FetchedJar(**vars(found), source="already on disk", new=False)


def _place(found: FoundJar, copies: Sequence[_Copy], *, any_hash: bool = False) -> FetchedJar | None:
    """Copy the first copy with the known hash into the cache, unless the same file is there already.

    Args:
        found: The file's place in the cache; an existing file is replaced.
        copies: Copies of the file.
        any_hash: If none has the known hash, take the last one, provided that it is complete.

    Returns:
        The file in its place, or None if no copy was taken.

    Raises:
        InputError: A copy cannot be read, is damaged or larger than `MOST_BYTES`.
        DownloadError: The cache cannot be written.
    """
    for one in copies:
        with writing_to(metrics_folder(), _VARIABLE), workspace(found.path.parent) as beside:
            new = beside / found.path.name
            with open(new, "xb") as file:
                for block in one.blocks():
                    file.write(block)
                    if file.tell() > MOST_BYTES:
                        raise InputError(f"{one} is larger than {MOST_BYTES:,} bytes, as no file of the metrics is")
                file.flush()
                os.fsync(file.fileno())
            sha256 = sha256_of_file(new)
            if sha256 != found.file.sha256:
                if not any_hash or one is not copies[-1]:
                    continue
                _check_whole(new, str(one))
                remember_given(found.file, sha256)
            if sha256 != found.sha256:
                rename_durably(new, found.path)
        state: JarState = "right" if sha256 == found.file.sha256 else "given"
        return FetchedJar(found.file, found.path, state, sha256, str(one), new=sha256 != found.sha256)
    return None


def _download(hub: Hub, files: Sequence[JarFile], show: DownloadProgress) -> Iterator[FetchedJar]:
    """Download the wheel of pycocoevalcap with the files that it has, and the others each from its address."""
    folder = metrics_folder()
    with writing_to(folder, _VARIABLE), locked(folder / "textcap-fetch.lock", "the jars", show):
        late = [look_at(file) for file in files]  # another process may have fetched some while this one waited
        yield from filter(None, map(_kept, late))
        missing = [found for found in late if not _kept(found)]
        packaged = [found for found in missing if found.file.packaged]
        wheel_bytes = WHEEL.size_bytes if packaged and WHEEL.size_bytes else 0
        check_space(folder, sum(found.file.size_bytes for found in missing) + wheel_bytes, "the jars", _VARIABLE)
        if packaged:
            wheel = _download_one(hub, WHEEL, folder, show, "pip install 'textcap[jars]', or ")
            for found in packaged:
                done = _place(found, [_Copy(found.file, wheel, f"pycocoevalcap/{found.file.packaged}")])
                if done is None:
                    raise DownloadError(f"{wheel} has changed on the disk", hint="run the command again")
                yield replace(done, source=WHEEL.url)
            wheel.unlink(missing_ok=True)
        for found in missing:
            if url := found.file.url:
                remote = RemoteFile(found.file.name, url, found.file.sha256)
                jar = _download_one(hub, remote, found.path.parent, show)
                rename_durably(jar, found.path)
                yield FetchedJar(found.file, found.path, "right", found.file.sha256, url, new=True)


def _download_one(hub: Hub, remote: RemoteFile, folder: Path, show: DownloadProgress, remedy: str = "") -> Path:
    """Download a file under a temporary name in a folder, where the next call continues it, and return its path."""
    partial = folder / f"{remote.name}.textcap-partial"
    try:
        download_file(hub, remote, partial, show)
    except DownloadError as error:  # its own hint is about the settings of a hub
        raise DownloadError(error.message, hint=remedy + _AGAIN_HINT) from error
    return partial


def _packaged(file: JarFile) -> list[_Copy]:
    """Return a file's copy in the installed package pycocoevalcap, which is not imported."""
    package = find_spec("pycocoevalcap") if file.packaged else None
    paths = [Path(folder, str(file.packaged)) for folder in (package and package.submodule_search_locations) or ()]
    return [_Copy(file, path) for path in paths if path.is_file()]


def _copies_in(source: Path) -> list[_Copy]:
    """Return the files of the catalogue in a file or folder that the user named.

    Raises:
        InputError: The source does not exist, cannot be read, is damaged, or contains no file of the catalogue.
    """
    if source.is_dir():
        paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in _SUFFIXES and path.is_file()]
        found = [one for path in paths for one in _copies_in_file(path)]
    elif not (found := _copies_in_file(source)):
        digest = sha256_of_file(source)  # it may have another name
        found = [_Copy(file, source) for file in jars.CATALOGUE if file.sha256 == digest]
        if not found:
            _check_whole(source, str(source))
    if not found:
        names = ", ".join(file.name for file in jars.CATALOGUE[:3])
        raise InputError(f"{source} contains none of the files that the metrics need", hint=f"such as {names}")
    return found


def _copies_in_file(path: Path) -> list[_Copy]:
    by_name = {file.name: file for file in jars.CATALOGUE}
    members: list[str | None] = [None]
    with open_regular(path) as stream, _reading(str(path)):
        if path.name not in by_name and zipfile.is_zipfile(stream):
            members = [*zipfile.ZipFile(stream).namelist()]
    named = [(by_name.get((member or path.name).rpartition("/")[2]), member) for member in members]
    return [_Copy(file, path, member) for file, member in named if file]


def _check_whole(path: Path, label: str) -> None:
    """Make sure that a file with an unknown hash is at least a complete jar, zip or gzip file.

    Args:
        path: The file, under any name.
        label: Its name in messages.

    Raises:
        InputError: The file is incomplete or damaged, or is another kind of file.
    """
    start = read_regular(path, 512).lstrip()
    with _reading(label):
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(path) as stream:
                while stream.read(_BLOCK_BYTES):
                    pass
        elif start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise zipfile.BadZipFile(bad)
        else:
            kind = "a web page" if start.startswith(b"<") else "another kind of file"
            raise InputError(f"{label} is {kind}, not a jar, a zip file or a gzip file", hint=_AGAIN)


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """Turn failures to read a file within the block into an InputError of one line."""
    try:
        yield
    except _DAMAGED as error:
        raise InputError(f"{label} is damaged or incomplete", hint=_AGAIN) from error
    except OSError as error:
        raise InputError(f"{label} cannot be read: {error.strerror or error}") from error
