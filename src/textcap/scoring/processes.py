"""Run Java programs so that no process outlives the call, or this process, and no file remains.

Each is run by the class `textcap.Runner` of our own jar, which ends when this process dies or closes a pipe.
"""

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock

from textcap.scoring.java import Java, JavaError, java_environment

_RUNNER = "textcap.Runner"
_ENCODINGS = ("file", "stdin", "stdout", "stderr", "sun.stdin", "sun.stdout", "sun.stderr")
_POLL_S = 0.1  # how often a running program is looked at
_PREFIX = "textcap-java-"
_LOCK = "lock"
_LOCKED_WITHIN_S = 10.0  # far longer than it takes to lock a new folder

# As measured: with more, neither METEOR nor SPICE is faster; with the small heap both still work.
HEAP_MB, SMALL_HEAP_MB = 2048, 1200
_AMPLE_BYTES = 6 << 30  # for METEOR, SPICE, and what Java needs besides its heap


def default_heap(root: Path = Path("/")) -> tuple[int, bool]:
    """Return the heap for METEOR and for SPICE in MB, and whether memory suffices to run both at once.

    Args:
        root: The folder that contains `proc` and `sys`. If they do not report the memory, it is taken to suffice.
    """
    sizes = []
    for name in ("proc/meminfo", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError):
            text = (root / name).read_text(encoding="ascii", errors="replace")
            if match := re.search(r"^MemAvailable: *(\d+) kB$|^(\d+)$", text, re.MULTILINE):
                sizes.append(int(match[1]) << 10 if match[1] else int(match[2]))
    return (HEAP_MB, True) if min(sizes, default=_AMPLE_BYTES) >= _AMPLE_BYTES else (SMALL_HEAP_MB, False)


class Runs:
    """A group of running programs that can be stopped together, from any thread.

    As a context manager, it stops the programs that are still running at the end of the block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the running programs and refuse to start others; calls that wait for them raise a JavaError."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                process.kill()

    def check(self, java: Java) -> None:
        """Raise a JavaError if `stop` was called."""
        if self._is_stopped:
            raise JavaError(f"{java.path} was stopped before it finished", problem="stopped")

    @contextmanager
    def start(
        self, java: Java, arguments: Sequence[str], out: IO[bytes], err: IO[bytes]
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a program with a pipe as its standard input, and end it at the end of the block.

        Raises:
            JavaError: The program cannot be started, or `stop` was called before.
        """
        with self._lock:
            self.check(java)
            try:
                process = subprocess.Popen(
                    [java.path, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    env=java_environment(),
                    start_new_session=True,  # Ctrl-C in a terminal reaches only this process, which ends the program
                )
            except OSError as error:
                raise java.cannot_start(error) from error
            self._running.add(process)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()  # closes the pipe, which also ends a Java that was started by a script
            with self._lock:
                self._running.discard(process)


def run_java(
    java: Java,
    class_path: Sequence[Path],
    words: Sequence[str],
    *,
    options: Sequence[str] = (),
    stdin: bytes = b"",
    timeout_s: float,
    runs: Runs | None = None,
    n_times: int = 1,
    between: Callable[[int], None] = lambda n_done: None,
) -> bytes:
    """Run a Java program, and return what it printed. No process of it is left when this returns or raises.

    Text is read and written as UTF-8 in every locale. Several threads may call this at once.

    Args:
        java: The runtime.
        class_path: The program's jars and our own.
        words: The main class and its arguments.
        options: Options of the JVM.
        stdin: What the program reads as its standard input.
        timeout_s: Seconds after which the program is killed.
        runs: Programs that are stopped together with this one.
        n_times: How often the main class is run with these arguments, in one process.
        between: Called with the number of runs that are done after each but the last; the next run waits for its end.

    Raises:
        JavaError: The program could not be started, failed, took too long or was stopped, temporary files cannot be
            written, or the Java is too old.
    """
    java.check_age()
    end = time.monotonic() + timeout_s
    runs, n_done = runs or Runs(), 0
    with scratch_folder() as folder:
        request, done = folder / "in", folder / "in.done"
        request.write_bytes(stdin)
        arguments = [
            f"-Djava.io.tmpdir={folder}",
            f"-XX:ErrorFile={folder / 'crash'}",
            # Performance data go to a file in the system's temporary folder, which remains if Java is killed.
            "-XX:-UsePerfData",
            *(f"-D{name}.encoding=UTF-8" for name in _ENCODINGS),
            *options,
            *("-cp", os.pathsep.join(map(str, class_path)), _RUNNER, str(n_times), str(request)),
            *words,
        ]
        with open(folder / "out", "w+b") as out, open(folder / "err", "w+b") as err:
            with runs.start(java, arguments, out, err) as process:
                while process.poll() is None:
                    if time.monotonic() >= end:
                        message = f"{java.path} did not finish within {timeout_s:,.0f} s and was stopped"
                        hint = "run the command again, or name another Java with --java"
                        raise JavaError(message, problem="timed out", hint=hint)
                    if n_done < n_times - 1 and done.exists():
                        n_done += 1
                        between(n_done)
                        done.unlink()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_POLL_S)
            if process.returncode:
                runs.check(java)
                err.seek(0)
                raise java.error_of(process.returncode, err.read().decode("utf-8", errors="replace"))
            out.seek(0)
            return out.read()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder for temporary files, and delete it at the end; also delete those of runs that were killed.

    Raises:
        JavaError: It cannot be written; the same for any OSError in the block.
    """
    try:
        folder = tempfile.gettempdir()
    except OSError as error:  # none of the folders that it tries can be written
        raise _no_room("the folder for temporary files", error) from error
    try:
        _sweep(folder)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
            lock = FileLock(os.path.join(name, _LOCK))
            with suppress(NotImplementedError):  # this file system has no locks, so nobody sweeps either
                lock.acquire()
            try:
                yield Path(name)
            finally:
                lock.release()
    except OSError as error:
        raise _no_room(folder, error) from error


def _sweep(temporary: str) -> None:
    """Delete the folders of this user's runs that were killed: those that nobody holds the lock of."""
    user = os.getuid() if hasattr(os, "getuid") else 0  # Windows gives 0 as the owner of every file
    with suppress(OSError):
        for entry in os.scandir(temporary):
            if not entry.name.startswith(_PREFIX) or not entry.is_dir(follow_symlinks=False):
                continue
            status = entry.stat(follow_symlinks=False)
            if status.st_uid != user or time.time() - status.st_mtime < _LOCKED_WITHIN_S:
                continue
            with suppress(OSError, NotImplementedError), FileLock(os.path.join(entry.path, _LOCK), blocking=False):
                shutil.rmtree(entry.path, ignore_errors=True)


def _no_room(folder: str, error: OSError) -> JavaError:
    message, hint = f"{folder} cannot be written: {error.strerror or error}", "free some space there, or set TMPDIR"
    return JavaError(message, problem="no room", hint=f"{hint} to another folder")
