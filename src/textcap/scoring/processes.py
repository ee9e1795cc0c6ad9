"""Run one program to its end, and leave no process and no file of it behind, whatever happens.

Knows nothing of Java. What comes back are the bytes that the program printed and its exit code.
"""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from textcap.errors import InputError


class StoppedError(Exception):
    """Somebody called `stop` on the runs that a program belonged to."""


class TimedOutError(Exception):
    """A program took longer than it was given."""


class NotStartedError(Exception):
    """The system does not start a program."""


_LONGEST_NAP_S = 0.05  # between two looks at a program that has a time limit


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
            NotStartedError: It cannot be started.
        """
        with self._lock:
            if self._stopped:
                raise StoppedError
            # A session of its own: Ctrl-C in a terminal goes to this process alone, which then kills the group.
            try:
                process = subprocess.Popen(
                    list(command),
                    stdin=streams["stdin"],
                    stdout=streams["stdout"],
                    stderr=streams["stderr"],
                    cwd=cwd,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise NotStartedError(error.strerror or str(error)) from error
            self._running.add(process)
        try:
            yield process
        finally:
            _kill(process)
            with self._lock:
                self._running.discard(process)
            process.wait()  # gives its id back, so nobody may kill it any more


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
        NotStartedError: It cannot be started.
        OSError: What it reads or writes cannot be put into temporary files.
        StoppedError: `runs` was stopped.
        TimedOutError: It took too long.
    """
    runs = runs or Runs()
    # Files and not pipes: nothing has to read while the program runs, and a child that keeps one open blocks nobody.
    with _opened(stdin) as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = {"stdin": source.fileno(), "stdout": out.fileno(), "stderr": err.fileno()}
        with runs.start(command, streams, cwd, environment) as process:
            _wait(process, timeout_s)
        if process.returncode and runs.stopped:
            raise StoppedError
        out.seek(0)
        err.seek(0)
        return Finished(process.returncode, out.read(), err.read())


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


def _wait(process: subprocess.Popen[bytes], timeout_s: float | None) -> None:
    """Return when a program has ended; its id stays its own, so that the rest of its group can be killed by it."""
    if not hasattr(os, "waitid"):  # a macOS before Python 3.13, and Windows
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimedOutError from error
        return
    kept = os.WEXITED | os.WNOWAIT
    with suppress(ChildProcessError):  # it has ended, and somebody else was told
        if timeout_s is None:
            os.waitid(os.P_PID, process.pid, kept)
            return
        end, nap_s = time.monotonic() + timeout_s, 0.0005
        while os.waitid(os.P_PID, process.pid, kept | os.WNOHANG) is None:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TimedOutError
            time.sleep(min(nap_s, left_s))
            nap_s = min(2 * nap_s, _LONGEST_NAP_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and the processes of its group, which may be there when it has ended itself."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):  # nothing of it runs any more
        return
