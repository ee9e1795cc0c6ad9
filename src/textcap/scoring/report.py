"""Score files of predictions against a file of references: everything that `textcap score` does except printing.

Reads the files, matches their clips, scores and compares the systems, and returns a report.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from textcap.data.text import STDIN
from textcap.errors import InputError
from textcap.files import atomic_write_text
from textcap.scoring.bootstrap import Difference
from textcap.scoring.comparison import LOWER_IS_BETTER, best_two, compare_systems
from textcap.scoring.matching import Matched, match
from textcap.scoring.metric_names import parse_metrics, with_parts
from textcap.scoring.metrics import ScoreSettings, score_systems
from textcap.scoring.published import PublishedRow, published_rows
from textcap.scoring.readers import PREDICTIONS, REFERENCES, check_form, read_predictions, read_references
from textcap.scoring.results import MetricScore, Scoring
from textcap.weights import own_cache_folder

N_RESAMPLES = 1000


@dataclass(frozen=True)
class Comparison:
    """The two best systems, and the differences between their scores.

    Attributes:
        first: Index of the best system.
        second: Index of the second best.
        differences: By metric, the score of the first minus that of the second.
    """

    first: int
    second: int
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Report:
    """Everything that `textcap score` prints.

    Attributes:
        names: The files of predictions, as they were given; each is one system.
        matched: The clips that were scored, and what did not match.
        scoring: The scores.
        comparison: The two best systems; None for a single file, or if no metric has a value for all of them.
        published: Rows of the paper's tables, if they were requested.
    """

    names: list[str]
    matched: Matched
    scoring: Scoring
    comparison: Comparison | None = None
    published: list[PublishedRow] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """The metrics in the order of tables, including those without a value."""
        return list(self.scoring.systems[0].scores)

    @property
    def failed(self) -> list[MetricScore]:
        """The metrics that are defined for these clips but could not be computed, each once."""
        scores = [score for one in self.scoring.systems for score in one.scores.values()]
        failed = {score.name: score for score in scores if score.problem is not None and not score.is_undefined}
        return list(failed.values())


def score_files(
    references: str | Path,
    predictions: Sequence[str | Path],
    *,
    metrics: str = "default",
    allow_missing: bool = False,
    allow_empty: bool = False,
    references_form: str | None = None,
    predictions_form: str | None = None,
    test_set: str | None = None,
    output: Path | None = None,
    sort_by: str | None = None,
    seed: int = 0,
    settings: ScoreSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Score files of predictions, and compare the two best.

    A metric that cannot be computed is in the report with the reason; the others are unaffected.

    Args:
        references: A file in any format of `readers.FORMS`; "-" is standard input.
        predictions: One file for each system.
        metrics: Comma-separated names and groups from `metric_names`.
        allow_missing: Score the clips that all files have, even if some are missing.
        allow_empty: Score empty predictions as they are.
        references_form: One of `readers.FORMS["references"]`; by default it is detected from the content.
        predictions_form: One of `readers.FORMS["predictions"]`, for all files.
        test_set: Add the paper's rows for "audiocaps" or "clotho".
        output: The path that `write_scores` will write to. Like `sort_by`, it is only checked here, before any work.
        sort_by: The metric that `write_scores` will sort by.
        seed: Seed of the bootstrap that tells differences from noise.
        settings: How to score; by default SPICE keeps parsed captions in textcap's cache folder.
        progress: Called with the name of each metric when it is done.

    Raises:
        DependencyError: aac-metrics is not installed, and no requested metric can be computed without it.
        InputError: A file cannot be used, its clips do not match, or a name is unknown.
    """
    check_names(metrics, test_set, references_form, predictions_form, sort_by)
    names = parse_metrics(metrics)
    rows = published_rows(test_set) if test_set is not None else []
    _check_paths(references, predictions, output)
    reference_captions = read_references(Path(references), references_form)
    predicted_captions = [read_predictions(Path(path), predictions_form) for path in predictions]
    matched = match(reference_captions, predicted_captions, allow_missing=allow_missing, allow_empty=allow_empty)
    settings = settings or ScoreSettings(cache_folder=own_cache_folder() / "spice")
    scoring = score_systems(matched.references, matched.predictions, names, settings, progress)
    best = best_two(scoring.systems)
    comparison = None
    if best is not None:
        first, second = (scoring.systems[index] for index in best)
        comparison = Comparison(*best, compare_systems(first, second, n_resamples=N_RESAMPLES, seed=seed))
    return Report([str(path) for path in predictions], matched, scoring, comparison, rows)


def check_names(
    metrics: str,
    test_set: str | None = None,
    references_form: str | None = None,
    predictions_form: str | None = None,
    sort_by: str | None = None,
) -> None:
    """Make sure that the names for `score_files` are known; its arguments are the same.

    Raises:
        InputError: A name is unknown; the hint lists the known ones or suggests the nearest.
    """
    names = with_parts(parse_metrics(metrics))
    if sort_by is not None and sort_by not in names:
        raise InputError(f"{sort_by} is not among the metrics", hint=f"sort by one of {', '.join(names)}")
    if test_set is not None:
        published_rows(test_set)
    check_form(references_form, REFERENCES)
    check_form(predictions_form, PREDICTIONS)


def _check_paths(references: str | Path, predictions: Sequence[str | Path], output: Path | None) -> None:
    if [str(path) for path in (references, *predictions)].count(STDIN) > 1:
        raise InputError("standard input was given twice")
    inputs = [os.path.realpath(path) for path in (references, *predictions)]
    for path, real_path in zip(predictions, inputs[1:], strict=True):
        if inputs[1:].count(real_path) > 1:
            raise InputError(f"{path} was given twice")
    if output is None:
        return
    if os.path.realpath(output) in inputs:
        raise InputError(f"{output} is one of the files to score", hint="choose another name for --output")
    if output.is_dir():
        raise InputError(f"{output} is a folder", hint="name a file with --output")


def write_scores(path: Path, report: Report, *, sort_by: str | None = None) -> None:
    """Write a CSV file with one row for each clip of each file of predictions.

    Columns: `id`, `predictions` if there are several files, then one for each metric that has scores per clip.

    Args:
        path: The file to write; an existing file is overwritten.
        report: The result of `score_files`.
        sort_by: A metric; the worst clips come first. If it could not be computed, clips stay in order.

    Raises:
        InputError: The file cannot be written.
    """
    systems = report.scoring.systems
    columns = [n for n in report.metrics if any(one.scores[n].per_clip is not None for one in systems)]
    rows = []
    for name, one in zip(report.names, systems, strict=True):
        for index, clip in enumerate(report.matched.ids):
            per_clip = [one.scores[column].per_clip for column in columns]
            values = [math.nan if numbers is None else float(numbers[index]) for numbers in per_clip]
            rows.append((clip, name, values))
    if sort_by in columns:
        sort_column, sign = columns.index(sort_by), -1 if sort_by in LOWER_IS_BETTER else 1
        rows.sort(key=lambda row: sign * row[2][sort_column] if not math.isnan(row[2][sort_column]) else math.inf)
    several = len(report.names) > 1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *(["predictions"] if several else []), *columns])
    for clip, name, values in rows:
        cells = ["" if math.isnan(value) else repr(value) for value in values]
        writer.writerow([_encodable(clip), *([_encodable(name)] if several else []), *cells])
    atomic_write_text(path, text.getvalue())


def _encodable(name: str) -> str:
    """Return a name that can be encoded as UTF-8: lone surrogates, which JSON can contain, are escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def report_to_dict(report: Report) -> dict[str, Any]:
    """Return the report as values for JSON; a metric without a value is null, and `problems` has the reason."""
    scoring, matched = report.scoring, report.matched
    java = {"version": scoring.java_version, "path": scoring.java.path} if scoring.java is not None else None
    return {
        "n_clips": scoring.n_clips,
        "n_reference_clips": matched.n_references,
        "matched_by": matched.matched_by,
        "does_not_fit": matched.problems,
        "n_cleaned": {"predictions": scoring.n_cleaned_predictions, "references": scoring.n_cleaned_references},
        "systems": [
            {
                "predictions": name,
                "scores": {metric: score.value for metric, score in one.scores.items()},
                "problems": {metric: score.problem for metric, score in one.scores.items() if score.problem},
                "n_spice_nan": sum(score.n_nan for score in one.scores.values()),
                "n_spice_too_long": sum(score.n_too_long for score in one.scores.values()),
            }
            for name, one in zip(report.names, scoring.systems, strict=True)
        ],
        "comparison": _comparison_to_dict(report),
        "published": [asdict(row) for row in report.published],
        "versions": {
            "textcap": version("textcap"),
            "aac_metrics": scoring.aac_version,
            "java": java,
            "tokenizer": "Stanford CoreNLP 3.4.1, PTBTokenizer",
            "sha256": scoring.jars,
            "unknown_jars": scoring.unknown_jars,
            "models": scoring.models,
        },
    }


def _comparison_to_dict(report: Report) -> dict[str, Any] | None:
    if report.comparison is None:
        return None
    found = report.comparison
    return {
        "first": report.names[found.first],
        "second": report.names[found.second],
        "n_resamples": N_RESAMPLES,
        "differences": {
            metric: {**asdict(one), "more_than_noise": one.is_more_than_noise}
            for metric, one in found.differences.items()
        },
    }
