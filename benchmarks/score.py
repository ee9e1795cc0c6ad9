"""Measure how long scoring takes, compared with aac-metrics' own evaluation of the same captions.

    python benchmarks/score.py --references refs.json [--clips 975] [--repeats 3] [--spice-clips 0]

Takes captions in the form {id: [caption, ...]}. The prediction for each clip is its first caption without about one
word in six; the other captions are its references. Scores them with all metrics except SPICE, alternately by textcap
and by aac-metrics, and prints the times, their ratio and the largest difference of a score. Then scores two sets of
predictions with SPICE, one after the other with the same cache: the time of the second is the time that each further
system takes. Needs Java and the jars of `textcap fetch metrics`.
"""

import argparse
import importlib
import json
import random
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
from textcap.verify import import_msclap

METRICS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider_d"]


def main() -> None:
    """Measure the times and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=Path, required=True, help="JSON file, {id: [caption, ...]}")
    parser.add_argument("--clips", type=int, default=975, help="number of clips to score")
    parser.add_argument("--repeats", type=int, default=3, help="how often to measure each program")
    parser.add_argument("--spice-clips", type=int, default=0, help="number of clips for SPICE (0: skip it)")
    options = parser.parse_args()
    references = json.loads(options.references.read_text(encoding="utf-8"))
    clips = list(references.values())[: options.clips]
    print(f"{len(clips)} clips, Java {find_java().version}")
    compare_with_aac_metrics(clips, options.repeats)
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

    seconds: dict[str, list[float]] = {"textcap": [], "aac-metrics": []}
    for _ in range(n_repeats):
        scoring, duration_s = timed(ours)
        seconds["textcap"].append(duration_s)
        (corpus, _clips), duration_s = timed(theirs)
        seconds["aac-metrics"].append(duration_s)
    for name, values in seconds.items():
        print(f"{name}: {statistics.median(values):.2f} s ({', '.join(f'{value:.2f}' for value in values)})")
    print(f"ratio: {statistics.median(seconds['textcap']) / statistics.median(seconds['aac-metrics']):.2f}")
    differences = []
    for name in METRICS:
        value = scoring.systems[0].scores[name].value
        if value is None:
            raise SystemExit(f"{name}: {scoring.systems[0].scores[name].problem}")
        differences.append(abs(value - float(corpus[name])))
    print(f"largest difference of a score: {max(differences):.1e}")


def measure_spice(clips: list[list[str]]) -> None:
    """Print how long SPICE takes for a first and a second set of predictions for the same references."""
    references = [captions[1:] for captions in clips]
    with tempfile.TemporaryDirectory() as folder:
        settings = ScoreSettings(cache_folder=Path(folder))
        durations_s = []
        for seed in (0, 1):
            predictions = [predict(captions, seed) for captions in clips]
            scoring, seconds = timed(partial(score_systems, references, [predictions], ["spice"], settings))
            score = scoring.systems[0].scores["spice"]
            if score.problem:
                raise SystemExit(score.problem)
            durations_s.append(seconds)
            print(f"SPICE, {'first' if seed == 0 else 'second'} predictions: {seconds:.1f} s, {score.value:.3f}")
    print(f"ratio, {len(clips)} clips: {durations_s[1] / durations_s[0]:.2f}")


def load_evaluate() -> Callable[..., Any]:
    """Return aac-metrics' own evaluation function, with its check of the Java version disabled."""
    import_msclap()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluate: Callable[..., Any] = importlib.import_module("aac_metrics.functional").evaluate
    checks: Any = importlib.import_module("aac_metrics.utils.checks")
    checks.MAX_JAVA_MAJOR_VERSION = 99
    return evaluate


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call and the seconds that it took."""
    start = time.perf_counter()
    outcome = run()
    return outcome, time.perf_counter() - start


if __name__ == "__main__":
    main()
