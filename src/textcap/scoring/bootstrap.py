"""Paired bootstrap: is one system better than another, or is the difference due to the choice of clips?

Resamples clips with replacement, the same ones for both systems. Works on arrays; `comparison` picks them by metric.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from textcap.scoring.counts import Numbers

_CHUNK = 64  # resamples in memory at a time


@dataclass(frozen=True)
class Difference:
    """The difference between the scores of two systems for the same clips.

    Attributes:
        difference: Score of the first system minus that of the second.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        p_value: Two-sided p-value, from how many resamples have no difference or one of the opposite sign.
    """

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def is_more_than_noise(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def mean_of_sums(sums: Numbers, n_clips: int) -> Numbers:
    """Return the means over clips `[R]` of a score that is one number per clip, from its sums over clips `[R, 1]`."""
    means: Numbers = sums[:, 0] / n_clips
    return means


def paired_bootstrap(
    first: Numbers,
    second: Numbers,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    score_of_sums: Callable[[Numbers, int], Numbers] = mean_of_sums,
) -> Difference:
    """Compare two systems on the same clips by resampling the clips (Koehn 2004, percentile interval).

    Args:
        first: One number per clip `[N]`, or the counts `[N, K]` that a corpus score is computed from.
        second: The same for the other system, with the clips in the same order.
        n_resamples: Number of resamples, each of N clips.
        seed: Seed of the resampling.
        score_of_sums: Turns sums over clips `[R, K]` and the number of clips into scores `[R]`.

    Raises:
        ValueError: The shapes differ, there are no clips, a value is NaN or infinite, or `n_resamples` is below 1.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    sides = [side[:, None] if side.ndim == 1 else side for side in sides]
    if sides[0].shape != sides[1].shape or not sides[0].size:
        raise ValueError(f"cannot pair shape {sides[0].shape} with shape {sides[1].shape}")
    if not all(np.isfinite(side).all() for side in sides):
        raise ValueError("a value is NaN or infinite")
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}, but must be at least 1")
    n_clips = len(sides[0])
    rng = np.random.default_rng(seed)
    drawn = np.empty(n_resamples)
    for start in range(0, n_resamples, _CHUNK):
        n_rows = min(_CHUNK, n_resamples - start)
        # A resample is determined by how often it contains each clip, so its sums are one matrix product.
        times = rng.multinomial(n_clips, np.full(n_clips, 1 / n_clips), size=n_rows).astype(np.float64)
        scores = [score_of_sums(times @ side, n_clips) for side in sides]
        drawn[start : start + n_rows] = scores[0] - scores[1]
    whole = [float(score_of_sums(side.sum(axis=0, keepdims=True), n_clips)[0]) for side in sides]
    low, high = np.percentile(drawn, [2.5, 97.5])
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (n_resamples + 1))
    return Difference(whole[0] - whole[1], float(low), float(high), p_value)
