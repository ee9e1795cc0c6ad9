"""What a corpus holds: its state in numbers, and its rows in any form of `outputs`."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import pyarrow as pa
from pyarrow import compute

from textcap.audio.inputs import Input
from textcap.corpus.plan import Corpus
from textcap.data.parquet import write_tables
from textcap.data.text import counted
from textcap.errors import FileError, InputError
from textcap.outputs.forms import PARQUET, SIDECAR, TIMELINE_FORMS, Output, form_of
from textcap.outputs.parquet import SCHEMA, rows_of
from textcap.outputs.rows import Row

_RECENT = 50  # shards that tell the speed
_PAUSE = 10.0  # times as long as is usual between two results: nothing was at work


@dataclass
class Status:
    """How far a corpus has come."""

    n_shards: int = 0
    n_done: int = 0
    n_rows: int = 0  # one for each sound
    n_rows_done: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by reason
    files_per_s: float | None = None  # of the last shards; None before there are two


def status_of(corpus: Corpus) -> Status:
    """Return how far a corpus has come, without the rows in whose place later ones count.

    A result whose state cannot be read counts as missing; `unfinished` reads all of each.

    Raises:
        FileError: The plan is damaged.
    """
    status, times, replaced = Status(corpus.n_shards), list[tuple[float, int]](), corpus.replaced()
    for shard in range(status.n_shards):
        n_rows = len(set(corpus.ids(shard)) - replaced)
        status.n_rows += n_rows
        try:
            found = corpus.result(shard, ["id", "path", "error"])
        except FileError:
            continue
        status.n_done += 1
        status.n_rows_done += n_rows
        times.append((corpus.result_path(shard).stat().st_mtime, n_rows))
        for line in found.filter(found["error"].is_valid()).to_pylist():
            if line["id"] not in replaced:
                status.errors[_reason(line["error"].removeprefix(line["path"]).strip())] += 1
    recent = sorted(times)[-_RECENT:]
    gaps = [(after - before, n) for (before, _), (after, n) in pairwise(recent) if after > before]
    # Without the pauses between runs.
    usual_s = _PAUSE * median(gap_s for gap_s, _ in gaps) if gaps else 0.0
    if worked := [(gap_s, n) for gap_s, n in gaps if gap_s <= usual_s]:
        status.files_per_s = sum(n for _, n in worked) / sum(gap_s for gap_s, _ in worked)
    return status


def export(
    corpus: Corpus, output: Path, *, form: str | None = None, partial: bool = False, force: bool = False
) -> None:
    """Write the rows of a corpus in the order of their ids, one shard after another in memory.

    Args:
        output: A file, or a folder for forms with a file for each sound.
        form: One of `FORMS`; by default that of the ending of the output.
        partial: Leave out the rows that are missing.
        force: Overwrite files.

    Raises:
        InputError: Rows are missing, the output exists or cannot be written, or a result is damaged.
    """
    form = form or form_of(output)
    there = corpus.finished
    if n_missing := corpus.n_shards - len(there):
        if not partial:
            hint = "run textcap corpus run, or take what there is with --partial"
            raise InputError(f"{corpus.folder} lacks the results of {counted(n_missing, 'shard')}", hint=hint)
    if not there:
        raise FileError(corpus.folder, "has no results yet", hint=f"run textcap corpus run {corpus.folder}")
    settings, replaced = corpus.settings(), pa.array(sorted(corpus.replaced()), pa.int64())
    is_timeline = bool(settings.get("is_timeline"))

    def tables() -> Iterator[pa.Table]:
        for shard in there:
            table = corpus.result(shard)
            yield table.filter(compute.invert(compute.is_in(table["id"], replaced)))

    def rows() -> Iterator[Row]:
        for table in tables():
            yield from rows_of(table, is_timeline=is_timeline)

    inputs: list[Input | InputError] = []
    if form in (SIDECAR, *TIMELINE_FORMS):  # with a file for each sound, below the folder that all are in
        paths = [row["path"] for row in rows()]
        files = [os.path.dirname(path) for path in paths if os.path.isabs(path)]  # the others are addresses
        root = os.path.commonpath(files) if files else ""
        inputs = [
            Input(path, below=os.path.relpath(path, root)) if os.path.isabs(path) else Input(path, path)
            for path in paths
        ]
    if is_timeline != (form in TIMELINE_FORMS) and form in (SIDECAR, *TIMELINE_FORMS):
        raise InputError(f"{form} cannot show these rows", hint="use another --format, or --timeline with the run")
    where = Output(form, output, inputs, settings.get("n_captions", 1), is_timeline)
    where.check(force=force)
    if form == PARQUET:
        write_tables(output, tables(), SCHEMA, {name: settings[name] for name in ("clap", "clap_hash")})
    else:
        where.write(rows())


def _reason(error: str) -> str:
    """Return what is wrong, without what differs between sounds."""
    return re.sub(r"\d[\d,.]*", "N", error)
