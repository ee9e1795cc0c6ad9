"""Measure how often a comparison calls two systems different that do not differ.

Takes captions in the form {id: [caption, ...]}, at least three for each clip. The last two captions of a clip are
those of two captioners, and the others are its references. A null data set draws clips with replacement, and draws for
each of them which of its two captions is the first system's. So neither system is better, and every verdict is a false
alarm. All metrics see the same data sets.

Notes the false alarms of the exchange test, and beside them those of the rule that it replaced, which called a
difference more than noise if 0 was outside the 95 % interval of a paired bootstrap with 1,000 resamples, each with its
standard error. CIDEr-D has the word weights of all references. The exchange test has fewer draws here than in `textcap
score`: it is less powerful, but gives no more false alarms.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Bench, Timing
from benchmarks.options import option
from benchmarks.processes import CannotRunError
from benchmarks.score import words_of
from textcap.scoring import significance
from textcap.scoring.counts import Numbers, bleu_counts
from textcap.scoring.results import score_of_sums
from textcap.scoring.significance import LEVEL, MIN_CLIPS, compare
from textcap.scoring.words import cider_d, rouge_l

TITLES = {"rouge_l": "ROUGE-L (mean)", "cider_d": "CIDEr-D", "bleu_4": "BLEU-4"}


@dataclass(frozen=True)
class Sizes:
    """What to draw, and how often."""

    references: str = option("", "JSON file, {id: [caption, ...]}")
    data_sets: int = option(2000, "null data sets in each row")
    draws: int = option(1000, "draws of the exchange test")
    clips: tuple[int, ...] = option((2, 5, 20, 30, 50, 200, 1000), "numbers of clips of a data set")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure the false alarms."""
    if not sizes.references:
        raise CannotRunError("needs captions: --references refs.json")
    scores = score_captions(json.loads(Path(sizes.references).read_text(encoding="utf-8")))
    measure_durations(bench, scores)
    significance.N_RESAMPLES = 1000
    bench.note(f"{sizes.data_sets} null data sets in each row, {sizes.draws} draws in each test")
    bench.note(f"{'metric':15} {'clips':>6} {'exchange test':>16} {'0 outside interval':>20}")
    for metric, title in TITLES.items():
        for n_clips in sizes.clips:
            tested, by_interval = false_alarms(scores[metric], metric, n_clips, sizes.data_sets, sizes.draws)
            verdict = share(tested, sizes.data_sets) if n_clips >= MIN_CLIPS else "no verdict"
            bench.note(f"{title:15} {n_clips:6,} {verdict:>16} {share(by_interval, sizes.data_sets):>20}")


def score_captions(clips: dict[str, list[str]]) -> dict[str, list[Numbers]]:
    """Return, for each metric, the scores `[N]` or counts `[N, K]` of both captions of each clip."""
    tokenised = [[words_of(one) for one in captions] for captions in clips.values()]
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


def measure_durations(bench: Bench, scores: dict[str, list[Numbers]]) -> None:
    """Measure a comparison with as many draws as in `textcap score`."""
    for n_clips in (1000, 20_000):
        for metric in ("rouge_l", "bleu_4"):
            sides = [np.resize(side, (n_clips, *side.shape[1:])) for side in scores[metric]]
            wall, cpu = time.perf_counter(), time.process_time()
            compare(*sides, score_of_sums=score_of_sums(metric))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            bench.record(Timing(f"one comparison, {n_clips:,} clips", TITLES[metric], [wall], [cpu]))
