"""Puts the trained parts into the folder that the package embeds: half precision, a configuration, a card."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from textcap.config import BackboneConfig, to_dict
from textcap.files import atomic_write_bytes, atomic_write_text
from tiny.log import Log

MAX_BYTES = 10_000_000
# What a module computes by itself, and what is the same as another tensor.
_LEFT_OUT = (
    "relative_position_index",
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

What `textcap demo` runs on: two small CLAP towers, a small GPT-2 and their tokenizer, trained by
`tools/build_tiny.py` on the procedural sound world of `textcap.demo` and on nothing else.

**What it is:** a working miniature of the paper's system, for seeing the method run offline in minutes, and
for tests.

**What it is not:** a model of real sound. It knows the {n_kinds} synthetic kinds of sound of its world and
the few hundred words of that world's grammar. What it says of a recording means nothing: use `msclap-2023`.

| part | file | parameters |
|---|---|---|
{parts}

Windows of {window_s:g} s at {rate_hz} Hz. Weights are in half precision and are computed in float32.

Figures of the build among 500 pairs that no training saw (half of them with sounds that stand together in no
training scene):

| figure | value |
|---|---|
{figures}

Default noise variance: {noise_variance:g}.

## How they were made

By `python tools/build_tiny.py`, from nothing. The audio tower first learned to name the kinds of sound in a clip, as
the audio encoders of real CLAPs did; then both towers learned contrastively from pairs of clip and caption, and were
told the kinds of sound besides. The projections were fitted last, and drawn weakly towards directions for each kind of
sound, each layout and each number of sounds. The language model has read captions only, each behind a list of sounds,
another wording or a blend of token vectors; no sound and no embedding took part.
"""

_FIGURES = {
    "recall_1": "recall@1, sound to caption",
    "recall_10": "recall@10, sound to caption",
    "pair_cosine": "mean cosine of a clip and its caption",
    "other_cosine": "mean cosine of a clip and another caption",
    "infinity_norm": "mean infinity norm of audio less text embedding",
}


def export_backbone(
    work: Path, folder: Path, config: BackboneConfig, figures: dict[str, float], n_kinds: int, log: Log
) -> None:
    """Write the backbone to a folder, replacing the files of an earlier one.

    Raises:
        SystemExit: The files are larger than a wheel should carry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for name in ("audio_encoder", "text_encoder", "language_model"):
        tensors = load_file(work / f"{name}.safetensors")
        kept = {
            key: tensor if "front_end" in key else tensor.half()
            for key, tensor in tensors.items()
            if not key.endswith(_LEFT_OUT)
        }
        _refuse_overflow(name, kept)
        atomic_write_bytes(folder / f"{name}.safetensors", save(kept))
        n_parameters = sum(tensor.numel() for key, tensor in kept.items() if "front_end" not in key)
        parts.append(f"| {name.replace('_', ' ')} | `{name}.safetensors` | {n_parameters:,} |")
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(work / name, folder / name)
    atomic_write_text(folder / "config.json", json.dumps(to_dict(config), indent=2) + "\n")
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
        raise SystemExit(f"{folder} has {n_bytes:,} bytes, more than {MAX_BYTES:,}")


def _refuse_overflow(name: str, tensors: dict[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise SystemExit(f"{name}: {key} does not fit into half precision")
