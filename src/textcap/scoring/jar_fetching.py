"""Put the files of the Java programs into the cache: from the user's files, from pycocoevalcap, or by download.

Each file is written beside its place, checked, and renamed. Files are yielded as soon as they are in place.
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
    """A file that is in the cache."""

    file: JarFile
    path: Path
    sha256: str
    source: str  # where it came from: a path, an address, or "already on disk"
    new: bool  # whether it was written by this call

    @property
    def known(self) -> bool:
        """Whether this is the file of the catalogue rather than one that the user gave instead."""
        return self.sha256 == self.file.sha256


def fetch_metrics(
    sources: Sequence[Path] = (),
    *,
    addresses: JarAddresses | None = None,
    progress: DownloadProgress | None = None,
    hub: Hub | None = None,
) -> Iterator[FetchedJar]:
    """Put the files of the Java programs into the cache, one after another; correct files on disk are kept.

    Args:
        sources: The user's jars, zip files, wheels or folders. Files in them take precedence, even if their hash is
            not the one in the catalogue.
        addresses: Where to download the other files from.
        progress: Called with the name of the file, the bytes downloaded and the total.
        hub: Timeouts and retries of downloads.

    Yields:
        Each file as soon as it is in its place; files that must be downloaded come last.

    Raises:
        InputError: A source does not exist, is damaged, or contains no file of the catalogue.
        DownloadError: A file could not be downloaded or written. Complete files are kept, and the next call continues
            an interrupted download.
    """
    given = find_candidates(sources)
    missing = []
    for file in jar_catalogue.CATALOGUE:
        found = _look_at(file)
        mine = _best_candidate([one for one in given if one.file == file])
        packaged = packaged_candidate(file)
        if mine is not None:
            yield _use_given(mine, found)
        elif found.state in ("right", "given"):
            yield FetchedJar(file, found.path, found.sha256 or "", "already on disk", new=False)
        elif packaged is not None and (digest := _copy(packaged, found.path, any_hash=False)):
            yield FetchedJar(file, found.path, digest, str(packaged.path), new=True)
        else:
            missing.append(file)
    with _explaining_os_errors(metrics_folder()):
        (metrics_folder() / "spice" / "cache").mkdir(parents=True, exist_ok=True)  # aac-metrics requires it
    if missing:
        if is_offline():
            raise DownloadError(
                "the environment forbids downloads (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)",
                hint=f"unset it, or {FROM_HINT}",
            )
        _check_space(missing)
        yield from _download(missing, addresses or JarAddresses(), progress, hub or Hub())


def verify_metrics() -> list[FoundJar]:
    """Return the state of every file of the Java programs in the cache, after reading each of them.

    Raises:
        InputError: A file cannot be read.
    """
    return [look_at(file, thorough=True) for file in jar_catalogue.CATALOGUE]


def _look_at(file: JarFile) -> FoundJar:
    try:
        return look_at(file)
    except InputError as error:
        raise DownloadError(error.message, hint="delete it, and run the command again") from error


def _best_candidate(candidates: list[Candidate]) -> Candidate | None:
    """Return the candidate with the hash in the catalogue, else the first, or None if there are none."""
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


def _use_given(candidate: Candidate, found: FoundJar) -> FetchedJar:
    """Copy a file that the user gave into the cache, unless the same file is there already."""
    file, path = candidate.file, found.path
    if found.sha256 is not None and _hash(candidate) == found.sha256:
        if found.state == "wrong":
            check_whole(path, candidate.label)
            _remember(file, found.sha256)
        return FetchedJar(file, path, found.sha256, candidate.label, new=False)
    digest = _copy(candidate, path, any_hash=True)
    return FetchedJar(file, path, digest or "", candidate.label, new=True)


def _copy(candidate: Candidate, path: Path, *, any_hash: bool) -> str | None:
    """Copy a file into the cache.

    Args:
        candidate: The file.
        path: Its place in the cache; an existing file is replaced.
        any_hash: Accept a complete file even if its hash is not the one in the catalogue.

    Returns:
        The SHA-256 of the file, or None if it was not accepted.
    """
    temporary = path.parent / f".textcap-{secrets.token_hex(6)}.tmp"
    digest = sha256()
    with _explaining_os_errors(metrics_folder()):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                for block in candidate.blocks():
                    digest.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != candidate.file.sha256:
                if not any_hash:
                    return None
                check_whole(temporary, candidate.label)
            _remember(candidate.file, digest.hexdigest())
            os.replace(temporary, path)
            remove_leftovers(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return digest.hexdigest()


def _remember(file: JarFile, digest: str) -> None:
    """Record a file that the user gave if its hash is not the one in the catalogue."""
    given = given_files()
    given.pop(file.path, None)
    remember_given({**given, file.path: digest} if digest != file.sha256 else given)


def _download(
    missing: Sequence[JarFile], addresses: JarAddresses, progress: DownloadProgress | None, hub: Hub
) -> Iterator[FetchedJar]:
    with _explaining_os_errors(_downloads(), "TEXTCAP_CACHE"):
        _downloads().mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(_downloads() / "metrics.lock"))
        lock.acquire()
    try:
        wanted = [file for file in missing if file.packaged is not None]
        if wanted:
            with _explaining_os_errors(_downloads(), "TEXTCAP_CACHE"):
                candidates = download_wheel(hub, addresses, progress)
            yield from _unpack(wanted, candidates, addresses.wheel)
        yield from _download_corenlp([file for file in missing if file.packaged is None], addresses, progress, hub)
    finally:
        lock.release()


def _download_corenlp(
    missing: Sequence[JarFile], addresses: JarAddresses, progress: DownloadProgress | None, hub: Hub
) -> Iterator[FetchedJar]:
    """Download CoreNLP's jars one by one from Maven or, if that fails, all in the zip file, which is larger."""
    for index, file in enumerate(missing):
        with _explaining_os_errors(_downloads(), "TEXTCAP_CACHE"):
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
    """Copy files from a download into the cache, and delete the download; only files of known hash are accepted."""
    for file in files:
        candidate = next((one for one in candidates if one.file == file), None)
        if candidate is None:
            raise DownloadError(f"{where} does not contain {file.name}", hint=FROM_HINT)
        path = metrics_folder().joinpath(*file.path.split("/"))
        try:
            digest = _copy(candidate, path, any_hash=False)
        except InputError as error:
            candidate.path.unlink(missing_ok=True)
            raise DownloadError(error.message, hint=f"run the command again, or {FROM_HINT}") from error
        if digest is None:
            message = f"{file.name} from {where} is not the known file and was not used"
            hint = f"to use it anyway, run textcap fetch metrics --from {candidate.path}"
            raise DownloadError(message, hint=hint)
        yield FetchedJar(file, path, digest, where, new=True)
    for download in {one.path for one in candidates}:
        with suppress(OSError):
            download.unlink(missing_ok=True)


def _downloads() -> Path:
    return own_cache_folder() / "downloads"


def _check_space(missing: Sequence[JarFile]) -> None:
    installed_bytes = sum(file.size_bytes for file in missing)
    download_bytes = max((file.size_bytes for file in missing if file.packaged is None), default=0)
    if any(file.packaged is not None for file in missing):
        download_bytes = max(download_bytes, jar_catalogue.WHEEL_BYTES)
    for folder, needed in ((metrics_folder(), installed_bytes + download_bytes), (_downloads(), download_bytes)):
        existing = next(above for above in (folder, *folder.absolute().parents) if above.exists())
        free = shutil.disk_usage(existing).free
        if needed > free:
            message = f"the jars need {needed / 1e6:,.0f} MB, but {folder} has only {free / 1e6:,.0f} MB free"
            hint = "free some space, or set AAC_METRICS_CACHE_PATH and TEXTCAP_CACHE to folders on another disk"
            raise DownloadError(message, hint=hint)


@contextmanager
def _explaining_os_errors(folder: Path, variable: str = "AAC_METRICS_CACHE_PATH") -> Iterator[None]:
    """Turn failures to write to a folder into a DownloadError that names the variable which sets that folder."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            hint = f"free some space and run it again to continue, or set {variable} to a folder on another disk"
            raise DownloadError(f"the disk is full under {folder}", hint=hint) from error
        hint = f"set {variable} to a folder that you can write to"
        raise DownloadError(f"{folder} cannot be written: {error.strerror or error}", hint=hint) from error
