"""Print the report of `textcap score`: tables on a terminal, else tab-separated lines, and notes on stderr."""

import logging
from typing import TYPE_CHECKING

from textcap.cli.console import note, out, print_result
from textcap.data.text import counted, printable

if TYPE_CHECKING:
    from textcap.scoring.report import Report
    from textcap.scoring.significance import Difference

_logger = logging.getLogger("textcap")


def print_tables(report: "Report") -> None:
    """Print tables: a row for each metric and a column for each file of predictions, then the published scores."""
    from rich.table import Table
    from rich.text import Text

    from textcap.scoring.metric_names import TITLES

    several = report.comparison is not None
    table = Table("metric")
    for name in report.names:
        table.add_column(Text(printable(name)), justify="right")
    if several:
        table.add_column("difference of best two")
    for metric in report.metrics:
        row = [_value(report, index, metric) for index in range(len(report.names))]
        table.add_row(TITLES[metric], *row, *([_describe(_difference(report, metric))] if several else []))
    out.print(table)
    for line in (*_reasons(report), *_closing_lines(report)):
        out.print(printable(line), markup=False)
    if report.published:
        _print_published(report)


def print_lines(report: "Report") -> None:
    """Print a tab-separated line for each metric: name, value for each file, difference of the two best."""
    several = report.comparison is not None
    if len(report.names) > 1:
        print_result("metric", *report.names, *(["difference of best two"] if several else []))
    for metric in report.metrics:
        cells = [_value(report, index, metric) for index in range(len(report.names))]
        problem = _problem(report, metric)
        print_result(metric, *cells, *([_describe(_difference(report, metric))] if several else []), *problem)
    for row in report.published:
        scores = " ".join(f"{metric} {row.scores[metric]:.3f}" for metric in report.metrics if metric in row.scores)
        print_result(f"published: {row.system}", scores, row.source)


def print_notes(report: "Report") -> None:
    """Print notes on stderr that matter for interpreting the scores."""
    from textcap.scoring.aac import why_missing
    from textcap.scoring.metric_names import FROM_AAC_METRICS

    matched, scoring = report.matched, report.scoring
    if FROM_AAC_METRICS.intersection(report.metrics) and (missing := why_missing()):
        note(missing)
    for line in (*matched.notes, *matched.problems):
        note(line)
    for noun, n_cleaned in (
        ("prediction", scoring.n_cleaned_predictions),
        ("reference", scoring.n_cleaned_references),
    ):
        if n_cleaned:
            note(f"replaced line ends, control characters and ||| by spaces in {counted(n_cleaned, noun)}")
    for name in scoring.unknown_jars:
        note(f"{name} is not the known file: scores may differ from published ones")
    if scoring.java is not None:
        java = scoring.java
        _logger.info("Java %s, %s, from %s", scoring.java_version or "of unknown version", java.path, java.where)
    for index, name in enumerate(report.names):
        for score in scoring.systems[index].scores.values():
            if score.n_nan:
                note(f"{name}: SPICE gave no value for {counted(score.n_nan, 'clip')}, counted as 0")
            if score.n_too_long:
                note(f"{name}: skipped {counted(score.n_too_long, 'caption')} too long for SPICE")


def _value(report: "Report", index: int, metric: str) -> str:
    score = report.scoring.systems[index].scores[metric]
    if score.value is None:
        return "undefined" if score.is_undefined else "failed"
    is_count = metric in ("vocab.cands", "vocab.mrefs_full")
    return f"{score.value:.0f}" if is_count else f"{score.value:.3f}"


def _difference(report: "Report", metric: str) -> "Difference | None":
    return report.comparison.differences.get(metric) if report.comparison is not None else None


def _describe(difference: "Difference | None") -> str:
    if difference is None:
        return ""
    verdict = "more than noise" if difference.is_more_than_noise else "may be noise"
    return f"{difference.difference:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] {verdict}"


def _problem(report: "Report", metric: str) -> list[str]:
    """Return the reasons why a metric has no value, each once even if several files have it."""
    problems = (one.scores[metric].problem for one in report.scoring.systems)
    return list(dict.fromkeys(problem for problem in problems if problem is not None))


def _reasons(report: "Report") -> list[str]:
    from textcap.scoring.metric_names import TITLES

    return [f"no {TITLES[metric]}: {problem}" for metric in report.metrics for problem in _problem(report, metric)]


def _closing_lines(report: "Report") -> list[str]:
    n_clips, n_references = report.scoring.n_clips, report.matched.n_references
    lines = [counted(n_clips, "clip") if n_clips == n_references else f"{n_clips:,} of {n_references:,} clips"]
    if report.comparison is not None:
        first, second = (
            printable(report.names[index]) for index in (report.comparison.first, report.comparison.second)
        )
        lines.append(f"difference of best two: {first} minus {second}, with 95 % intervals from resampled clips")
    return lines


def _print_published(report: "Report") -> None:
    """Print the scores of the files and the paper's rows in one table, as in the paper: a row for each system."""
    from rich.table import Table
    from rich.text import Text

    from textcap.scoring.metric_names import TITLES

    columns = [metric for metric in report.metrics if any(metric in row.scores for row in report.published)]
    table = Table("system", *(TITLES[metric] for metric in columns), "source")
    for index, name in enumerate(report.names):
        table.add_row(Text(printable(name)), *(_value(report, index, metric) for metric in columns), "these files")
    for row in report.published:
        cells = (f"{row.scores[metric]:.3f}" if metric in row.scores else "" for metric in columns)
        table.add_row(row.system, *cells, f"published: {row.source}")
    out.print(table)
