"""Folders of sounds of the sound world, and corpora of them, for the tests of `textcap corpus` and `textcap search`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from typer.testing import CliRunner, Result

from textcap.cli.app import app
from textcap.demo.folder import RATE_HZ
from textcap.demo.render import render_scene
from textcap.demo.scenes import sample_scene

# So that captioning takes little time.
SHORT = ("--max-length", "8", "--beam-size", "2", "--batch-size", "4", "--device", "cpu")
KILLER = "killer.wav"
# Put into every Python process by way of PYTHONPATH: the stand-in for a file whose decoder crashes.
_KILLS = f"""
import builtins, os, signal
_open = builtins.open
def open(file, *arguments, **options):
    if isinstance(file, (str, os.PathLike)) and os.fspath(file).endswith({KILLER!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    return _open(file, *arguments, **options)
builtins.open = open
"""


def write_sound(path: Path, number: int) -> None:
    """Write a sound of the sound world of 2 s."""
    scene = sample_scene(np.random.default_rng([18, number]), unseen=False)
    soundfile.write(path, render_scene(scene, number, RATE_HZ, 2.0), RATE_HZ)


def write_sounds(folder: Path, n: int, n_broken: int = 0, *, with_killer: bool = False) -> Path:
    """Write n files, some of them broken, the fourth one silent, and perhaps the sixth one named as a killer."""
    folder.mkdir(parents=True)
    broken = set(np.linspace(1, n - 2, n_broken, dtype=int).tolist())
    for number in range(n):
        path = folder / (f"{number:04}-{KILLER}" if with_killer and number == 5 else f"{number:04}.wav")
        if number in broken:
            path.write_text("no sound")
        elif number == 3:
            soundfile.write(path, np.zeros(RATE_HZ), RATE_HZ)
        else:
            write_sound(path, number)
    return folder


def run(*words: object, **options: Any) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def command(*words: object) -> list[str]:
    """Return the command line of a process of its own."""
    return [sys.executable, "-m", "textcap", *map(str, words)]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of processes with one thread, which the killer kills; a file is written to the folder."""
    (folder / "stand-in").mkdir(exist_ok=True)
    (folder / "stand-in" / "sitecustomize.py").write_text(_KILLS)
    path = os.pathsep.join([str(folder / "stand-in"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run_until_done(words: list[str], env: dict[str, str], most: int = 3) -> int:
    """Run a command again while it is killed, and return how often it was."""
    for n_killed in range(most):
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        if done.returncode != -9:
            assert done.returncode == 0, done.stderr
            return n_killed
    raise AssertionError(f"killed {most} times")


def plan(work: Path, *words: object, n_files: int = 20) -> Path:
    """Plan sounds, and return the folder."""
    done = run("corpus", "plan", *words, "-o", work, "--shard-files", n_files, "--recursive")
    assert (done.exit_code, done.stdout) == (0, f"{work}\n"), done.stderr
    return work


def export(work: Path, name: str, *words: object) -> Path:
    """Export a corpus to a new file or folder beside it, and return its path."""
    output = work.with_name(f"{work.name}-{name}")
    done = run("corpus", "export", work, "-o", output, "--force", *words)
    assert (done.exit_code, done.stdout) == (0, f"{output}\n"), done.stderr
    return output


def exported(work: Path, *words: object) -> dict[str, bytes]:
    """Return what a corpus exports, by form."""
    return {form: export(work, f"all.{form}", *words).read_bytes() for form in ("jsonl", "csv", "parquet")}


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
