"""Score files of predictions against a file of references: everything that `textcap score` does except printing.

Reads the files, matches their clips, scores and compares the systems, and returns a report.
"""

import csv
import hashlib
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from textcap.data.text import STDIN
from textcap.errors import FileError, InputError
from textcap.files import atomic_write_bytes
from textcap.scoring.comparison import Comparison, compare_systems
from textcap.scoring.matching import Matched, match
from textcap.scoring.metric_names import LOWER_IS_BETTER, VOCAB, parse_metrics
from textcap.scoring.metrics import Progress, ScoreSettings, score_systems
from textcap.scoring.published import PublishedRow, published_rows
from textcap.scoring.readers import check_given_once, read_predictions, read_references
from textcap.scoring.results import MetricScore, Scores, Scoring, score_of_sums
from textcap.scoring.significance import N_DRAWS, N_RESAMPLES, interval
from textcap.store import own_cache_folder

TOKENIZER = "Stanford CoreNLP 3.4.1, PTBTokenizer"


@dataclass(frozen=True)
class ReportSettings:
    """What to report besides the scores.

    Attributes:
        baseline: File of predictions to compare each other one with; None compares up to five with each other.
        intervals: Give each score its 95 % interval.
        human: Score the references, too, each against the others of its clip.
        test_set: Add the paper's rows for "audiocaps" or "clotho".
        seed: Seed of the draws that tell differences from chance.
    """

    baseline: str | Path | None = None
    intervals: bool = False
    human: bool = False
    test_set: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """Everything that `textcap score` prints.

    Attributes:
        names: The files of predictions, as they were given; each is one system.
        matched: The clips that were scored, and what did not match.
        scoring: The scores.
        ranked_by: The metric that ranks the systems; None if they were not compared.
        comparisons: Differences between systems: for each metric, one for each pair.
        published: Rows of the paper's tables, if they were requested.
        wanted: What was requested besides the scores.
        unread: Why files of predictions are left out that do not exist or cannot be read.
    """

    names: list[str]
    matched: Matched
    scoring: Scoring
    ranked_by: str | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    published: list[PublishedRow] = field(default_factory=list)
    wanted: ReportSettings = ReportSettings()
    unread: tuple[FileError, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """The metrics in the order of tables, including those without a value."""
        return list(self.scoring.systems[0])

    @property
    def failed(self) -> list[MetricScore]:
        """The scores that are defined for these clips but could not be computed."""
        return [one for one in self.scoring.all_scores if one.problem is not None and not one.is_undefined]

    @property
    def has_values(self) -> bool:
        """Whether any metric could be computed."""
        return any(one.value is not None for one in self.scoring.all_scores)

    @property
    def signature(self) -> str:
        """One line with everything that the scores depend on, to paste into a paper."""
        scoring = self.scoring
        n_references = sorted({len(several) for several in self.matched.references})
        jars = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(scoring.jars.items()))
        parts = {
            "textcap": version("textcap"),
            "clips": scoring.n_clips,
            "refs": "-".join(str(n) for n in dict.fromkeys((n_references[0], n_references[-1]))),
            "tok": "ptb-corenlp-3.4.1",
            "java": scoring.java_version,
            "jars": hashlib.sha256(jars.encode()).hexdigest()[:12] if jars else None,
            **{name.rpartition("/")[2]: commit[:12] for name, commit in scoring.models.items()},
        }
        return "|".join(f"{name}:{value}" for name, value in parts.items() if value is not None)


def score_files(
    references: str | Path,
    predictions: Sequence[str | Path],
    *,
    metrics: str = "default",
    allow_missing: bool = False,
    allow_empty: bool = False,
    references_form: str | None = None,
    predictions_form: str | None = None,
    wanted: ReportSettings = ReportSettings(),
    settings: ScoreSettings | None = None,
    progress: Progress | None = None,
    when_stopped: Callable[[Report], None] | None = None,
) -> Report:
    """Score files of predictions, and compare them.

    A metric that cannot be computed is in the report with the reason, and so is a file of predictions that cannot be
    read; the others are unaffected.

    Args:
        references: A file in any format of `textcap.scoring.readers.FORMS`; "-" is standard input.
        predictions: One file for each system.
        metrics: Names of metrics and of groups of them from `textcap.scoring.metric_names`, separated by commas.
        allow_missing: Score the clips that all files have, even if some are missing.
        allow_empty: Score empty predictions, too.
        references_form: The format of the references; by default it is recognised from the content.
        predictions_form: The format of all files of predictions, likewise.
        wanted: What to report besides the scores.
        settings: How to score; by default SPICE keeps parsed captions in textcap's cache folder.
        progress: Called with the name of each metric when it is done, and with how far SPICE is.
        when_stopped: Called with what is done if the run is interrupted, before the exception goes on.

    Raises:
        InputError: A file cannot be used, its clips do not match, or a name is unknown.
    """
    names = parse_metrics(metrics)
    rows = published_rows(wanted.test_set) if wanted.test_set is not None else []
    files = [str(path) for path in predictions]
    baseline_name = None
    if wanted.baseline is not None:
        same = [path for path in files if os.path.realpath(path) == os.path.realpath(wanted.baseline)]
        files += [] if same else [str(wanted.baseline)]
        baseline_name = files[-1] if not same else same[0]
    check_given_once(files)
    check_given_once([path for path in (str(references), *files) if path == STDIN])
    reference_captions = read_references(Path(references), references_form)
    predicted_captions, unread = [], []
    for path in list(files):
        try:
            predicted_captions.append(read_predictions(Path(path), predictions_form))
        except FileError as error:
            if path == baseline_name:
                raise
            files.remove(path)
            unread.append(error)
    if unread and not files:
        raise InputError("; ".join(map(str, unread)))
    matched = match(reference_captions, predicted_captions, allow_missing=allow_missing, allow_empty=allow_empty)

    def report_on(scoring: Scoring) -> Report:
        systems = [_with_intervals(one, wanted.seed) if wanted.intervals else one for one in scoring.systems]
        baseline = None if baseline_name is None else files.index(baseline_name)
        ranked_by, comparisons = compare_systems(systems, baseline=baseline, seed=wanted.seed)
        scoring = replace(scoring, systems=systems)
        return Report(files, matched, scoring, ranked_by, comparisons, rows, wanted, tuple(unread))

    return report_on(
        score_systems(
            matched.references,
            matched.predictions,
            names,
            settings or ScoreSettings(cache_folder=own_cache_folder() / "spice"),
            leave_one_out=wanted.human,
            progress=progress,
            when_stopped=None if when_stopped is None else lambda scoring: when_stopped(report_on(scoring)),
        )
    )


def _with_intervals(scores: Scores, seed: int) -> Scores:
    found = dict(scores)
    for name, score in scores.items():
        if score.value is not None and score.draws is not None and name not in VOCAB:
            ends = interval(score.draws, score_of_sums=score_of_sums(name), seed=seed)
            found[name] = replace(score, interval=ends)
    return found


def write_scores(path: Path, report: Report, *, sort_by: str | None = None) -> None:
    """Write a CSV file with one row for each clip of each file of predictions.

    Columns: `id`, `predictions` if there are several files, `caption`, `reference_1` and on, then one for each metric
    that has scores per clip.

    Args:
        path: The file to write; an existing file is overwritten.
        report: The result of `score_files`.
        sort_by: A metric; the worst clips come first. If it could not be computed, clips stay in order.

    Raises:
        InputError: The file cannot be written.
    """
    systems, matched = report.scoring.systems, report.matched
    rows: list[tuple[dict[str, str], dict[str, float]]] = []
    for name, scores, captions in zip(report.names, systems, matched.predictions, strict=True):
        per_clip = {metric: one.per_clip for metric, one in scores.items() if one.per_clip is not None}
        for index, (clip, caption) in enumerate(zip(matched.ids, captions, strict=True)):
            texts = {"id": clip, "predictions": name, "caption": caption}
            texts |= {f"reference_{number}": one for number, one in enumerate(matched.references[index], start=1)}
            rows.append((texts, {metric: float(numbers[index]) for metric, numbers in per_clip.items()}))
    if sort_by is not None:
        sign = -1 if sort_by in LOWER_IS_BETTER else 1
        rows.sort(key=lambda row: sign * row[1][sort_by] if sort_by in row[1] else math.inf)
    file_column = ["predictions"] if len(report.names) > 1 else []
    references = [f"reference_{number}" for number in range(1, 1 + max(map(len, matched.references)))]
    metrics = [name for name in report.metrics if any(name in values for _, values in rows)]
    text = io.StringIO()
    columns = ["id", *file_column, "caption", *references, *metrics]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**texts, **values} for texts, values in rows)
    # JSON can contain lone surrogates, which UTF-8 cannot encode.
    atomic_write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))


def report_to_dict(report: Report) -> dict[str, Any]:
    """Return the report as values for JSON; a metric without a value is null, and `problems` has the reason."""
    scoring, matched, names = report.scoring, report.matched, report.names
    left_out = [_values(one) for one in scoring.leave_one_out]
    java = {"version": scoring.java_version, "path": scoring.java.path} if scoring.java is not None else None
    return {
        "n_clips": scoring.n_clips,
        "n_reference_clips": matched.n_references,
        "does_not_fit": matched.problems,
        "not_read": [str(error) for error in report.unread],
        "n_cleaned": {"predictions": scoring.n_cleaned_predictions, "references": scoring.n_cleaned_references},
        "systems": [
            {
                "predictions": name,
                "matched_by": matched.matched_by[index],
                "scores": _values(scores),
                "intervals": {metric: score.interval for metric, score in scores.items() if score.interval},
                "problems": {metric: score.problem for metric, score in scores.items() if score.problem},
                "notes": [line for score in scores.values() for line in score.notes],
                "wording": asdict(scoring.wordings[index]) if scoring.wordings else None,
            }
            for index, (name, scores) in enumerate(zip(names, scoring.systems, strict=True))
        ],
        "leave_one_out": {"human": left_out[0], "systems": left_out[1:]} if left_out else None,
        "comparison": {
            "method": "p: exchange of paired captions; interval: paired bootstrap; correction: Holm, over the pairs",
            "n_draws": N_DRAWS,
            "n_resamples": N_RESAMPLES,
            "seed": report.wanted.seed,
            "ranked_by": report.ranked_by,
            "differences": [
                {**asdict(one), "first": names[one.first], "second": names[one.second], "verdict": one.verdict}
                for one in report.comparisons
            ],
        },
        "published": [asdict(row) for row in report.published],
        "signature": report.signature,
        "versions": {
            "textcap": version("textcap"),
            "java": java,
            "tokenizer": TOKENIZER,
            "sha256": scoring.jars,
            "unknown_jars": scoring.unknown_jars,
            "models": scoring.models,
        },
    }


def _values(scores: Scores) -> dict[str, float | None]:
    return {metric: score.value for metric, score in scores.items()}
