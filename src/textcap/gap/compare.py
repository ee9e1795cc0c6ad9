"""Compare bridges on held-out pairs, and split the modality gap into its parts.

Noise cannot be judged here: it lowers every figure, and its use shows only in captions. Shapes: N pairs, E embedding
width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textcap.config import MOVING, moving_bridge
from textcap.gap.bridge.affine import AffineBridge, affine_bridge
from textcap.gap.bridge.moments import Moments, measure_moments
from textcap.gap.fit import fit_adapter
from textcap.gap.retrieval import Array, measure_retrieval, unit_rows

LEAST_PAIRS = 200  # from which on bridges are compared
MOST_PAIRS = 1000
_DIRECTIONS = 8
_SPLIT_STREAM = 4_000_000  # random stream of the seed
_AS_CLOSE = 0.05  # less made no difference to captions: docs/experiments.md
_Z = 1.959964  # of a 95 % interval
_Sides = tuple[Array, Array]


@dataclass(frozen=True)
class GapParts:
    """The mean squared distance of sounds and their captions; the first three are its parts and sum to it.

    Without pairs, the last three are None.
    """

    shift: float  # squared distance of the two means
    spread: float  # (s_a - s_t)^2, where s^2 is the mean squared distance of one side to its mean
    private: float | None = None  # 2 s_a s_t (1 - r), where s_a s_t r is the trace of the cross-covariance
    shift_share: float | None = None  # of the shift in the sum of the three
    in_8_directions: float | None = None  # share of the squared distance, without the shift, that 8 directions hold


@dataclass(frozen=True)
class UnpairedGap:
    """The gap between sounds and captions that do not belong together, and a bridge across it."""

    parts: GapParts
    kind: str  # of the bridge
    bridge: AffineBridge


@dataclass(frozen=True)
class Share:
    """A share of held-out pairs, with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BridgeRecall:
    """How near sounds and their own captions are across one bridge."""

    bridge: str  # "none", one of `BRIDGES` but "noise", or "adapter"
    recall_at_1: Share
    recall_at_10: Share
    # 1 - a/b: a is the mean squared distance of sounds to their own captions, b that to all captions
    closeness: float


def split_gap(audio: NDArray[Any], text: NDArray[Any], *, seed: int = 0) -> GapParts:
    """Split the mean squared distance of paired embeddings `[N, E]` of any length, made unit length first.

    The eight directions are found on half of the pairs and measured on the other half, from `LEAST_PAIRS` on.
    """
    sounds, captions = unit_rows(audio), unit_rows(text)
    a, t = sounds - sounds.mean(axis=0), captions - captions.mean(axis=0)
    s_a, s_t = (math.sqrt(np.square(side).sum() / len(side)) for side in (a, t))
    together = float((a * t).sum()) / len(a)
    share = None
    if len(a) >= LEAST_PAIRS:
        found, measured = ((sounds - captions)[half] for half in _halves(len(a), seed))
        measured -= found.mean(axis=0)
        directions = np.linalg.svd(found - found.mean(axis=0), full_matrices=False)[2][:_DIRECTIONS]
        share = float(np.square(measured @ directions.T).sum() / np.square(measured).sum())
    shift = float(np.square(sounds.mean(axis=0) - captions.mean(axis=0)).sum())
    parts = shift, (s_a - s_t) ** 2, 2 * (s_a * s_t - together)
    return GapParts(*parts, shift / max(sum(parts), 1e-12), share)


def unpaired_parts(sounds: Moments, captions: Moments) -> GapParts:
    """Return the first two parts of the gap, which need no pairs."""
    shift = float(np.square(sounds.mean - captions.mean).sum())
    return GapParts(shift, (math.sqrt(sounds.spread) - math.sqrt(captions.spread)) ** 2)


def measure_unpaired_gap(audio: NDArray[Any], text: NDArray[Any], kind: str | None = None) -> UnpairedGap:
    """Measure the parts of the gap that need no pairs, and compute a bridge.

    Args:
        audio: Embeddings of sounds, `[N, E]`.
        text: Embeddings of captions, `[M, E]`.
        kind: The bridge to compute, one of `MOVING`; None for that of `moving_bridge`.
    """
    moments = measure_moments(audio), measure_moments(text)
    kind = kind or moving_bridge(len(audio))
    return UnpairedGap(unpaired_parts(*moments), kind, affine_bridge(kind, *moments))


def compare_bridges(audio: NDArray[Any], text: NDArray[Any], *, seed: int = 0) -> list[BridgeRecall]:
    """Return recall and closeness across each bridge on half of the pairs `[N, E]`, computed from the other half.

    The affine bridges do not use which sound belongs to which caption; the adapter does.
    """
    sounds, captions = unit_rows(audio), unit_rows(text)
    given, held_out = ((sounds[rows], captions[rows]) for rows in _halves(len(audio), seed))
    moments, found = (measure_moments(given[0]), measure_moments(given[1])), []
    for name in ("none", *MOVING, "adapter"):
        sides = [unit_rows(side) for side in _moved(name, moments, given, held_out, seed)]
        result, others = measure_retrieval(*sides), float(sides[0].mean(axis=0) @ sides[1].mean(axis=0))
        first, ten = (_with_interval(value, len(held_out[0])) for value in (result.recall_at_1, result.recall_at_10))
        found.append(BridgeRecall(name, first, ten, (result.cosine - others) / (1 - others)))
    return found


def best_bridge(found: Sequence[BridgeRecall]) -> str:
    """Return the name of the first bridge, and so the simplest, that is about as close as the closest.

    Recall tells less about captions: whitening loses much of it, and still brings sounds where the mapper was trained.
    """
    most = max(one.closeness for one in found)
    return next(one.bridge for one in found if one.closeness >= most - _AS_CLOSE)


def _moved(name: str, moments: tuple[Moments, Moments], given: _Sides, held_out: _Sides, seed: int) -> _Sides:
    """Return held-out embeddings of both sides as a bridge moves them that is computed from the given ones."""
    if name in MOVING:
        return affine_bridge(name, *moments).moved(*held_out)
    if name == "adapter":
        fitted = fit_adapter(*given, np.arange(len(given[0])), seed=seed)
        return held_out[0], held_out[1] @ fitted.matrix.T + fitted.bias
    return held_out


def _halves(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng([seed, _SPLIT_STREAM]).permutation(n)
    return order[: n // 2], order[n // 2 :]


def _with_interval(share: float, n: int) -> Share:
    middle, factor = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Share(share, max(0.0, (middle - half) / factor), min(1.0, (middle + half) / factor))
