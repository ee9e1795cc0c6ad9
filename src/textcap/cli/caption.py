"""`textcap caption`: sound files in, one caption per line out."""

import csv
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli.console import err, print_error, print_result, progress_bar, set_verbosity
from textcap.config import CAPTION_BATCH_SIZE, DecodingConfig
from textcap.data.text import printable

if TYPE_CHECKING:
    from textcap.captioner import CaptionResult

EXAMPLES = "textcap caption *.wav -m textcap-model\n\ntextcap caption recordings/*.flac --json > captions.jsonl"

# What JSON may hold as it is, but a terminal obeys or UTF-8 cannot hold.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def caption(
    audio: Annotated[list[Path], typer.Argument(help="Sound files of any length.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="Model folder, or clapcap.",
            show_default="textcap-model if it is there, else clapcap",
        ),
    ] = None,
    beam_size: Annotated[
        int, typer.Option(min=1, help="Captions kept in the search at each step.")
    ] = DecodingConfig.beam_size,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest caption, in tokens.")] = DecodingConfig.max_tokens,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips captioned at once.")] = CAPTION_BATCH_SIZE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines with score and duration.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: file_name,caption_predicted.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")] = False,
) -> None:
    """Caption sound files with a trained model, or with the released clapcap.

    Prints path, tab, caption per line in the order given, as soon as they are ready. A file that cannot be read is
    named on stderr and the others go on (exit code 3; 1 when none could be read). Control characters are printed
    as escapes; --json gives every name exactly. textcap score reads all three forms.
    """
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")
    show = _print_json if as_json else _print_csv if as_csv else _print_text
    set_verbosity(quiet, verbose)
    from textcap.captioner import Captioner
    from textcap.cli.fetch import download_progress

    decoding = DecodingConfig(beam_size=beam_size, max_tokens=max_tokens)
    with download_progress() as progress:
        captioner = Captioner.load(model, device=device, offline=offline or None, progress=progress)
    if not quiet:
        err.print(f"{captioner.backbone.name} on {captioner.device}, float32, {len(audio)} files", markup=False)
    if as_csv:
        print("file_name,caption_predicted", flush=True)
    n_failed = 0
    with progress_bar() as bar:
        task = bar.add_task("captioning", total=len(audio), status="")
        for result in captioner.caption(audio, decoding=decoding, batch_size=batch_size):
            if result.error is not None:
                n_failed += 1
                print_error(result.error)
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
    line = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    print(_UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", line), flush=True)
