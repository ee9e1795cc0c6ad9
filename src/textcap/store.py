"""Keep vectors and the hashes of files on disk, so that everything is embedded and hashed once.

A store is one SQLite database for each encoder. Each batch is one transaction, so a run that is killed loses at most
one batch, and several processes can use a store at once. Every row has a checksum, and a damaged row counts as missing.
Reading and embedding sounds and captions is left to `embedding.recordings` and `embedding.captions`.
"""

import hashlib
import logging
import os
import re
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from textcap.data.text import counted
from textcap.errors import InputError
from textcap.files import file_identity, is_settled, sha256_of_file

FORMAT_VERSION = 1
BATCH_ROWS = 1024  # vectors that are computed, and made durable, at once

_ATTEMPTS = 3
_WAIT_S = 60.0  # how long to wait for another process's transaction
_SELECTED_KEYS = 512  # in one query; SQLite before 3.32 takes at most 999
# Rows are appended to a table, and its index finds them. `files` holds what is known without reading a file.
_TABLES = [
    b"CREATE TABLE %b (key BLOB PRIMARY KEY, value BLOB NOT NULL, facts BLOB NOT NULL, sum BLOB NOT NULL)" % name
    for name in (b"vectors", b"files")
]

Vectors = NDArray[np.float32]
Encode = Callable[[list[int]], Vectors]
Progress = Callable[[int], None]
T = TypeVar("T")

_logger = logging.getLogger("textcap")


class Row(NamedTuple):
    """What a store holds for a key."""

    value: bytes  # of a vector: float32, little-endian
    facts: bytes = b""  # what else is known of the item, as it was written


class Store:
    """The vectors of one kind of item by one encoder, by the SHA-256 of the item.

    A database that is damaged is deleted and filled anew, and one that cannot be written is replaced by a temporary
    one that ends with the process; a warning in the log says so, once.

    Args:
        path: The database; it is created when vectors are first written.
        width: Length E of the vectors.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width
        self._readable = self._writable = True
        self._temporary: sqlite3.Connection | None = None
        with suppress(OSError, ValueError):
            os.utime(path)  # the time of the last use, by which `textcap cache` deletes old stores

    @classmethod
    def of(cls, kind: str, name: str, clap_hash: str, width: int, rules: str = "") -> "Store":
        """Return the store in the cache folder for the vectors of an encoder.

        Args:
            kind: "audio" or "text".
            name: Of the CLAP, shown by `textcap cache`.
            clap_hash: Its content hash, which identifies the encoder's weights.
            rules: Whatever else decides which vector an item gets.
        """
        identity = hashlib.sha256(f"{FORMAT_VERSION} {clap_hash} {width} {rules}".encode()).hexdigest()[:24]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", os.path.basename(name))[:40]
        return cls(store_folder() / f"{kind}-{name}-{identity}.sqlite", width)

    def vectors(self, keys: Sequence[bytes], encode: Encode, *, progress: Progress = lambda n_done: None) -> Vectors:
        """Return the vectors of keys as a read-only memory map, and compute only those that are not in the store.

        If several processes ask for the same keys at once, one computes the missing ones and the others wait. The map
        belongs to a file without a name, whose disk space is freed together with the map.

        Args:
            keys: The SHA-256 of N items.
            encode: Returns the vectors `[M, E]` of the items with M indices. It is called with the missing items in
                their order, each once, in batches of `BATCH_ROWS`.
            progress: Called with the number of vectors done, if any is missing.

        Returns:
            `[N, E]`, in the order of the keys.

        Raises:
            InputError: The vectors cannot be written, neither to the cache folder nor to a temporary folder.
        """
        if not keys:
            return np.empty((0, self.width), np.float32)
        for folder in (self.path.parent, None):
            try:
                return self._map(folder, keys, encode, progress)
            except OSError as error:
                problem = error
        raise _no_space(problem) from problem

    def read(self, keys: Sequence[bytes], table: str = "vectors") -> list[Row | None]:
        """Return the rows of keys; None for a key whose row is missing or damaged."""

        def select(connection: sqlite3.Connection) -> list[Row | None]:
            found: dict[bytes, Sequence[bytes]] = {}
            for start in range(0, len(keys), _SELECTED_KEYS):
                some = keys[start : start + _SELECTED_KEYS]
                query = f"SELECT key, value, facts, sum FROM {table} WHERE key IN ({','.join('?' * len(some))})"
                found |= {key: row for key, *row in connection.execute(query, some)}
            return [_intact(key, found.get(key)) for key in keys]

        exists = self._readable and os.path.exists(self.path)
        found = (self._attempt(select, writes=False) if exists else None) or [None] * len(keys)
        if self._temporary is not None:
            found = [row or other for row, other in zip(found, select(self._temporary), strict=True)]
        return found

    def write(self, rows: Mapping[bytes, Row], table: str = "vectors") -> None:
        """Write rows in one transaction: all of them or none.

        Raises:
            InputError: The rows can be written neither to the store nor to a temporary file.
        """
        if not rows:
            return
        values = [(key, *row, _checksum(key, row)) for key, row in rows.items()]

        def insert(connection: sqlite3.Connection) -> bool:
            connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", values)
            return True

        if self._writable and self._attempt(insert, writes=True):
            return
        try:
            if self._temporary is None:
                self._temporary = _connect("")  # a database without a name
                weakref.finalize(self, self._temporary.close)
                _make_tables(self._temporary)
            insert(self._temporary)
        except sqlite3.Error as error:
            raise _no_space(error) from error

    def file_keys(self, paths: Sequence[Path]) -> list[bytes | None]:
        """Return the SHA-256 of files; None for one that cannot be read, or not twice, as a pipe.

        A file whose place, size and times of change are known is not read.
        """
        states = [_state(path) for path in paths]
        known = self.read([state for state, _ in states], "files")
        keys = [row.value if row else _hash(path) for path, row in zip(paths, known, strict=True)]
        new = zip(states, known, keys, strict=True)
        self.write({state: Row(key) for (state, settled), row, key in new if settled and key and not row}, "files")
        return keys

    def _map(self, folder: Path | None, keys: Sequence[bytes], encode: Encode, progress: Progress) -> Vectors:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix=".textcap-", suffix=".tmp", dir=folder) as file:
            for _ in range(_ATTEMPTS):  # a store that turns out to be damaged is filled anew
                if not self._copy(keys, file):
                    file.flush()
                    return np.memmap(file, np.float32, mode="r", shape=(len(keys), self.width))  # keeps the file open
                with self._alone(keys):
                    self._compute(keys, self._copy(keys, file), encode, progress)
        raise InputError(f"{self.path} loses what is written to it", hint="set TEXTCAP_CACHE to another folder")

    def _copy(self, keys: Sequence[bytes], file: IO[bytes]) -> list[int]:
        """Write the vectors of keys to a file, with zeros for missing ones, and return the indices of these."""
        missing: list[int] = []
        file.seek(0)
        for start in range(0, len(keys), BATCH_ROWS):
            rows = self.read(keys[start : start + BATCH_ROWS])
            file.write(b"".join(row.value if row else bytes(4 * self.width) for row in rows))
            missing += [start + i for i, row in enumerate(rows) if row is None]
        return missing

    def _compute(self, keys: Sequence[bytes], missing: list[int], encode: Encode, progress: Progress) -> None:
        indices = list({keys[i]: i for i in missing}.values())  # one for each key, in the order of the keys
        progress(len(keys) - len(indices))
        for start in range(0, len(indices), BATCH_ROWS):
            batch = indices[start : start + BATCH_ROWS]
            vectors = np.asarray(encode(batch), "<f4")
            self.write({keys[i]: Row(vector.tobytes()) for i, vector in zip(batch, vectors, strict=True)})
            progress(len(keys) - len(indices) + start + len(batch))

    @contextmanager
    def _alone(self, keys: Sequence[bytes]) -> Iterator[None]:
        """Wait until no other process computes the vectors of the same keys."""
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:16]
        lock = FileLock(self.path.with_suffix(f".{name}.lock"))
        with suppress(OSError, NotImplementedError):  # a read-only folder, or a file system without locks
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
            with suppress(OSError):
                os.unlink(lock.lock_file)  # a process that waits for it holds on to the deleted file

    def _attempt(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> T | None:
        """Run `work` in one transaction; a failure costs a warning, and the database is used no more for the like."""
        try:
            try:
                return self._transact(work, writes)
            except sqlite3.OperationalError:  # locked, read-only or disk full: the database itself is not damaged
                raise
            except sqlite3.DatabaseError:
                _logger.warning("%s was damaged, so it was deleted and is filled anew", self.path)
                delete_store(self.path)
                return self._transact(work, writes) if writes else None
        except (OSError, sqlite3.Error) as error:
            if self._writable:
                _warn_unwritable(self.path.parent, _reason(error))
            self._writable, self._readable = False, self._readable and writes
            return None

    def _transact(self, work: Callable[[sqlite3.Connection], T], writes: bool) -> T | None:
        if writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(self.path)) as connection:
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            tables = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")]
            if not tables and not writes:
                return None
            if not tables:
                _make_tables(connection)
            elif tables != _TABLES:
                raise sqlite3.DatabaseError("the tables are not those of a store")
            result = work(connection)
            connection.execute("COMMIT")
            return result


class NoStore(Store):
    """Keeps nothing; knows a file by its place, its size and the times of its changes, and does not read it."""

    def read(self, keys: Sequence[bytes], table: str = "vectors") -> list[Row | None]:
        """Return that there is no row."""
        return [None] * len(keys)

    def write(self, rows: Mapping[bytes, Row], table: str = "vectors") -> None:
        """Do nothing."""

    def file_keys(self, paths: Sequence[Path]) -> list[bytes | None]:
        """Return what stands for each file as it is now; None for one that cannot be read, or not twice."""
        return [_state(path)[0] or None if os.path.isfile(path) else None for path in paths]


def own_cache_folder() -> Path:
    """Return the folder for results that textcap can compute again; it is never Hugging Face's cache."""
    named = path_in("TEXTCAP_CACHE")
    return named if named is not None else platformdirs.user_cache_path("textcap", appauthor=False)


def path_in(variable: str) -> Path | None:
    """Return the path that an environment variable holds, if it is set."""
    value = os.environ.get(variable)
    return Path(os.path.expandvars(value)).expanduser() if value else None


def store_folder() -> Path:
    """Return the folder that holds the stores."""
    return own_cache_folder() / "embeddings"


def inspect_store(path: Path, *, check: bool = False) -> tuple[int, str]:
    """Return how many vectors a store holds, and what is damaged in it; the store is not changed.

    Args:
        check: Read every row and compare its checksum.

    Raises:
        OSError: The store does not exist or cannot be accessed.
    """
    if not path.stat().st_size:  # a process was killed before it wrote anything
        return 0, ""
    query = "SELECT key, value, facts, sum FROM vectors UNION ALL SELECT key, value, facts, sum FROM files"
    try:
        with closing(_connect(path)) as connection:
            ((n_vectors,),) = connection.execute("SELECT count(*) FROM vectors")
            if check:
                if n_damaged := sum(_intact(key, row) is None for key, *row in connection.execute(query)):
                    return n_vectors, counted(n_damaged, "damaged row")
                ((found,),) = connection.execute("PRAGMA integrity_check(1)")
                return n_vectors, "" if found == b"ok" else "damaged index"
    except sqlite3.Error as error:
        return 0, str(error)
    return n_vectors, ""


def delete_store(path: Path) -> None:
    """Delete a store with the journal and the locks beside it."""
    for found in path.parent.glob(f"{path.stem}.*"):
        found.unlink(missing_ok=True)


def _state(path: Path) -> tuple[bytes, bool]:
    """Return a key that stands for a file as it is now, and whether it will stand for no other content."""
    try:
        status = os.stat(path)
        name = os.fsencode(os.path.realpath(path))
    except (OSError, ValueError):
        return b"", False
    return hashlib.sha256(name + repr(file_identity(status)).encode()).digest(), is_settled(status)


def _hash(path: Path) -> bytes | None:
    try:
        return bytes.fromhex(sha256_of_file(path)) if os.path.isfile(path) else None
    except InputError:
        return None


@cache  # several stores are in one folder
def _warn_unwritable(folder: Path, reason: str) -> None:
    _logger.warning("nothing can be kept in %s: %s", folder, reason)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _no_space(error: Exception) -> InputError:
    message = f"embeddings cannot be written to a temporary file: {_reason(error)}"
    return InputError(message, hint="set TEXTCAP_CACHE to a folder with free space")


def _connect(path: str | Path) -> sqlite3.Connection:
    # Threads may share the temporary database; SQLite locks it for each statement.
    connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes
    connection.execute("PRAGMA page_size = 16384")  # vectors of up to 1,024 numbers fit well; for new databases only
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    for sql in _TABLES:
        connection.execute(sql.decode())


def _intact(key: bytes, row: Sequence[bytes] | None) -> Row | None:
    """Return a row as it was read, or None if there is none or it is damaged."""
    try:
        value, facts, checksum = row or ()
        found = Row(value, facts)
        return found if checksum == _checksum(key, found) else None
    except (TypeError, ValueError):  # a value is not bytes any more; there is no row
        return None


def _checksum(key: bytes, row: Row) -> bytes:
    return hashlib.sha256(key + row.value + row.facts).digest()[:8]
