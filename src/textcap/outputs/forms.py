"""Write captions in the form that was asked for: to standard output, a file, a folder, or beside each sound.

Rows come from `rows`; what a form does with errors and silence is in docs/formats.md.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

from textcap.audio.inputs import ENDINGS, Input
from textcap.data.text import STDIN, counted, read_text
from textcap.errors import InputError
from textcap.files import atomic_write_lines, atomic_write_text, check_file_place, check_writable
from textcap.outputs.merge import merge_subtitles
from textcap.outputs.rows import Row, csv_header, csv_lines, json_line, text_lines
from textcap.outputs.subtitles import audacity, srt, vtt
from textcap.results import Piece

TEXT, JSONL, CSV, PARQUET, HTML, SIDECAR = "text", "jsonl", "csv", "parquet", "html", "sidecar"
_TRACKS = {"srt": srt, "vtt": vtt, "audacity": audacity}
_ENDINGS = {
    ".txt": TEXT,
    ".jsonl": JSONL,
    ".json": JSONL,
    ".csv": CSV,
    ".parquet": PARQUET,
    ".html": HTML,
    ".srt": "srt",
    ".vtt": "vtt",
}

FORMS = (TEXT, JSONL, CSV, PARQUET, HTML, *_TRACKS, SIDECAR)
WITH_ERRORS = (JSONL, PARQUET, HTML)  # which have a place for errors
TIMELINE_FORMS = tuple(_TRACKS)
MERGED_FORMS = ("srt", "vtt")


def form_of(output: Path | None) -> str:
    """Return the form that the ending of an output's name stands for; without an output it is text.

    Raises:
        InputError: The ending stands for none.
    """
    if output is None:
        return TEXT
    form = _ENDINGS.get(output.suffix.lower())
    if form is None:
        endings = ", ".join(_ENDINGS)
        raise InputError(f"the ending of {output} names no form", hint=f"use one of {endings}, or --format")
    return form


@dataclass(frozen=True)
class Output:
    """Where captions go, and in which form.

    Attributes:
        form: One of `FORMS`.
        path: A file, or a folder for forms with a file per sound; None: standard output, or beside the sounds.
        inputs: The inputs, in order, with errors in the places of what cannot be read.
        n_captions: Captions per sound.
        is_timeline: Whether rows have pieces.
        brackets: Whether captions in subtitles stand in brackets.
        merge: A subtitle file to merge the captions of the only sound into.
        over_speech: Whether these may stand at the same time as the cues of that file.
        first_id: Of the rows of a Parquet file.
    """

    form: str
    path: Path | None
    inputs: Sequence[Input | InputError]
    n_captions: int = 1
    is_timeline: bool = False
    brackets: bool = False
    merge: Path | None = None
    over_speech: bool = False
    first_id: int = 0

    @property
    def sounds(self) -> list[Input]:
        """The inputs that may be read."""
        return [one for one in self.inputs if isinstance(one, Input)]

    @property
    def is_stdout(self) -> bool:
        """Whether rows are printed as they come."""
        return self.path is None and self.form != SIDECAR

    @property
    def has_many_files(self) -> bool:
        """Whether each sound gets a file of its own."""
        is_folder = self.path is not None and (len(self.inputs) > 1 or os.path.isdir(self.path))
        return self.form == SIDECAR or (self.form in _TRACKS and is_folder)

    @property
    def is_finished(self) -> bool:
        """Whether every input has its result in a file."""
        if len(self.sounds) < len(self.inputs):
            return False
        own = [self._path_of(one) for one in self.sounds] if self.has_many_files else [self.path]
        return all(path is not None and path.exists() for path in own)

    def check(self, *, force: bool) -> None:
        """Check that everything can be written, before any work is done.

        Args:
            force: Allow overwriting files.

        Raises:
            InputError: A file exists, two sounds would have the same one, or a place cannot be written.
        """
        if self.form == PARQUET:
            import_module("textcap.outputs.parquet")  # tells what is missing
        n_inputs, path = len(self.inputs), self.path
        if self.form == HTML:
            from textcap.page.write import check_rows

            check_rows(n_inputs)
        is_file = path is None or (path.suffix.lower() in _ENDINGS and not path.is_dir())
        if n_inputs > 1 and (self.merge is not None or (self.form in _TRACKS and is_file)):
            raise InputError(f"{counted(n_inputs, 'sound')} need several files", hint="name a folder with -o")
        if self.merge is not None:
            self.text({"path": "", "pieces": []})  # is it a subtitle file?
        if not self.has_many_files:
            if self.path is not None:
                check_file_place(self.path, force=force, inputs=(one.name for one in self.sounds))
                check_writable(self.path)
            return
        owners: dict[str, str] = {}
        sounds = {os.path.realpath(one.name) for one in self.sounds}
        for one in self.sounds:
            path = self._path_of(one)
            if (other := owners.setdefault(os.path.normcase(path), one.name)) != one.name:
                message = f"{other} and {one.name} would both be written to {path}"
                raise InputError(message, hint="caption them separately")
            check_file_place(path, force=force)
            if os.path.realpath(path) in sounds:
                raise InputError(f"{path} is an input file", hint="choose another name")
        for folder in {os.path.dirname(path) for path in owners}:
            check_writable(Path(folder, "captions"))

    def text(self, row: Row) -> str:
        """Return what a form shows of a row; nothing if it has no place for it.

        Raises:
            InputError: The subtitle file to merge with cannot be read.
        """
        if self.form == JSONL:
            return json_line(row)
        if "error" in row:
            return ""
        if self.form == CSV:
            return csv_lines(row, self.n_captions)
        if self.form == TEXT:
            return text_lines(row)
        if self.form == SIDECAR:
            return f"{row['caption']}\n"
        pieces = [Piece(**piece) for piece in row["pieces"]]
        if self.merge is not None:
            existing, form = read_text(self.merge), cast(Literal["srt", "vtt"], self.form)
            return merge_subtitles(existing, form, pieces, brackets=self.brackets, over_speech=self.over_speech)
        return _TRACKS[self.form](pieces, brackets=self.brackets)

    @property
    def header(self) -> str:
        """What stands before the rows of a file."""
        return csv_header(self.is_timeline, self.n_captions) if self.form == CSV else ""

    def write(self, rows: Iterable[Row], facts: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the rows of all inputs, in their order, to the file or to the files.

        Args:
            facts: What a Parquet file records of the model.

        Raises:
            InputError: A file cannot be written.
        """
        if self.has_many_files:
            for one, row in zip(self.inputs, rows, strict=True):
                self.write_own(one, row)
        elif self.form == PARQUET and self.path is not None:
            from textcap.outputs.parquet import write_rows

            write_rows(self.path, rows, facts, self.first_id)
        elif self.form == HTML and self.path is not None:
            from textcap.page.sources import find_clips, source_of_rows
            from textcap.page.write import write_page

            source = source_of_rows(rows, "textcap")
            write_page(self.path, [source.name], find_clips([source]))
        elif self.path is not None:
            atomic_write_lines(self.path, self._all_text(rows))

    def write_own(self, one: Input | InputError, row: Row) -> None:
        """Write the file of one input, unless it failed.

        Raises:
            InputError: It cannot be written.
        """
        if isinstance(one, Input) and "error" not in row:
            atomic_write_text(self._path_of(one), self.text(row))

    def _all_text(self, rows: Iterable[Row]) -> Iterator[str]:
        yield self.header
        yield from map(self.text, rows)

    def _path_of(self, one: Input) -> Path:
        """Return the path of the file of an input: its own name with another ending."""
        if self.path is None and (one.address or one.name == STDIN):
            raise InputError(f"{one.name} has no place for a file beside it", hint="name a folder with -o")
        name = re.split("[?#]|::", one.address)[0].rpartition("/")[2] if one.address else os.path.basename(one.name)
        place = Path(one.name) if self.path is None else self.path / (one.below or name or "sound")
        stem = place.stem if place.suffix[1:].lower() in ENDINGS else place.name
        return place.with_name(stem + (".txt" if self.form in (SIDECAR, "audacity") else f".{self.form}"))
