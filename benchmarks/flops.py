"""How much arithmetic is a run at the paper's size, and how long would it take?

    python benchmarks/flops.py [--captions 65002] [--tokens 12] [--epochs 30] [--tflops 100]

Counts the floating-point operations of one training step, of a text embedding and of a window of sound with torch's
counter, on models of full size with random weights, and multiplies. --tokens is the mean length of a caption with its
end token; --tflops is what a device really reaches, which no count can say.
"""

import argparse
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from textcap.config import BackboneConfig
from textcap.models.clap import AudioEncoder, TextEncoder
from textcap.models.language_model import LanguageModel
from textcap.models.mapper import Mapper
from textcap.training.data import n_steps

BATCH = 16


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=65_002, help="of the paper's two training sets")
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--tflops", type=float, default=100.0)
    options = parser.parse_args()
    step, text, window = training_flops(options.tokens), text_flops(options.tokens), window_flops()
    total = step * options.captions * options.epochs + text * options.captions
    print(f"training: {step / 1e9:.1f} GFLOP for a caption, forward and backward")
    print(f"text embedding: {text / 1e9:.1f} GFLOP for a caption, once")
    print(f"audio embedding: {window / 1e9:.1f} GFLOP for a window")
    print(f"{n_steps(options.captions, 128, options.epochs):,} steps of 128, {total / 1e15:.0f} PFLOP in all")
    print(f"at {options.tflops:g} TFLOP/s: {total / options.tflops / 1e12 / 60:.0f} minutes")


def training_flops(n_tokens: int) -> float:
    """Return the operations for one caption of a training step: GPT-2 is frozen, but gradients pass through it."""
    config = BackboneConfig()
    mapper, language_model = Mapper(config.mapper), LanguageModel(config.language_model).requires_grad_(False)
    embeddings = torch.randn(BATCH, config.mapper.embedding_width)

    def step() -> None:
        tokens, lengths = _captions(n_tokens)
        language_model.loss(mapper(embeddings), tokens, lengths).backward()

    return _count(step) / BATCH


def text_flops(n_tokens: int) -> float:
    """Return the operations for the embedding of one caption."""
    encoder = TextEncoder(BackboneConfig().clap, None).eval()  # type: ignore[arg-type]  # it is given tokens
    with torch.inference_mode():
        return _count(lambda: encoder(*_captions(n_tokens))) / BATCH


def window_flops() -> float:
    """Return the operations for the embedding of one window of sound."""
    config = BackboneConfig().clap
    encoder = AudioEncoder(config).eval()
    with torch.inference_mode():
        return _count(lambda: encoder(torch.randn(2, config.audio.window_samples))) / 2


def _captions(n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, BackboneConfig().language_model.vocab_size, (BATCH, n_tokens)), torch.full(
        (BATCH,), n_tokens
    )


def _count(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


if __name__ == "__main__":
    main()
