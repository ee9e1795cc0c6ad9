"""Results as lines: text, CSV and JSON Lines.

A row is a result as plain values, as JSON Lines show it and as a journal keeps it; every form is made from rows.
"""

import base64
import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from textcap.audio.inputs import Input
from textcap.data.text import escape_json, printable
from textcap.errors import FileError, InputError
from textcap.results import Candidate, CaptionResult, Piece

Row = dict[str, Any]


def row_of(result: CaptionResult, n_captions: int = 1, *, embeddings: bool = False) -> Row:
    """Return a result as values for JSON; docs/formats.md describes the fields.

    Candidates are listed if several are wanted, similarities if they were computed.

    Args:
        n_captions: Captions that are wanted.
        embeddings: Whether to add the embeddings of the sound or its pieces, for `parquet`: float16 in base 64.
    """
    if result.error is not None:
        return error_row(result.path, result.error)
    row: Row = {"path": result.path}
    if result.pieces is None:
        row |= {"caption": result.caption, "score": result.score}
        several = [_values(one) for one in result.candidates[:n_captions]]
        if several and "similarity" in several[0]:
            row["similarity"] = several[0]["similarity"]
        if n_captions > 1:
            row["candidates"] = several
    row |= {"duration_s": result.duration_s, "silent": result.is_silent}
    if result.pieces is not None:
        row["pieces"] = [_values(piece, embeddings) for piece in result.pieces]
    if embeddings and result.embedding is not None:
        row["embedding"] = _packed(result.embedding)
    return row | ({"notes": list(result.notes)} if result.notes else {})


def error_row(path: str, error: InputError) -> Row:
    """Return the row of an input that cannot be read; the error names the path as it was given."""
    return {"path": path, "error": str(error.at(path) if isinstance(error, FileError) else error)}


def path_of(one: Input | InputError) -> str:
    """Return the name of an input, or of the one that an error is about."""
    return one.name if isinstance(one, Input) else str(one.path) if isinstance(one, FileError) else ""


def json_line(row: Row) -> str:
    """Return a row as a line of JSON; an error has its place in it."""
    return escape_json(json.dumps(row, ensure_ascii=False, allow_nan=False)) + "\n"


def text_lines(row: Row) -> str:
    """Return the path, a tab and the captions of a row, or a line for each piece; nothing for an error."""
    return "".join("\t".join(printable(cell) for cell in cells) + "\n" for cells in _cells(row))


def csv_header(is_timeline: bool, n_captions: int) -> str:
    """Return the names of the columns that `csv_lines` fills; scoring tools read the first two."""
    if is_timeline:
        return "file_name,start_s,end_s,caption_predicted\n"
    return ",".join(["file_name", "caption_predicted", *(f"caption_{n}" for n in range(2, n_captions + 1))]) + "\n"


def csv_lines(row: Row, n_captions: int) -> str:
    """Return a row as a line of CSV, or a line for each piece; nothing for an error."""
    lines = io.StringIO()
    for cells in _cells(row):
        missing = [] if "pieces" in row else [""] * (1 + n_captions - len(cells))
        csv.writer(lines, lineterminator="\n").writerow([*(printable(cell) for cell in cells), *missing])
    return lines.getvalue()


def _cells(row: Row) -> list[Sequence[str]]:
    if "error" in row:
        return []
    if "pieces" in row:
        return [(row["path"], f"{one['start_s']:.3f}", f"{one['end_s']:.3f}", one["caption"]) for one in row["pieces"]]
    return [(row["path"], *(one["caption"] for one in row.get("candidates") or [row]))]


def without_none(values: dict[str, Any]) -> Row:
    """Return the values that there are."""
    return {name: value for name, value in values.items() if value is not None}


def _values(one: Candidate | Piece, embeddings: bool = False) -> Row:
    values = without_none(vars(one))
    embedding = values.pop("embedding", None)
    return values | ({"embedding": _packed(embedding)} if embeddings and embedding is not None else {})


def _packed(embedding: Any) -> str:
    return base64.b64encode(embedding.astype("<f2").tobytes()).decode()
