"""Programs that pass for `java`, good and bad: Python scripts made executable."""

import sys
import textwrap
import time
from pathlib import Path

import psutil

BANNER = """openjdk version "{}" 2025-04-15
OpenJDK Runtime Environment (build 1)
OpenJDK 64-Bit Server VM (build 1, mixed mode)
"""


def fake_java(folder: Path, body: str = "", version: str | None = "17.0.15", release: str | None = None) -> Path:
    """Write a program and return its path.

    Args:
        folder: Becomes the runtime's folder, with `bin/java`.
        body: Python that runs after it has said its version; `arguments` are those of the command.
        version: What it says; None says nothing.
        release: The version in the file `release`; None writes no such file.
    """
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True, exist_ok=True)
    said = "" if version is None else BANNER.format(version)
    asked = 'if any(word in ("-version", "-showversion") for word in sys.argv):'
    program.write_text(
        f"#!{sys.executable}\nimport os, sys, time\narguments = sys.argv[1:]\n"
        f"{asked}\n    sys.stderr.write({said!r})\n    sys.stderr.flush()\n"
        f"{textwrap.dedent(body)}\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    if release is not None:
        (folder / "release").write_text(f'IMPLEMENTOR="nobody"\nJAVA_VERSION="{release}"\n', encoding="utf-8")
    return program


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
