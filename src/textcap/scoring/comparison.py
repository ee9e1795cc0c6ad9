"""Pair the systems, and test for each metric whether one of a pair is better than the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from textcap.scoring.metric_names import LOWER_IS_BETTER, VOCAB
from textcap.scoring.results import Scores, score_of_sums
from textcap.scoring.significance import Difference, compare, holm, verdict_of

MOST_SYSTEMS = 5  # that are all compared with each other
# Systems are ranked by the first of these that all of them have, else by the first metric that all have.
_DECISIVE = ("spider_fl", "spider", "cider_d")


@dataclass(frozen=True)
class Comparison(Difference):
    """One metric of two systems; the difference is that of the first system's score minus the second's.

    Attributes:
        metric: The name of the metric.
        first: Index of one system.
        second: Index of the other: the baseline, or the lower-ranked one of the two.
        p_corrected: The p-value after Holm's correction over the pairs; None like `p_value`.
    """

    metric: str
    first: int
    second: int
    p_corrected: float | None

    @property
    def verdict(self) -> str | None:
        """Whether the first system is "better", "worse" or "not significantly different"; None without a p-value."""
        return verdict_of(self.p_corrected, (self.difference > 0) != (self.metric in LOWER_IS_BETTER))


def compare_systems(
    systems: Sequence[Scores], *, baseline: int | None = None, seed: int = 0
) -> tuple[str | None, list[Comparison]]:
    """Compare each system with a baseline, or all systems with each other.

    BLEU and METEOR are recomputed from the counts of each draw. The other metrics are means over clips; CIDEr-D keeps
    the word weights of all references. The vocabulary metrics are not per-clip scores and are skipped.

    Args:
        systems: Scores of each system, for the same clips in the same order.
        baseline: Index of the system to compare the others with.
        seed: Seed of the draws, which are the same for all metrics and pairs.

    Returns:
        The metric by which the systems are ranked, and a comparison for each metric that both systems of a pair have.
        None and no comparison for a single system, if no metric has a value for all, or for more than `MOST_SYSTEMS`
        systems without a baseline.
    """
    metrics = [name for name in systems[0] if name not in VOCAB]
    draws = {name: [one[name].draws if name in one else None for one in systems] for name in metrics}
    shared = [name for name in metrics if all(values is not None for values in draws[name])]
    if len(systems) < 2 or not shared or (baseline is None and len(systems) > MOST_SYSTEMS):
        return None, []
    decisive = next((name for name in _DECISIVE if name in shared), shared[0])
    values = [one[decisive].value or 0.0 for one in systems]
    ranked = sorted(range(len(systems)), key=values.__getitem__, reverse=decisive not in LOWER_IS_BETTER)
    pairs = list(combinations(ranked, 2))
    if baseline is not None:
        pairs = [(index, baseline) for index in ranked if index != baseline]
    found = []
    for metric in metrics:
        tested = []
        for pair in pairs:
            first, second = (draws[metric][index] for index in pair)
            if first is not None and second is not None:
                tested.append((pair, compare(first, second, score_of_sums=score_of_sums(metric), seed=seed)))
        corrected = iter(holm([one.p_value for _, one in tested if one.p_value is not None]))
        for pair, one in tested:
            p_corrected = None if one.p_value is None else next(corrected)
            found.append(Comparison(**vars(one), metric=metric, first=pair[0], second=pair[1], p_corrected=p_corrected))
    return decisive, found
