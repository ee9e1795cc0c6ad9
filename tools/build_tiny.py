"""Build the embedded backbone from nothing: `python tools/build_tiny.py --out DIR`.

Stages: tokenizer, language model, sound, towers, projections, export. Each writes its files to the work folder once
they are complete, so a build that was stopped goes on at the stage where it stood. Figures go to log.jsonl there.
About an hour on two cores; with --quick, which shows that every stage runs, about two minutes.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from tiny.export import export_backbone
from tiny.language import train_language_model, train_tokenizer
from tiny.log import Log
from tiny.projections import fit_projections
from tiny.settings import BACKBONE, VOCAB_SIZE, LanguageSettings, ProjectionSettings, Round, TowerSettings
from tiny.sound import TRAINING_SEEDS, VALIDATION_SEEDS, Clips, render_clips
from tiny.towers import load_towers, measure_towers, save_towers, train_towers

from textcap.demo.sounds import KINDS
from textcap.tokenizer import Tokenizer

_TOKENIZER_TEXTS, _TOKENIZER_SEED = 30_000, 10


def main() -> None:
    """Run the stages that the work folder does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the backbone")
    parser.add_argument("--work", type=Path, help="folder for what is half done (default: OUT.work)")
    parser.add_argument("--quick", action="store_true", help="a few steps of each stage")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads for training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = arguments.work or arguments.out.with_name(arguments.out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    language, towers, projections = LanguageSettings(), TowerSettings(), ProjectionSettings()
    if arguments.quick:
        language = dataclasses.replace(language, rounds=(Round(8, 2e-3), Round(8, 1e-3), Round(8, 1e-3, blends=True)))
        towers = dataclasses.replace(towers, n_clips=512, n_validation_clips=64, steps=4)
        projections = dataclasses.replace(projections, steps=300, n_wordings=1)
    build(work, arguments.out, language, towers, projections, Log(work / "log.jsonl"))


def build(
    work: Path,
    out: Path,
    language: LanguageSettings,
    towers: TowerSettings,
    projections: ProjectionSettings,
    log: Log,
) -> None:
    """Build the backbone with given settings."""
    if not (work / "vocab.json").exists():
        train_tokenizer(work, VOCAB_SIZE, _TOKENIZER_TEXTS, _TOKENIZER_SEED)
    tokenizer = Tokenizer.load(work / "vocab.json", work / "merges.txt")
    if not (work / "language_model.safetensors").exists():
        train_language_model(work, tokenizer, BACKBONE.language_model, language, log)
    validation = _clips(work / "validation.npy", VALIDATION_SEEDS, towers.n_validation_clips, log, unseen_half=True)
    if not (work / "audio_encoder.safetensors").exists():
        clips = _clips(work / "training.npy", TRAINING_SEEDS, towers.n_clips, log, unseen_half=False)
        if not (work / "audio_encoder.towers").exists():
            train_towers(work, tokenizer, BACKBONE.clap, towers, clips, validation, log)
        audio, text = load_towers(work, "towers", tokenizer, BACKBONE.clap)
        fit_projections(audio, text, clips, projections, log)
        save_towers(work, "safetensors", audio, text)
    audio, text = load_towers(work, "safetensors", tokenizer, BACKBONE.clap)
    figures = measure_towers(audio, text, validation, towers.seed)
    export_backbone(work, out, BACKBONE, figures, len(KINDS), log)
    (work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _clips(path: Path, first_seed: int, n_clips: int, log: Log, *, unseen_half: bool) -> Clips:
    unseen = [unseen_half and i % 2 == 1 for i in range(n_clips)]
    return render_clips(path, range(first_seed, first_seed + n_clips), unseen, BACKBONE.clap.audio, log)


if __name__ == "__main__":
    main()
