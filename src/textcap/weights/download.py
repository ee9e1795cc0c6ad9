"""Download one file from a Hugging Face hub: look up its commit and hash, receive its bytes, check them.

The cache is left to `textcap.weights.fetching`. A file that fails its check is deleted. An interrupted download
continues where it stopped, also after a killed run, which huggingface_hub 2.x does not do.
"""

import http.client
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import hf_hub_url

from textcap.errors import DownloadError
from textcap.weights.hub import (
    MAX_REDIRECTS,
    NETWORK_HINT,
    Hub,
    PassingFailure,
    check_status,
    connection_failure,
    host_of,
    redirect_of,
    request,
    wait,
)
from textcap.weights.hub_cache import has_hash, is_commit, is_hub_hash

DownloadProgress = Callable[[str, int, int], None]
"""Called with the file's name, the bytes downloaded so far and the total (0 if the hub does not say)."""

_BLOCK_BYTES = 1 << 18
_LOOK_UP_RETRIES = 2  # nothing is downloaded yet; without a network, fail early
# After this many new bytes, failures are counted from zero again.
_PROGRESS_BYTES = 1 << 20
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html)\b", re.IGNORECASE)  # "<" alone may be the size in a safetensors file
_LATER_HINT = "try again later, or set another HF_ENDPOINT"


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it."""

    repo: str  # repository on the hub
    name: str  # name of the file in the repository
    commit: str  # 40 hexadecimal digits
    hub_hash: str  # SHA-256 of a large file, git's SHA-1 of a small one
    size_bytes: int | None  # None if the hub does not say
    url: str  # of the file at this commit, so that it cannot change during the download


def look_up(hub: Hub, repo: str, name: str, revision: str) -> RemoteFile:
    """Return a file's commit, hash and size, as the hub gives them.

    Args:
        hub: The hub to ask.
        repo: Repository on the hub, such as "microsoft/msclap".
        name: Name of the file in the repository.
        revision: Branch, tag or commit.

    Raises:
        DownloadError: The hub does not answer or refuses, or the answer is not that of a hub.
    """
    failures = 0
    while True:
        try:
            return _look_up_once(hub, repo, name, revision)
        except PassingFailure as error:
            if failures == min(hub.retries, _LOOK_UP_RETRIES):
                raise
            wait(hub, failures, error)
            failures += 1


def download(hub: Hub, remote: RemoteFile, partial: Path, progress: DownloadProgress | None = None) -> None:
    """Complete a partial file and check it; bytes that are on disk are not downloaded again.

    Args:
        hub: The hub to download from.
        remote: The result of `look_up`.
        partial: The file to write, used for this content only. If the connection is lost for good, it is kept, and the
            next call continues it. If its content is wrong, it is deleted.
        progress: Called after each block that is written.

    Raises:
        DownloadError: The download failed, or the content does not have the size or the hash that the hub gave.
        OSError: The partial file cannot be written.
    """
    # After a crash a partial file may contain blocks that were never written: start once more from the beginning.
    fresh_starts = 1 if _size(partial) else 0
    while True:
        download_unchecked(hub, remote, partial, progress)
        if has_hash(partial, remote.hub_hash):
            return
        partial.unlink()
        if not fresh_starts:
            message = f"{host_of(remote.url)} sent {remote.name} with a hash other than {remote.hub_hash}"
            raise DownloadError(f"{message}, so it was deleted", hint=_LATER_HINT)
        fresh_starts -= 1


def _look_up_once(hub: Hub, repo: str, name: str, revision: str) -> RemoteFile:
    url = hf_hub_url(repo, name, revision=revision, endpoint=hub.endpoint)
    commit = hub_hash = size = ""
    for _ in range(MAX_REDIRECTS):
        with request(hub, "HEAD", url) as response:
            headers, target = response.headers, redirect_of(response, url)
            if target is None:
                check_status(hub, response, url, f"{repo}/{name}", revision)
                hub_hash = headers.get("ETag") or hub_hash
                size = headers.get("Content-Length") or size
        # The redirect to the store of large files has these headers; the answer of the store does not.
        commit = headers.get("X-Repo-Commit") or commit
        hub_hash = headers.get("X-Linked-Etag") or hub_hash
        size = headers.get("X-Linked-Size") or size
        if target is None or (commit and hub_hash and size):
            break
        url = target
    hub_hash = hub_hash.removeprefix("W/").strip('"')
    if not is_commit(commit) or not is_hub_hash(hub_hash):
        message = f"{host_of(url)} does not answer like a Hugging Face hub: no commit and hash for {repo}/{name}"
        raise DownloadError(message, hint=NETWORK_HINT)
    address = hf_hub_url(repo, name, revision=commit, endpoint=hub.endpoint)
    return RemoteFile(repo, name, commit, hub_hash, int(size) if size.isdecimal() else None, address)


def download_unchecked(hub: Hub, remote: RemoteFile, partial: Path, progress: DownloadProgress | None = None) -> None:
    """Complete a partial file whose hash is not known; the caller must check its content.

    Args and Raises are those of `download`, but the hash is not checked.
    """
    failures, mark = 0, _size(partial)
    while True:
        try:
            return _download_rest(hub, remote, partial, progress)
        except PassingFailure as error:
            done = _size(partial)
            if done >= mark + _PROGRESS_BYTES:
                failures, mark = 0, done
            if failures == hub.retries:
                raise
            wait(hub, failures, error)
            failures += 1


def _download_rest(hub: Hub, remote: RemoteFile, partial: Path, progress: DownloadProgress | None) -> None:
    offset = _size(partial)
    if remote.size_bytes is not None and offset == remote.size_bytes:
        return  # an earlier run was killed between the last byte and the check
    if remote.size_bytes is not None and offset > remote.size_bytes:
        partial.unlink()
        offset = 0
    with _get(hub, remote, offset) as response:
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.unlink(missing_ok=True)
            raise PassingFailure(f"{host_of(remote.url)} has only a part of {remote.name}", hint=_LATER_HINT)
        if response.headers.get_content_type() == "text/html":
            raise _web_page(remote)
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            offset = 0  # the range was ignored, and the answer is the whole file
        elif not _continues(response, remote, offset):
            partial.unlink(missing_ok=True)
            message = f"{host_of(remote.url)} sent another part of {remote.name} than requested"
            raise PassingFailure(message, hint=_LATER_HINT)
        length = response.headers.get("Content-Length", "")
        end = remote.size_bytes
        if end is None and length.isdecimal():
            end = offset + int(length)
        offset = _write(response, remote, partial, offset, end, progress)
    if end is not None and offset < end:
        message = f"lost the connection to {host_of(remote.url)} after {offset:,} of {end:,} bytes"
        hint = "run the command again: it continues where it stopped"
        raise PassingFailure(f"{message} of {remote.name}", hint=hint)
    if end is not None and offset > end:
        partial.unlink()
        message = f"{host_of(remote.url)} sends more than the {end:,} bytes of {remote.name}"
        raise DownloadError(message, hint=_LATER_HINT)


def _write(
    response: http.client.HTTPResponse,
    remote: RemoteFile,
    partial: Path,
    offset: int,
    end: int | None,
    progress: DownloadProgress | None,
) -> int:
    """Write the answer after the first `offset` bytes of a partial file, and return the new size in bytes."""
    with open(partial, "ab" if offset else "wb") as file:
        while block := _read_block(response, remote):
            if not offset and _WEB_PAGE.match(block):
                raise _web_page(remote)
            file.write(block)
            file.flush()  # a killed run keeps the bytes it received
            offset += len(block)
            if end is not None and offset > end:
                break
            if progress is not None:
                progress(remote.name, offset, remote.size_bytes or 0)
    return offset


def _get(hub: Hub, remote: RemoteFile, offset: int) -> http.client.HTTPResponse:
    url = remote.url
    for _ in range(MAX_REDIRECTS):
        response = request(hub, "GET", url, {"Range": f"bytes={offset}-"} if offset else None)
        try:
            target = redirect_of(response, url)
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return response
            if target is None:
                check_status(hub, response, url, f"{remote.repo}/{remote.name}", remote.commit)
                return response
        except DownloadError:
            response.close()
            raise
        response.close()
        url = target
    raise DownloadError(f"{host_of(remote.url)} redirects too often for {remote.name}", hint=NETWORK_HINT)


def _read_block(response: http.client.HTTPResponse, remote: RemoteFile) -> bytes:
    try:
        return response.read1(_BLOCK_BYTES)
    except http.client.IncompleteRead as error:
        return error.partial  # `_download_rest` notices that bytes are missing
    except (OSError, http.client.HTTPException) as error:
        raise connection_failure(remote.url, error) from error


def _continues(response: http.client.HTTPResponse, remote: RemoteFile, offset: int) -> bool:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != offset:
        return False
    return remote.size_bytes is None or match[2] in ("*", str(remote.size_bytes))


def _web_page(remote: RemoteFile) -> DownloadError:
    return DownloadError(f"{host_of(remote.url)} sent a web page instead of {remote.name}", hint=NETWORK_HINT)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
