"""Read comma-separated tables row by row, with the line of what is wrong.

Knows no columns. No cell is evaluated or stripped; errors are made by whoever knows the file's name.
"""

import csv
import io
from collections.abc import Iterator
from typing import Protocol

from textcap.errors import InputError

DELIMITERS = (",", ";", "\t")  # spreadsheets of half of Europe write semicolons


class LineError(Protocol):
    """Makes the error of a line of a file."""

    def __call__(self, line: int, message: str, *, hint: str | None = None) -> InputError:
        """Return the error, to be raised."""


def table_header(text: str, delimiter: str) -> list[str]:
    """Return the names of a table's columns, stripped; none where the text is no table."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        first: list[str] = next((row for row in rows if row), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in first]


def check_header(header: list[str], error: LineError) -> None:
    """Raise an InputError where two columns have one name; several without a name are fine."""
    twice = next((name for i, name in enumerate(header) if name and name in header[:i]), None)
    if twice is not None:  # empty names are those of the empty columns that spreadsheets leave
        raise error(1, f"two columns are called {twice!r}", hint="rename or remove one of them")


def table_rows(text: str, delimiter: str, n_cells: int, error: LineError) -> Iterator[tuple[int, list[str]]]:
    """Yield each row below the header with the line where it begins; a cell may run over several lines.

    Raises:
        InputError: A row has too few or too many cells, or its quotes do not match.
    """
    # Strict: otherwise a quote that is never closed takes the rest of the file into one cell.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    in_body, line = False, 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as problem:
            hint = "a quote that opens a cell has to close it, and one inside is written twice"
            if "field limit" in str(problem):  # a quote that is never closed does this, too
                hint = "no cell may be so long; is there a quote that is never closed?"
            raise error(line, f"not a row of a table: {problem}", hint=hint) from problem
        if row is None:
            return
        if in_body and any(cell.strip() for cell in row):  # spreadsheets leave rows of commas at the end
            if len(row) != n_cells:
                quotes = "a cell that holds the separator stands in quotes" if len(row) > n_cells else None
                raise error(line, f"expected {n_cells} cells, found {len(row)}", hint=quotes)
            yield line, row
        in_body = in_body or bool(row)
        line = reader.line_num + 1
