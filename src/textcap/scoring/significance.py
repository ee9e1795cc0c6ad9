"""Is one system better than another, or is the difference due to chance?

Works on arrays of clips and knows no metric; `comparison` picks the arrays. The p-value comes from exchanging the two
captions of clips at random, the intervals from resampling the clips.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from textcap.scoring.counts import Numbers

# With fewer clips, a few odd ones decide, and intervals from resampled clips are far too narrow.
MIN_CLIPS = 30
LEVEL = 0.05  # a difference is significant if its p-value is below this
N_DRAWS = 10_000  # of the exchange test: near p = 0.05, its standard error is 0.002
N_RESAMPLES = 2_000  # of an interval: the standard error of its ends is 3 % of half its width

_CHUNK = 2**18  # numbers in memory at a time
# Differences that are equal but for rounding are ties. Sums of counts are exact, and a mean of N values is wrong by at
# most about N * 1e-16 of the largest.
_ROUNDING = 1e-11

ScoreOfSums = Callable[[Numbers, int], Numbers]


@dataclass(frozen=True)
class Difference:
    """The difference between the scores of two systems for the same clips.

    Attributes:
        difference: Score of the first system minus that of the second.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        p_value: Two-sided p-value of the exchange test; None with fewer than `MIN_CLIPS` clips.
    """

    difference: float
    low: float
    high: float
    p_value: float | None


def verdict_of(p_value: float | None, is_better: bool) -> str | None:
    """Return whether a system is "better", "worse" or "not significantly different"; None without a p-value."""
    if p_value is None:
        return None
    if p_value >= LEVEL:
        return "not significantly different"
    return "better" if is_better else "worse"


def mean_of_sums(sums: Numbers, n_clips: int) -> Numbers:
    """Return the means over clips `[R]` of a score that is one number per clip, from its sums over clips `[R, 1]`."""
    means: Numbers = sums[:, 0] / n_clips
    return means


def compare(
    first: Numbers, second: Numbers, *, score_of_sums: ScoreOfSums = mean_of_sums, n_draws: int = N_DRAWS, seed: int = 0
) -> Difference:
    """Compare two systems on the same clips.

    If the systems do not differ, it makes no difference which of them wrote which of a clip's two captions. So each
    draw of the test exchanges the captions of about half of the clips, and the p-value is the fraction of draws whose
    difference is at least as large as the observed one, which itself counts as a draw (approximate randomisation,
    Noreen 1989; Phipson & Smyth 2010). The interval is the percentile interval of the paired bootstrap (Koehn 2004).

    Args:
        first: One number per clip `[N]`, or the counts `[N, K]` that a corpus score is computed from.
        second: The same for the other system, with the clips in the same order.
        score_of_sums: Turns sums over clips `[R, K]` and the number of clips into scores `[R]`.
        n_draws: Number of random exchanges; the interval always has `N_RESAMPLES` resamples.
        seed: Seed of both; the same seed gives the same draws for all scores of N clips.

    Raises:
        ValueError: The shapes differ, there are no clips, a value is NaN or infinite, or `n_draws` is below 1.
    """
    sides = [_checked(side) for side in (first, second)]
    if sides[0].shape != sides[1].shape:
        raise ValueError(f"cannot pair shape {sides[0].shape} with shape {sides[1].shape}")
    n_clips, n_counts = sides[0].shape

    def difference(sums: Numbers, n_clips: int) -> Numbers:
        """Return the differences `[R]` from the sums of both systems side by side `[R, 2 K]`."""
        return score_of_sums(sums[:, :n_counts], n_clips) - score_of_sums(sums[:, n_counts:], n_clips)

    both = np.hstack(sides)
    whole = both.sum(axis=0, keepdims=True)
    observed = float(difference(whole, n_clips)[0])
    low, high = interval(both, score_of_sums=difference, seed=seed)
    if n_clips < MIN_CLIPS:
        return Difference(observed, low, high, None)
    # From the second system's sums to the first's.
    moved = _sums_of_draws(sides[1] - sides[0], _exchanged, n_draws, seed)
    drawn = difference(whole + np.hstack([moved, -moved]), n_clips)
    as_large = np.abs(drawn) >= abs(observed) - _ROUNDING * np.abs(both).max()
    return Difference(observed, low, high, (1 + int(as_large.sum())) / (1 + n_draws))


def interval(counts: Numbers, *, score_of_sums: ScoreOfSums = mean_of_sums, seed: int = 0) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of one score, from resampled clips.

    Args:
        counts: One number per clip `[N]`, or the counts `[N, K]` that a corpus score is computed from.
        score_of_sums: Turns sums over clips `[R, K]` and the number of clips into scores `[R]`.
        seed: Seed of the resampling.

    Raises:
        ValueError: There are no clips, or a value is NaN or infinite.
    """
    sums = _sums_of_draws(_checked(counts), _resampled, N_RESAMPLES, seed)
    low, high = np.percentile(score_of_sums(sums, len(counts)), [2.5, 97.5])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of comparisons (Holm 1979): each may be compared with the level of all together.

    Args:
        p_values: One p-value for each comparison of a family, each 0 to 1.

    Raises:
        ValueError: A p-value is NaN or outside 0 to 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a p-value is NaN or outside 0 to 1")
    order = np.argsort(values, kind="stable")
    n_left = np.arange(len(values), 0, -1)  # hypotheses not rejected yet when each one's turn comes
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * n_left))
    return [float(value) for value in adjusted]


def _checked(values: Numbers) -> Numbers:
    """Return the numbers of the clips as counts `[N, K]`."""
    counts: Numbers = np.asarray(values, dtype=np.float64)
    if counts.ndim == 1:
        counts = counts[:, None]
    if counts.ndim != 2 or not counts.size:
        raise ValueError(f"shape {counts.shape} is not [N] or [N, K] with at least one clip")
    if not np.isfinite(counts).all():
        raise ValueError("a value is NaN or infinite")
    return counts


def _sums_of_draws(
    counts: Numbers, draw: Callable[[np.random.Generator, int, int], Numbers], n_draws: int, seed: int
) -> Numbers:
    """Return the sums over clips `[R, K]` of counts `[N, K]` weighted by each draw: one matrix product per chunk."""
    if n_draws < 1:
        raise ValueError(f"n_draws is {n_draws}, but must be at least 1")
    rng = np.random.default_rng(seed)
    n_rows = max(1, _CHUNK // len(counts))
    sizes = (min(n_rows, n_draws - start) for start in range(0, n_draws, n_rows))
    return np.concatenate([draw(rng, size, len(counts)) @ counts for size in sizes])


def _resampled(rng: np.random.Generator, n_draws: int, n_clips: int) -> Numbers:
    """Return how often each resample contains each clip `[R, N]`."""
    clips = rng.integers(n_clips, size=(n_draws, n_clips), dtype=np.int32)
    # Three times as fast as `Generator.multinomial`.
    cells = clips + n_clips * np.arange(n_draws)[:, None]
    return np.bincount(cells.ravel(), minlength=n_draws * n_clips).reshape(n_draws, n_clips).astype(np.float64)


def _exchanged(rng: np.random.Generator, n_draws: int, n_clips: int) -> Numbers:
    """Return 1 for the clips whose captions each draw exchanges, and 0 for the others `[R, N]`."""
    return rng.integers(2, size=(n_draws, n_clips), dtype=np.bool_).astype(np.float64)
