"""Read tables of captions row by row: those of Clotho and AudioCaps, and others with a header.

Cells are neither stripped nor evaluated. An error names the line where its row begins.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from textcap.data.text import TextFile

YOUTUBE_ID, START_TIME = "youtube_id", "start_time"  # AudioCaps names a clip by these two
NUMBERED_CAPTION = re.compile(r"caption_\d+")  # Clotho has caption_1 to caption_5

_DELIMITERS = (",", ";", "\t")  # spreadsheets in much of Europe write semicolons


@dataclass(frozen=True)
class Table:
    """A table with a header."""

    file: TextFile
    delimiter: str
    header: list[str]

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row below the header with the line where it begins; a cell may run over several lines.

        Raises:
            InputError: Two columns have the same name, a row has too few or too many cells, or its quotes do not match.
        """
        self._check_header()
        # Strict: otherwise a quote that is never closed takes the rest of the file into one cell.
        reader = csv.reader(io.StringIO(self.file.text, newline=""), delimiter=self.delimiter, strict=True)
        in_body, line = False, 1
        while True:
            try:
                row: list[str] | None = next(reader, None)
            except csv.Error as problem:
                hint: str | None = "close every quote that opens a cell, and write a quote inside a cell twice"
                if "field limit" in str(problem):  # a quote that is never closed does this too
                    hint = "the cell is too long; check for a quote that is never closed"
                raise self.file.error(line, f"not a table row: {problem}", hint=hint) from problem
            if row is None:
                return
            if in_body and any(cell.strip() for cell in row):  # spreadsheets leave rows of commas at the end
                if len(row) != len(self.header):
                    hint = "put a cell that holds the separator in quotes" if len(row) > len(self.header) else None
                    raise self.file.error(line, f"expected {len(self.header)} cells, found {len(row)}", hint=hint)
                yield line, row
            in_body = in_body or bool(row)
            line = reader.line_num + 1

    def _check_header(self) -> None:
        names = self.header
        twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
        if twice is not None:  # empty names belong to the empty columns that spreadsheets leave
            raise self.file.error(1, f"two columns are called {twice!r}", hint="rename or remove one of them")


def find_table(file: TextFile, fits: Callable[[list[str]], bool]) -> Table | None:
    """Return a file as a table, if with one of the usual separators its header fits."""
    for delimiter in _DELIMITERS:
        header = read_header(file.text, delimiter)
        if fits(header):
            return Table(file, delimiter, header)
    return None


def read_header(text: str, delimiter: str = ",") -> list[str]:
    """Return the stripped names of a table's columns; an empty list where the text is not a table."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        first: list[str] = next((row for row in rows if row), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in first]


def audiocaps_clip(cells: Mapping[str, object]) -> str | None:
    """Return the name of a clip of AudioCaps, `<youtube_id>_<start_time>`, or None where a row lacks either."""
    youtube, start = (str(cells.get(name, "")) for name in (YOUTUBE_ID, START_TIME))
    if not youtube.strip() or not start.strip():
        return None
    if re.fullmatch(r"\d+\.0+", start):  # a table that a library has read as floats
        start = start.split(".")[0]
    return f"{youtube}_{start}"
