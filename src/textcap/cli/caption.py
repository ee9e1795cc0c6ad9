"""`textcap caption`: sound files in, one caption per line out."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli import options
from textcap.cli.console import note, print_result, print_skipped, progress_bar, set_verbosity
from textcap.cli.progress import download_progress
from textcap.config import CAPTION_BATCH_SIZE, DecodingConfig
from textcap.data.text import counted, escape_json, printable

if TYPE_CHECKING:
    from textcap.captioner import CaptionResult

EXAMPLES = "textcap caption *.wav -m textcap-model\n\ntextcap caption recordings/*.flac --json > captions.jsonl"


def caption(
    audio: Annotated[list[Path], typer.Argument(help="Sound files of any length.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="A model folder that textcap train wrote, or clapcap, the captioner released with msclap.",
            show_default="textcap-model if that folder exists, else clapcap",
        ),
    ] = None,
    beam_size: Annotated[
        int, typer.Option(min=1, help="Number of partial captions that beam search keeps at each step.")
    ] = DecodingConfig.beam_size,
    max_tokens: Annotated[
        int,
        typer.Option(min=1, help="Maximum length of a caption in tokens; a token is about three quarters of a word."),
    ] = DecodingConfig.max_tokens,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Number of files to caption at once; captions do not depend on it.")
    ] = CAPTION_BATCH_SIZE,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON Lines with path, caption, score (mean log probability per token) and duration in seconds.",
        ),
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV with the columns file_name and caption_predicted.")
    ] = False,
    device: options.DeviceOption = "auto",
    offline: options.OfflineOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Caption sound files with a trained model, or with clapcap, the captioner released with msclap.

    Prints one line for each file in the order given: its path, a tab, its caption. A file that cannot be read is
    named on stderr and skipped (exit code 3, or 1 if none could be read). Control characters are printed as escapes;
    use --json to get exact names. textcap score reads all three output formats.
    """
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")
    show = _print_json if as_json else _print_csv if as_csv else _print_text
    set_verbosity(quiet, verbose)
    with options.settings_from_flags("beam_size", "max_tokens"):
        decoding = DecodingConfig(beam_size=beam_size, max_tokens=max_tokens)
    from textcap.captioner import Captioner

    with download_progress() as progress:
        captioner = Captioner.load(model, device=device, offline=offline or None, progress=progress)
    note(f"backbone {captioner.backbone.name} on {captioner.device}, float32; captioning {counted(len(audio), 'file')}")
    if as_csv:
        print("file_name,caption_predicted", flush=True)
    n_failed = 0
    with progress_bar() as bar:
        task = bar.add_task("captioning", total=len(audio), status="")
        for result in captioner.caption(audio, decoding=decoding, batch_size=batch_size):
            if result.error is not None:
                n_failed += 1
                print_skipped(result.error)
            else:
                show(result)
            bar.advance(task)
    if n_failed:
        raise typer.Exit(1 if n_failed == len(audio) else 3)


def _print_text(result: "CaptionResult") -> None:
    print_result(str(result.path), result.caption)


def _print_csv(result: "CaptionResult") -> None:
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow([printable(str(result.path)), printable(result.caption)])
    print(row.getvalue(), flush=True)


def _print_json(result: "CaptionResult") -> None:
    fields = {
        "path": str(result.path),
        "caption": result.caption,
        "score": result.score,
        "duration_s": result.duration_s,
    }
    print(escape_json(json.dumps(fields, ensure_ascii=False, allow_nan=False)), flush=True)
