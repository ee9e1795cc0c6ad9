"""Download the files of the Java programs: the wheel of pycocoevalcap, and CoreNLP from Maven or as its zip file.

Returns files to take jars from; `jar_fetching` copies these into the cache. An interrupted download continues where it
stopped.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import textcap.scoring.jar_catalogue as jar_catalogue
from textcap.errors import DownloadError, InputError
from textcap.scoring.jar_catalogue import CORENLP_FOLDER, CORENLP_ZIP, MAVEN_FOLDER, WHEEL, WHEEL_FOLDER, JarFile
from textcap.scoring.jar_sources import Candidate, candidates_in_zip
from textcap.weights import DownloadProgress, Hub, own_cache_folder
from textcap.weights.download import RemoteFile, download, download_unchecked
from textcap.weights.hub import MAX_REDIRECTS, PassingFailure, check_status, host_of, redirect_of, request, wait

FROM_HINT = "run textcap fetch metrics --from PATH with files that you have"
_WHEEL_HINT = f"pip install 'textcap[jars]' and run the command again, or {FROM_HINT}"
_HEAD_RETRIES = 2  # few: nothing is downloaded yet, and without a network this should fail early


@dataclass(frozen=True)
class JarAddresses:
    """The addresses to download from; each may be a mirror."""

    wheel: str = f"{WHEEL_FOLDER}/{WHEEL}"
    maven: str = MAVEN_FOLDER  # the folder of CoreNLP 3.6.0
    corenlp_zip: str = f"{CORENLP_FOLDER}/{CORENLP_ZIP}"


def download_wheel(hub: Hub, addresses: JarAddresses, progress: DownloadProgress | None) -> list[Candidate]:
    """Download the wheel of pycocoevalcap and return its files of the catalogue.

    Raises:
        DownloadError: The download failed.
        OSError: The wheel cannot be written to disk.
    """
    remote = RemoteFile(
        "pycocoevalcap", WHEEL, "1.2", jar_catalogue.WHEEL_SHA256, jar_catalogue.WHEEL_BYTES, addresses.wheel
    )
    path = _partial(WHEEL)
    with _offline_hint(_WHEEL_HINT):
        _request_size(hub, remote)
        download(hub, remote, path, progress)
    return [one for one in candidates_in_zip(path) if (one.member or "").endswith(f"/{one.file.packaged}")]


def download_jar(
    hub: Hub, addresses: JarAddresses, file: JarFile, progress: DownloadProgress | None
) -> list[Candidate]:
    """Download one jar of CoreNLP from Maven.

    Raises:
        DownloadError: The download failed.
        OSError: The jar cannot be written to disk.
    """
    url = f"{addresses.maven}/{file.name}"
    unsized = RemoteFile("stanford-corenlp", file.name, "3.6.0", file.sha256, None, url)
    path = _partial(file.name)
    with _offline_hint():
        remote = replace(unsized, size_bytes=_request_size(hub, unsized))
        download(hub, remote, path, progress)
    return [Candidate(file, path)]


def download_corenlp_zip(hub: Hub, addresses: JarAddresses, progress: DownloadProgress | None) -> list[Candidate]:
    """Download the zip file of CoreNLP, for which no hash is published, and return its files of the catalogue.

    Raises:
        DownloadError: The download failed, or the result is not a complete zip file.
        OSError: The zip file cannot be written to disk.
    """
    unsized = RemoteFile("CoreNLP", CORENLP_ZIP, "3.6.0", "", None, addresses.corenlp_zip)
    path = _partial(CORENLP_ZIP)
    with _offline_hint():
        remote = replace(unsized, size_bytes=_request_size(hub, unsized))
    fresh_starts = 1 if path.exists() else 0  # an earlier run may have left a damaged part
    while True:
        with _offline_hint():
            download_unchecked(hub, remote, path, progress)
        try:
            return candidates_in_zip(path)
        except InputError as error:
            path.unlink(missing_ok=True)
            if not fresh_starts:
                message = f"{CORENLP_ZIP} from {host_of(remote.url)} is not a complete zip file; deleted"
                raise DownloadError(message, hint=f"try again later, or {FROM_HINT}") from error
            fresh_starts -= 1


def _partial(name: str) -> Path:
    folder = own_cache_folder() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.textcap-partial"


def _request_size(hub: Hub, remote: RemoteFile) -> int | None:
    """Return the size of a remote file in bytes, or None if its server does not say; fail early without a network."""
    failures = 0
    while True:
        try:
            return _request_size_once(hub, remote)
        except PassingFailure as error:
            if failures == min(hub.retries, _HEAD_RETRIES):
                raise
            wait(hub, failures, error)
            failures += 1


def _request_size_once(hub: Hub, remote: RemoteFile) -> int | None:
    url = remote.url
    for _ in range(MAX_REDIRECTS):
        with request(hub, "HEAD", url) as response:
            target = redirect_of(response, url)
            if target is None:
                check_status(hub, response, url, f"{remote.repo}/{remote.name}", remote.commit)
                if response.headers.get_content_type() == "text/html":
                    raise DownloadError(f"{host_of(url)} sent a web page instead of {remote.name}")
                size = response.headers.get("Content-Length", "")
                return int(size) if size.isdecimal() else None
        url = target
    raise DownloadError(f"{host_of(remote.url)} redirects without end for {remote.name}")


@contextmanager
def _offline_hint(remedy: str = FROM_HINT) -> Iterator[None]:
    """Add to every download error what to do without a network, and drop hints about the settings of the hub."""
    try:
        yield
    except DownloadError as error:
        hint = error.hint if error.hint and "HF_" not in error.hint else "check the network and HTTPS_PROXY"
        raise DownloadError(error.message, hint=f"{hint}, or {remedy}") from error
