"""`textcap corpus`: plan, caption and export far more sounds than one run can caption."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from textcap.cli import options
from textcap.cli.console import note, print_result, print_skipped, progress_bar
from textcap.cli.loading import load_captioner
from textcap.cli.signals import signals_as_exits
from textcap.config import DecodingConfig
from textcap.data.text import counted

WHEN_STOPPED = "the same command continues"
EXAMPLES = {
    "plan": "textcap corpus plan archive/ --recursive -o work\n\ntextcap corpus plan --files-from list.txt -o work",
    "run": "textcap corpus run work -m textcap-model\n\n"
    "textcap corpus run work -m textcap-model --part 2/50\n\n"
    "textcap corpus run work -m textcap-model --ray local --workers 4",
    "status": "textcap corpus status work\n\ntextcap corpus status /mnt/archive/work",
    "export": "textcap corpus export work -o captions.csv\n\ntextcap corpus export work -o captions.parquet --partial",
}

WorkArgument = Annotated[Path, typer.Argument(help="The folder with the plan.", show_default=False)]


def plan(
    audio: Annotated[
        list[str] | None,
        typer.Argument(help="Sound or film files, folders, patterns or addresses.", show_default=False),
    ] = None,
    output: Annotated[Path, options.output(help="The folder for the plan, which all machines must see.")] = Path(
        "work"
    ),
    recursive: options.RecursiveOption = False,
    files_from: options.FilesFromOption = None,
    shard_files: Annotated[
        int, typer.Option(min=1, help="Most sounds in a shard; it has at most 2 GB, too.", metavar="N")
    ] = 1000,
) -> None:
    """List sounds in shards, for textcap corpus run.

    Planned again, what is new or has changed in size or time is added as further shards; nothing that was planned
    changes, and of a sound that was planned twice the later row counts. Prints the folder. Names that lead to no sound
    are named on stderr and skipped (exit code 3, or 1 if none leads to one).
    """
    if not audio and files_from is None:
        raise typer.BadParameter("give a sound file, a folder, or --files-from")
    from textcap.audio.inputs import each_input
    from textcap.corpus.plan import Corpus

    notes: list[str] = []
    found = each_input(audio or [], notes, recursive=recursive, files_from=files_from)
    planned = Corpus(output).extend(found, n_files=shard_files)
    note(*notes)
    print_skipped(*planned.errors)
    numbers = f"{counted(planned.n_new, 'new sound')}, {planned.n_changed:,} changed, {planned.n_known:,} known"
    note(f"{numbers}; {counted(planned.n_shards, 'shard')} added")
    if planned.n_new + planned.n_changed + planned.n_known:
        print_result(str(output))
    if planned.errors:
        raise typer.Exit(3 if planned.n_new + planned.n_changed + planned.n_known else 1)


def run(
    work: WorkArgument,
    model: options.ModelOption = None,
    part: Annotated[
        str | None, typer.Option(metavar="K/N", help="Caption only every N-th shard, beginning with the K-th.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Caption with Ray: local (this machine), auto (the cluster that this machine is part of) or the "
            "address of a cluster.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Shards to caption at once with --ray.",
            show_default="one for each GPU, or for four processors",
        ),
    ] = None,
    timeline: options.TimelineOption = False,
    hop_s: options.HopOption = None,
    caption_silence: options.CaptionSilenceOption = False,
    num_captions: options.NumCaptionsOption = 1,
    rerank: options.RerankOption = False,
    rerank_weight: options.RerankWeightOption = 0.75,
    similarity: options.SimilarityOption = False,
    beam_size: options.BeamSizeOption = None,
    min_length: options.MinLengthOption = DecodingConfig.min_tokens,
    max_length: options.MaxLengthOption = DecodingConfig.max_tokens,
    batch_size: options.CaptionBatchOption = None,
    clap: options.ClapOption = None,
    language_model: options.LanguageModelOption = None,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "float32",
    offline: options.OfflineOption = False,
) -> None:
    """Caption the shards of a plan that have no result yet.

    Any number of these commands may be at work on one folder, on any number of machines: each shard is captioned once.
    A run that was killed continues in the middle of a shard. Prints the folder of the results when every sound has its
    row, also those that cannot be read, whose row has the error.
    """
    decoding = options.decoding_of(beam_size, min_length, max_length, num_captions, rerank)
    options.refuse_misuse(
        {
            **options.timeline_misuse(timeline, hop_s, num_captions, similarity),
            "--workers needs --ray": workers is not None and ray is None,
            "--ray divides the shards itself: leave out --part": ray is not None and part is not None,
        }
    )
    share = _part_of(part)
    from textcap.corpus.plan import Corpus

    corpus = Corpus.open(work)
    from textcap.captioner import Ranking
    from textcap.corpus.run import begin, run_shards, unfinished
    from textcap.outputs.run import CaptionSettings
    from textcap.weights.hub import is_offline

    load = {"model": model, "device": device, "precision": precision, "clap": clap, "language_model": language_model}
    captioner = load_captioner(load, offline=offline, keeps_embeddings=False)
    if not captioner.backbone.clap.has_text:
        note(f"{captioner.name} has no text encoder: textcap search finds its sounds by --like only")
    ranking = Ranking(rerank_weight if rerank else None, similarity)
    settings = CaptionSettings(
        decoding, ranking, num_captions, timeline, hop_s, caption_silence, batch_size, offline or is_offline(), True
    )
    begin(corpus, captioner, settings)
    shards = unfinished(corpus, share)
    with progress_bar() as bar:
        task = bar.add_task("captioning", total=sum(len(corpus.ids(shard)) for shard in shards), status="")
        if ray is None:
            for row in run_shards(corpus, shards, captioner, settings):
                bar.update(task, advance=row is not None, status="" if row else "waiting for other processes")
        else:
            from textcap.corpus.on_ray import Cluster

            load["model"] = captioner.name  # also where none was named
            del captioner
            # Ray prints the errors of its workers on stdout, and has taken over the signals.
            with redirect_stdout(sys.stderr), Cluster.start(ray, workers) as cluster, signals_as_exits():
                for n_rows in cluster.run(corpus, shards, load, settings):
                    bar.advance(task, n_rows)
    print_result(str(corpus.result_path(0).parent))


def status(work: WorkArgument) -> None:
    """Print how far a corpus has come, its errors by reason, its speed, and the time that is left.

    Exit code 1 while shards have no result, 3 when all have one and rows have errors.
    """
    from textcap.corpus.export import status_of
    from textcap.corpus.plan import Corpus

    found = status_of(Corpus.open(work))
    print_result("shards", f"{found.n_done:,} of {found.n_shards:,}")
    print_result("sounds", f"{found.n_rows_done:,} of {found.n_rows:,}")
    for reason, n in found.errors.most_common():
        print_result("error", reason, f"{n:,}")
    if found.files_per_s:
        print_result("speed", f"{found.files_per_s:.1f} files per second")
        left_s = (found.n_rows - found.n_rows_done) / found.files_per_s
        print_result("left", f"{left_s / 3600:.1f} hours")
    if found.n_done < found.n_shards or found.errors:
        raise typer.Exit(1 if found.n_done < found.n_shards else 3)


def export(
    work: WorkArgument,
    output: Annotated[Path, options.output(help="The file or folder to write.", show_default=False)],
    form: Annotated[
        str | None,
        options.shape(
            "--format",
            help="text, jsonl, csv, parquet, srt, vtt, audacity or sidecar.",
            show_default="by the ending of the output",
        ),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out the rows that are missing.")] = False,
    force: options.ForceOption = False,
) -> None:
    """Write the rows of a corpus, in the order of the plan, in any form of textcap caption.

    Prints the output. Of a sound that was planned again because it had changed, only the later row is written.
    """
    options.check_form(form)
    from textcap.corpus import export as module
    from textcap.corpus.plan import Corpus

    module.export(Corpus.open(work), output, form=form, partial=partial, force=force)
    print_result(str(output))


def _part_of(text: str | None) -> tuple[int, int]:
    """Return K and N of "K/N"."""
    first, _, n = (text or "1/1").partition("/")
    if not (first.isdecimal() and n.isdecimal() and 1 <= int(first) <= int(n)):
        raise typer.BadParameter(f"is {text!r}, but must be K/N with K from 1 to N", param_hint="--part")
    return int(first), int(n)
