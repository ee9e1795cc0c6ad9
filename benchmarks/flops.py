"""Count the arithmetic of a training run at the paper's size, and estimate how long it takes.

    python benchmarks/flops.py [--captions 65002] [--tokens 12] [--epochs 30] [--tflops 100] [--measure STEPS]

Counts the floating-point operations of one training step, one text embedding and one window of audio with torch's
counter, on full-size models with random weights, and multiplies them. --tokens is the mean length of a caption with
its end token; --tflops is the speed that a device reaches in practice, which counting cannot tell. --measure times
steps of training and captions on the CPU instead, and extrapolates the training from the median step.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from textcap.config import CAPTION_BATCH_SIZE, BackboneConfig, DecodingConfig
from textcap.models.beam_search import beam_search
from textcap.models.clap import AudioEncoder, TextEncoder
from textcap.models.language_model import LanguageModel
from textcap.models.mapper import Mapper
from textcap.training.data import n_steps

BATCH, STEP_BATCH = 16, 128


def main() -> None:
    """Count the operations and print the estimate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=65_002, help="captions to train on (default: the paper's)")
    parser.add_argument("--tokens", type=int, default=12, help="mean length of a caption with its end token")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the captions")
    parser.add_argument("--tflops", type=float, default=100.0, help="speed of the device in practice, in TFLOP/s")
    parser.add_argument("--measure", type=int, metavar="STEPS", help="time this many steps of 128 on the CPU instead")
    options = parser.parse_args()
    steps = n_steps(options.captions, STEP_BATCH, options.epochs)
    if options.measure:
        step_s = measure_step_s(options.measure, options.tokens)
        print(f"{step_s:.1f} s for a step of {STEP_BATCH} captions on {torch.get_num_threads()} threads")
        print(f"{steps:,} steps for {options.captions:,} captions: {step_s * steps / 86400:.1f} days")
        caption_s = measure_caption_s(options.measure)
        print(f"{caption_s:.1f} s for the caption of a 7 s clip of 20 tokens, in batches of {CAPTION_BATCH_SIZE}")
        return
    step, text, window = training_flops(options.tokens), text_flops(options.tokens), window_flops()
    total = step * options.captions * options.epochs + text * options.captions
    print(f"training: {step / 1e9:.1f} GFLOP for a caption, forward and backward")
    print(f"text embedding: {text / 1e9:.1f} GFLOP for a caption, once")
    print(f"audio embedding: {window / 1e9:.1f} GFLOP for a window")
    print(f"{steps:,} steps of {STEP_BATCH}, {total / 1e15:.0f} PFLOP in all")
    print(f"at {options.tflops:g} TFLOP/s: {total / options.tflops / 1e12 / 60:.0f} minutes")


def measure_step_s(n: int, n_tokens: int) -> float:
    """Return the median time of training steps with Adam at full size, after one step to warm up."""
    config = BackboneConfig()
    mapper, language_model = Mapper(config.mapper), LanguageModel(config.language_model)
    optimizer = torch.optim.Adam(mapper.parameters(), lr=1e-4)
    times = []
    for _ in range(n + 1):
        embeddings = torch.randn(STEP_BATCH, config.mapper.embedding_width)
        tokens, lengths = _captions(n_tokens, STEP_BATCH)
        started = time.perf_counter()
        optimizer.zero_grad()
        language_model.loss(mapper(embeddings), tokens, lengths).backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


@torch.inference_mode()
def measure_caption_s(n: int) -> float:
    """Return the median time per clip of captioning a batch of one-window clips at full size."""
    config = BackboneConfig()
    encoder = AudioEncoder(config.clap).eval()
    mapper, language_model = Mapper(config.mapper).eval(), LanguageModel(config.language_model)
    windows = torch.randn(CAPTION_BATCH_SIZE, config.clap.audio.window_samples)
    times = []
    for _ in range(n + 1):
        started = time.perf_counter()
        # An end token that no token has: every caption runs to its 20 tokens.
        beam_search(language_model, mapper(encoder(windows)), DecodingConfig(max_tokens=20), end_id=-1)
        times.append((time.perf_counter() - started) / CAPTION_BATCH_SIZE)
    return statistics.median(times[1:])


def training_flops(n_tokens: int) -> float:
    """Return the operations per caption of a training step; gradients pass through GPT-2, although it is frozen."""
    config = BackboneConfig()
    mapper, language_model = Mapper(config.mapper), LanguageModel(config.language_model).requires_grad_(False)
    embeddings = torch.randn(BATCH, config.mapper.embedding_width)

    def step() -> None:
        tokens, lengths = _captions(n_tokens)
        language_model.loss(mapper(embeddings), tokens, lengths).backward()

    return _count(step) / BATCH


def text_flops(n_tokens: int) -> float:
    """Return the operations for embedding one caption."""
    encoder = TextEncoder(BackboneConfig().clap, None).eval()  # type: ignore[arg-type]  # needs no tokenizer: it gets tokens
    with torch.inference_mode():
        return _count(lambda: encoder(*_captions(n_tokens))) / BATCH


def window_flops() -> float:
    """Return the operations for embedding one window of audio."""
    config = BackboneConfig().clap
    encoder = AudioEncoder(config).eval()
    with torch.inference_mode():
        return _count(lambda: encoder(torch.randn(2, config.audio.window_samples))) / 2


def _captions(n_tokens: int, batch: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    vocab_size = BackboneConfig().language_model.vocab_size
    return torch.randint(0, vocab_size, (batch, n_tokens)), torch.full((batch,), n_tokens)


def _count(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


if __name__ == "__main__":
    main()
