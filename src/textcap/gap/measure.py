"""Measure the modality gap between the audio and text embeddings of pairs, and derive the training noise from it.

The rule is the paper's (section 3.2, on 30 pairs): the standard deviation of the noise is the mean infinity norm of
audio minus text embedding. Works on arrays; reading a pairs file and embedding it is left to `gap.calibrate`.
"""

import math
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textcap.config import require
from textcap.data.text import counted
from textcap.errors import InputError
from textcap.gap.retrieval import Array, unit_rows

N_PAIRS = 30
N_DRAWS = 10
RULE = "mean infinity norm"  # name of the rule, recorded with a model whose noise was calibrated


@dataclass(frozen=True)
class GapSample:
    """The gap over some pairs of unit-length embeddings."""

    mean_cosine: float  # of audio and text embedding, -1 to 1
    modality_distance: float  # Euclidean distance between the mean audio and the mean text embedding
    mean_infinity_norm: float  # mean over the pairs of the largest coordinate of audio minus text embedding
    max_infinity_norm: float  # maximum over the pairs of the same
    noise_std: float  # standard deviation of the noise by the paper's rule
    noise_variance: float  # its variance
    cosine_variance: float | None  # of the noise that moves a unit vector to the mean cosine; None if that is not > 0


@dataclass(frozen=True)
class Spread:
    """How a figure varies over the draws."""

    mean: float
    std: float  # sample standard deviation; 0 for a single draw
    least: float
    largest: float


@dataclass(frozen=True)
class GapReport:
    """The gap on n pairs, and how much it depends on which pairs are drawn."""

    n_available: int  # number of pairs to draw from
    n: int  # number of pairs in a draw
    draws: int  # number of draws
    seed: int
    sample: GapSample  # on the first draw, which noise is calibrated on
    every_pair: GapSample  # on all available pairs
    spread: dict[str, Spread]  # over the draws, by the name of the figure


def measure_gap(
    audio: NDArray[Any], text: NDArray[Any], *, n: int = N_PAIRS, draws: int = N_DRAWS, seed: int = 0
) -> GapReport:
    """Measure the gap on n randomly drawn pairs, and its spread over several such draws.

    Args:
        audio: Audio embeddings, `[N, E]`, of any length; they are made unit length first.
        text: Text embeddings, `[N, E]`, of one caption per clip, of any length.
        n: Number of pairs in a draw, drawn without replacement.
        draws: Number of draws.
        seed: Seed of the draws; each draw has its own random stream.

    Raises:
        InputError: There are fewer than n pairs, or a setting is out of range.
        ValueError: The shapes of the two arrays differ.
    """
    if audio.shape != text.shape:
        raise ValueError(f"audio {audio.shape} and text {text.shape} differ in shape")
    for name, value in (("n", n), ("draws", draws)):
        require(value >= 1, name, value, "at least 1")
    if len(audio) < n:
        raise InputError(f"measuring the gap needs {counted(n, 'pair')}, but got {len(audio)}", hint="lower --n")
    sounds, captions = unit_rows(audio), unit_rows(text)
    samples = []
    for draw in range(draws):
        chosen = draw_pairs(len(sounds), n, seed, draw)
        samples.append(_measure(sounds[chosen], captions[chosen]))
    names = ("mean_cosine", "modality_distance", "mean_infinity_norm", "max_infinity_norm", "noise_variance")
    spread = {name: _spread([getattr(sample, name) for sample in samples]) for name in names}
    return GapReport(len(sounds), n, draws, seed, samples[0], _measure(sounds, captions), spread)


def draw_pairs(n_available: int, n: int, seed: int, draw: int = 0) -> NDArray[np.int64]:
    """Return the indices of n different random pairs in ascending order, `[n]`.

    Args:
        n_available: Number of pairs to draw from.
        n: Number of pairs to draw.
        seed: Seed of all draws.
        draw: Number of the draw; each has its own random stream.
    """
    return np.sort(np.random.default_rng([seed, draw]).choice(n_available, n, replace=False))


def _measure(sounds: Array, captions: Array) -> GapSample:
    norms = np.abs(sounds - captions).max(axis=1)
    cosine = math.fsum((sounds * captions).sum(axis=1)) / len(sounds)
    noise_std = float(norms.mean())
    return GapSample(
        mean_cosine=cosine,
        modality_distance=float(np.linalg.norm(sounds.mean(axis=0) - captions.mean(axis=0))),
        mean_infinity_norm=noise_std,
        max_infinity_norm=float(norms.max()),
        noise_std=noise_std,
        noise_variance=noise_std**2,
        cosine_variance=max(0.0, (1 / cosine**2 - 1) / sounds.shape[1]) if cosine > 0 else None,
    )


def _spread(values: list[float]) -> Spread:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.mean(values), std, min(values), max(values))
