"""Download what the Java metrics need: the wheel of pycocoevalcap, and CoreNLP from Maven or in its own zip file.

Knows addresses and hashes, and no place of the cache that a metric reads from. What comes back are files to take
jars from; one that was interrupted is taken up where it stopped.
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

FROM_HINT = "name what you have: textcap fetch metrics --from PATH"
_HEAD_RETRIES = 2  # nothing is lost yet, and whoever has no network wants to hear of it soon


@dataclass(frozen=True)
class JarAddresses:
    """Where to download from; each may be a mirror."""

    wheel: str = f"{WHEEL_FOLDER}/{WHEEL}"
    maven: str = MAVEN_FOLDER  # the folder of CoreNLP 3.6.0
    corenlp_zip: str = f"{CORENLP_FOLDER}/{CORENLP_ZIP}"


def download_wheel(hub: Hub, addresses: JarAddresses, progress: DownloadProgress | None) -> list[Candidate]:
    """Download the wheel of pycocoevalcap and return what is in it.

    Raises:
        DownloadError: It could not be had.
        OSError: It cannot be written.
    """
    remote = RemoteFile(
        "pycocoevalcap", WHEEL, "1.2", jar_catalogue.WHEEL_SHA256, jar_catalogue.WHEEL_BYTES, addresses.wheel
    )
    path = _partial(WHEEL)
    with _hinting():
        _look(hub, remote)
        download(hub, remote, path, progress)
    return [one for one in candidates_in_zip(path) if (one.member or "").endswith(f"/{one.file.packaged}")]


def download_jar(
    hub: Hub, addresses: JarAddresses, file: JarFile, progress: DownloadProgress | None
) -> list[Candidate]:
    """Download one jar of CoreNLP from Maven.

    Raises:
        DownloadError: It could not be had.
        OSError: It cannot be written.
    """
    url = f"{addresses.maven}/{file.name}"
    unsized = RemoteFile("stanford-corenlp", file.name, "3.6.0", file.sha256, None, url)
    path = _partial(file.name)
    with _hinting():
        remote = replace(unsized, size_bytes=_look(hub, unsized))
        download(hub, remote, path, progress)
    return [Candidate(file, path)]


def download_corenlp_zip(hub: Hub, addresses: JarAddresses, progress: DownloadProgress | None) -> list[Candidate]:
    """Download the zip file of CoreNLP, whose own hash nobody publishes, and return what is in it.

    Raises:
        DownloadError: It could not be had, or is no whole zip file.
        OSError: It cannot be written.
    """
    unsized = RemoteFile("CoreNLP", CORENLP_ZIP, "3.6.0", "", None, addresses.corenlp_zip)
    path = _partial(CORENLP_ZIP)
    with _hinting():
        remote = replace(unsized, size_bytes=_look(hub, unsized))
    fresh_starts = 1 if path.exists() else 0  # what a crash left in it may be worth nothing
    while True:
        with _hinting():
            download_unchecked(hub, remote, path, progress)
        try:
            return candidates_in_zip(path)
        except InputError as error:
            path.unlink(missing_ok=True)
            if not fresh_starts:
                message = f"what {host_of(remote.url)} sent as {CORENLP_ZIP} is no whole zip file; deleted"
                raise DownloadError(message, hint=f"try again later, or {FROM_HINT}") from error
            fresh_starts -= 1


def _partial(name: str) -> Path:
    folder = own_cache_folder() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.textcap-partial"


def _look(hub: Hub, remote: RemoteFile) -> int | None:
    """Return a file's size as its server says it, which also says soon whether there is an answer at all."""
    failures = 0
    while True:
        try:
            return _look_once(hub, remote)
        except PassingFailure as error:
            if failures == min(hub.retries, _HEAD_RETRIES):
                raise
            wait(hub, failures, error)
            failures += 1


def _look_once(hub: Hub, remote: RemoteFile) -> int | None:
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
def _hinting() -> Iterator[None]:
    """Name the way without a network in every error; what is said of a hub's settings is beside the point here."""
    try:
        yield
    except DownloadError as error:
        hint = error.hint if error.hint and "HF_" not in error.hint else "check the network and HTTPS_PROXY"
        raise DownloadError(error.message, hint=f"{hint}, or {FROM_HINT}") from error
