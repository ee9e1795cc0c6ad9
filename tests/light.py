"""Run textcap in an interpreter of its own, and look at what it has loaded."""

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import sys
from textcap.cli.app import app
code = 0
try:
    app(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
assert not {"torch", "transformers", "accelerate"} & sys.modules.keys()
sys.exit(code)
"""


def run_without_torch(*words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command, and fail if it has loaded torch or what brings it."""
    command = [sys.executable, "-c", _SCRIPT, *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert "AssertionError" not in done.stderr, done.stderr
    return done
