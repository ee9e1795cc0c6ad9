"""Caption many short files with the tiny backbone and all defaults, against the code before sounds of every format.

The older code is taken from the repository's history, and given the weights of the tiny backbone as it is now.
"""

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.processes import DEFAULTS, ROOT, CannotRunError, Measured, made, run_process, textcap
from benchmarks.sounds import tiny_model, world_sounds
from textcap.files import seal
from textcap.weights import folder_hash

SOURCE = "src/textcap"
EMBEDDED = f"{SOURCE}/demo/embedded"


@dataclass(frozen=True)
class Sizes:
    """How much to caption, and what to compare with."""

    files: int = option(1000, "files of 1 s")
    before: str = option("69475f6", "commit of the older code")
    renamed: str = option("e281be0", "commit whose tiny backbone has the older weights under the names of now")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure both versions of textcap with the same interpreter."""
    old = made(bench.work / f"before-{sizes.before}", lambda folder: older_code(sizes, folder))
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


def older_code(sizes: Sizes, folder: Path) -> None:
    """Write the older package, with the weights and the tokenizer of now in its tiny backbone."""
    between = folder / "renamed"
    for commit, place in ((sizes.before, folder), (sizes.renamed, between)):
        extract_source(commit, place)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(ROOT / EMBEDDED / name, folder / EMBEDDED / name)
    for path in (folder / EMBEDDED).glob("*.safetensors"):
        weights = older_names(load_file(path), load_file(between / EMBEDDED / path.name))
        now = load_file(ROOT / EMBEDDED / path.name)
        parts = {
            name: part for new, old in weights.items() for name, part in zip(old, now[new].chunk(len(old)), strict=True)
        }
        save_file({name: part.contiguous() for name, part in parts.items()}, path)


def older_names(older: dict[str, Tensor], renamed: dict[str, Tensor]) -> dict[str, list[str]]:
    """Return the older names of each tensor, whose parts have the same values: one, or query, key and value."""
    by_value = {tensor.numpy().tobytes(): [name] for name, tensor in older.items()}
    for name in older:
        if ".query." in name:
            names = [name.replace("query", part) for part in ("query", "key", "value")]
            by_value[torch.cat([older[one] for one in names]).numpy().tobytes()] = names
    return {name: by_value[tensor.numpy().tobytes()] for name, tensor in renamed.items()}


def extract_source(commit: str, folder: Path) -> None:
    """Write the package as it was at a commit.

    Raises:
        CannotRunError: This is not a clone, or the clone has no such commit.
    """
    command = ["git", "-C", str(ROOT), "archive", commit, SOURCE]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRunError(f"needs commit {commit} of the repository's history: clone it without --depth") from error
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def rehash(model: Path, old: Path, copy: Path) -> None:
    """Copy a model folder for the older code, whose tiny backbone has the same tensors under other names."""
    shutil.copytree(model, copy)
    files = [path for path in (old / EMBEDDED).iterdir() if path.name != "README.md"]
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    changed = {name: value for name, value in config.items() if name != "sha256"}
    known = ("noise_variance", "audio_noise_variance", "calibration")
    changed |= {"format_version": 2, "bridge": {name: config["bridge"][name] for name in known}}
    changed["backbone_name"], changed["backbone_hash"] = changed.pop("backbone")["backbone"], folder_hash(files)
    for half in ("clap", "language_model"):
        del changed[f"{half}_hash"], changed[f"{half}_licence"]
    del changed["validation_files"]
    later = ("steps", "keep", "patience")
    changed["training"] = {name: value for name, value in config["training"].items() if name not in later}
    (copy / "config.json").write_text(json.dumps(seal(changed)), encoding="utf-8")


def differing_lines(ours: str, theirs: str) -> str:
    """Return how many lines differ, unless it is one in a thousand: near ties may fall on either side."""
    these, others = ours.splitlines(), theirs.splitlines()
    if len(these) != len(others):
        return f"prints {len(others):,} lines, not {len(these):,}"
    n_different = sum(a != b for a, b in zip(these, others, strict=True))
    return f"differs in {n_different} of {len(these):,} lines" if n_different > len(these) / 1000 else ""
