"""Download one file: look up its commit and hash, receive its bytes into a partial file, check them.

Weights and jars use it; where the file goes is left to them. An interrupted download continues where it stopped, also
after a killed run, which huggingface_hub does not do from its version 1 on.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, TypeVar

import filelock
import httpx2
from huggingface_hub import hf_hub_url

from textcap.errors import DownloadError
from textcap.weights.hub import NETWORK_HINT, Hub, PassingFailure, Unreachable, answer, host_of, number_of
from textcap.weights.hub_cache import has_hash, is_commit, is_hub_hash

DownloadProgress = Callable[[str, int, int, str], None]
"""Called with the file's name, the bytes downloaded so far, the total (0 if unknown), and a note.

The note is one line for the user that says what is waited for, or why a file is downloaded again; else it is empty.
"""

_Result = TypeVar("_Result")
_UNREACHABLE_RETRIES = 2  # as long as nothing is received: without a network, fail early
_PROGRESS_BYTES = 1 << 20  # after this many new bytes, failures are counted from zero again
_LONGEST_WAIT_S = 60.0
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html)\b", re.IGNORECASE)  # "<" alone may be the size in a safetensors file
_LATER_HINT = "try again later, or set another HF_ENDPOINT"


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded, and what is known of its content."""

    name: str  # for messages and progress
    url: str  # of exactly this content, so that it cannot change during the download
    hash: str  # SHA-256, or git's SHA-1 as hubs give it for small files
    size_bytes: int | None = None  # None if it is not known
    commit: str = ""  # of its repository, 40 hexadecimal digits; empty if it comes from no hub


def silent(name: str, done: int, total: int, note: str) -> None:
    """Show no progress."""


def look_up(hub: Hub, repo: str, name: str, revision: str, progress: DownloadProgress = silent) -> RemoteFile:
    """Return a file of a repository with its commit, hash and size, as the hub gives them.

    Args:
        hub: The hub to ask.
        repo: Repository on the hub, such as "microsoft/msclap".
        name: Name of the file in the repository.
        revision: Branch, tag or commit.
        progress: Called before each wait.

    Raises:
        DownloadError: The hub does not answer or refuses, or the answer is not that of a hub.
    """
    url = hf_hub_url(repo, name, revision=revision, endpoint=hub.endpoint)

    def ask() -> httpx2.Headers:
        with answer(hub, "HEAD", url, f"{repo}/{name} at revision {revision}") as response:
            return response.headers

    headers = _retrying(hub, ask, lambda: 0, lambda note: progress(name, 0, 0, note))
    commit = headers.get("X-Repo-Commit", "")
    hub_hash = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    if not is_commit(commit) or not is_hub_hash(hub_hash):
        message = f"{host_of(url)} does not answer like a Hugging Face hub: no commit and hash for {repo}/{name}"
        raise DownloadError(message, hint=NETWORK_HINT)
    address = hf_hub_url(repo, name, revision=commit, endpoint=hub.endpoint)
    return RemoteFile(name, address, hub_hash, number_of(size), commit)


def download_file(hub: Hub, remote: RemoteFile, partial: Path, progress: DownloadProgress = silent) -> None:
    """Complete a partial file, check it and flush it to the disk; bytes that are on disk are not downloaded again.

    Args:
        hub: The hub whose token, timeouts and retries apply.
        remote: The file to download.
        partial: The file to write, used for this content only. If the connection is lost for good, it is kept, and the
            next call continues it. If its content is wrong, it is deleted. A link in its place is replaced.
        progress: Called after each block that is written, and before each wait.

    Raises:
        DownloadError: The download failed, or the content does not have the size or the hash that it should have.
        OSError: The partial file cannot be written.
    """
    continued = True
    while continued:
        try:
            with open_partial(partial) as file:
                # After a crash a partial file may contain blocks that were never written: then start once more.
                continued = file.tell() > 0
                receive(hub, remote, file, progress)
                os.fsync(file.fileno())
        except DownloadError:
            if partial.stat().st_size == 0:
                partial.unlink()
            raise
        if has_hash(partial, remote.hash):
            return
        partial.unlink()
    message = f"{host_of(remote.url)} sent {remote.name} with a hash other than {remote.hash}, so it was deleted"
    raise DownloadError(message, hint=_LATER_HINT)


def open_partial(path: Path) -> BinaryIO:
    """Open a partial file for reading and writing at its end; links, and files with a second name, are replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            path.unlink()
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = open(os.open(path, flags, 0o666), "r+b")
    file.seek(0, os.SEEK_END)
    return file


@contextmanager
def locked(path: Path, name: str, progress: DownloadProgress = silent) -> Iterator[None]:
    """Hold a lock file within the block; `progress` is told if another process holds it.

    Raises:
        OSError: The lock file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():  # old versions of filelock empty what it leads to
        path.unlink()
    lock = filelock.FileLock(str(path))
    try:
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        progress(name, 0, 0, f"waiting for another process that downloads {name}")
        held = lock.acquire()
    with held:
        yield


def receive(hub: Hub, remote: RemoteFile, file: BinaryIO, progress: DownloadProgress = silent) -> None:
    """Append the missing bytes of a file to its partial file, in as many requests as that takes; they are not checked.

    Args:
        hub: The hub whose token, timeouts and retries apply.
        remote: The file to download.
        file: The partial file, open for reading and writing.
        progress: Called after each block that is written, and before each wait.

    Raises:
        DownloadError: The download failed.
        OSError: The partial file cannot be written.
    """

    def size() -> int:
        return file.seek(0, os.SEEK_END)

    def attempt() -> None:
        if remote.size_bytes is not None and size() > remote.size_bytes:
            file.truncate(0)
        if size() == remote.size_bytes:
            return  # an earlier run was killed between the last byte and the check
        headers = {"Range": f"bytes={size()}-"} if size() else {}
        with answer(hub, "GET", remote.url, remote.name, headers) as response:
            if not _is_complete(response, remote, file):
                _write(hub, response, remote, file, progress)

    _retrying(hub, attempt, size, lambda note: progress(remote.name, size(), remote.size_bytes or 0, note))


def _is_complete(response: httpx2.Response, remote: RemoteFile, file: BinaryIO) -> bool:
    """Return whether nothing is missing; else empty the file unless the answer continues it, or raise an error."""
    given = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    start, total = given.groups() if given else (None, None)
    offset = str(file.seek(0, os.SEEK_END))
    is_part = response.status_code == HTTPStatus.PARTIAL_CONTENT
    is_beyond = response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    if is_beyond and remote.size_bytes is None and total == offset:
        return True
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise _web_page(remote)
    if is_part and start == offset and (remote.size_bytes is None or total in ("*", str(remote.size_bytes))):
        return False
    file.truncate(file.seek(0))
    if is_part or is_beyond:
        raise PassingFailure(f"{host_of(remote.url)} does not send the rest of {remote.name}", hint=_LATER_HINT)
    return False


def _write(hub: Hub, response: httpx2.Response, remote: RemoteFile, file: BinaryIO, progress: DownloadProgress) -> None:
    """Append the body of an answer to the partial file."""
    offset, host = file.tell(), host_of(remote.url)
    length = number_of(response.headers.get("Content-Length", ""))
    end = remote.size_bytes if remote.size_bytes is not None or length is None else offset + length
    cut = f"lost the connection to {host}"
    since, mark = time.monotonic(), offset
    try:
        for block in response.iter_raw():
            if not offset and _WEB_PAGE.match(block):
                raise _web_page(remote)
            file.write(block)
            file.flush()  # a killed run keeps the bytes it received
            offset += len(block)
            if end is not None and offset > end:
                file.truncate(0)
                message = f"{host} sends more than the {end:,} bytes of {remote.name}"
                raise DownloadError(message, hint=_LATER_HINT)
            progress(remote.name, offset, end or 0, "")
            passed_s = time.monotonic() - since
            if passed_s > hub.slow_after_s:
                if offset - mark < passed_s * hub.slow_bytes_per_s:
                    cut = f"{host} sends less than {hub.slow_bytes_per_s:,.0f} bytes/s; stopped"
                    break
                since, mark = time.monotonic(), offset
        else:
            if end is None or offset == end:
                return
    except httpx2.TransportError:
        pass
    whole = "" if end is None else f" of {end:,}"
    hint = "run the command again: it continues where it stopped"
    raise PassingFailure(f"{cut} after {offset:,}{whole} bytes of {remote.name}", hint=hint)


def _web_page(remote: RemoteFile) -> DownloadError:
    return DownloadError(f"{host_of(remote.url)} sent a web page instead of {remote.name}", hint=NETWORK_HINT)


def _retrying(
    hub: Hub, attempt: Callable[[], _Result], n_done: Callable[[], int], show: Callable[[str], None]
) -> _Result:
    """Return the result of an attempt, and repeat it after passing failures as the hub's settings say."""
    failures, start = 0, n_done()
    mark = start
    while True:
        try:
            return attempt()
        except PassingFailure as error:
            if n_done() >= mark + _PROGRESS_BYTES:
                failures, mark = 0, n_done()
            nothing_came = isinstance(error, Unreachable) and n_done() == start
            if failures >= (min(hub.retries, _UNREACHABLE_RETRIES) if nothing_came else hub.retries):
                raise
            # Longer after each failure, and at least as long as the server asks, up to a limit.
            wait_s = min(max(hub.first_wait_s * 2**failures, error.wait_s), _LONGEST_WAIT_S)
            show(f"{error.message}; trying again in {wait_s:.0f} s")
            time.sleep(wait_s)
            failures += 1
