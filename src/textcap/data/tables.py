"""Read tables of captions row by row: those of Clotho, AudioCaps and others that have a header.

Cells are returned as written, not stripped or converted. An error names the line on which its row begins.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from textcap.data.text import TextFile

YOUTUBE_ID, START_TIME = "youtube_id", "start_time"  # the two columns that identify a clip of AudioCaps
NUMBERED_CAPTION = re.compile(r"caption_\d+")  # such as caption_1 to caption_5 of Clotho

_DELIMITERS = (",", ";", "\t")  # spreadsheet programs write semicolons in much of Europe


@dataclass(frozen=True)
class Table:
    """A table with a header row."""

    file: TextFile
    delimiter: str
    header: list[str]  # column names, without surrounding spaces

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row below the header with the line on which it begins.

        Quoted cells may span several lines, and rows of empty cells are skipped.

        Raises:
            InputError: Two columns have the same name, a row has too few or too many cells, or its quotes do not match.
        """
        self._check_header()
        # Strict, because otherwise an unclosed quote puts the rest of the file into one cell.
        reader = csv.reader(io.StringIO(self.file.text, newline=""), delimiter=self.delimiter, strict=True)
        in_body, line = False, 1
        while True:
            try:
                row: list[str] | None = next(reader, None)
            except csv.Error as problem:
                hint: str | None = "close every quote that opens a cell, and double every quote inside a cell"
                if "field limit" in str(problem):  # an unclosed quote can cause this, too
                    hint = "the cell is too long; check for an unclosed quote"
                raise self.file.error(line, f"not a valid table row: {problem}", hint=hint) from problem
            if row is None:
                return
            if in_body and any(cell.strip() for cell in row):  # spreadsheet programs leave rows of commas at the end
                if len(row) != len(self.header):
                    hint = "put quotes around cells that contain the separator" if len(row) > len(self.header) else None
                    raise self.file.error(line, f"expected {len(self.header)} cells, found {len(row)}", hint=hint)
                yield line, row
            in_body = in_body or bool(row)
            line = reader.line_num + 1

    def _check_header(self) -> None:
        names = self.header
        twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
        if twice is not None:  # names may be empty: spreadsheet programs leave empty columns
            raise self.file.error(1, f"two columns are named {twice!r}", hint="rename or remove one of them")


def find_table(file: TextFile, fits: Callable[[list[str]], bool]) -> Table | None:
    """Return a file as a table with the first separator whose header fits, or None if none does.

    Args:
        fits: Returns whether a list of column names is the expected header.
    """
    for delimiter in _DELIMITERS:
        header = read_header(file.text, delimiter)
        if fits(header):
            return Table(file, delimiter, header)
    return None


def read_header(text: str, delimiter: str = ",") -> list[str]:
    """Return the stripped column names of a table, or an empty list if the text is not a table."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        first: list[str] = next((row for row in rows if row), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in first]


def audiocaps_clip(cells: Mapping[str, object]) -> str | None:
    """Return the name of an AudioCaps clip, `<youtube_id>_<start_time>`, or None if the row lacks either of them."""
    youtube, start = (str(cells.get(name, "")) for name in (YOUTUBE_ID, START_TIME))
    if not youtube.strip() or not start.strip():
        return None
    if re.fullmatch(r"\d+\.0+", start):  # start times become floats when a table passes through some libraries
        start = start.split(".")[0]
    return f"{youtube}_{start}"
