"""Build the embedded backbone from nothing: `python tools/build_tiny.py --out DIR`.

Stages: tokenizer and sound; then the language model in one process, and hearing, towers and projections in another;
then export. Each writes its files to the work folder once they are complete, so a build that was stopped goes on at the
stage where it stood. Figures go to log.jsonl there. About an hour on two cores that compute in bfloat16; with --quick,
which shows that every stage runs, under a minute.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from tiny.export import export_backbone
from tiny.hearing import train_hearing
from tiny.language import train_language_model, train_tokenizer
from tiny.log import Log
from tiny.projections import fit_projections
from tiny.settings import BACKBONE, VOCAB_SIZE, Settings
from tiny.sound import TRAINING_SEEDS, VALIDATION_SEEDS, Clips, render_clips
from tiny.towers import load_towers, measure_towers, save_towers, train_towers

from textcap.demo.sounds import KINDS
from textcap.models.tokenizer import Tokenizer

_TOKENIZER_TEXTS, _TOKENIZER_SEED = 30_000, 10


def main() -> None:
    """Run the stages that the work folder does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the backbone")
    parser.add_argument("--work", type=Path, help="folder for what is half done (default: OUT.work)")
    parser.add_argument("--quick", action="store_true", help="a few steps of each stage")
    arguments = parser.parse_args()
    work = arguments.work or arguments.out.with_name(arguments.out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    build(work, arguments.out, Settings().quick() if arguments.quick else Settings(), Log(work / "log.jsonl"))


def build(work: Path, out: Path, settings: Settings, log: Log) -> None:
    """Build the backbone with given settings, language model and towers side by side."""
    if not (work / "vocab.json").exists():
        train_tokenizer(work, VOCAB_SIZE, _TOKENIZER_TEXTS, _TOKENIZER_SEED)
    # Before the processes part, for rendering takes all cores.
    for clips in (_training_clips, _validation_clips):
        clips(work, settings, log)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        sides = [pool.submit(side, work, settings, log) for side in (build_language_model, build_towers)]
        for side in sides:
            side.result()
    audio, text = load_towers(work, "safetensors", _tokenizer(work), BACKBONE.clap)
    figures = measure_towers(audio, text, _validation_clips(work, settings, log), settings.towers.seed)
    export_backbone(work, out, BACKBONE, figures, len(KINDS), log)
    (work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def build_language_model(work: Path, settings: Settings, log: Log) -> None:
    """Train the language model unless the work folder holds it."""
    torch.set_num_threads(1)
    if not (work / "language_model.safetensors").exists():
        train_language_model(work, _tokenizer(work), BACKBONE.language_model, settings.language, log)


def build_towers(work: Path, settings: Settings, log: Log) -> None:
    """Train towers and projections as far as the work folder does not hold them."""
    torch.set_num_threads(1)
    if (work / "audio_encoder.safetensors").exists():
        return
    tokenizer, validation = _tokenizer(work), _validation_clips(work, settings, log)
    for_towers, for_projections = _training_clips(work, settings, log).split(settings.towers.n_clips)
    if not (work / "listener.safetensors").exists():
        train_hearing(work, BACKBONE.clap, settings.hearing, for_towers, validation, log)
    if not (work / "audio_encoder.towers").exists():
        train_towers(work, tokenizer, BACKBONE.clap, settings.towers, for_towers, validation, log)
    audio, text = load_towers(work, "towers", tokenizer, BACKBONE.clap)
    fit_projections(audio, text, for_projections, settings.projections, log)
    save_towers(work, "safetensors", audio, text)


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
