"""Embed a batch of 7-second windows, log-mel spectrogram included, against msclap and transformers."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.reference import AudioTower
from benchmarks.weights import CLAP, weights_in, window_sounds

TOLERANCE = 1e-5  # per coordinate of a unit-length embedding


@dataclass(frozen=True)
class Sizes:
    """How much to embed."""

    windows: int = option(8, "windows of the batch")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure the three towers on the same samples."""
    weights, n = weights_in(bench.work), sizes.windows
    config = weights.config.clap
    encoder = weights.msclap_2023.audio_encoder()
    theirs = AudioTower(config, weights.tensors(CLAP), "audio_encoder.")
    windows = theirs.read(window_sounds(bench.work, config.audio, n))

    @torch.inference_mode()
    def ours() -> Tensor:
        return encoder(windows)  # type: ignore[no-any-return]

    contenders = [Contender("textcap", ours, n), Contender("transformers", lambda: theirs(windows), n)]
    if weights.has_msclap:
        tower = weights.msclap(CLAP).clap.audio_encoder

        @torch.inference_mode()
        def msclap() -> Tensor:
            return normalize(tower(windows)[0], dim=-1)

        contenders.append(Contender("msclap", msclap, n))
    what = f"audio tower, batch of {n}"
    found = bench.compare(what, contenders, differing_embeddings, n_rounds=7, counts_flops=True)
    if "msclap" in found:
        bench.bar(what, "msclap", found["msclap"].median_s / found["textcap"].median_s, 1.35)


def differing_embeddings(ours: Tensor, theirs: Tensor) -> str:
    """Return by how much the first embeddings `[N, E]` differ, of which there may be fewer on either side."""
    n = min(len(ours), len(theirs))
    difference = float((ours[:n] - theirs[:n]).abs().max())
    return "" if difference <= TOLERANCE else f"has embeddings that differ by {difference:.1e}"
