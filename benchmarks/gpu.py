"""The paper's full recipe and captioning on a CUDA device.

Two epochs on a part of the captions are trained in bfloat16 and multiplied: no full run is made. Text embeddings are
included. Captions are those of 7-second sounds in memory, so decoding files is not included.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Bench, Timing
from benchmarks.machine import gemm_gflops
from benchmarks.options import option
from benchmarks.processes import CannotRunError
from benchmarks.text_tower import captions_of_ordinary_length
from benchmarks.weights import Weights, weights_in, window_sounds
from textcap.audio.sources import Sound
from textcap.captioner import Captioner
from textcap.config import DecodingConfig, TrainingConfig
from textcap.embedding.captions import embed_captions
from textcap.training import train
from textcap.training.data import n_steps
from textcap.training.events import Event, Measured, Started

PAPER = TrainingConfig()
PAPER_CAPTIONS = 65_002


@dataclass(frozen=True)
class Sizes:
    """How much to measure; figures are multiplied to the paper's recipe."""

    device: str = option("cuda", "device to measure")
    captions: int = option(12_800, "captions of the two epochs")
    clips: int = option(2048, "clips to caption")
    batch: int = option(256, "clips captioned at once")
    tokens: int = option(20, "tokens of each caption")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure text embeddings, training steps and captions."""
    if sizes.device == "cuda" and not torch.cuda.is_available():
        raise CannotRunError("needs a CUDA device")
    weights = weights_in(bench.work)
    recipe_s = measure_recipe(bench, sizes, weights)
    clips_per_s = measure_captions(bench, sizes, weights)
    bench.note(f"matrix products in bfloat16: {gemm_gflops(sizes.device, torch.bfloat16) / 1000:.1f} TFLOP/s")
    question = f"the paper's recipe: {PAPER_CAPTIONS:,} captions, {PAPER.epochs} epochs, multiplied"
    bench.bar(question, "the limit", recipe_s / 60, 10, unit="minutes", is_most=True)
    bench.bar("clips of 7 s, beam 5", "the limit", clips_per_s, 300, unit="clips a second")


def measure_recipe(bench: Bench, sizes: Sizes, weights: Weights) -> float:
    """Return the seconds that the paper's recipe would take, from embeddings and two epochs of a part of it."""
    backbone, device = weights.msclap_2023, torch.device(sizes.device)
    captions = captions_of_ordinary_length(backbone.tokenizer, sizes.captions)
    text = bench.work / f"gpu-captions-{sizes.captions}.txt"
    text.write_text("\n".join(captions) + "\n", encoding="utf-8")
    embed_captions(captions[:64], backbone, device)  # to warm up
    started = time.perf_counter()
    n_embedded = len(set(captions[64:]))
    embed_captions(captions[64:], backbone, device)
    embedding_s = (time.perf_counter() - started) / n_embedded
    bench.record(Timing("text embedding, a caption", "textcap", [embedding_s], [0.0]))

    marks: list[tuple[float, int]] = []

    def report(event: Event) -> None:
        if isinstance(event, Started):
            marks.append((time.perf_counter(), event.first_step))
        if isinstance(event, Measured):
            marks.append((time.perf_counter(), event.step))

    config = TrainingConfig(epochs=2, held_out_captions=0)
    output = bench.work / "gpu-model"
    train(text, output, backbone=backbone, config=config, device=device, force=True, report=report)
    # The first epoch warms up; the second is taken.
    (before_s, first), (after_s, last) = marks[-2:]
    step_s = (after_s - before_s) / (last - first)
    bench.record(Timing(f"training step, {config.batch_size} captions", "textcap", [step_s], [0.0]))
    return embedding_s * PAPER_CAPTIONS + step_s * n_steps(PAPER_CAPTIONS, PAPER.batch_size, PAPER.epochs)


def measure_captions(bench: Bench, sizes: Sizes, weights: Weights) -> float:
    """Return how many clips are captioned a second, after one batch to warm up."""
    audio = weights.config.clap.audio
    captioner = Captioner.released(weights.clapcap, torch.device(sizes.device))
    rng = np.random.default_rng(0)
    paths = window_sounds(bench.work, audio, 16)
    recordings = [load(path) for path in paths]
    sounds = [
        Sound(
            recordings[index % 16] * rng.uniform(0.2, 1, recordings[0].shape).astype(np.float32), audio.sample_rate_hz
        )
        for index in range(sizes.clips)
    ]
    decoding = DecodingConfig(max_tokens=sizes.tokens)
    list(captioner.caption(sounds[: sizes.batch], decoding=decoding, batch_size=sizes.batch))
    started = time.perf_counter()
    results = list(captioner.caption(sounds, decoding=decoding, batch_size=sizes.batch))
    clip_s = (time.perf_counter() - started) / len(results)
    bench.record(Timing("a clip of 7 s, beam 5", "textcap", [clip_s], [0.0]))
    return 1 / clip_s


def load(path: Path) -> np.ndarray:
    """Return the samples of a mono file."""
    import soundfile

    samples: np.ndarray = soundfile.read(path, dtype="float32")[0]
    return samples
