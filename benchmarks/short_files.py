"""Caption many short files with the tiny backbone and all defaults, against the code before sounds of every format.

The older code is taken from the repository's history.
"""

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.processes import DEFAULTS, ROOT, CannotRunError, Measured, made, run_process, textcap
from benchmarks.sounds import tiny_model, world_sounds
from textcap.files import seal
from textcap.weights import folder_hash


@dataclass(frozen=True)
class Sizes:
    """How much to caption, and what to compare with."""

    files: int = option(1000, "files of 1 s")
    before: str = option("69475f6", "commit of the older code")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure both versions of textcap with the same interpreter."""
    old = made(bench.work / f"before-{sizes.before}", lambda folder: extract_source(sizes.before, folder))
    sounds = sorted(world_sounds(bench.work, sizes.files, 1.0).iterdir())
    model = tiny_model(bench.work)

    models = {old / "src": made(bench.work / f"{model.name}-{sizes.before}", lambda copy: rehash(model, old, copy))}

    def caption(source: Path) -> Measured:
        path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
        command = textcap("caption", "-m", models.get(source, model), "--quiet", *sounds)
        return run_process(command, bench.work, {**DEFAULTS, "PYTHONPATH": path})

    contenders = [
        Contender(name, lambda source=source: caption(source), sizes.files, before=bench.empty_stores)
        for name, source in (("textcap", ROOT / "src"), (f"textcap at {sizes.before}", old / "src"))
    ]
    what = f"{sizes.files:,} short files"
    ours, before = bench.compare(what, contenders, differing_lines).values()
    bench.bar(f"{what}, all defaults", "the older code", before.median_s / ours.median_s, 1.8)


def extract_source(commit: str, folder: Path) -> None:
    """Write the package as it was at a commit.

    Raises:
        CannotRunError: This is not a clone, or the clone has no such commit.
    """
    command = ["git", "-C", str(ROOT), "archive", commit, "src"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRunError(f"needs commit {commit} of the repository's history: clone it without --depth") from error
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def rehash(model: Path, old: Path, copy: Path) -> None:
    """Copy a model folder for the older code, whose tiny backbone has the same tensors under other names."""
    shutil.copytree(model, copy)
    files = [path for path in (old / "src/textcap/demo/embedded").iterdir() if path.name != "README.md"]
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    changed = {name: value for name, value in config.items() if name != "sha256"}
    known = ("noise_variance", "audio_noise_variance", "calibration")
    changed |= {"format_version": 2, "bridge": {name: config["bridge"][name] for name in known}}
    changed["backbone_hash"] = folder_hash(files)
    (copy / "config.json").write_text(json.dumps(seal(changed)), encoding="utf-8")


def differing_lines(ours: str, theirs: str) -> str:
    """Return how many lines differ, unless it is one in a thousand: near ties may fall on either side."""
    these, others = ours.splitlines(), theirs.splitlines()
    if len(these) != len(others):
        return f"prints {len(others):,} lines, not {len(these):,}"
    n_different = sum(a != b for a, b in zip(these, others, strict=True))
    return f"differs in {n_different} of {len(these):,} lines" if n_different > len(these) / 1000 else ""
