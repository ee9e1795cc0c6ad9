"""`textcap caption`: sounds in, one caption per line out, or time lines and subtitles."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from textcap.audio.inputs import find_inputs
from textcap.cli import options
from textcap.cli.console import note, print_skipped, progress_bar, warn
from textcap.cli.loading import load_captioner
from textcap.config import DecodingConfig
from textcap.data.text import counted
from textcap.outputs.forms import (
    HTML,
    JSONL,
    MERGED_FORMS,
    PARQUET,
    SIDECAR,
    TIMELINE_FORMS,
    WITH_ERRORS,
    Output,
    form_of,
)
from textcap.outputs.journal import journal_of
from textcap.outputs.rows import Row, error_row, path_of

EXAMPLES = "textcap caption *.wav -m textcap-model\n\ntextcap caption film.mp4 -o film.srt"
WHEN_STOPPED = "with -o, the same command with --resume continues"


def caption(
    audio: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sound or film files of any length, folders, patterns, addresses such as https://..., or - for one "
            "sound on standard input.",
            show_default=False,
        ),
    ] = None,
    model: options.ModelOption = None,
    recursive: options.RecursiveOption = False,
    files_from: options.FilesFromOption = None,
    output: Annotated[
        Path | None,
        options.output(help="The file or folder to write.", show_default="standard output"),
    ] = None,
    form: Annotated[
        str | None,
        options.shape(
            "--format",
            help="text, jsonl, csv, parquet, html (a page to listen to), srt, vtt, audacity (a label track) or "
            "sidecar (dog.txt beside dog.wav).",
            show_default="by the ending of the output",
        ),
    ] = None,
    as_json: Annotated[bool, options.shape("--json", help="The same as --format jsonl.")] = False,
    timeline: options.TimelineOption = False,
    hop_s: options.HopOption = None,
    brackets: Annotated[bool, options.shape("--brackets", help="Write \\[a dog is barking] in subtitles.")] = False,
    merge: Annotated[
        Path | None,
        options.shape(exists=True, dir_okay=False, help="Add the captions to this SRT or VTT file."),
    ] = None,
    over_speech: Annotated[bool, options.shape("--over-speech", help="With --merge, also where speech is.")] = False,
    caption_silence: options.CaptionSilenceOption = False,
    num_captions: options.NumCaptionsOption = 1,
    rerank: options.RerankOption = False,
    rerank_weight: options.RerankWeightOption = 0.75,
    similarity: options.SimilarityOption = False,
    beam_size: options.BeamSizeOption = None,
    min_length: options.MinLengthOption = DecodingConfig.min_tokens,
    max_length: options.MaxLengthOption = DecodingConfig.max_tokens,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an unfinished run, and try again what failed.")
    ] = False,
    force: options.ForceOption = False,
    batch_size: options.CaptionBatchOption = None,
    clap: options.ClapOption = None,
    language_model: options.LanguageModelOption = None,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "float32",
    offline: options.OfflineOption = False,
) -> None:
    """Caption sounds with a trained model, or with clapcap, the captioner released with msclap.

    Prints one line for each sound in the order given: its path, a tab, its caption. A sound that cannot be read is
    named on stderr and skipped (exit code 3, or 1 if none could be read). A silent sound has an empty caption. Control
    characters are printed as escapes; use --json to get exact names. With -o, everything is written when the last
    sound is done, and --resume continues a run that was stopped.
    """
    form = _form_of(form, as_json, output, merge)
    timeline = timeline or form in TIMELINE_FORMS
    decoding = options.decoding_of(beam_size, min_length, max_length, num_captions, rerank)
    options.refuse_misuse(
        {
            **options.timeline_misuse(timeline, hop_s, num_captions, similarity),
            "--resume needs -o": resume and output is None,
            "--merge takes srt or vtt, and needs -o": merge is not None and (not output or form not in MERGED_FORMS),
            "--over-speech needs --merge": over_speech and merge is None,
            "--brackets needs subtitles": brackets and form not in TIMELINE_FORMS,
            "sidecar files hold one caption: leave out --timeline": timeline and form == SIDECAR,
            f"{form} needs -o": form in (PARQUET, HTML) and output is None,
        }
    )
    found = find_inputs(audio or [], recursive=recursive, files_from=files_from)
    if not found.entries:
        raise typer.BadParameter("give a sound file, a folder, or --files-from")
    note(*found.notes)
    where = Output(form, output, found.entries, num_captions, timeline, brackets, merge, over_speech)
    is_unfinished = output is not None and journal_of(output).exists()
    if resume and not is_unfinished and where.is_finished:
        return note(f"{output} is complete: there is nothing to resume")
    where.check(force=force or (resume and is_unfinished))
    if not found.inputs:  # told without loading torch
        failures = [error_row(path_of(error), error) for error in found.errors]
        if form in WITH_ERRORS:
            where.write(failures)
        return _show(failures, where)
    from textcap.captioner import Ranking
    from textcap.outputs.run import CaptionSettings, caption_to

    load = {"model": model, "device": device, "precision": precision, "clap": clap, "language_model": language_model}
    captioner = load_captioner(load, offline=offline)
    if captioner.backbone.kind.remark:
        note(captioner.backbone.kind.remark)
    ranking = Ranking(rerank_weight if rerank else None, similarity)
    settings = CaptionSettings(
        decoding, ranking, num_captions, timeline, hop_s, caption_silence, batch_size, offline or None, form == PARQUET
    )
    with options.settings_from_flags(hop_s="--hop"):
        _show(caption_to(where, captioner, settings, resume=resume, force=force), where)


def _form_of(form: str | None, as_json: bool, output: Path | None, merge: Path | None) -> str:
    """Return the form of the output from the options that may name one."""
    options.check_form(form)
    if as_json and form not in (None, JSONL):
        raise typer.BadParameter(f"give --json or --format {form}, not both")
    chosen = JSONL if as_json else form or form_of(output)
    if merge is not None and output is not None and chosen != form_of(merge):
        raise typer.BadParameter(f"{merge} is merged into a file of the same form, not {chosen}", param_hint="--merge")
    return chosen


def _show(rows: Iterable[Row], where: Output) -> None:
    """Print rows as they come, or their progress if they are written to files; exit with 3 or 1 if some failed."""
    n_failed = n_silent = 0
    n_inputs = len(where.inputs)
    if where.is_stdout:
        print(where.header, end="", flush=True)
    with progress_bar() as bar:
        task = bar.add_task("captioning", total=n_inputs, status="")
        for row in rows:
            if "error" in row:
                n_failed += 1
                print_skipped(row["error"])
            n_silent += row.get("silent", False)
            for remark in row.get("notes", []):
                warn(f"{row['path']} {remark}")
            if where.is_stdout:
                print(where.text(row), end="", flush=True)
            bar.advance(task)
    if n_silent:
        silent = f"{n_silent:,} of {counted(n_inputs, 'sound')} silent, with an empty caption"
        note(f"{silent} (--caption-silence captions silence, too)")
    if n_failed:
        note(f"{n_failed:,} of {counted(n_inputs, 'input')} could not be captioned")
    if n_failed < n_inputs and not where.is_stdout and where.path is not None:
        print(where.path, flush=True)
    if n_failed:
        raise typer.Exit(1 if n_failed == n_inputs else 3)
