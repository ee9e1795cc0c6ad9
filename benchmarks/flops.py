"""Count the arithmetic of a training run at the paper's size, and estimate how long it takes.

Counts the floating-point operations of one training step, one text embedding and one window of audio, on full-size
models with random weights, and multiplies them. --tokens is the mean length of a caption with its end token; --tflops
is the speed that a device reaches in practice, which counting cannot tell. What a step takes on this machine is
measured by `training-step`.
"""

from dataclasses import dataclass

import torch

from benchmarks.harness import Bench
from benchmarks.machine import count_gflop
from benchmarks.options import option
from textcap.config import BackboneConfig
from textcap.models.gpt2 import Gpt2LanguageModel
from textcap.models.mapper import Mapper
from textcap.models.msclap import MsclapAudioEncoder, MsclapTextEncoder
from textcap.training.data import n_steps

BATCH, STEP_BATCH = 16, 128


@dataclass(frozen=True)
class Sizes:
    """The run to estimate."""

    captions: int = option(65_002, "captions to train on")
    tokens: int = option(12, "mean length of a caption with its end token")
    epochs: int = option(30, "passes over the captions")
    tflops: float = option(100.0, "speed of the device in practice, in TFLOP/s")


def run(bench: Bench, sizes: Sizes) -> None:
    """Count the operations and note the estimate."""
    config = BackboneConfig()
    steps = n_steps(sizes.captions, STEP_BATCH, sizes.epochs)
    step, text, window = training_gflop(config, sizes.tokens), text_gflop(config, sizes.tokens), window_gflop(config)
    total = (step * sizes.epochs + text) * sizes.captions
    bench.note(f"training: {step:.1f} GFLOP for a caption, forward and backward")
    bench.note(f"text embedding: {text:.1f} GFLOP for a caption, once")
    bench.note(f"audio embedding: {window:.1f} GFLOP for a window")
    bench.note(f"{steps:,} steps of {STEP_BATCH}, {total / 1e6:.0f} PFLOP in all")
    bench.note(f"at {sizes.tflops:g} TFLOP/s: {total / 1000 / sizes.tflops / 60:.0f} minutes")


def training_gflop(config: BackboneConfig, n_tokens: int) -> float:
    """Return the operations per caption of a training step; gradients pass through GPT-2, although it is frozen."""
    mapper, language_model = Mapper(config.mapper), Gpt2LanguageModel(config.language_model)
    embeddings = torch.randn(BATCH, config.mapper.embedding_width)
    tokens, lengths = _captions(config, n_tokens)
    return count_gflop(lambda: language_model.loss(mapper(embeddings), tokens, lengths).backward()) / BATCH


def text_gflop(config: BackboneConfig, n_tokens: int) -> float:
    """Return the operations for embedding one caption."""
    encoder = MsclapTextEncoder(config.clap, None).eval()  # type: ignore[arg-type]  # needs no tokenizer: it gets tokens
    with torch.inference_mode():
        return count_gflop(lambda: encoder(*_captions(config, n_tokens))) / BATCH


def window_gflop(config: BackboneConfig) -> float:
    """Return the operations for embedding one window of audio."""
    encoder = MsclapAudioEncoder(config.clap).eval()
    with torch.inference_mode():
        return count_gflop(lambda: encoder(torch.randn(2, config.clap.audio.window_samples))) / 2


def _captions(config: BackboneConfig, n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, config.language_model.vocab_size, (BATCH, n_tokens))
    return tokens, torch.full((BATCH,), n_tokens)
