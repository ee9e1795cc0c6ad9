"""Measure how long scoring takes, compared with aac-metrics' own evaluation of the same captions.

    python benchmarks/score.py --references refs.json [--clips 975] [--repeats 3] [--spice-clips 0] [--large 0]

Takes captions in the form {id: [caption, ...]}. The prediction for each clip is its first caption without about one
word in six; the other captions are its references. Scores them with all metrics except SPICE, alternately by textcap
and by aac-metrics, and prints the times, their ratio and the largest difference of a score; the same for CIDEr-D alone,
of tokenised captions. Then scores two sets of predictions with SPICE, one after the other with the same cache: the time
of the second is the time that each further system takes. With --large it repeats the clips, each time with other words,
up to that number, and prints time and peak memory of this process. Needs Java and the jars of `textcap fetch metrics`.
"""

import argparse
import importlib
import itertools
import json
import random
import re
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from textcap.scoring.java import find_java
from textcap.scoring.metrics import ScoreSettings, score_systems
from textcap.scoring.results import Scoring
from textcap.scoring.words import cider_d
from textcap.verify import import_msclap

METRICS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider_d"]


def main() -> None:
    """Measure the times and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=Path, required=True, help="JSON file, {id: [caption, ...]}")
    parser.add_argument("--clips", type=int, default=975, help="number of clips to score")
    parser.add_argument("--repeats", type=int, default=3, help="how often to measure each program")
    parser.add_argument("--spice-clips", type=int, default=0, help="number of clips for SPICE (0: skip it)")
    parser.add_argument(
        "--large", type=int, default=0, help="number of clips for the measurement of memory (0: skip it)"
    )
    options = parser.parse_args()
    references = json.loads(options.references.read_text(encoding="utf-8"))
    clips = list(references.values())[: options.clips]
    print(f"{len(clips)} clips, Java {find_java().version}")
    compare_with_aac_metrics(clips, options.repeats)
    compare_cider_d(clips, options.repeats)
    if options.large:
        measure_memory(clips, options.large)
    if options.spice_clips:
        measure_spice(clips[: options.spice_clips])


def predict(captions: list[str], seed: int) -> str:
    """Return the first caption of a clip without about one word in six, like an imperfect captioner's."""
    rng = random.Random(f"{seed} {captions[0]}")
    return " ".join(word for word in captions[0].split() if rng.random() > 1 / 6) or captions[0]


def compare_with_aac_metrics(clips: list[list[str]], n_repeats: int) -> None:
    """Print the times of textcap and aac-metrics, measured alternately so that other load affects both alike."""
    predictions, references = [predict(captions, 0) for captions in clips], [captions[1:] for captions in clips]
    evaluate = load_evaluate()

    def ours() -> Scoring:
        return score_systems(references, [predictions], METRICS)

    def theirs() -> Any:
        return evaluate(predictions, references, metrics=METRICS)

    scoring, (corpus, _) = alternate("all metrics but SPICE", ours, theirs, n_repeats)
    differences = []
    for name in METRICS:
        value = scoring.systems[0][name].value
        if value is None:
            raise SystemExit(f"{name}: {scoring.systems[0][name].problem}")
        differences.append(abs(value - float(corpus[name])))
    print(f"largest difference of a score: {max(differences):.1e}")


def compare_cider_d(clips: list[list[str]], n_repeats: int) -> None:
    """Print the times that CIDEr-D of tokenised captions takes in textcap and in aac-metrics."""
    tokens = [[" ".join(re.findall(r"\w+", caption.lower())) for caption in captions] for captions in clips]
    predictions, references = [predict(captions, 0) for captions in tokens], [captions[1:] for captions in tokens]
    theirs = load_functional().cider_d
    (ours,), (corpus, _) = alternate(
        "CIDEr-D alone",
        lambda: cider_d([predictions], references),
        lambda: theirs(predictions, references),
        n_repeats,
    )
    print(f"difference: {abs(ours.mean() - float(corpus['cider_d'])):.1e}")


def alternate(what: str, ours: Callable[[], Any], theirs: Callable[[], Any], n_repeats: int) -> tuple[Any, Any]:
    """Time two functions alternately, print the times and their ratio, and return what they return."""
    seconds: dict[str, list[float]] = {"textcap": [], "aac-metrics": []}
    for _ in range(n_repeats):
        our_result, duration_s = timed(ours)
        seconds["textcap"].append(duration_s)
        their_result, duration_s = timed(theirs)
        seconds["aac-metrics"].append(duration_s)
    for name, values in seconds.items():
        each = ", ".join(f"{value:.2f}" for value in values)
        print(f"{what}, {name}: {statistics.median(values):.2f} s ({each})")
    ratio = statistics.median(seconds["textcap"]) / statistics.median(seconds["aac-metrics"])
    print(f"{what}, ratio: {ratio:.2f}")
    return our_result, their_result


def measure_memory(clips: list[list[str]], n_clips: int) -> None:
    """Print time and peak memory of scoring many clips, made by replacing words of the given ones."""
    rng = random.Random(0)
    words = sorted({word for captions in clips for caption in captions for word in caption.split()})
    many = [
        [" ".join(word if rng.random() > 0.3 else rng.choice(words) for word in one.split()) for one in captions]
        for _, captions in zip(range(n_clips), itertools.cycle(clips), strict=False)
    ]
    predictions, references = [predict(captions, 0) for captions in many], [captions[1:] for captions in many]
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _, seconds = timed(lambda: score_systems(references, [predictions], METRICS))
    after_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{n_clips:,} clips: {seconds:.1f} s, peak memory {after_mb:,.0f} MB (before scoring {before_mb:,.0f} MB)")


def measure_spice(clips: list[list[str]]) -> None:
    """Print how long SPICE takes for a first and a second set of predictions for the same references."""
    references = [captions[1:] for captions in clips]
    with tempfile.TemporaryDirectory() as folder:
        settings = ScoreSettings(cache_folder=Path(folder))
        durations_s = []
        for seed in (0, 1):
            predictions = [predict(captions, seed) for captions in clips]
            scoring, seconds = timed(partial(score_systems, references, [predictions], ["spice"], settings))
            score = scoring.systems[0]["spice"]
            if score.problem:
                raise SystemExit(score.problem)
            durations_s.append(seconds)
            print(f"SPICE, {'first' if seed == 0 else 'second'} predictions: {seconds:.1f} s, {score.value:.3f}")
    print(f"ratio, {len(clips)} clips: {durations_s[1] / durations_s[0]:.2f}")


def load_evaluate() -> Callable[..., Any]:
    """Return aac-metrics' own evaluation function, with its check of the Java version disabled."""
    evaluate: Callable[..., Any] = load_functional().evaluate
    checks: Any = importlib.import_module("aac_metrics.utils.checks")
    checks.MAX_JAVA_MAJOR_VERSION = 99
    return evaluate


def load_functional() -> Any:
    """Return aac-metrics' module of functions."""
    import_msclap()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("aac_metrics.functional")


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call and the seconds that it took."""
    start = time.perf_counter()
    outcome = run()
    return outcome, time.perf_counter() - start


if __name__ == "__main__":
    main()
