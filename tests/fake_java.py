"""Programs that pass for `java`, good and bad: Python scripts made executable."""

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
if {banner!r} and any(word in ("-version", "-showversion") for word in arguments):
    sys.stderr.write({banner!r})
    sys.stderr.flush()
program = next((name for name in ("PTBTokenizer", "Meteor", "SpiceScorer") if any(name in a for a in arguments)), "")
REAL = {real!r}
def run_real():
    os.execv(REAL, [REAL, *arguments])
def answer(scores):
    path = arguments[arguments.index("-out") + 1]
    with open(path, "w") as file:
        json.dump([{{"image_id": i, "scores": {{"All": {{"f": f}}}}}} for i, f in scores], file)
def parsed():
    return os.path.join(arguments[arguments.index("-cache") + 1], "data.mdb")
def asked():
    with open(arguments[arguments.index("-cache") - 1]) as file:
        return json.load(file)
{body}
"""


def fake_java(folder: Path, body: str = "", *, version: str | None = "17.0.15", release: str | None = None) -> Path:
    """Write a program and return its path; it logs how it is called.

    Args:
        folder: Becomes the runtime's folder, with `bin/java` and, once it has run, `log`.
        body: Python that runs after it has printed its version, with `arguments`, `program`, `run_real()`, `asked()`,
            `answer(scores)` and `parsed()` at hand.
        version: The version that it prints; None prints nothing.
        release: The version in the file `release`; None writes no such file.
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
        ),
        encoding="utf-8",
    )
    path.chmod(0o755)
    if release is not None:
        (folder / "release").write_text(f'IMPLEMENTOR="nobody"\nJAVA_VERSION="{release}"\n', encoding="utf-8")
    return path


def silent_java(folder: Path, body: str) -> Path:
    """Write a program whose version stands in its `release` file only, as `run_real` needs it."""
    return fake_java(folder, body, version=None, release="17.0.1")


def count_starts(java: Path) -> int:
    """Return how often such a program was started."""
    log = java.parent.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended; one that nobody has waited for yet has."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_pid(path: Path, timeout_s: float = 30.0) -> int:
    """Return the process id that a program writes into a file."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        text = path.read_text() if path.exists() else ""
        if text.endswith("\n"):
            return int(text)
        time.sleep(0.01)
    raise TimeoutError(f"nothing was written to {path}")


def gone_within(pid: int, timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while is_running(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def hanging(started: Path) -> str:
    """Return a body that starts a child, writes the child's process id into a file, and never ends."""
    return f"""
        import subprocess
        child = subprocess.Popen(["sleep", "600"])
        with open({str(started) + ".part"!r}, "w") as file:
            file.write(f"{{child.pid}}\\n")
        os.rename({str(started) + ".part"!r}, {str(started)!r})
        time.sleep(600)
    """
