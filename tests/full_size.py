"""Random weights with the sizes of the real models in the exact file formats, and msclap loaded from these files.

All tensors are random, including norms, biases and running statistics, so that swapping any two changes the output.
Their scales keep the activations of a deep network in a reasonable range.
"""

import contextlib
import importlib.util
import json
import os
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from textcap.config import BackboneConfig
from textcap.models.backbone import Backbone, BackboneNames
from textcap.verify import import_msclap as _import_msclap

RATE_HZ = 44100
STOP_TOKEN = 220  # ends the captions of clapcap, a space
# Values from msclap's config_2023.yml and config_clapcap.yml.
CLAP_SIZES = {
    "audioenc_name": "HTSAT",
    "sample_rate": RATE_HZ,
    "window_size": 1024,
    "hop_size": 320,
    "mel_bins": 64,
    "fmin": 50,
    "fmax": 8000,
    "classes_num": 527,
    "out_emb": 768,
    "text_model": "gpt2",
    "transformer_embed_dim": 768,
    "d_proj": 1024,
}


def import_msclap() -> Any:
    """Return msclap's CLAPWrapper module, or skip the test if msclap is not installed."""
    if importlib.util.find_spec("msclap") is None:
        pytest.skip("needs msclap")
    return _import_msclap()  # if it is installed but cannot be imported, the test fails


@contextlib.contextmanager
def offline_msclap(tokenizer: Any = None) -> Iterator[Any]:
    """Yield msclap's wrapper module, in which loading "gpt2" returns untrained models and the given tokenizer."""
    wrapper = import_msclap()
    import msclap.models.clap
    import msclap.models.mapper

    replacements = (
        (msclap.models.clap, "AutoModel", lambda _: GPT2Model(GPT2Config())),
        (msclap.models.mapper, "GPT2LMHeadModel", lambda _: GPT2LMHeadModel(GPT2Config())),
        (wrapper, "AutoTokenizer", lambda _: tokenizer),
    )
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # msclap uses deprecated functions
        for module, name, from_pretrained in replacements:
            patch.setattr(module, name, types.SimpleNamespace(from_pretrained=from_pretrained))
        yield wrapper


def load_msclap(weights: Path, version: str, vocab: Path, merges: Path) -> Any:
    """Return msclap's CLAPWrapper loaded from a weight file, patched to read sound files with soundfile."""
    from transformers import GPT2TokenizerFast

    with offline_msclap(GPT2TokenizerFast(str(vocab), str(merges))) as module:
        reference = module.CLAPWrapper(str(weights), version=version)

    def read_audio(path: Path, resample: bool = True) -> tuple[Tensor, int]:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T), rate_hz

    reference.read_audio = read_audio
    return reference


def randomise(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return a state dict with random values for all tensors except integers, masks and Fourier kernels."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _draw(name, tensor, generator) for name, tensor in state.items()}


def _draw(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point() or ".stft.conv_" in name or "attn_mask" in name:
        return tensor.clone()
    normal = torch.randn(tensor.shape, generator=generator)
    if name.endswith("melW"):
        # Differs from the matrix that the front end computes, to test that the file's is used.
        return tensor * (1 + 0.3 * normal).clamp(min=0.1)
    if name.endswith("running_mean"):
        return -30 + 5 * normal  # decibels
    if name.endswith("running_var"):
        return 150 * (0.3 * normal).exp()
    if name.endswith("relative_position_bias_table"):
        return 0.5 * normal
    if name.endswith("wte.weight"):
        return 0.1 * normal  # gives logits with a standard deviation of about 3 for a normed vector
    if name.endswith("wpe.weight"):
        return 0.05 * normal
    if name.endswith("prefix_const"):
        return normal
    if tensor.dim() <= 1:
        return 0.1 * normal + (1 if name.endswith("weight") else 0)
    # GPT-2's Conv1D has the input dimension first.
    fan_in = tensor.shape[0] if _is_gpt2_matrix(name) else tensor[0].numel()
    return normal * fan_in**-0.5


def _is_gpt2_matrix(name: str) -> bool:
    return ".h." in name or name.startswith("h.")


def old_gpt2_buffers(before: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the buffers that old versions of transformers stored in the state dict of GPT-2."""
    mask = torch.ones(1024, 1024, dtype=torch.bool).tril().view(1, 1, 1024, 1024).to(dtype)
    buffers = {}
    for layer in range(12):
        buffers[f"{before}h.{layer}.attn.bias"] = mask
        buffers[f"{before}h.{layer}.attn.masked_bias"] = torch.tensor(-10000.0)
    return buffers


def clap_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Return the tensors of CLAP_weights_2023.pth under "model", with random values."""
    with offline_msclap():
        from msclap.models.clap import CLAP

        state = CLAP(**CLAP_SIZES).state_dict()
    return randomise(state, seed) | old_gpt2_buffers("caption_encoder.base.", torch.float32)


def clapcap_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Return the tensors of clapcap_weights_2023.pth under "model", with random values."""
    with offline_msclap():
        from msclap.models.clap import CLAP
        from msclap.models.mapper import get_clapcap

        captioner = get_clapcap("ClapCaption")(
            CLAP(**CLAP_SIZES), "gpt2", 40, 40, 1024, 8, True, "transformer", True, True
        )
    tensors = randomise(captioner.state_dict(), seed)
    _diversify_captions(tensors)
    tensors["gpt.lm_head.weight"] = tensors["gpt.transformer.wte.weight"]
    return tensors | old_gpt2_buffers("gpt.transformer.", torch.bool)


def _diversify_captions(tensors: dict[str, Tensor]) -> None:
    """Rescale a random captioner so that each sound gets its own caption and beams end at different steps.

    Without this, the mapper's constants outweigh the embedding, and GPT-2 repeats one token. Sharper attention
    makes the embedding matter, smaller residual branches make the last token matter, and a final norm with mixed
    signs prevents a token from predicting itself. The row of the stop token is scaled so that it occurs.
    """
    for name, tensor in tensors.items():
        if name == "clap_project.linear.weight":
            tensor *= 30
        elif name == "clap_project.prefix_const":
            tensor *= 0.2
        elif name.endswith("to_queries.weight"):
            tensor *= 3
        elif name.endswith("to_keys_values.weight"):
            tensor *= 2
        elif name == "gpt.transformer.ln_f.weight":
            tensor.sub_(1).mul_(10)
        elif name.startswith("gpt.") and name.endswith("attn.c_attn.weight"):
            tensor *= 1.5
        elif name.startswith("gpt.") and ".c_proj." in name:
            tensor *= 0.2 if name.endswith("attn.c_proj.weight") else 0.1
        elif name == "gpt.transformer.wte.weight":
            tensor[STOP_TOKEN] *= 6


def gpt2_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Return the tensors of model.safetensors of openai-community/gpt2, with random values."""
    tensors = randomise(GPT2Model(GPT2Config()).state_dict(), seed)
    masks = old_gpt2_buffers("", torch.float32)
    return tensors | {name: mask.clone() for name, mask in masks.items() if name.endswith(".bias")}


def save_pth(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write tensors to a `.pth` file in msclap's format."""
    torch.save({"model": dict(tensors)}, path)
    return path


def save_gpt2(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write tensors to a safetensors file in the format of GPT-2 on the hub."""
    save_file(dict(tensors), path, metadata={"format": "pt"})
    return path


def write_tokenizer(folder: Path) -> tuple[Path, Path]:
    """Write GPT-2's vocab.json and merges.txt, or without test data made-up ones with the same special ids."""
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    known = Path(os.environ.get("TEXTCAP_TEST_DATA", "")) / "gpt2_tokenizer"
    if (known / "vocab.json").is_file():
        vocab.write_bytes((known / "vocab.json").read_bytes())
        merges.write_bytes((known / "merges.txt").read_bytes())
        return vocab, merges
    alphabet = _byte_alphabet()
    letters = alphabet[:188]
    pairs = [(a, b) for a in letters for b in letters]
    pairs += [(a + b, c) for a, b in pairs[: 50000 - len(pairs)] for c in letters[:1]]
    pairs = pairs[:50000]
    tokens = [*alphabet, *(a + b for a, b in pairs), "<|endoftext|>"]
    vocab.write_text(json.dumps({token: number for number, token in enumerate(tokens)}), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in pairs), ""]
    merges.write_text("\n".join(lines), encoding="utf-8")
    return vocab, merges


def _byte_alphabet() -> list[str]:
    """Return the characters that represent bytes in byte-level BPE, in the order of GPT-2's ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(256 - len(printable))]


def make_backbone(name: str, paths: dict[str, Path]) -> Backbone:
    """Return a backbone loaded from the given files instead of the cache."""
    return Backbone.of_files(BackboneNames(name), BackboneConfig(name=name), paths)


def write_sound(path: Path, duration_s: float, seed: int, rate_hz: int = RATE_HZ) -> Path:
    """Write a mono WAV file with sweeps and noise of varying loudness that depend on the seed."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    signal = np.zeros_like(time_s)
    for _ in range(rng.integers(2, 5)):
        start_hz, slope = rng.uniform(80, 6000), rng.uniform(-40, 400)
        swell = np.abs(np.sin(2 * np.pi * rng.uniform(0.1, 4) * time_s + rng.uniform(0, 3))) ** rng.uniform(0.5, 6)
        signal += rng.uniform(0.02, 0.2) * swell * np.sin(2 * np.pi * (start_hz + slope * time_s) * time_s)
    signal += rng.uniform(0.001, 0.05) * rng.standard_normal(len(time_s))
    soundfile.write(path, signal.astype(np.float32), rate_hz, subtype="FLOAT")
    return path
