"""Run one program to its end, and leave no process and no file of it behind, whatever happens.

Knows nothing of Java. What comes back are the bytes that the program printed and its exit code.
"""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from textcap.errors import InputError


class StoppedError(Exception):
    """Somebody called `stop` on the runs that a program belonged to."""


class TimedOutError(Exception):
    """A program took longer than it was given."""


@dataclass(frozen=True)
class Finished:
    """A program that ended by itself."""

    code: int  # its exit code; below 0 for the signal that killed it
    stdout: bytes
    stderr: bytes


class Runs:
    """Programs that are under way together, so that all can be stopped at once, from any thread.

    As a context manager it stops at its end what is still running.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """Kill what is running, and let nothing begin that comes later; whoever waits for it is told."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)

    @contextmanager
    def start(
        self,
        command: Sequence[str],
        streams: Mapping[str, int],
        cwd: Path | None,
        environment: Mapping[str, str] | None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program that does not outlive the block, with whatever it starts itself.

        Args:
            command: The program and its arguments.
            streams: File descriptors for `stdin`, `stdout` and `stderr`.
            cwd: The folder it runs in.
            environment: All its variables; None for those of this process.

        Raises:
            StoppedError: `stop` was called before.
            OSError: It cannot be started.
        """
        with self._lock:
            if self._stopped:
                raise StoppedError
            # A session of its own: Ctrl-C in a terminal goes to this process alone, which then kills the group.
            process = subprocess.Popen(
                list(command),
                stdin=streams["stdin"],
                stdout=streams["stdout"],
                stderr=streams["stderr"],
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            yield process
        finally:
            _kill(process)
            process.wait()
            with self._lock:
                self._running.discard(process)


def run_program(
    command: Sequence[str],
    *,
    stdin: Path | bytes | None = None,
    timeout_s: float | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    runs: Runs | None = None,
) -> Finished:
    """Run a program to its end. It and its children are gone when this returns or raises.

    Args:
        command: The program and its arguments.
        stdin: What it reads: a file, or the bytes themselves.
        timeout_s: After how long it is killed; None waits for ever.
        cwd: The folder it runs in.
        environment: All its variables; None for those of this process.
        runs: Programs to be stopped together with this one.

    Raises:
        InputError: The file for `stdin` cannot be read.
        OSError: It cannot be started.
        StoppedError: `runs` was stopped.
        TimedOutError: It took too long.
    """
    runs = runs or Runs()
    # Files and not pipes: nothing has to read while the program runs, and a child that keeps one open blocks nobody.
    with _opened(stdin) as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = {"stdin": source.fileno(), "stdout": out.fileno(), "stderr": err.fileno()}
        with runs.start(command, streams, cwd, environment) as process:
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                raise TimedOutError from error
        if code and runs.stopped:
            raise StoppedError
        out.seek(0)
        err.seek(0)
        return Finished(code, out.read(), err.read())


@contextmanager
def _opened(stdin: Path | bytes | None) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() if not isinstance(stdin, Path) else _open(stdin) as file:
        if isinstance(stdin, bytes):
            file.write(stdin)
            file.seek(0)  # writes what is buffered, too
        yield file


def _open(path: Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program that still runs, and the processes of its group."""
    if process.poll() is not None:
        return
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):  # it ended just now
        return
