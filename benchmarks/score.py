"""Score captions, against aac-metrics' own evaluation of the same captions.

Takes captions in the form {id: [caption, ...]}. The prediction for each clip is its first caption without about one
word in six; the other captions are its references. All metrics except SPICE are scored by both, then CIDEr-D alone, of
tokenised captions. With --spice-clips it scores two sets of predictions with SPICE, one after the other with the same
cache: the second takes as long as each further system. With --large it repeats the clips, each time with other words,
up to that number, in a process of its own. Needs Java and the jars of `textcap fetch metrics`.
"""

import importlib
import itertools
import json
import random
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Contender, Timing
from benchmarks.options import option
from benchmarks.processes import CannotRunError, run_function
from textcap.scoring.java import find_java
from textcap.scoring.metrics import ScoreSettings, score_systems
from textcap.scoring.words import cider_d
from textcap.verify import import_msclap

METRICS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider_d"]
TOLERANCE = 1e-9
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Sizes:
    """What to score."""

    references: str = option("", "JSON file, {id: [caption, ...]}")
    clips: int = option(975, "clips to score")
    spice_clips: int = option(0, "clips for SPICE; 0 leaves it out")
    large: int = option(0, "clips for the measurement of memory; 0 leaves it out")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure both programs."""
    if not sizes.references:
        raise CannotRunError("needs captions: --references refs.json")
    clips = read_clips(sizes.references, sizes.clips)
    bench.note(f"{len(clips)} clips, Java {find_java().version}")
    compare_with_aac_metrics(bench, clips)
    compare_cider_d(bench, clips)
    if sizes.large:
        arguments = (sizes.references, str(sizes.clips), str(sizes.large))
        used = run_function("score.score_large", bench.work, *arguments)
        bench.record(
            Timing(f"{sizes.large:,} clips, with loading", "textcap", [used.wall_s], [used.cpu_s], peak_mb=used.peak_mb)
        )
    if sizes.spice_clips:
        measure_spice(bench, clips[: sizes.spice_clips])


def read_clips(references: str, n: int) -> list[list[str]]:
    """Return the captions of the first clips of a file."""
    return list(json.loads(Path(references).read_text(encoding="utf-8")).values())[:n]


def words_of(caption: str) -> str:
    """Return a caption's words in lower case, without punctuation: a tokeniser that needs no Java."""
    return " ".join(re.findall(r"\w+", caption.lower()))


def predict(captions: list[str], seed: int) -> str:
    """Return the first caption of a clip without about one word in six, like an imperfect captioner's."""
    rng = random.Random(f"{seed} {captions[0]}")
    return " ".join(word for word in captions[0].split() if rng.random() > 1 / 6) or captions[0]


def split(clips: list[list[str]], seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Return a prediction and the references of each clip."""
    return [predict(captions, seed) for captions in clips], [captions[1:] for captions in clips]


def compare_with_aac_metrics(bench: Bench, clips: list[list[str]]) -> None:
    """Measure all metrics except SPICE."""
    predictions, references = split(clips)
    evaluate = load_evaluate()

    def ours() -> Scores:
        [system] = score_systems(references, [predictions], METRICS).systems
        if problems := [system[name].problem for name in METRICS if system[name].problem]:
            raise CannotRunError(problems[0])
        return {name: float(system[name].value or 0.0) for name in METRICS}

    def theirs() -> Scores:
        corpus, _ = evaluate(predictions, references, metrics=METRICS)
        return {name: float(corpus[name]) for name in METRICS}

    contenders = [Contender("textcap", ours), Contender("aac-metrics", theirs)]
    bench.compare("all metrics but SPICE", contenders, differing_scores)


def compare_cider_d(bench: Bench, clips: list[list[str]]) -> None:
    """Measure CIDEr-D of tokenised captions."""
    tokens = [[words_of(caption) for caption in captions] for captions in clips]
    predictions, references = split(tokens)
    reference = load_functional().cider_d

    def ours() -> Scores:
        [values] = cider_d([predictions], references)
        return {"cider_d": float(values.mean())}

    def theirs() -> Scores:
        corpus, _ = reference(predictions, references)
        return {"cider_d": float(corpus["cider_d"])}

    bench.compare("CIDEr-D alone", [Contender("textcap", ours), Contender("aac-metrics", theirs)], differing_scores)


def differing_scores(ours: Scores, theirs: Scores) -> str:
    """Return which score differs most, if it differs by more than rounding."""
    difference, name = max((abs(ours[name] - theirs[name]), name) for name in ours)
    return "" if difference <= TOLERANCE else f"has a {name} that differs by {difference:.1e}"


def score_large(references: str, n_clips: str, n: str) -> None:
    """Score many clips, made by replacing words of the given ones."""
    clips, rng = read_clips(references, int(n_clips)), random.Random(0)
    words = sorted({word for captions in clips for caption in captions for word in caption.split()})
    many = [
        [" ".join(word if rng.random() > 0.3 else rng.choice(words) for word in one.split()) for one in captions]
        for captions in itertools.islice(itertools.cycle(clips), int(n))
    ]
    predictions, references_of = split(many)
    score_systems(references_of, [predictions], METRICS)


def measure_spice(bench: Bench, clips: list[list[str]]) -> None:
    """Measure SPICE for a first and a second set of predictions for the same references."""
    with tempfile.TemporaryDirectory() as folder:
        for seed, which in enumerate(("first", "second")):
            predictions, references = split(clips, seed)
            started = time.perf_counter()
            scoring = score_systems(references, [predictions], ["spice"], ScoreSettings(cache_folder=Path(folder)))
            wall_s, score = time.perf_counter() - started, scoring.systems[0]["spice"]
            if score.problem:
                raise CannotRunError(score.problem)
            bench.record(Timing(f"SPICE, {len(clips)} clips", f"{which} predictions", [wall_s], [0.0]))


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
