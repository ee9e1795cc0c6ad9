"""Show the report of `textcap score`: tables or tab-separated lines on stdout, and notes on stderr."""

import csv
import logging
import re
import sys
from collections.abc import Callable, Iterator

from rich.table import Table
from rich.text import Text

from textcap.cli.console import note, out, print_result
from textcap.data.text import counted, printable
from textcap.scoring.comparison import MOST_SYSTEMS, Comparison
from textcap.scoring.metric_names import TITLES
from textcap.scoring.published import N_CLIPS
from textcap.scoring.report import Report
from textcap.scoring.results import MetricScore
from textcap.scoring.significance import MIN_CLIPS

Rows = list[list[str]]  # of a table, with its header first

_COUNTS = ("vocab.cands", "vocab.mrefs_full")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_logger = logging.getLogger("textcap")


def print_report(report: Report, form: str | None) -> None:
    """Print the scores on stdout.

    Args:
        form: One of `FORMATS`; None for tables on a terminal, else for a tab-separated line for each metric.
    """
    if form is None and not out.is_terminal:
        _print_lines(report)
        return
    for rows in _tables(report):
        FORMATS[form or "table"](rows)


def print_notes(report: Report) -> None:
    """Print notes on stderr that matter for interpreting the scores."""
    matched, scoring = report.matched, report.scoring
    note(*matched.notes, *matched.problems)
    cleaned = {"prediction": scoring.n_cleaned_predictions, "reference": scoring.n_cleaned_references}
    for noun, n in cleaned.items():
        if n:
            note(f"replaced line ends, control characters and ||| by spaces in {counted(n, noun)}")
    for name in scoring.unknown_jars:
        note(f"{name} is not the known file: scores may differ from published ones")
    if scoring.java is not None:
        java = scoring.java
        _logger.info("Java %s, %s, from %s", scoring.java_version or "of unknown version", java.path, java.where)
    for name, scores in zip(report.names, scoring.systems, strict=True):
        for line in dict.fromkeys(line for score in scores.values() for line in score.notes):
            note(f"{name}: {line}")
    for name, one in zip(report.names, scoring.wordings, strict=False):
        words = f"{one.words_per_caption:.1f} words per caption, {counted(one.n_words, 'different word')}"
        note(f"{name}: {words}, {one.repeated:.0%} of the captions occur more than once")
        if one.n_unspaced * 10 > scoring.n_clips:
            unspaced = f"{counted(one.n_unspaced, 'caption')} without spaces"
            note(f"{name}: {unspaced} count as one word each; put spaces between words to score them")
    problems: dict[str, list[str]] = {}
    for metric in report.metrics:
        for problem in dict.fromkeys(one[metric].problem for one in scoring.systems):
            if problem is not None:
                problems.setdefault(problem, []).append(TITLES[metric])
    for problem, titles in problems.items():
        note(f"no {', '.join(titles)}: {problem}")
    if report.wanted.test_set is not None:
        fewest, most = N_CLIPS[report.wanted.test_set]
        if not fewest <= scoring.n_clips <= most:
            usual = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
            note(f"the published scores are for {usual} clips, these for {scoring.n_clips:,}: they do not compare")


def print_verdicts(report: Report) -> None:
    """Print on stderr which system is better than which, and what the scores depend on."""
    n_clips, n_references = report.scoring.n_clips, report.matched.n_references
    clips = counted(n_clips, "clip") if n_clips == n_references else f"{n_clips:,} of {n_references:,} clips"
    compared = [one for one in report.comparisons if one.metric == report.ranked_by]
    for one in compared:
        first, second, title = report.names[one.first], report.names[one.second], TITLES[one.metric]
        correction = f" after Holm's correction for {len(compared)} pairs" if len(compared) > 1 else ""
        detail = f"{_difference(one)}, p {_p(one.p_corrected, '= ')}{correction}, {clips}"
        print_verdict(first, second, one.verdict, f" in {title}: {detail}")
    if any(one.metric in ("cider_d", "spider", "spider_fl") for one in report.comparisons):
        note("CIDEr-D weights words by the full set of references in every draw")
    if len(report.names) > MOST_SYSTEMS and not report.comparisons:
        note(f"more than {MOST_SYSTEMS} files are compared only with --baseline")
    if report.scoring.leave_one_out:
        note("one reference fewer: the mean over leaving out each reference in turn, for people and systems alike")
    note(f"signature: {report.signature}")


def print_verdict(first: str, second: str, verdict: str | None, detail: str) -> None:
    """Print on stderr whether one system is better than another, and why; or, without a verdict, why there is none."""
    if verdict is None:
        note(f"{first} and {second}: no verdict below {MIN_CLIPS} clips, as chance would decide too often")
        return
    relation = f"is {verdict} than" if verdict in ("better", "worse") else "does not differ reliably from"
    note(f"{first} {relation} {second}{detail}")


def _tables(report: Report) -> Iterator[Rows]:
    yield [["metric", *_columns(report)], *([TITLES[name], *cells] for name, cells in _score_rows(report))]
    if report.comparisons:
        header = ["metric", "system", "against", "difference [95 % interval]", "p", "p, corrected", "verdict"]
        yield [header, *(_comparison_row(report, one) for one in report.comparisons)]
    if report.published:
        columns = [metric for metric in report.metrics if any(metric in row.scores for row in report.published)]
        rows = [
            [name, *(_cell(scores[metric]) for metric in columns), "these files"]
            for name, scores in zip(report.names, report.scoring.systems, strict=True)
        ]
        for row in report.published:
            cells = (f"{row.scores[metric]:.3f}" if metric in row.scores else "" for metric in columns)
            rows.append([row.system, *cells, f"published: {row.source}"])
        yield [["system", *(TITLES[metric] for metric in columns), "source"], *rows]


def _comparison_row(report: Report, one: Comparison) -> list[str]:
    names = (TITLES[one.metric], report.names[one.first], report.names[one.second])
    return [*names, _difference(one), _p(one.p_value), _p(one.p_corrected), one.verdict or "too few clips"]


def _print_lines(report: Report) -> None:
    """Print a tab-separated line for each metric: its name, and the value for each file."""
    if len(columns := _columns(report)) > 1:
        print_result("metric", *columns)
    for name, cells in _score_rows(report):
        print_result(name, *cells)
    for row in report.published:
        scores = " ".join(f"{metric} {row.scores[metric]:.3f}" for metric in report.metrics if metric in row.scores)
        print_result(f"published: {row.system}", scores, row.source)


def _columns(report: Report) -> list[str]:
    left_out = [f"{name}, one reference fewer" for name in ("people", *report.names)]
    return [*report.names, *(left_out if report.scoring.leave_one_out else [])]


def _score_rows(report: Report) -> Iterator[tuple[str, list[str]]]:
    systems = [*report.scoring.systems, *report.scoring.leave_one_out]
    for metric in report.metrics:
        yield metric, [_cell(scores[metric]) if metric in scores else "" for scores in systems]


def _cell(score: MetricScore) -> str:
    if score.value is None:
        return "undefined" if score.is_undefined else "failed"
    value = f"{score.value:.0f}" if score.name in _COUNTS else f"{score.value:.3f}"
    return f"{value} [{score.interval[0]:.3f}, {score.interval[1]:.3f}]" if score.interval else value


def _difference(one: Comparison) -> str:
    return f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _p(p_value: float | None, equal: str = "") -> str:
    if p_value is None:
        return ""
    return "< 0.001" if p_value < 0.001 else f"{equal}{p_value:.3f}"


def _print_table(rows: Rows) -> None:
    table = Table()
    for cell in rows[0]:
        table.add_column(Text(printable(cell)))
    for row in rows[1:]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    out.print(table)


def _print_csv(rows: Rows) -> None:
    csv.writer(sys.stdout, lineterminator="\n").writerows([printable(cell) for cell in row] for row in rows)


def _print_markdown(rows: Rows) -> None:
    ruler = ["---", *("---:" for _ in rows[0][1:])]
    for row in (rows[0], ruler, *rows[1:]):
        print(f"| {' | '.join(cell if row is ruler else _markdown(cell) for cell in row)} |")
    print()


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", printable(text))


def _print_latex(rows: Rows) -> None:
    print(rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}", r"\hline", sep="\n")
    for number, row in enumerate(rows):
        print(" & ".join(map(_latex, row)), r"\\", r"\hline" if number == 0 else "")
    print(r"\hline", r"\end{tabular}", "", sep="\n")


def _latex(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda match: _LATEX.get(match[0], rf"\{match[0]}"), printable(text))


FORMATS: dict[str, Callable[[Rows], None]] = {
    "table": _print_table,
    "markdown": _print_markdown,
    "latex": _print_latex,
    "csv": _print_csv,
}
