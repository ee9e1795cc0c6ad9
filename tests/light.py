"""Run textcap in an interpreter of its own, and look at what it has loaded."""

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import sys
from textcap.cli.app import app
refused, *words = sys.argv[1:]
code = 0
try:
    app(words)
except SystemExit as stop:
    code = stop.code or 0
loaded = set(refused.split(",")) & sys.modules.keys()
assert not loaded, loaded
sys.exit(code)
"""


def run_without_torch(*words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command, and fail if it has loaded torch or what brings it."""
    return run_without({"torch", "transformers", "accelerate"}, *words, cwd=cwd)


def run_without(modules: set[str], *words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command, and fail if it has loaded any of some modules."""
    command = [sys.executable, "-c", _SCRIPT, ",".join(sorted(modules)), *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert "AssertionError" not in done.stderr, done.stderr
    return done
