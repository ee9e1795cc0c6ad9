"""Cache the audio embeddings of files on disk, by the files' content and the backbone.

The cache is one SQLite database per backbone. Each batch is one transaction, so a run that is killed loses at most one
batch, and several processes can use the cache at once. Every row carries a checksum that is verified when it is read.
"""

import hashlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.config import CAPTION_BATCH_SIZE, AudioConfig, to_dict
from textcap.embedding.recordings import AudioWindowEncoder, Recording, embed_recordings
from textcap.errors import FileError, InputError
from textcap.files import sha256_of_file
from textcap.weights.cache import own_cache_folder

FORMAT_VERSION = 1

_WAIT_S = 60.0  # how long to wait for another process's transaction
_SETTLED_S = 2.0  # a file modified more recently may change again without a new modification time, so is not remembered
_TABLES = """
    CREATE TABLE IF NOT EXISTS embeddings (content BLOB PRIMARY KEY, vector BLOB NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, changed_ns INTEGER, content BLOB);
"""
_COLUMNS = {"embeddings": ["content", "vector", "sum"], "files": ["path", "size", "changed_ns", "content"]}
_QUERIED_AT_ONCE = 500  # older versions of SQLite accept at most 999 values in a query

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class AudioEmbeddings:
    """The embeddings of the files that can be read, and the errors of the others."""

    vectors: Vector  # [N, E], unit length; row i belongs to the file with index readable[i]
    readable: tuple[int, ...]  # indices of the files that have an embedding, in ascending order
    errors: Mapping[int, InputError]  # by index, for the files that have none
    warnings: tuple[str, ...] = ()


def default_cache_folder() -> Path:
    """Return the folder in which audio embeddings are cached."""
    return own_cache_folder() / "audio_embeddings"


def embed_audio_files(
    paths: Sequence[Path],
    *,
    backbone_hash: str,
    audio: AudioConfig,
    width: int,
    load_encoder: Callable[[], AudioWindowEncoder],
    device: torch.device,
    batch_size: int = CAPTION_BATCH_SIZE,
    cache_folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> AudioEmbeddings:
    """Return the audio embeddings of files, and compute only those that are not in the cache.

    A file is identified by its bytes: copies are computed once, and a file that has changed is computed again. A
    damaged cache is deleted and rebuilt, with a warning. A cache that cannot be read or written gives a warning, and
    the embeddings are computed all the same.

    Args:
        backbone_hash: Content hash of the backbone, which identifies the encoder's weights.
        audio: Settings of the audio front end.
        width: Embedding width E.
        load_encoder: Called only if embeddings have to be computed; the encoder that it returns runs on `device`.
        batch_size: Number of windows to embed at once, and number of files between two writes to the cache.
        cache_folder: By default `default_cache_folder()`.
        progress: Called with the number of files done and the total.
    """
    settings = f"{FORMAT_VERSION} {backbone_hash} {width} {sorted(to_dict(audio).items())}"
    key = hashlib.sha256(settings.encode()).hexdigest()[:40]
    cache = _Cache((cache_folder or default_cache_folder()) / f"{key}.sqlite", width)
    digests: dict[int, bytes] = {}
    errors: dict[int, InputError] = {}
    for index, path in enumerate(paths):
        try:
            digests[index] = cache.digest_of(path)
        except InputError as error:
            errors[index] = error
    known = cache.read(digests.values())
    failed: dict[bytes, FileError] = {}
    missing = [index for index, digest in _first_indices(digests) if digest not in known]
    progress(len(paths) - len(missing), len(paths))
    encoder = load_encoder() if missing else None
    for start in range(0, len(missing), batch_size):
        indices = missing[start : start + batch_size]
        assert encoder is not None
        found = embed_recordings(
            [paths[index] for index in indices], encoder, audio, width=width, device=device, batch_size=batch_size
        )
        new: dict[bytes, Vector] = {}
        for index, recording in zip(indices, found, strict=True):
            if isinstance(recording, Recording) and bool(recording.embedding.isfinite().all()):
                new[digests[index]] = recording.embedding.numpy()
            else:
                failed[digests[index]] = _failure(paths[index], recording)
        cache.write(new)
        known.update(new)
        progress(len(paths) - len(missing) + min(start + batch_size, len(missing)), len(paths))
    cache.remember_files()
    for index, digest in digests.items():
        if digest in failed:
            errors[index] = failed[digest].at(paths[index])
    readable = tuple(index for index in range(len(paths)) if index not in errors)
    vectors = np.empty((len(readable), width), np.float32)
    for row, index in enumerate(readable):
        vectors[row] = known[digests[index]]
    return AudioEmbeddings(vectors, readable, errors, tuple(cache.warnings))


def _first_indices(digests: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each distinct digest with the index of the first file that has it."""
    seen: set[bytes] = set()
    for index, digest in digests.items():
        if digest not in seen:
            seen.add(digest)
            yield index, digest


def _failure(path: Path, recording: Recording | InputError) -> FileError:
    """Return the error for a file without an embedding; `FileError.at` applies it to copies of the file."""
    if isinstance(recording, FileError):
        return recording
    if isinstance(recording, InputError):
        return FileError(path, f"cannot be embedded: {recording.message}", hint=recording.hint)
    return FileError(path, "has an embedding that is NaN or infinite")


class _Cache:
    """One database; after the first failure it is neither read nor written any more."""

    def __init__(self, path: Path, width: int) -> None:
        self.warnings: list[str] = []
        self._path, self._width = path, width
        self._usable = True
        self._files: dict[str, tuple[int, int, bytes]] = {}  # size, modification time in ns and digest, by path
        self._new_files: dict[str, tuple[int, int, bytes]] = {}  # the same, hashed by this run
        self._attempt(self._open)

    def digest_of(self, path: Path) -> bytes:
        """Return the SHA-256 of a file, without reading it if its size and modification time are unchanged."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return bytes.fromhex(sha256_of_file(path))  # raises an error that names the file and the reason
        state, name = (status.st_size, status.st_mtime_ns), os.path.realpath(path)
        known = self._files.get(name)
        if known is not None and known[:2] == state:
            return known[2]
        digest = bytes.fromhex(sha256_of_file(path))
        if time.time() - status.st_mtime_ns / 1e9 > _SETTLED_S:
            self._new_files[name] = (*state, digest)
        return digest

    def read(self, digests: Iterable[bytes]) -> dict[bytes, Vector]:
        """Return the cached vectors whose checksum is right, by the file's digest."""
        found: dict[bytes, Vector] = {}
        wanted = iter(set(digests))

        def select(connection: sqlite3.Connection) -> None:
            while group := list(itertools.islice(wanted, _QUERIED_AT_ONCE)):
                marks = ",".join("?" * len(group))
                query = f"SELECT content, vector, sum FROM embeddings WHERE content IN ({marks})"
                for digest, vector, checksum in connection.execute(query, group):
                    if self._is_intact(digest, vector, checksum):
                        found[digest] = np.frombuffer(vector, "<f4")

        self._attempt(select)
        return found

    def write(self, vectors: Mapping[bytes, Vector]) -> None:
        """Write vectors in one transaction: all of them or none."""
        raw = [(digest, vector.astype("<f4").tobytes()) for digest, vector in vectors.items()]
        rows = [(digest, vector, _checksum(digest, vector)) for digest, vector in raw]
        self._attempt(
            lambda connection: connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
        )

    def remember_files(self) -> None:
        """Write the digests of files that were hashed, so that unchanged files need not be read again."""
        # Stored as bytes: file names need not be UTF-8, and SQLite accepts no other text.
        rows = [(os.fsencode(name), *state) for name, state in self._new_files.items()]
        if rows:
            self._attempt(
                lambda connection: connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
            )

    def _open(self, connection: sqlite3.Connection) -> None:
        connection.executescript(_TABLES)
        for table, columns in _COLUMNS.items():
            if [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] != columns:
                raise sqlite3.DatabaseError(f"the columns of the table {table} are not {', '.join(columns)}")
        for name, size, changed_ns, digest in connection.execute("SELECT * FROM files"):
            if isinstance(digest, bytes) and len(digest) == hashlib.sha256().digest_size:
                self._files[os.fsdecode(name)] = (size, changed_ns, digest)

    def _is_intact(self, digest: bytes, vector: bytes, checksum: bytes) -> bool:
        return len(vector) == 4 * self._width and checksum == _checksum(digest, vector)

    def _attempt(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run `work` in one transaction, unless the database has failed before; turn an error into a warning."""
        if not self._usable:
            return
        try:
            try:
                self._connect(work)
            except sqlite3.OperationalError:  # locked, read-only or disk full: the database itself is not damaged
                raise
            except sqlite3.DatabaseError:
                self._delete()
                self._connect(self._open)
                self._connect(work)
        except (OSError, sqlite3.Error) as error:
            self._usable = False
            reason = getattr(error, "strerror", None) or error
            self.warnings.append(f"audio embeddings cannot be cached in {self._path.parent}: {reason}")

    def _connect(self, work: Callable[[sqlite3.Connection], object]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as connection, connection:
            work(connection)

    def _delete(self) -> None:
        self.warnings.append(f"the cache {self._path} was damaged, so it was deleted and is rebuilt")
        self._files.clear()
        for suffix in ("", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _checksum(digest: bytes, vector: bytes) -> bytes:
    return hashlib.sha256(digest + vector).digest()[:8]
