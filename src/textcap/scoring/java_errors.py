"""Parse what Java prints: its version, and the reason why a program failed, as a one-line JavaError."""

import re
import signal
import tempfile
from typing import Literal

from textcap.errors import TextcapError

NO_JAVA_HINT = "install Java 8 or later, or pip install 'textcap[java]', or name a Java with --java"
_VERSION = re.compile(r'^\S.*\bversion "([^"]+)"', re.MULTILINE)
_VERSION_LINES = re.compile(r'^\S.*(\bversion "[^"]+"|\bRuntime Environment\b|\bVM\b.*\bmode\b)')
UNEXPECTED_HINT = "check the Java runtime, and run textcap fetch metrics --verify"
# Lines that do not say why a program failed.
_NOISE = re.compile(
    r"\s*$|\s+at |\s*\.\.\. \d+ (more|common)|WARNING: |.* warning: |Error: (Could not create|A (fatal|JNI))"
)
_REASON = re.compile(r'(Caused by: |Exception in thread "[^"]*" )([\w.$]*(Exception|Error)\b.*)')
_NO_MEMORY = re.compile(r"OutOfMemoryError|[Cc]ould not (reserve|allocate)|insufficient memory")
_LONGEST_REASON = 300
_KILLED = 9  # SIGKILL, which the system sends when it runs out of memory

JavaProblem = Literal["not started", "died", "timed out", "too old", "no memory", "no room", "stopped"]


class JavaError(TextcapError):
    """A Java program could not be started or did not finish.

    Attributes:
        problem: The kind of failure.
    """

    def __init__(self, message: str, *, problem: JavaProblem, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problem: JavaProblem = problem


def no_temporary_files(error: OSError) -> JavaError:
    """Return an error for a folder of temporary files that cannot be written."""
    try:
        folder = tempfile.gettempdir()
    except OSError:  # none of the folders that it tries can be written
        folder = "the folder for temporary files"
    message = f"{folder} cannot be written: {error.strerror or error}"
    return JavaError(message, problem="no room", hint="free some space there, or set TMPDIR to another folder")


def find_version(stderr: str) -> str | None:
    """Return the version that Java printed, such as "17.0.15", or None if there is none."""
    match = _VERSION.search(stderr)
    return match[1] if match is not None else None


def major_of(version: str) -> int | None:
    """Return the major version: 8 for "1.8.0_402", 17 for "17.0.15"; None if it is not a version."""
    match = re.match(r"(?:1\.)?(\d+)", version)
    return int(match[1]) if match is not None else None


def without_version(stderr: str) -> str:
    """Return what a program printed on stderr, without Java's version lines."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not _VERSION_LINES.match(line)).lstrip("\r\n")


def explain_death(path: str, code: int, stderr: str) -> JavaError:
    """Return an error with the reason for a program's failure, taken from what it printed.

    Args:
        path: Path of the Java that ran the program.
        code: The program's exit code, or minus the number of the signal that killed it.
        stderr: What the program printed on stderr.
    """
    lines = [line for line in without_version(stderr).splitlines() if not _NOISE.match(line)]
    causes = [match[2] for line in lines if (match := _REASON.match(line))]
    reason = (causes or [line.strip() for line in lines] or ["it printed no error message"])[-1]
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}..."
    if "UnsupportedClassVersionError" in stderr:
        return JavaError(f"{path} is too old: {reason}", problem="too old", hint=NO_JAVA_HINT)
    ended = f"exit code {code}" if code > 0 else _signal_name(-code)
    message = f"{path} failed ({ended}): {reason}"
    if _NO_MEMORY.search(stderr) or -code == _KILLED:
        return JavaError(message, problem="no memory", hint="it may have run out of memory: close other programs")
    return JavaError(message, problem="died")


def _signal_name(number: int) -> str:
    try:
        return f"signal {signal.Signals(number).name}"
    except ValueError:
        return f"signal {number}"
