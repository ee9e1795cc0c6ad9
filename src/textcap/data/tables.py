"""Read tables of captions row by row, those of Clotho, AudioCaps and others that have a header; and read JSON.

Tables and JSON yield records alike: where a record is in the file, and its values by name. Cells are returned as
written, not stripped or converted. An error names the line on which its row begins.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from textcap.data.text import LINE_ENDS, TextFile
from textcap.errors import InputError

SOUND_COLUMNS = ("file_name", "file", "audio", "audio_path", "path")  # the first of them names a sound
CLIP_COLUMNS = YOUTUBE_ID, START_TIME = ("youtube_id", "start_time")  # they identify a clip of AudioCaps together
NUMBERED_CAPTION = re.compile(r"caption_\d+")  # such as caption_1 to caption_5 of Clotho

Records = Iterator[tuple[str, Any]]
"""Rows of a table, or values of JSON, each with its place in the file."""

_DELIMITERS = (",", ";", "\t")  # spreadsheet programs write semicolons in much of Europe


def find_table(file: TextFile, fits: Callable[[list[str]], bool]) -> Records | None:
    """Return the rows of a table with the first separator whose header fits, or None if none does.

    A row is its cells by column, without surrounding spaces in the names, and its place is the line on which it
    begins, such as "line 3". It may span several lines, and rows of empty cells are skipped.

    Args:
        fits: Returns whether a list of column names is the expected header.

    Raises:
        InputError: While rows are read: two columns have the same name, a row has too few or too many cells, or its
            quotes do not match.
    """
    delimiter = find_delimiter(file.text, fits)
    return None if delimiter is None else _rows(file, delimiter, read_header(file.text, delimiter))


def find_delimiter(text: str, fits: Callable[[list[str]], bool]) -> str | None:
    """Return the first separator with which the header of a table fits, or None if none does."""
    return next((delimiter for delimiter in _DELIMITERS if fits(read_header(text, delimiter))), None)


def _rows(file: TextFile, delimiter: str, header: list[str]) -> Records:
    twice = next((name for i, name in enumerate(header) if name and name in header[:i]), None)
    if twice is not None:  # names may be empty: spreadsheet programs leave empty columns
        raise file.error(1, f"two columns are named {twice!r}", hint="rename or remove one of them")
    # Strict, because otherwise an unclosed quote puts the rest of the file into one cell.
    reader = csv.reader(io.StringIO(file.text, newline=""), delimiter=delimiter, strict=True)
    in_body, line = False, 1
    try:
        for row in reader:
            if in_body and any(cell.strip() for cell in row):  # spreadsheet programs leave rows of commas at the end
                if len(row) != len(header):
                    hint = "put quotes around cells that contain the separator" if len(row) > len(header) else None
                    raise file.error(line, f"expected {len(header)} cells, found {len(row)}", hint=hint)
                yield f"line {line}", dict(zip(header, row, strict=True))
            in_body = in_body or bool(row)
            line = reader.line_num + 1
    except csv.Error as problem:
        hint = "close every quote that opens a cell, and double every quote inside a cell"
        if "field limit" in str(problem):  # an unclosed quote can cause this, too
            hint = "the cell is too long; check for an unclosed quote"
        raise file.error(line, f"not a valid table row: {problem}", hint=hint) from problem


def read_header(text: str, delimiter: str = ",") -> list[str]:
    """Return the stripped column names of a table, or an empty list if the text is not a table."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        first: list[str] = next((row for row in rows if row), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in first]


def shown_header(text: str) -> str:
    """Return the column names of a table, or the first words of other text, for an error message."""
    return _shown(read_header(text))


def _shown(names: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:8]) or "nothing"


def is_caption_column(name: str) -> bool:
    """Return whether a column, or a member of a JSON object, holds captions."""
    return name in ("captions", "caption") or NUMBERED_CAPTION.fullmatch(name) is not None


def has_captions(names: Iterable[str]) -> bool:
    """Return whether one of the column names, or keys of a JSON object, is that of captions."""
    return any(map(is_caption_column, names))


def is_pairs_header(names: list[str]) -> bool:
    """Return whether column names are those of sounds with captions, as of Clotho and AudioCaps."""
    has_sound = sound_column(names) is not None or {*CLIP_COLUMNS} <= {*names}
    return has_sound and has_captions(names)


def captions_of(source: TextFile, place: str, record: Any) -> list[str]:
    """Return the captions of a record as they are written.

    Raises:
        InputError: It is not an object with captions.
    """
    if not isinstance(record, dict):
        raise source.error(place, "expected an object with captions")
    captions: list[Any] = []
    for value in (value for name, value in record.items() if is_caption_column(name)):
        captions += value if isinstance(value, list) else [value]
    if not captions or not all(isinstance(caption, str) for caption in captions):
        expected = 'expected "caption", a string, or "captions", a list of strings'
        raise source.error(place, f"{expected}, found {_shown([*record])}")
    return captions


def sound_column(names: Container[str]) -> str | None:
    """Return which of the column names, or keys of a JSON object, names a sound file; None if none does."""
    return next((name for name in SOUND_COLUMNS if name in names), None)


def audiocaps_clip(cells: Mapping[str, object]) -> str | None:
    """Return the name of an AudioCaps clip, `<youtube_id>_<start_time>`, or None if the row lacks either of them."""
    youtube, start = (str(cells.get(name, "")) for name in (YOUTUBE_ID, START_TIME))
    if not youtube.strip() or not start.strip():
        return None
    if re.fullmatch(r"\d+\.0+", start):  # start times become floats when a table passes through some libraries
        start = start.split(".")[0]
    return f"{youtube}_{start}"


class JsonObject(dict[str, Any]):
    """A JSON object with its members in order, among them those of a repeated key, of which a dict keeps the last."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__(members)
        self.members = members


def parse_json(source: TextFile, text: str, first_line: int = 1, *, hint: str | None = None) -> Any:
    """Return the value of a JSON text, in which every object is a `JsonObject`.

    Args:
        source: The file, for messages.
        text: The JSON text, the whole file or some lines of it.
        first_line: The line of the file on which the text begins.
        hint: What to do if it is not JSON.

    Raises:
        InputError: The text is not JSON, is nested too deeply or contains a number of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=JsonObject)
    except json.JSONDecodeError as error:
        message = f"not valid JSON at column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        raise source.error(first_line + error.lineno - 1, message, hint=hint) from error
    except RecursionError as error:
        raise source.error(first_line, "nested too deeply to be captions") from error
    except ValueError as error:  # a number with thousands of digits
        raise InputError(f"{source.name} cannot be read as JSON: {error}") from error


def json_or_none(text: str) -> Any:
    """Return the value of a JSON text as `parse_json` does, or None if it is not JSON."""
    try:
        return json.loads(text, object_pairs_hook=JsonObject)
    except (ValueError, RecursionError):
        return None


def json_records(source: TextFile) -> Records:
    """Yield each value of a JSON list, or of JSON Lines, with its place, such as "item 3" or "line 3".

    A single object may span several lines.

    Raises:
        InputError: The text, or a line of it, is not JSON.
    """
    if source.text.lstrip().startswith("["):
        for number, value in enumerate(parse_json(source, source.text), start=1):
            yield f"item {number}", value
    elif (document := json_or_none(source.text)) is not None:
        yield "line 1", document
    else:
        for number, line in enumerate(LINE_ENDS.split(source.text), start=1):
            if line.strip():
                yield f"line {number}", parse_json(source, line, number, hint="write one object per line")
