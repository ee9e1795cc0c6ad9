"""Rows as Parquet: one line for each sound, or for each piece of a time line, with its embedding.

docs/formats.md describes the columns, which are the same for all options. A list of a fixed length cannot be missing in
Parquet, so embeddings are lists of any length.
"""

import base64
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textcap.data.text import printable
from textcap.errors import DependencyError, FileError
from textcap.files import atomic_write_with
from textcap.outputs.rows import Row

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as missing:
    raise DependencyError("Parquet needs pyarrow", hint="pip install 'textcap[corpus]'") from missing

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
        ("embedding", pa.list_(pa.float16())),
    ]
)
SOUNDS = pa.schema([SCHEMA.field(name) for name in ("path", "embedding")])  # what every file with embeddings has
_EMBEDDINGS = pa.schema([("path", pa.string()), ("kind", pa.string()), ("embedding", pa.list_(pa.float16()))])


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


def write_tables(path: Path, tables: Iterable[pa.Table], schema: pa.Schema, facts: Mapping[str, str]) -> None:
    """Write tables one after another, each page with its checksum.

    Raises:
        InputError: The file cannot be written.
    """
    schema = schema.with_metadata({**facts, "textcap": version("textcap")})

    def write(new: Path) -> None:
        with parquet.ParquetWriter(new, schema, write_page_checksum=True) as writer:
            for table in tables:
                writer.write_table(table.cast(schema))

    atomic_write_with(path, write)


def write_embeddings(
    path: Path, names: Sequence[str], kinds: Sequence[str], vectors: NDArray[np.float32], facts: Mapping[str, str]
) -> None:
    """Write unit vectors `[N, E]` with the names and kinds of what they are of.

    Raises:
        InputError: The file cannot be written.
    """
    columns = [list(map(printable, names)), list(kinds), list(vectors.astype(np.float16))]
    table = pa.Table.from_arrays(list(map(pa.array, columns, _EMBEDDINGS.types)), schema=_EMBEDDINGS)
    write_tables(path, [table], _EMBEDDINGS, facts)


def read_table(path: Path, columns: list[str] | None = None, schema: pa.Schema | None = None) -> pa.Table:
    """Return a table, or some of its columns, with the checksums compared.

    Args:
        schema: What the columns must be: the footer, which names them, has no checksum.

    Raises:
        FileError: The file cannot be read, or is damaged.
    """
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns)
        wanted = schema or table.schema
        if any(wanted.field(name) not in list(table.schema) for name in columns or wanted.names):
            raise ValueError("it has other columns")
        return table
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:  # OSError also for a page that was changed
        code = getattr(error, "errno", None)
        problem = os.strerror(code) if code else (str(error).splitlines() or ["it is damaged"])[0]
        raise FileError(path, f"cannot be read: {problem}") from error


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
            row["candidates"] = [_given(one) for one in row["candidates"]]
        if is_timeline:
            names = ("start_s", "end_s", "caption", "score")
            pieces = [{name: line[name] for name in names} for line in (first, *others) if line["start_s"] is not None]
            row = {**{name: row[name] for name in row if name not in names}, "pieces": pieces}
        yield row


def matrix_of(table: pa.Table) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return the embeddings of a table, `[N, E]`, float16, and the numbers of the lines that have one, `[N]`."""
    column = table["embedding"].combine_chunks()
    lines = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    flat = column.flatten().to_numpy(zero_copy_only=False).astype("<f2", copy=False)
    return flat.reshape(len(lines), -1 if len(lines) else 0), lines


def _lines(number: int, row: Row) -> Iterator[dict[str, Any]]:
    shown = {name: printable(row[name]) for name in ("path", "error") if name in row}
    common = {**row, **shown, "id": number}
    for piece in row.get("pieces") or [{}]:
        line = {**common, **piece}
        if "embedding" in line:
            line["embedding"] = np.frombuffer(base64.b64decode(line["embedding"]), "<f2")
        yield line


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
