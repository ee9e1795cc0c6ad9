"""Build the embedded backbone from scratch: `python tools/build_tiny.py --out DIR`.

Stages: tokenizer and clips; then the language model in one process, and sound classification, towers and projections
in another; then export. Each stage writes its files to the work folder when they are complete, and every 50 steps a
checkpoint, so a build that was killed continues where it was. Figures are logged to log.jsonl in the work folder. Takes
about an hour on two cores that compute in bfloat16, two and a half without; with --quick, which only shows that every
stage runs, under a minute.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from textcap.demo.sounds import KINDS
from textcap.models.tokenizer import Tokenizer
from tiny.export import export_backbone, export_narrow
from tiny.hearing import train_hearing
from tiny.language import new_gpt2, train_language_model, train_tokenizer
from tiny.log import Log
from tiny.projections import fit_projections
from tiny.settings import BACKBONE, NARROW, VOCAB_SIZE, WIDE, Settings
from tiny.sound import TRAINING_SEEDS, VALIDATION_SEEDS, Clips, render_clips
from tiny.towers import load_towers, measure_means, measure_towers, save_towers, train_towers

_TOKENIZER_TEXTS, _TOKENIZER_SEED = 30_000, 10


def main() -> None:
    """Run the stages whose results are not in the work folder yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the backbone to")
    parser.add_argument("--work", type=Path, help="folder for the results of each stage (default: OUT.work)")
    parser.add_argument("--quick", action="store_true", help="run only a few steps of each stage")
    arguments = parser.parse_args()
    work = arguments.work or arguments.out.with_name(arguments.out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    build(work, arguments.out, Settings().quick() if arguments.quick else Settings(), Log(work / "log.jsonl"))


def build(work: Path, out: Path, settings: Settings, log: Log) -> None:
    """Build the backbone; the language model and the towers are trained in parallel."""
    if not (work / "vocab.json").exists():
        train_tokenizer(work, VOCAB_SIZE, _TOKENIZER_TEXTS, _TOKENIZER_SEED)
    # Render before the two processes start, because rendering uses all cores.
    for render in (_training_clips, _validation_clips):
        render(work, settings, log)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        sides = [pool.submit(side, work, settings, log) for side in (build_language_model, build_towers)]
        for side in sides:
            side.result()
    _, for_means = _training_clips(work, settings, log).split(settings.towers.n_clips)
    narrow, wide = (load_towers(work, ending, _tokenizer(work), BACKBONE.clap) for ending in ("narrow", "safetensors"))
    validation = _validation_clips(work, settings, log)
    log.write("narrow", **measure_towers(*narrow, validation, settings.towers.seed))
    figures = measure_towers(*wide, validation, settings.towers.seed)
    log.write("safetensors", **figures)
    mean_sound, mean_text = measure_means(*wide, for_means, settings.towers.seed)
    config = replace(BACKBONE, mean_sound=mean_sound, mean_text=mean_text)
    export_backbone(work, out, config, figures, len(KINDS), log)
    export_narrow(work)
    (work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def build_language_model(work: Path, settings: Settings, log: Log) -> None:
    """Train the language model unless it is in the work folder."""
    torch.set_num_threads(1)
    if not (work / "language_model.safetensors").exists():
        model = new_gpt2(BACKBONE.language_model, settings.language.seed)
        train_language_model(work, _tokenizer(work), model, settings.language, log)


def build_towers(work: Path, settings: Settings, log: Log) -> None:
    """Train the towers and projections, skipping the stages whose results are in the work folder."""
    torch.set_num_threads(1)
    if (work / "audio_encoder.safetensors").exists():
        return
    tokenizer, validation = _tokenizer(work), _validation_clips(work, settings, log)
    for_towers, for_projections = _training_clips(work, settings, log).split(settings.towers.n_clips)
    if not (work / "listener.safetensors").exists():
        train_hearing(work, BACKBONE.clap, settings.hearing, for_towers, validation, log)
    if not (work / "audio_encoder.towers").exists():
        train_towers(work, tokenizer, BACKBONE.clap, settings.towers, for_towers, validation, log)
    for ending, gap in (("narrow", NARROW), ("safetensors", WIDE)):
        audio, text = load_towers(work, "towers", tokenizer, BACKBONE.clap)
        fit_projections(audio, text, for_projections, gap, settings.projections, log)
        save_towers(work, ending, audio, text)


def _tokenizer(work: Path) -> Tokenizer:
    return Tokenizer.load(work / "vocab.json", work / "merges.txt")


def _training_clips(work: Path, settings: Settings, log: Log) -> Clips:
    n_clips = settings.towers.n_clips + settings.projections.n_clips
    seeds = range(TRAINING_SEEDS, TRAINING_SEEDS + n_clips)
    return render_clips(work / "training.npy", seeds, [False] * n_clips, BACKBONE.clap.audio, log)


def _validation_clips(work: Path, settings: Settings, log: Log) -> Clips:
    n_clips = settings.towers.n_validation_clips
    seeds = range(VALIDATION_SEEDS, VALIDATION_SEEDS + n_clips)
    return render_clips(work / "validation.npy", seeds, [i % 2 == 1 for i in range(n_clips)], BACKBONE.clap.audio, log)


if __name__ == "__main__":
    main()
