"""Open what `find_inputs` has found: a file, standard input, or a remote sound, which is copied to this machine first.

Web addresses are downloaded under the timeouts and retries of `textcap fetch`, all others by fsspec.
"""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from textcap.audio.inputs import Input, mask
from textcap.audio.sources import SoundSource
from textcap.data.text import STDIN
from textcap.errors import DownloadError, FileError, InputError
from textcap.weights.download import DownloadProgress, RemoteFile, receive
from textcap.weights.hub import Hub, is_offline, one_line

MAX_BYTES = 4 << 30  # of a remote sound

_LOCAL_KINDS = {"file", "local", "memory", "zip", "tar", "data"}
_COPY_HINT = "copy the sound to this machine, and name the file"
# Of one read; fsspec requests as much again, and nothing arrives before all of it has. The larger, the fewer requests,
# but a connection that is slow must not look like one that is lost.
_BLOCK_BYTES = 1 << 16


@contextmanager
def open_source(
    source: Input, *, offline: bool | None = None, max_bytes: int = MAX_BYTES, hub: Hub | None = None
) -> Iterator[SoundSource]:
    """Yield what a sound can be read from: a path, or the stream of standard input.

    A remote sound is copied to a temporary file, which is deleted at the end of the block.

    Args:
        source: The sound.
        offline: Never use the network; by default as HF_HUB_OFFLINE says.
        max_bytes: The largest size of a remote sound.
        hub: The timeouts and retries to use; by default those of `textcap fetch`.

    Raises:
        FileError: The remote sound cannot be copied, or is too large; also in place of one about the temporary file
            that is raised within the block.
        InputError: Standard input is closed.
    """
    if not source.address:
        is_stdin = source.name == STDIN
        if is_stdin and (sys.stdin is None or sys.stdin.closed):
            raise InputError("standard input is closed", hint="name a file, or pipe a sound into the command")
        yield sys.stdin.buffer if is_stdin else source.name
        return
    if not _LOCAL_KINDS.issuperset(_kinds_of(source.address)) and (is_offline() if offline is None else offline):
        raise FileError(source.name, "is remote, and nothing is downloaded offline", hint=_COPY_HINT)
    with tempfile.TemporaryDirectory(prefix="textcap-", ignore_cleanup_errors=True) as folder:
        ending = re.search(r"\.\w{1,8}$", re.split(r"[?#]|::", source.address)[0])
        path = os.path.join(folder, "sound" + (ending[0] if ending else ""))
        _copy(source, path, max_bytes, hub or Hub.from_environment())
        try:
            yield path
        except FileError as error:
            if str(error.path) != path:
                raise
            raise error.at(source.name) from error


def _copy(source: Input, path: str, max_bytes: int, hub: Hub) -> None:
    """Copy a remote sound to a new file."""

    def check(name: str, n_done: int, n_total: int, note: str) -> None:
        if max(n_done, n_total) > max_bytes:
            raise FileError(source.name, f"has more than {max_bytes:,} bytes", hint=_COPY_HINT)

    try:
        with open(path, "w+b") as file:
            if _kinds_of(source.address)[0] in ("http", "https"):
                name = re.split("[?#]", source.address)[0].rpartition("/")[2] or "it"
                receive(hub, RemoteFile(name, source.address, ""), file, check)
            else:
                _copy_by_fsspec(source.address, file, hub, check)
    except DownloadError as error:
        problem = f"cannot be downloaded: {mask(error.message)}"
        raise FileError(source.name, problem, hint="check the address") from error
    except OSError as error:
        raise FileError(source.name, f"cannot be copied to {path}: {error.strerror or error}") from error


def _copy_by_fsspec(address: str, file: BinaryIO, hub: Hub, progress: DownloadProgress) -> None:
    """Copy a file in a thread, for fsspec's file systems have timeouts of their own or none."""
    from fsspec.core import url_to_fs

    problems: list[Exception] = []
    n_done = 0

    def copy() -> None:
        nonlocal n_done
        try:
            system, inner = url_to_fs(address)
            with system.open(inner, "rb", block_size=_BLOCK_BYTES) as remote:
                while block := remote.read(_BLOCK_BYTES):
                    n_done += file.write(block)  # fails when the caller has given up, and closed the file
                    progress("", n_done, 0, "")
        except Exception as error:  # each file system has its own
            problems.append(error)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    thread.join(hub.timeout_s)
    while thread.is_alive():
        mark = n_done
        thread.join(hub.slow_after_s)
        if thread.is_alive() and n_done - mark < hub.slow_after_s * hub.slow_bytes_per_s:
            raise DownloadError(f"less than {hub.slow_bytes_per_s:,.0f} bytes/s arrive")
    for error in problems:
        if isinstance(error, FileError):
            raise error
        reason = "it does not exist" if isinstance(error, FileNotFoundError | KeyError) else one_line(error)
        raise DownloadError(reason) from error


def _kinds_of(address: str) -> list[str]:
    """Return the kinds of an address, such as `["zip", "https"]` of "zip://a.wav::https://host/b.zip"."""
    parts = address.split("::")
    # A part without "://" is the path of a file, or the name of a cache in front of another part.
    return [part.partition("://")[0].lower() if "://" in part or part.isalnum() else "file" for part in parts]
