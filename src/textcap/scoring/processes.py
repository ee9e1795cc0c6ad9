"""Run a program to its end, and leave no process and no file of it behind.

Returns the program's exit code and the bytes that it printed; `java` interprets them.
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
    """The program was stopped by `Runs.stop`."""


class TimedOutError(Exception):
    """The program exceeded its time limit."""


class NotStartedError(Exception):
    """The program could not be started."""


_MAX_POLL_S = 0.05  # longest time between two checks of a program that has a time limit


@dataclass(frozen=True)
class Finished:
    """The result of a program that ended by itself."""

    code: int  # exit code, or minus the number of the signal that killed the program
    stdout: bytes
    stderr: bytes


class Runs:
    """A group of running programs that can be stopped together, from any thread.

    As a context manager, it stops the programs that are still running at the end of the block.
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
        """Kill the running programs and refuse to start others; calls that wait for them raise StoppedError."""
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
        """Start a program, and kill it and its children at the end of the block.

        Args:
            command: The program and its arguments.
            streams: File descriptors for `stdin`, `stdout` and `stderr`.
            cwd: The program's working folder.
            environment: All variables of the program; None for those of this process.

        Raises:
            StoppedError: `stop` was called before.
            NotStartedError: The program cannot be started.
        """
        with self._lock:
            if self._stopped:
                raise StoppedError
            # In a session of its own, so that Ctrl-C in a terminal reaches only this process, which kills the group.
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
            process.wait()  # frees its id, so it must not be killed any more


def run_program(
    command: Sequence[str],
    *,
    stdin: Path | bytes | None = None,
    timeout_s: float | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    runs: Runs | None = None,
) -> Finished:
    """Run a program to its end. No process of it is left when this returns or raises.

    Args:
        command: The program and its arguments.
        stdin: Input of the program: a file, or bytes.
        timeout_s: Seconds after which the program is killed; None sets no limit.
        cwd: The program's working folder.
        environment: All variables of the program; None for those of this process.
        runs: Programs that are stopped together with this one.

    Raises:
        InputError: The file for `stdin` cannot be read.
        NotStartedError: The program cannot be started.
        OSError: The temporary files for its input and output cannot be written.
        StoppedError: `runs` was stopped.
        TimedOutError: The program took too long.
    """
    runs = runs or Runs()
    # Files instead of pipes: they need no reader while the program runs, and a child that keeps one open cannot block.
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
            file.seek(0)  # also flushes the buffer
        yield file


def _open(path: Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _wait(process: subprocess.Popen[bytes], timeout_s: float | None) -> None:
    """Wait until a program has ended, without freeing its id, by which the rest of its group can then be killed."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13, and Windows
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimedOutError from error
        return
    flags = os.WEXITED | os.WNOWAIT
    with suppress(ChildProcessError):  # it has ended, and was waited for elsewhere
        if timeout_s is None:
            os.waitid(os.P_PID, process.pid, flags)
            return
        end, poll_s = time.monotonic() + timeout_s, 0.0005
        while os.waitid(os.P_PID, process.pid, flags | os.WNOHANG) is None:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TimedOutError
            time.sleep(min(poll_s, left_s))
            poll_s = min(2 * poll_s, _MAX_POLL_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and the other processes of its group, which may still run after it has ended."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):  # none of them is running
        return
