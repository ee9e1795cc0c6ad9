"""Fake `java` programs: executable Python scripts that behave or misbehave as a test needs."""

import shutil
import sys
import textwrap
import time
from pathlib import Path

import psutil

BANNER = """openjdk version "{}" 2025-04-15
OpenJDK Runtime Environment (build 1)
OpenJDK 64-Bit Server VM (build 1, mixed mode)
"""


_SCRIPT = """#!{python} -S
import json, os, sys, time
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if {banner!r} and "-version" in arguments:
    sys.stderr.write({banner!r})
    sys.exit()
program = next((name for name in ("PTBTokenizer", "Meteor", "SpiceScorer") if any(name in a for a in arguments)), "")
REAL = {real!r}
def run_real():
    os.execv(REAL, [REAL, *arguments])
def request():
    return arguments[arguments.index("edu.anu.spice.SpiceScorer") + 1]
def asked():
    with open(request()) as file:
        return json.load(file)
def answer(scores):
    path = arguments[arguments.index("-out") + 1]
    with open(path, "w") as file:
        json.dump([{{"image_id": i, "scores": {{"All": {{"f": f}}}}}} for i, f in scores], file)
def parsed():
    return os.path.join(arguments[arguments.index("-cache") + 1], "data.mdb")
# As textcap.Runner: how often to run the body, and the file that it reads as standard input.
place = arguments.index("textcap.Runner") if "textcap.Runner" in arguments else None
n_times, name = (1, os.devnull) if place is None else (int(arguments[place + 1]), arguments[place + 2])
for left in range(n_times):
    while os.path.exists(name + ".done"):
        time.sleep(0.01)
    sys.stdin = open(name, encoding="utf-8")
    if program == "SpiceScorer" and {only_scores!r} and left < n_times - 1:
        answer([(-1, 0)] * len(asked()))
    else:
        exec({body!r})
    if place is not None:
        open(name + ".done", "w").close()
"""


def fake_java(
    folder: Path,
    body: str = "",
    *,
    version: str | None = "17.0.15",
    release: str | None = None,
    only_scores: bool = True,
) -> Path:
    """Write a program and return its path; the program logs its arguments.

    Args:
        folder: The runtime's folder, which gets `bin/java` and, once the program has run, `log`.
        body: Python code that runs for each run of a program. It can use `arguments`, `program`, `run_real()`,
            `asked()`, `answer(scores)` and `parsed()`.
        version: The version that the program prints; None prints none.
        release: The version in the `release` file; None writes no such file.
        only_scores: Run the body only when SPICE scores clips, and not when it parses captions.
    """
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        _SCRIPT.format(
            python=sys.executable,
            log=str(folder / "log"),
            banner="" if version is None else BANNER.format(version),
            real=shutil.which("java") or "",
            body=textwrap.dedent(body),
            only_scores=only_scores,
        ),
        encoding="utf-8",
    )
    path.chmod(0o755)
    if release is not None:
        (folder / "release").write_text(f'IMPLEMENTOR="nobody"\nJAVA_VERSION="{release}"\n', encoding="utf-8")
    return path


def silent_java(folder: Path, body: str, *, only_scores: bool = True) -> Path:
    """Write a program that prints no version but has a `release` file, as `run_real` requires."""
    return fake_java(folder, body, version=None, release="17.0.1", only_scores=only_scores)


def count_starts(java: Path) -> int:
    """Return how often a fake `java` was started."""
    log = java.parent.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def is_running(pid: int) -> bool:
    """Return whether a process is running; one that has ended but was not waited for is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_pid(path: Path, timeout_s: float = 30.0) -> int:
    """Return the process id that a program writes to a file, once it is there."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        text = path.read_text() if path.exists() else ""
        if text.endswith("\n"):
            return int(text)
        time.sleep(0.01)
    raise TimeoutError(f"no process id was written to {path}")


def gone_within(pid: int, timeout_s: float = 10.0) -> bool:
    """Return whether a process ends within a time."""
    end = time.monotonic() + timeout_s
    while is_running(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def hanging(started: Path) -> str:
    """Return a body that writes the program's process id to a file, and hangs."""
    return f"""
        with open({str(started) + ".part"!r}, "w") as file:
            file.write(f"{{os.getpid()}}\\n")
        os.rename({str(started) + ".part"!r}, {str(started)!r})
        time.sleep(600)
    """
