"""Tables as Parquet files whose pages have checksums, and embeddings in them.

A list of a fixed length cannot be missing in Parquet, so embeddings are lists of any length.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textcap.data.text import printable
from textcap.errors import DependencyError, FileError
from textcap.files import atomic_write_with

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as missing:
    raise DependencyError("Parquet needs pyarrow", hint="pip install 'textcap[corpus]'") from missing

EMBEDDING = pa.list_(pa.float16())
SOUNDS = pa.schema([("path", pa.string()), ("embedding", EMBEDDING)])  # what every file with embeddings has
_EMBEDDINGS = pa.schema([("path", pa.string()), ("kind", pa.string()), ("embedding", EMBEDDING)])


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


def matrix_of(table: pa.Table) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return the embeddings of a table, `[N, E]`, float16, and the numbers of the lines that have one, `[N]`."""
    column = table["embedding"].combine_chunks()
    lines = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    flat = column.flatten().to_numpy(zero_copy_only=False).astype("<f2", copy=False)
    return flat.reshape(len(lines), -1 if len(lines) else 0), lines
