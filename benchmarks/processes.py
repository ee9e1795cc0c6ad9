"""Work in processes of their own, with the peak of their memory, and files that are made once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# What someone has who sets nothing.
DEFAULTS: dict[str, str | None] = {name: None for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
ONE_THREAD = {**DEFAULTS, "OMP_NUM_THREADS": "1"}


class CannotRunError(Exception):
    """This machine or installation lacks something that the benchmark needs."""


@dataclass(frozen=True)
class Measured:
    """What a contender has measured itself, in place of the time that its whole call takes.

    Attributes:
        output: Compared with the output of the other contenders.
        wall_s, cpu_s: Seconds.
        peak_mb: The largest resident set of its process.
    """

    output: Any
    wall_s: float
    cpu_s: float
    peak_mb: float | None = None


def made(path: Path, make: Callable[[Path], None]) -> Path:
    """Return a file or folder of the work folder, and make it if it is missing; what is interrupted leaves nothing."""
    if not path.exists():
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        make(partial)
        partial.replace(path)
    return path


# Runs a command, and writes what it took to a file. It is a process of its own because the peak of a child begins with
# that of the process which starts it, and this one is small.
_WATCH = """
import json, resource, subprocess, sys, time
report, *command = sys.argv[1:]
started = time.perf_counter()
code = subprocess.run(command).returncode
wall_s, usage = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
peak_mb = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
with open(report, "w") as file:
    json.dump({"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": peak_mb}, file)
sys.exit(code)
"""


def run_process(command: Sequence[str | Path], work: Path, env: Mapping[str, str | None] | None = None) -> Measured:
    """Run a command to its end; the output is what it prints.

    Args:
        work: Folder for a temporary file.
        env: Changes to the environment; None removes a variable.

    Raises:
        RuntimeError: The command has failed; the message ends with the last line that it wrote to stderr.
    """
    changed = {**os.environ, **(env or {})}
    report = work / f"process-{os.getpid()}.json"
    watched = [sys.executable, "-c", _WATCH, str(report), *map(str, command)]
    kept = {name: value for name, value in changed.items() if value is not None}
    done = subprocess.run(watched, env=kept, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} ... failed: {last}")
    figures = json.loads(report.read_text(encoding="utf-8"))
    report.unlink()
    return Measured(done.stdout, **figures)


def run_function(name: str, work: Path, *arguments: str, env: Mapping[str, str | None] | None = None) -> Measured:
    """Call a function of a benchmark with strings in a process of its own; the output is what it prints.

    Args:
        name: Such as "training_step.one_step", of the function `one_step` in `benchmarks/training_step.py`.
    """
    module, _, function = name.rpartition(".")
    program = f"import sys; from benchmarks.{module} import {function}; {function}(*sys.argv[1:])"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return run_process([sys.executable, "-c", program, *arguments], work, {"PYTHONPATH": path, **(env or {})})


def textcap(*arguments: str | Path) -> list[str]:
    """Return the command line of textcap with the interpreter of this process."""
    return [sys.executable, "-m", "textcap", *map(str, arguments)]
