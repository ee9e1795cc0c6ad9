"""What Java prints, read for people: which version it is, and why it died or never ran.

Knows only text. What comes back are a version, or a JavaError of one line.
"""

import re
import signal
import tempfile
from typing import Literal

from textcap.errors import TextcapError

NO_JAVA_HINT = "install Java 8 or later or pip install 'textcap[java]', or name one with --java"
_VERSION = re.compile(r'^\S.*\bversion "([^"]+)"', re.MULTILINE)
_VERSION_LINES = re.compile(r'^\S.*(\bversion "[^"]+"|\bRuntime Environment\b|\bVM\b.*\bmode\b)')
_NO_REASON = re.compile(
    r"\s*$|\s+at |\s*\.\.\. \d+ (more|common)|WARNING: |.* warning: |Error: (Could not create|A (fatal|JNI))"
)
_REASON = re.compile(r'(Caused by: |Exception in thread "[^"]*" )([\w.$]*(Exception|Error)\b.*)')
_NO_MEMORY = re.compile(r"OutOfMemoryError|[Cc]ould not (reserve|allocate)|insufficient memory")
_LONGEST_REASON = 300
_KILLED = 9  # SIGKILL, which a machine out of memory sends

JavaProblem = Literal["not started", "died", "timed out", "too old", "no memory", "no room", "stopped"]


class JavaError(TextcapError):
    """A Java program could not be run to its end.

    Attributes:
        problem: What became of it.
    """

    def __init__(self, message: str, *, problem: JavaProblem, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problem: JavaProblem = problem


def no_temporary_files(error: OSError) -> JavaError:
    """Return an error that names the folder for temporary files, which cannot be written."""
    try:
        where = tempfile.gettempdir()
    except OSError:  # none of the folders that it tries can be written
        where = "any folder for temporary files"
    message = f"cannot write to {where}: {error.strerror or error}"
    return JavaError(message, problem="no room", hint="free some space there, or set TMPDIR to a folder with room")


def find_version(stderr: str) -> str | None:
    """Return the version that Java names among other lines, like "17.0.15", or None."""
    match = _VERSION.search(stderr)
    return match[1] if match is not None else None


def major_of(version: str) -> int | None:
    """Return the number people call a version by: 8 for "1.8.0_402", 17 for "17.0.15"."""
    match = re.match(r"(?:1\.)?(\d+)", version)
    return int(match[1]) if match is not None else None


def without_version(stderr: str) -> str:
    """Return what a program wrote, without the lines in which Java names its version."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not _VERSION_LINES.match(line)).lstrip("\r\n")


def explain_death(path: str, code: int, stderr: str) -> JavaError:
    """Return an error that says why a program died, as far as it says so itself.

    Args:
        path: Of the Java that ran it.
        code: Its exit code, or a signal's number below 0.
        stderr: What it wrote.
    """
    lines = [line for line in without_version(stderr).splitlines() if not _NO_REASON.match(line)]
    causes = [match[2] for line in lines if (match := _REASON.match(line))]
    reason = (causes or [line.strip() for line in lines] or ["it says nothing"])[-1]
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}..."
    if "UnsupportedClassVersionError" in stderr:
        return JavaError(f"{path} is too old: {reason}", problem="too old", hint=NO_JAVA_HINT)
    ended = f"exit code {code}" if code > 0 else _signal_name(-code)
    message = f"{path} died ({ended}): {reason}"
    if _NO_MEMORY.search(stderr) or -code == _KILLED:
        return JavaError(message, problem="no memory", hint="it may lack memory: end other programs")
    return JavaError(message, problem="died")


def _signal_name(number: int) -> str:
    try:
        return f"signal {signal.Signals(number).name}"
    except ValueError:
        return f"signal {number}"
