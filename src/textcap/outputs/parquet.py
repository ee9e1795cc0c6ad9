"""Rows as Parquet: one line for each sound, or for each piece of a time line, with its embedding.

docs/formats.md describes the columns, which are the same for all options.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from textcap.data.parquet import EMBEDDING, write_tables  # before pyarrow: it tells what is missing

# isort: split
import pyarrow as pa

from textcap.data.text import printable
from textcap.outputs.rows import Row, without_none

_BATCH = 1024
_CANDIDATE = pa.struct([("caption", pa.string()), ("score", pa.float64()), ("similarity", pa.float64())])
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("caption", pa.string()),
        ("score", pa.float64()),
        ("similarity", pa.float64()),
        ("candidates", pa.list_(_CANDIDATE)),
        ("duration_s", pa.float64()),
        ("silent", pa.bool_()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("notes", pa.list_(pa.string())),
        ("error", pa.string()),
        ("embedding", EMBEDDING),
    ]
)


def write_rows(path: Path, rows: Iterable[Row], facts: Mapping[str, str], first_id: int = 0) -> None:
    """Write rows, which may have embeddings as `row_of` adds them.

    Args:
        facts: What to record of the model, besides the version of textcap.
        first_id: The id of the first row; those of the others follow.

    Raises:
        InputError: The file cannot be written.
    """
    lines = (line for number, row in enumerate(rows, first_id) for line in _lines(number, row))
    batches = iter(lambda: list(islice(lines, _BATCH)), [])
    write_tables(path, (pa.Table.from_pylist(batch, SCHEMA) for batch in batches), SCHEMA, facts)


def rows_of(table: pa.Table, *, is_timeline: bool) -> Iterator[Row]:
    """Yield the rows of a table, without embeddings; lines with the same id are the pieces of one sound."""
    for _, lines in groupby(table.drop_columns(["embedding"]).to_pylist(), lambda line: line["id"]):
        first, *others = lines
        if first["error"] is not None:
            yield {"path": first["path"], "error": first["error"]}
            continue
        # `row_of` has a score for silence, too.
        row = {name: value for name, value in first.items() if name == "score" or value is not None}
        del row["id"]
        if "candidates" in row:
            row["candidates"] = [without_none(one) for one in row["candidates"]]
        if is_timeline:
            names = ("start_s", "end_s", "caption", "score")
            pieces = [{name: line[name] for name in names} for line in (first, *others) if line["start_s"] is not None]
            row = {name: value for name, value in row.items() if name not in names}
            notes = {"notes": row.pop("notes")} if "notes" in row else {}
            row |= {"pieces": pieces, **notes}
        yield row


def _lines(number: int, row: Row) -> Iterator[dict[str, Any]]:
    shown: Row = {name: printable(row[name]) for name in ("path", "error") if name in row}
    common = {**row, **shown, "id": number}
    for piece in row.get("pieces") or [{}]:
        line = {**common, **piece}
        if "embedding" in line:
            line["embedding"] = np.frombuffer(base64.b64decode(line["embedding"]), "<f2")
        yield line
