"""The embeddings of a corpus as one flat file in the cache folder, which grows with the results."""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from textcap.corpus.plan import Corpus
from textcap.data.parquet import matrix_of, read_table
from textcap.embedding.search import Collection
from textcap.errors import FileError, InputError
from textcap.files import atomic_write_text, file_identity, read_sealed, remove_quietly, seal
from textcap.outputs.rows import Row
from textcap.store import own_cache_folder

_SHOWN = ["path", "start_s", "end_s", "caption"]


def collection_of(corpus: Corpus) -> Collection:
    """Return the embeddings of all results that there are; new ones are added to the flat file first.

    Raises:
        FileError: There is no result, or one is damaged.
        InputError: The cache folder cannot be written.
    """
    settings = corpus.settings()
    name = hashlib.sha256(f"{os.path.realpath(corpus.folder)} {settings.get('clap_hash')}".encode()).hexdigest()[:24]
    base = own_cache_folder() / "search" / name
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{base}.lock"):
            return _extended(corpus, settings, base.with_suffix(".f16"), base.with_suffix(".rows"))
    except OSError as error:
        raise FileError(base.parent, f"cannot be written: {error.strerror or error}") from error


def _extended(corpus: Corpus, settings: dict[str, Any], vectors: Path, rows: Path) -> Collection:
    facts_path = vectors.with_suffix(".json")
    states = {str(shard): list(file_identity(corpus.result_path(shard).stat())) for shard in corpus.finished}
    if not states:
        raise FileError(corpus.folder, "has no results yet", hint=f"run textcap corpus run {corpus.folder}")
    try:
        known = read_sealed(facts_path)
    except InputError:
        known = {}
    n_rows, width = known.get("rows", 0), known.get("width", 0)
    sizes = {vectors: 2 * n_rows * width, rows: 24 * n_rows}
    is_whole = all(path.exists() and path.stat().st_size >= size for path, size in sizes.items())
    if not (known and is_whole) or any(states.get(shard) != state for shard, state in known["shards"].items()):
        known, n_rows, width = {}, 0, 0  # a file was lost, or a result was made anew
        for path in sizes:  # not cut: another search may have mapped it
            remove_quietly(path)
    with open(vectors, "ab") as flat, open(rows, "ab") as places:
        shards = dict(known.get("shards", {}))
        flat.truncate(2 * n_rows * width)  # what a killed search has added
        places.truncate(24 * n_rows)
        for shard in sorted(states.keys() - shards.keys(), key=int):
            table = corpus.result(int(shard), ["id", "embedding"])
            matrix, lines = matrix_of(table)
            width = width or matrix.shape[1]
            ids = table["id"].to_numpy()[lines]
            flat.write(matrix.tobytes())
            places.write(np.stack([np.full_like(lines, int(shard)), lines, ids], axis=1).astype("<i8").tobytes())
            n_rows, shards[shard] = n_rows + len(lines), states[shard]
        for file in (flat, places):
            file.flush()
            os.fsync(file.fileno())
    replaced = [*known.get("replaced", []), *corpus.replaced(known.get("planned", 0))]
    facts = {"shards": shards, "rows": n_rows, "width": width, "planned": corpus.n_shards, "replaced": replaced}
    atomic_write_text(facts_path, json.dumps(seal(facts)))
    if not n_rows:
        return Collection(np.zeros((0, 1), np.float16), lambda number: {}, settings)
    matrix = np.memmap(vectors, "<f2", "r", shape=(n_rows, width))
    found = np.memmap(rows, "<i8", "r", shape=(n_rows, 3))
    hidden = np.flatnonzero(np.isin(found[:, 2], replaced))

    @lru_cache(maxsize=8)
    def shown(shard: int) -> Any:
        return read_table(corpus.result_path(shard), _SHOWN)

    def line(number: int) -> Row:
        shard, place, _ = found[number].tolist()
        row: Row = shown(shard).slice(place, 1).to_pylist()[0]
        return row

    return Collection(matrix, line, settings, hidden)
