"""Which mapper of a run to keep when there is little text: the last, or the best by text or by sounds.

    python -m benchmarks.checkpoints [--work FOLDER] [--seeds 3] [--jars PATH]

Trains on 300 captions of the sound world with `--val`, for so long that the held-out loss has risen again, and captions
the held-out clips of `benchmarks.sound_world` with the mapper of the last step (`--keep last`), with that of the least
loss on other captions (`--keep best`), and with that of the least loss of the same captions after their sounds
(`--val pairs.csv`). These three runs of a seed take the same steps; those for the best are over after `--patience`
measurements without a better one. A fourth run has half as many epochs, so its learning rate falls to 0 about where the
loss is least. Prints event F1 and CIDEr-D as means and standard deviations over seeds. CIDEr-D needs Java and the jars
of `textcap fetch metrics`; --jars names the file or folder to take them from. What is done is kept in the work folder,
so an interrupted run continues.
"""

import argparse
import csv
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sound_world import (
    WORLD_SEED,
    Plan,
    caption_embeddings,
    cider_d,
    embed_sounds,
    figures,
    fill_jars,
    refuse_other_plan,
    show,
)
from textcap.captioner import Captioner
from textcap.config import TrainingConfig
from textcap.demo.folder import training_pairs, write_sounds
from textcap.files import atomic_write_text
from textcap.models.backbone import Backbone
from textcap.training import train

BACKBONE = "tiny"
LAST, BY_TEXT, BY_SOUNDS = "last", "best by text", "best by sounds"
SHORT = "last, half the epochs"
KEPT = (LAST, BY_TEXT, BY_SOUNDS, SHORT)
COLUMNS = ("step", "event F1", "seen", "unseen", "CIDEr-D")


@dataclass(frozen=True)
class Kept:
    """The mapper that a run has kept: at which step, and its captions of the held-out clips."""

    step: int
    captions: list[str]


def write_inputs(work: Path, n_captions: int, n_validation: int) -> None:
    """Write the captions to train on, and clips to validate on: their captions alone, and with their sounds."""
    clips = training_pairs(n_captions + n_validation, WORLD_SEED)
    captions = [clip.captions[0] for clip in clips]
    if not (work / "sounds").exists():
        write_sounds(clips[n_captions:], work / "sounds.partial")
        (work / "sounds.partial").rename(work / "sounds")
    atomic_write_text(work / "captions.txt", "\n".join(captions[:n_captions]) + "\n")
    atomic_write_text(work / "validation.txt", "\n".join(captions[n_captions:]) + "\n")
    names = sorted(path.name for path in (work / "sounds").iterdir())
    with open(work / "validation.csv", "w", encoding="utf-8", newline="") as file:
        rows = [(f"sounds/{name}", caption) for name, caption in zip(names, captions[n_captions:], strict=True)]
        csv.writer(file).writerows([("file_name", "caption"), *rows])


def run_part(plan: Plan, kept: str, seed: int) -> Kept:
    """Train one mapper and caption the held-out clips with it; what is there already is not done again."""
    work, path = plan.work, plan.part_path(kept, seed)
    model = path.with_suffix("")
    if not model.exists():
        is_best = kept in (BY_TEXT, BY_SOUNDS)
        config = replace(
            plan.training,
            seed=seed,
            keep="best" if is_best else "last",
            patience=plan.training.patience if is_best else None,
            epochs=plan.training.epochs // (2 if kept == SHORT else 1),
        )
        val = work / ("validation.csv" if kept == BY_SOUNDS else "validation.txt")
        train(work / "captions.txt", model, backbone=BACKBONE, val=val, config=config, device="cpu")
    measured = measurements(plan, kept, seed)
    best = measured[-1] if kept in (LAST, SHORT) else min(measured, key=lambda one: one["held_out_loss"])
    if not path.exists():
        captions = caption_embeddings(Captioner.load(model, device="cpu"), np.load(work / "held_out.npy"))
        atomic_write_text(path, json.dumps(captions, indent=1))
    return Kept(best["step"], json.loads(path.read_text(encoding="utf-8")))


def measurements(plan: Plan, kept: str, seed: int) -> list[dict[str, Any]]:
    """Return what was measured in a run, in the order of its steps."""
    path = plan.part_path(kept, seed).with_suffix("") / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Run what is missing, then print the table and where the losses were least."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("checkpoints-benchmark"), help="folder to keep results in")
    parser.add_argument("--seeds", type=int, default=3, help="number of mappers to train for each checkpoint")
    parser.add_argument("--captions", type=int, default=300, help="captions to train on")
    parser.add_argument("--validation", type=int, default=100, help="clips to validate on, one caption each")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the captions, each of them measured")
    parser.add_argument("--patience", type=int, default=15, help="see textcap train --patience")
    parser.add_argument("--jars", type=Path, help="file or folder with the jars of textcap score, for CIDEr-D")
    options = parser.parse_args()
    training = TrainingConfig(
        epochs=options.epochs, batch_size=32, learning_rate=1e-3, held_out_captions=0, patience=options.patience
    )
    plan = Plan(options.work, BACKBONE, WORLD_SEED, options.captions, None, training)
    plan.work.mkdir(parents=True, exist_ok=True)
    refuse_other_plan(plan.work, plan, f"{Backbone.load(BACKBONE).content_hash} {options.validation}")
    os.environ["TEXTCAP_CACHE"] = str(plan.work.resolve() / "cache")
    if options.jars is not None:
        fill_jars(plan.work, options.jars)
    torch.set_num_threads(1)
    write_inputs(plan.work, options.captions, options.validation)
    embed_sounds(plan.work / "held_out.npy", BACKBONE, plan.held_out, 1)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in KEPT}
    for seed in range(options.seeds):
        for name, runs in rows.items():
            kept = run_part(plan, name, seed)
            [cider] = cider_d(plan.held_out, {name: kept.captions}).values()
            found = figures(plan, kept.captions)
            runs.append({"step": kept.step, "event F1": found["all"], **found, "CIDEr-D": cider})
            print(f"seed {seed}, {name}: {runs[-1]}", flush=True)
        for name in (BY_TEXT, BY_SOUNDS):
            losses = [one["held_out_loss"] for one in measurements(plan, name, seed)]
            print(f"seed {seed}, {name}: loss {losses[0]:.3f}, least {min(losses):.3f}, last {losses[-1]:.3f}")
    print(f"| mapper | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 1)}|")
    for name, runs in rows.items():
        print(f"| {name} | {' | '.join(show([run[column] for run in runs]) for column in COLUMNS)} |")


if __name__ == "__main__":
    main()
