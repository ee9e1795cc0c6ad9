"""Measure how often a comparison calls two systems different that do not differ.

    python benchmarks/significance.py --references refs.json [--data-sets 2000] [--draws 1000] [--clips 2 5 20 30 ...]

Takes captions in the form {id: [caption, ...]}, at least three for each clip. The last two captions of a clip are
those of two captioners, and the others are its references. A null data set draws clips with replacement, and draws for
each of them which of its two captions is the first system's. So neither system is better, and every verdict is a false
alarm. All metrics see the same data sets.

Prints the false alarms of the exchange test, and beside them those of the rule that it replaced, which called a
difference more than noise if 0 was outside the 95 % interval of a paired bootstrap with 1,000 resamples, each with its
standard error. CIDEr-D has the word weights of all references. The exchange test has fewer draws here than in `textcap
score`: it is less powerful, but gives no more false alarms.
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from textcap.scoring import significance
from textcap.scoring.counts import Numbers, bleu_counts
from textcap.scoring.results import score_of_sums
from textcap.scoring.significance import LEVEL, MIN_CLIPS, compare
from textcap.scoring.words import cider_d, rouge_l

TITLES = {"rouge_l": "ROUGE-L (mean)", "cider_d": "CIDEr-D", "bleu_4": "BLEU-4"}
N_CLIPS = (2, 5, 20, 30, 50, 200, 1000)


def main() -> None:
    """Measure the false alarms and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=Path, required=True, help="JSON file, {id: [caption, ...]}")
    parser.add_argument("--data-sets", type=int, default=2000, help="number of null data sets in each row")
    parser.add_argument("--draws", type=int, default=1000, help="draws of the exchange test")
    parser.add_argument("--clips", type=int, nargs="+", default=N_CLIPS, help="numbers of clips of a data set")
    options = parser.parse_args()
    scores = score_captions(json.loads(options.references.read_text(encoding="utf-8")))
    print_durations(scores)
    significance.N_RESAMPLES = 1000
    print(f"{options.data_sets} null data sets in each row, {options.draws} draws in each test")
    print(f"{'metric':15} {'clips':>6} {'exchange test':>16} {'0 outside interval':>20}")
    for metric in TITLES:
        for n_clips in options.clips:
            tested, by_interval = false_alarms(scores[metric], metric, n_clips, options.data_sets, options.draws)
            cells = share(tested, options.data_sets) if n_clips >= MIN_CLIPS else "no verdict"
            print(
                f"{TITLES[metric]:15} {n_clips:6,} {cells:>16} {share(by_interval, options.data_sets):>20}", flush=True
            )


def score_captions(clips: dict[str, list[str]]) -> dict[str, list[Numbers]]:
    """Return, for each metric, the scores `[N]` or counts `[N, K]` of both captions of each clip."""
    tokenised = [[" ".join(re.findall(r"\w+", one.lower())) for one in captions] for captions in clips.values()]
    references = [captions[:-2] for captions in tokenised]
    both = [[captions[side] for captions in tokenised] for side in (-2, -1)]
    counts = [bleu_counts(predictions, references) for predictions in both]
    return {"bleu_4": counts, "rouge_l": rouge_l(both, references), "cider_d": cider_d(both, references)}


def false_alarms(scores: Sequence[Numbers], metric: str, n_clips: int, n_sets: int, n_draws: int) -> tuple[int, int]:
    """Return how many null data sets the exchange test, and the interval of the bootstrap, call different."""
    # Not the seed of any test, whose draws would otherwise be those that made the data.
    rng = np.random.default_rng([n_clips, n_sets])
    tested = by_interval = 0
    both = np.stack(scores)  # [2, N] or [2, N, K]
    for seed in range(n_sets):
        clips, side = rng.integers(both.shape[1], size=n_clips), rng.integers(2, size=n_clips)
        sides = both[side, clips], both[1 - side, clips]
        found = compare(*sides, score_of_sums=score_of_sums(metric), n_draws=n_draws, seed=seed)
        tested += found.p_value is not None and found.p_value < LEVEL
        by_interval += found.low > 0 or found.high < 0
    return tested, by_interval


def share(n: int, n_sets: int) -> str:
    """Return a percentage with its standard error."""
    fraction = n / n_sets
    return f"{100 * fraction:.1f} +- {100 * np.sqrt(fraction * (1 - fraction) / n_sets):.1f} %"


def print_durations(scores: dict[str, list[Numbers]]) -> None:
    """Print how long a comparison takes with as many draws as in `textcap score`."""
    for n_clips in (1000, 20_000):
        for metric in ("rouge_l", "bleu_4"):
            sides = [np.resize(side, (n_clips, *side.shape[1:])) for side in scores[metric]]
            started = time.perf_counter()
            compare(*sides, score_of_sums=score_of_sums(metric))
            print(f"one comparison, {TITLES[metric]}, {n_clips:,} clips: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
