"""Run Java programs so that no process outlives the call, or this process, and no file remains.

Each is run by the class `textcap.Runner` of our own jar, which ends when this process dies or closes a pipe.
"""

import os
import re
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock

from textcap.scoring.java import Java, JavaError, java_environment

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


class Runs(AbstractContextManager["Runs"]):
    """A group of running programs that can be stopped together, from any thread.

    As a context manager, it stops the programs that are still running at the end of the block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: list[subprocess.Popen[bytes]] = []
        self._is_stopped = False

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the running programs and refuse to start others; calls that wait for them raise a JavaError."""
        with self._lock:
            self._is_stopped = True
            for process in self._started:
                process.kill()  # does nothing to one that has ended

    def check(self, java: Java) -> None:
        """Raise a JavaError if `stop` was called."""
        if self._is_stopped:
            raise JavaError(f"{java.path} was stopped before it finished", problem="stopped")

    def start(self, java: Java, arguments: Sequence[str], out: IO[bytes], err: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start a program with a pipe as its standard input.

        Raises:
            JavaError: The program cannot be started, or `stop` was called before.
        """
        command, environment = [java.path, *arguments], java_environment()
        with self._lock:
            self.check(java)
            try:
                # In a session of its own: Ctrl-C in a terminal reaches only this process, which ends the program.
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=out, stderr=err, env=environment, start_new_session=True
                )
            except OSError as error:
                raise java.cannot_start(error) from error
            self._started.append(process)
            return process


def run_java(
    java: Java,
    class_path: Sequence[Path],
    words: Sequence[str],
    *,
    options: Sequence[str] = (),
    stdin: bytes = b"",
    timeout_s: float,
    timeout_hint: str = "run the command again, or name another Java with --java",
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
        timeout_hint: What the user can do in that case.
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
            *("-cp", os.pathsep.join(map(str, class_path)), "textcap.Runner", str(n_times), str(request)),
            *words,
        ]
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            process = runs.start(java, arguments, out, err)
            try:
                while process.poll() is None:
                    if time.monotonic() >= end:
                        message = f"{java.path} did not finish within {timeout_s:,.0f} s and was stopped"
                        raise JavaError(message, problem="timed out", hint=timeout_hint)
                    if n_done < n_times - 1 and done.exists():
                        n_done += 1
                        between(n_done)
                        done.unlink()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_POLL_S)
            finally:
                process.kill()
                process.communicate()  # closes the pipe, which also ends a Java that was started by a script
            if process.returncode:
                runs.check(java)
                raise java.error_of(process.returncode, (folder / "err").read_text("utf-8", errors="replace"))
            return (folder / "out").read_bytes()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder for temporary files, and delete it at the end; also delete those of runs that were killed.

    Raises:
        JavaError: It cannot be written; the same for any OSError in the block.
    """
    place = "the folder for temporary files"
    try:
        place = tempfile.gettempdir()  # fails if none of the folders that it tries can be written
        _sweep(place)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
            with FileLock(os.path.join(name, _LOCK)):
                yield Path(name)
    except (OSError, NotImplementedError) as error:  # old versions of filelock raise the latter if there are no locks
        message = f"{place} cannot be written: {getattr(error, 'strerror', None) or error}"
        hint = "free some space there, or set TMPDIR to another folder"
        raise JavaError(message, problem="no room", hint=hint) from error


def _sweep(temporary: str) -> None:
    """Delete the folders of this user's runs that were killed: those that nobody holds the lock of."""
    user = os.getuid() if hasattr(os, "getuid") else 0  # Windows gives 0 as the owner of every file
    with suppress(OSError):
        for folder in Path(temporary).glob(f"{_PREFIX}*"):
            status = folder.lstat()
            is_ours = status.st_uid == user and stat.S_ISDIR(status.st_mode)
            if is_ours and time.time() - status.st_mtime >= _LOCKED_WITHIN_S:
                with suppress(OSError, NotImplementedError), FileLock(folder / _LOCK, blocking=False):
                    shutil.rmtree(folder, ignore_errors=True)
