"""Find the two best systems, and compare them metric by metric."""

from collections.abc import Sequence
from functools import partial

from textcap.scoring.counts import Numbers, bleu_of_counts, meteor_of_counts
from textcap.scoring.metric_names import BLEU, VOCAB
from textcap.scoring.results import SystemScores
from textcap.scoring.significance import Difference, compare

# Systems are ranked by the first of these that all of them have, else by the first metric that all have.
_DECISIVE = ("spider_fl", "spider", "cider_d")
LOWER_IS_BETTER = frozenset({"fer"})


def compare_systems(first: SystemScores, second: SystemScores, *, seed: int = 0) -> dict[str, Difference]:
    """Compare two systems clip by clip.

    BLEU and METEOR are recomputed from the counts of each draw. The other metrics are means over clips; CIDEr-D
    keeps the word weights of all references. The vocabulary metrics are not per-clip scores and are skipped.

    Args:
        first: Scores of one system.
        second: Scores of the other, for the same clips in the same order.
        seed: Seed of the draws, which are the same for all metrics.

    Returns:
        By metric, the score of the first minus that of the second, for all metrics that both have.
    """
    found = {}
    for name, score in first.scores.items():
        other = second.scores.get(name)
        if other is None or score.per_clip is None or other.per_clip is None or name in VOCAB:
            continue
        if name in BLEU:
            sides = (first.counts["bleu"], second.counts["bleu"])
            whole = partial(_bleu_of_sums, n=int(name[-1]))
            found[name] = compare(*sides, seed=seed, score_of_sums=whole)
        elif name == "meteor":
            sides = (first.counts["meteor"], second.counts["meteor"])
            found[name] = compare(*sides, seed=seed, score_of_sums=_meteor_of_sums)
        else:
            found[name] = compare(score.per_clip, other.per_clip, seed=seed)
    return found


def best_two(systems: Sequence[SystemScores]) -> tuple[int, int] | None:
    """Return the indices of the best and second-best system, or None if there is one system or no shared metric.

    Systems are ranked by the first of SPIDEr-FL, SPIDEr and CIDEr-D that all of them have, else by the first metric
    that all have.
    """
    if len(systems) < 2:
        return None
    shared = [
        name
        for name in systems[0].scores
        if name not in VOCAB and all(name in one.scores and one.scores[name].value is not None for one in systems)
    ]
    if not shared:
        return None
    by = next((name for name in _DECISIVE if name in shared), shared[0])
    values = [one.scores[by].value or 0.0 for one in systems]
    order = sorted(range(len(systems)), key=lambda i: values[i], reverse=by not in LOWER_IS_BETTER)
    return order[0], order[1]


def _bleu_of_sums(sums: Numbers, n_clips: int, n: int) -> Numbers:
    return bleu_of_counts(sums, n)


def _meteor_of_sums(sums: Numbers, n_clips: int) -> Numbers:
    return meteor_of_counts(sums)
