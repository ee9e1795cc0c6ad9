"""Signals and closed streams: commands end with one line, the right exit code and no child left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

# Background jobs of a shell ignore Ctrl-C, and their child processes inherit that.
_PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import textcap.cli.demo
textcap.cli.demo.N_CAPTIONS = 600
from textcap.cli.app import main
main()
"""


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def code_and_output(program: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=cwd)
    return done.returncode, done.stdout


def children_once_there(process: subprocess.Popen[str], timeout_s: float = 120.0) -> list[psutil.Process]:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        if children := psutil.Process(process.pid).children(recursive=True):
            return children
        time.sleep(0.02)
    raise AssertionError(f"no child was started: {process.communicate()}")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda x: str(x)
)
def test_stopped_demo_leaves_no_training_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start("demo", "demo", cwd=tmp_path)
    children = children_once_there(process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr.splitlines()[-1] == "textcap: stopped (run the same command to continue)"
    assert "Traceback" not in stderr
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_closed_stdout_ends_quietly(tmp_path: Path) -> None:
    process = start("fetch", "all", "--verify", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) in (0, 1)
    assert "Traceback" not in stderr and "BrokenPipe" not in stderr


def test_ignored_hangups_stay_ignored(tmp_path: Path) -> None:
    """A command under nohup survives the terminal."""
    program = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    program += "import os\nfrom textcap.cli.signals import signals_as_exits\n"
    program += "with signals_as_exits():\n    os.kill(os.getpid(), signal.SIGHUP)\nprint('alive')"
    assert code_and_output(program, tmp_path) == (0, "alive\n")


def test_signals_wait_while_a_child_is_started(tmp_path: Path) -> None:
    """A signal between the start of a child and its return to the caller would lose the child."""
    program = "import os, signal\nfrom textcap.cli.signals import signals_as_exits, signals_deferred\n"
    program += "with signals_as_exits():\n    with signals_deferred():\n        os.kill(os.getpid(), signal.SIGTERM)\n"
    program += "        print('in the block', flush=True)\n    print('not reached')"
    assert code_and_output(program, tmp_path) == (143, "in the block\n")
