"""Audio embeddings of files, kept on disk by the files' content and the backbone.

Knows no CLAP: the encoder is handed in and asked only for what the cache lacks. One SQLite database for each backbone;
a batch is a transaction, so whoever is killed loses one batch, and several processes may use it at once. What is read
is checked before it is trusted.
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

_WAIT_S = 60.0  # for another process's transaction
_SETTLED_S = 2.0  # a file changed since may change again within the clock's grain
_TABLES = """
    CREATE TABLE IF NOT EXISTS embeddings (content BLOB PRIMARY KEY, vector BLOB NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, changed_ns INTEGER, content BLOB);
"""
_COLUMNS = {"embeddings": ["content", "vector", "sum"], "files": ["path", "size", "changed_ns", "content"]}
_QUERIED_AT_ONCE = 500  # SQLite takes 999 values, in its older versions

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class AudioEmbeddings:
    """The embeddings of files, and what became of the rest."""

    vectors: Vector  # [N, E], unit length: row i is of the file at place readable[i]
    readable: tuple[int, ...]
    errors: Mapping[int, InputError]  # by place
    warnings: tuple[str, ...] = ()


def default_cache_folder() -> Path:
    """Return where audio embeddings are kept."""
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
    """Return the audio embeddings of files, from the cache as far as it has them.

    A file is known by its bytes: copies are computed once, and a changed file again. A cache that is damaged is thrown
    away; one that cannot be written costs a warning.

    Args:
        backbone_hash: Names the encoder's weights.
        width: E.
        load_encoder: Called only when something has to be computed; what it returns runs on `device`.
        batch_size: Windows embedded at once, and files between two writes.
        progress: Told how many files of how many are done.
    """
    settings = f"{FORMAT_VERSION} {backbone_hash} {width} {sorted(to_dict(audio).items())}"
    key = hashlib.sha256(settings.encode()).hexdigest()[:40]
    cache = _Cache((cache_folder or default_cache_folder()) / f"{key}.sqlite", width)
    contents: dict[int, bytes] = {}
    errors: dict[int, InputError] = {}
    for place, path in enumerate(paths):
        try:
            contents[place] = cache.content_of(path)
        except InputError as error:
            errors[place] = error
    known = cache.read(contents.values())
    failed: dict[bytes, FileError] = {}
    missing = [place for place, content in _firsts(contents) if content not in known]
    progress(len(paths) - len(missing), len(paths))
    encoder = load_encoder() if missing else None
    for start in range(0, len(missing), batch_size):
        places = missing[start : start + batch_size]
        assert encoder is not None
        found = embed_recordings(
            [paths[place] for place in places], encoder, audio, width=width, device=device, batch_size=batch_size
        )
        new: dict[bytes, Vector] = {}
        for place, recording in zip(places, found, strict=True):
            if isinstance(recording, Recording) and bool(recording.embedding.isfinite().all()):
                new[contents[place]] = recording.embedding.numpy()
            else:
                failed[contents[place]] = _failure(paths[place], recording)
        cache.write(new)
        known.update(new)
        progress(len(paths) - len(missing) + min(start + batch_size, len(missing)), len(paths))
    cache.remember_files()
    for place, content in contents.items():
        if content in failed:
            errors[place] = failed[content].at(paths[place])
    readable = tuple(place for place in range(len(paths)) if place not in errors)
    vectors = np.empty((len(readable), width), np.float32)
    for row, place in enumerate(readable):
        vectors[row] = known[contents[place]]
    return AudioEmbeddings(vectors, readable, errors, tuple(cache.warnings))


def _firsts(contents: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the first place of each content."""
    seen: set[bytes] = set()
    for place, content in contents.items():
        if content not in seen:
            seen.add(content)
            yield place, content


def _failure(path: Path, recording: Recording | InputError) -> FileError:
    """Return why a file has no embedding, as an error that also suits other files with the same bytes."""
    if isinstance(recording, FileError):
        return recording
    if isinstance(recording, InputError):
        return FileError(path, f"cannot be embedded: {recording.message}", hint=recording.hint)
    return FileError(path, "has an embedding that is NaN")


class _Cache:
    """One database; after the first failure to use it, nothing is read or written any more."""

    def __init__(self, path: Path, width: int) -> None:
        self.warnings: list[str] = []
        self._path, self._width = path, width
        self._usable = True
        self._files: dict[str, tuple[int, int, bytes]] = {}
        self._new_files: dict[str, tuple[int, int, bytes]] = {}
        self._attempt(self._open)

    def content_of(self, path: Path) -> bytes:
        """Return the SHA-256 of a file, remembered while its size and time of change are the same."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return bytes.fromhex(sha256_of_file(path))  # its error names the file and what is wrong
        state, name = (status.st_size, status.st_mtime_ns), os.path.realpath(path)
        known = self._files.get(name)
        if known is not None and known[:2] == state:
            return known[2]
        content = bytes.fromhex(sha256_of_file(path))
        if time.time() - status.st_mtime_ns / 1e9 > _SETTLED_S:
            self._new_files[name] = (*state, content)
        return content

    def read(self, contents: Iterable[bytes]) -> dict[bytes, Vector]:
        """Return the vectors that are there and sound."""
        found: dict[bytes, Vector] = {}
        wanted = iter(set(contents))

        def select(connection: sqlite3.Connection) -> None:
            while group := list(itertools.islice(wanted, _QUERIED_AT_ONCE)):
                marks = ",".join("?" * len(group))
                query = f"SELECT content, vector, sum FROM embeddings WHERE content IN ({marks})"
                for content, vector, check in connection.execute(query, group):
                    if self._is_sound(content, vector, check):
                        found[content] = np.frombuffer(vector, "<f4")

        self._attempt(select)
        return found

    def write(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keep vectors, all of them or none."""
        rows = [(content, vector.astype("<f4").tobytes()) for content, vector in vectors.items()]
        sums = [(content, vector, _check_sum(content, vector)) for content, vector in rows]
        self._attempt(
            lambda connection: connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", sums)
        )

    def remember_files(self) -> None:
        """Keep which file had which content, so that it need not be read again."""
        # Names need not be UTF-8, which is all that SQLite takes.
        rows = [(os.fsencode(name), *state) for name, state in self._new_files.items()]
        if rows:
            self._attempt(
                lambda connection: connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
            )

    def _open(self, connection: sqlite3.Connection) -> None:
        connection.executescript(_TABLES)
        for table, columns in _COLUMNS.items():
            if [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] != columns:
                raise sqlite3.DatabaseError(f"the table {table} has other columns")
        for name, size, changed_ns, content in connection.execute("SELECT * FROM files"):
            if isinstance(content, bytes) and len(content) == hashlib.sha256().digest_size:
                self._files[os.fsdecode(name)] = (size, changed_ns, content)

    def _is_sound(self, content: bytes, vector: bytes, check: bytes) -> bool:
        return len(vector) == 4 * self._width and check == _check_sum(content, vector)

    def _attempt(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Work on the database in one transaction, if it is still of use; what goes wrong is a warning."""
        if not self._usable:
            return
        try:
            try:
                self._connect(work)
            except sqlite3.OperationalError:  # locked, read-only, no room: nothing is wrong with what is there
                raise
            except sqlite3.DatabaseError:
                self._throw_away()
                self._connect(self._open)
                self._connect(work)
        except (OSError, sqlite3.Error) as error:
            self._usable = False
            reason = getattr(error, "strerror", None) or error
            self.warnings.append(f"cannot keep audio embeddings in {self._path.parent}: {reason}")

    def _connect(self, work: Callable[[sqlite3.Connection], object]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as connection, connection:
            work(connection)

    def _throw_away(self) -> None:
        self.warnings.append(f"the cache {self._path} is damaged and was thrown away")
        self._files.clear()
        for suffix in ("", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _check_sum(content: bytes, vector: bytes) -> bytes:
    return hashlib.sha256(content + vector).digest()[:8]
