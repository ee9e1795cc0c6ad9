"""Measure the modality gap between audio and text embeddings of pairs, and the noise that follows from it.

Knows arrays only: no files, no CLAP. The rule is the paper's (section 3.2 and its 30 pairs): the standard deviation
of the noise is the mean infinity norm of audio less text embedding.
"""

import math
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textcap.config import require
from textcap.errors import InputError
from textcap.gap.retrieval import Array, unit_rows

N_PAIRS = 30
N_DRAWS = 10
RULE = "mean infinity norm"  # recorded with a model whose noise was calibrated


@dataclass(frozen=True)
class GapSample:
    """The gap over some pairs of unit-length embeddings."""

    mean_cosine: float
    modality_distance: float  # between the mean audio and the mean text embedding
    mean_infinity_norm: float  # of audio less text embedding
    max_infinity_norm: float
    width: int  # E

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise by the paper's rule."""
        return self.mean_infinity_norm

    @property
    def noise_variance(self) -> float:
        """Variance of the noise by the paper's rule."""
        return self.mean_infinity_norm**2

    @property
    def cosine_variance(self) -> float | None:
        """Variance of noise that brings a unit vector to the mean cosine; none when that is not above 0."""
        if self.mean_cosine <= 0:
            return None
        return max(0.0, (1 / self.mean_cosine**2 - 1) / self.width)


@dataclass(frozen=True)
class Spread:
    """How a figure varies over the draws."""

    mean: float
    std: float
    least: float
    largest: float


@dataclass(frozen=True)
class GapReport:
    """The gap as n pairs show it, and how much that depends on which pairs they are."""

    n_available: int  # pairs that were drawn from
    n: int  # pairs in a draw
    draws: int
    seed: int
    sample: GapSample  # the first draw: what noise is calibrated on
    every_pair: GapSample
    spread: dict[str, Spread]  # over the draws, by the figure's name


def measure_gap(
    audio: NDArray[Any], text: NDArray[Any], *, n: int = N_PAIRS, draws: int = N_DRAWS, seed: int = 0
) -> GapReport:
    """Measure the gap on n pairs that are drawn by a seed, and again on other draws.

    Args:
        audio: `[N, E]`, any length: made unit length here.
        text: `[N, E]`, one caption of each clip.
        n: Pairs in a draw, drawn without replacement.
        draws: How often n pairs are drawn; each draw has its own stream of the seed.

    Raises:
        InputError: There are fewer than n pairs, or a setting is out of range.
        ValueError: The two sides differ in shape.
    """
    if audio.shape != text.shape:
        raise ValueError(f"embeddings of shapes {audio.shape} and {text.shape} make no pairs")
    for name, value in (("n", n), ("draws", draws)):
        require(value >= 1, name, value, "at least 1")
    if len(audio) < n:
        raise InputError(f"{n} pairs are needed to measure the gap, and there are {len(audio)}", hint="lower --n")
    sounds, captions = unit_rows(audio), unit_rows(text)
    samples = []
    for draw in range(draws):
        chosen = draw_pairs(len(sounds), n, seed, draw)
        samples.append(_measure(sounds[chosen], captions[chosen]))
    names = ("mean_cosine", "modality_distance", "mean_infinity_norm", "max_infinity_norm", "noise_variance")
    spread = {name: _spread([getattr(sample, name) for sample in samples]) for name in names}
    return GapReport(len(sounds), n, draws, seed, samples[0], _measure(sounds, captions), spread)


def draw_pairs(n_available: int, n: int, seed: int, draw: int = 0) -> NDArray[np.int64]:
    """Return the places of n different pairs, in rising order."""
    return np.sort(np.random.default_rng([seed, draw]).choice(n_available, n, replace=False))


def _measure(sounds: Array, captions: Array) -> GapSample:
    norms = np.abs(sounds - captions).max(axis=1)
    cosine = math.fsum((sounds * captions).sum(axis=1)) / len(sounds)
    return GapSample(
        mean_cosine=cosine,
        modality_distance=float(np.linalg.norm(sounds.mean(axis=0) - captions.mean(axis=0))),
        mean_infinity_norm=float(norms.mean()),
        max_infinity_norm=float(norms.max()),
        width=sounds.shape[1],
    )


def _spread(values: list[float]) -> Spread:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.mean(values), std, min(values), max(values))
