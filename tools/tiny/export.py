"""Write the trained models to the folder that the package embeds: half-precision weights, configuration and card."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from textcap.config import BackboneConfig
from textcap.files import atomic_write_bytes, atomic_write_text
from tiny.log import Log

MAX_BYTES = 10_000_000
# Tensors that a module computes by itself, or that equal another tensor.
_SKIPPED = (
    "num_batches_tracked",
    ".attn.bias",
    ".attn.masked_bias",
    "lm_head.weight",
)

_CARD = """\
---
license: mit
---
# The tiny backbone of textcap

The models of `textcap demo`: two small CLAP towers, a small GPT-2 and their tokenizer, trained by
`tools/build_tiny.py` on the synthetic sound world of `textcap.demo` and on nothing else.

**What it is:** a working miniature of the paper's system, for trying the method offline in minutes, and for tests.

**What it is not:** a model of real sound. It covers the {n_kinds} kinds of synthetic sound of its world and the few
hundred words of that world's grammar. Its captions of real recordings are meaningless: use `msclap-2023` for those.

| part | file | parameters |
|---|---|---|
{parts}

Windows of {window_s:g} s at {rate_hz} Hz. Weights are stored in half precision and converted to float32.

Measured at the end of the build on 500 pairs that were not used in training (half of them contain sounds that never
occur together in a training scene):

| metric | value |
|---|---|
{figures}

Default noise variance: {noise_variance:g}.

## How they were made

By `python tools/build_tiny.py`, from scratch. The audio tower was first trained to classify the kinds of sound in a
clip, like the audio encoders of real CLAPs. Then both towers were trained contrastively on pairs of clip and caption,
with the kinds of sound as additional labels. The projections were fitted last, with a pull towards a direction for
each kind of sound, each layout and each number of sounds, towards one direction for all sounds and another for all
captions, and towards what is private to a sound or a caption: this is the modality gap. The language model was trained
on captions in six styles, alone or preceded by a list of sounds, another wording or a blend of token vectors; no audio
and no CLAP embedding was used.

`config.json` holds the mean embedding of 8,000 clips and that of their captions, so that `textcap demo` can bridge the
shift without hearing a sound.
"""

_FIGURES = {
    "recall_1": "recall@1, sound to caption",
    "recall_10": "recall@10, sound to caption",
    "pair_cosine": "mean cosine of a clip and its caption",
    "other_cosine": "mean cosine of a clip and another caption",
    "infinity_norm": "mean infinity norm of audio minus text embedding",
}


def export_backbone(
    work: Path, folder: Path, config: BackboneConfig, figures: dict[str, float], n_kinds: int, log: Log
) -> None:
    """Write the backbone to a folder, overwriting the files of an earlier build.

    Raises:
        SystemExit: The files are larger than a wheel should hold, or a weight is too large for half precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for name in ("audio_encoder", "text_encoder", "language_model"):
        tensors = load_file(work / f"{name}.safetensors")
        kept = {
            key: tensor if "front_end" in key else tensor.half()
            for key, tensor in tensors.items()
            if not key.endswith(_SKIPPED)
        }
        _refuse_overflow(name, kept)
        atomic_write_bytes(folder / f"{name}.safetensors", save(kept))
        n_parameters = sum(tensor.numel() for key, tensor in kept.items() if "front_end" not in key)
        parts.append(f"| {name.replace('_', ' ')} | `{name}.safetensors` | {n_parameters:,} |")
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(work / name, folder / name)
    atomic_write_text(folder / "config.json", json.dumps(asdict(config), indent=2) + "\n")
    card = _CARD.format(
        n_kinds=n_kinds,
        parts="\n".join(parts),
        window_s=config.clap.audio.window_s,
        rate_hz=config.clap.audio.sample_rate_hz,
        figures="\n".join(f"| {text} | {figures[key]:.3f} |" for key, text in _FIGURES.items()),
        noise_variance=config.noise_variance,
    )
    atomic_write_text(folder / "README.md", card)
    n_bytes = sum(file.stat().st_size for file in folder.iterdir())
    log.write("export", bytes=n_bytes)
    if n_bytes > MAX_BYTES:
        raise SystemExit(f"{folder} is {n_bytes:,} bytes, but must be at most {MAX_BYTES:,}")


def _refuse_overflow(name: str, tensors: dict[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise SystemExit(f"{name}: {key} is NaN or infinite in half precision")


def export_narrow(work: Path) -> None:
    """Write the projections with a narrow gap, in half precision, to one file of the work folder."""
    kept = {
        f"{name}.{key}": tensor.half()
        for name in ("audio_encoder", "text_encoder")
        for key, tensor in load_file(work / f"{name}.narrow").items()
        if key.startswith("projection.")
    }
    atomic_write_bytes(work / "narrow.safetensors", save(kept))
