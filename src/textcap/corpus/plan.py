"""A corpus on disk: the plan, which lists sounds in shards, and beside it the results, one file for each shard.

Nothing that was planned changes later. What is new, or has changed since, is planned as further shards.
"""

import hashlib
import json
import os
import stat
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from textcap.audio.inputs import Input, mask
from textcap.data.parquet import read_table, write_tables
from textcap.data.text import STDIN, printable
from textcap.errors import FileError, InputError
from textcap.files import atomic_write_text, read_sealed, seal, unreadable
from textcap.outputs.journal import journal_of, refuse_differences
from textcap.outputs.parquet import SCHEMA
from textcap.outputs.rows import Row

SHARD_FILES, SHARD_BYTES = 1000, 2_000_000_000

_SETTINGS_FILE = "corpus.json"
_PLAN = pa.schema(
    [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("exact", pa.binary()),  # the path, where it is not UTF-8
        ("bytes", pa.int64()),  # missing for a remote sound, like the next one
        # In microseconds: what is finer, pyarrow cannot show without pandas.
        ("modified", pa.timestamp("us", "UTC")),
        ("replaces", pa.int64()),  # the row that was planned for the same path before it changed
    ]
)


@dataclass
class Planned:
    """What planning has found."""

    n_new: int = 0
    n_changed: int = 0
    n_known: int = 0
    n_shards: int = 0
    errors: list[InputError] = field(default_factory=list)  # what cannot be planned


@dataclass(frozen=True)
class Corpus:
    """A folder with a plan and its results, which all processes and machines see."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Return the corpus in a folder.

        Raises:
            FileError: It has no plan.
        """
        corpus = cls(Path(folder))
        if not corpus.n_shards:
            raise FileError(folder, "has no plan", hint="make one with textcap corpus plan")
        return corpus

    def plan_path(self, shard: int) -> Path:
        """Return the path of the list of sounds of a shard."""
        return self.folder / "plan" / f"{shard:06}.parquet"

    def result_path(self, shard: int) -> Path:
        """Return the path of the result of a shard."""
        return self.folder / "results" / f"{shard:06}.parquet"

    @property
    def n_shards(self) -> int:
        """The number of shards that are planned."""
        names = set(os.listdir(self.folder / "plan")) if (self.folder / "plan").is_dir() else set()
        return sum(1 for _ in takewhile(lambda n: self.plan_path(n).name in names, range(len(names))))

    @property
    def finished(self) -> list[int]:
        """The shards that have a result, which may be damaged."""
        return [shard for shard in range(self.n_shards) if self.result_path(shard).exists()]

    def ids(self, shard: int) -> list[int]:
        """Return the ids of the sounds of a shard.

        Raises:
            FileError: The plan is damaged.
        """
        ids: list[int] = read_table(self.plan_path(shard), ["id"], _PLAN)["id"].to_pylist()
        return ids

    def inputs(self, shard: int) -> tuple[int, list[Input]]:
        """Return the id of the first sound of a shard, and its sounds; ids count up.

        Raises:
            FileError: The plan is damaged.
        """
        lines = read_table(self.plan_path(shard), ["id", "path", "exact", "bytes"], _PLAN).to_pylist()
        paths = [line["path"] if line["exact"] is None else os.fsdecode(line["exact"]) for line in lines]
        remote = [line["bytes"] is None for line in lines]
        return lines[0]["id"], [Input(mask(p), p) if far else Input(p) for p, far in zip(paths, remote, strict=True)]

    def replaced(self, first: int = 0) -> set[int]:
        """Return the ids of the rows in whose place those of the shards from `first` on count."""
        columns = (read_table(self.plan_path(n), ["replaces"], _PLAN)["replaces"] for n in range(first, self.n_shards))
        return {number for column in columns for number in column.drop_null().to_pylist()}

    def result(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Return the result of a shard, or some columns, one of which is "id".

        Raises:
            FileError: There is none, or it is damaged.
        """
        path, planned = self.result_path(shard), self.ids(shard)
        if not path.exists():
            raise FileError(path, "does not exist yet", hint=f"run textcap corpus run {self.folder}")
        table = read_table(path, columns, SCHEMA)
        if table["id"].unique().to_pylist() != planned:
            raise FileError(path, "has other rows than its plan")
        return table

    def settings(self) -> dict[str, Any]:
        """Return what was begun with; nothing before the first run."""
        path = self.folder / _SETTINGS_FILE
        return read_sealed(path) if path.exists() else {}

    def begin(self, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Record everything that decides the rows, or compare it with what the corpus was begun with.

        Args:
            settings: What must not change.
            facts: What else to record.

        Raises:
            InputError: A setting differs, or the folder cannot be written.
        """
        path = self.folder / _SETTINGS_FILE
        with self._locked():
            if not path.exists():
                atomic_write_text(path, json.dumps(seal({**settings, **facts}), indent=2) + "\n")
        begun = {name: value for name, value in self.settings().items() if name not in facts}
        refuse_differences(path, begun, settings, hint="use the same options, or plan another corpus")

    def discard(self, shard: int) -> None:
        """Delete the result of a shard, to make it anew."""
        self.result_path(shard).unlink(missing_ok=True)
        journal_of(self.result_path(shard)).unlink(missing_ok=True)

    def extend(
        self, found: Iterable[tuple[str, Input | InputError]], *, n_files: int = SHARD_FILES, n_bytes: int = SHARD_BYTES
    ) -> Planned:
        """Plan sounds that are new, or have changed in size or time since they were planned.

        Args:
            found: What `each_input` yields.
            n_files: Most sounds in a shard.
            n_bytes: Most bytes in a shard, unless one sound has more.

        Raises:
            InputError: The folder cannot be written, or its plan is damaged.
        """
        planned, lines, size = Planned(), list[Row](), 0
        with self._locked():
            (latest, states), n_before = self._known(), self.n_shards

            def flush() -> None:
                nonlocal size
                path = self.plan_path(n_before + planned.n_shards)
                write_tables(path, [pa.Table.from_pylist(lines, _PLAN)], _PLAN, {})
                planned.n_shards += 1
                lines.clear()
                size = 0

            for _, one in found:
                try:
                    line = _line_of(one)
                except InputError as error:
                    planned.errors.append(error)
                    continue
                key, state = _key(line), hash((line["bytes"], line["modified"]))
                before = latest.get(key)
                if before is not None and states[before] == state:
                    planned.n_known += 1
                    continue
                if lines and (len(lines) >= n_files or size + (line["bytes"] or 0) > n_bytes):
                    flush()
                latest[key] = len(states)
                lines.append({**line, "id": len(states), "replaces": before})
                states.append(state)
                size += line["bytes"] or 0
                planned.n_new += before is None
                planned.n_changed += before is not None
            if lines:
                flush()
        return planned

    def _known(self) -> tuple[dict[bytes, int], "array[int]"]:
        """Return the last id of each path, by a digest, and what stands for size and time by id."""
        latest, states = dict[bytes, int](), array("q")
        for shard in range(self.n_shards):
            table = read_table(self.plan_path(shard), ["path", "exact", "bytes", "modified"], _PLAN)
            for line in table.set_column(3, "modified", table["modified"].cast(pa.int64())).to_pylist():
                latest[_key(line)] = len(states)
                states.append(hash((line["bytes"], line["modified"])))
        return latest, states

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out, where the file system has locks."""
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with suppress(NotImplementedError):
                    held.enter_context(FileLock(self.folder / "corpus.lock"))
            except OSError as error:
                raise FileError(self.folder, f"cannot be written: {error.strerror or error}") from error
            yield


def _line_of(one: Input | InputError) -> Row:
    """Return what is planned of an input.

    Raises:
        InputError: It cannot be read, or not by another process.
    """
    if isinstance(one, InputError):
        raise one
    if one.address:
        return {"path": one.address, "exact": None, "bytes": None, "modified": None}
    path = os.path.abspath(one.name)
    try:
        found = os.stat(path) if one.name != STDIN else None
    except OSError as error:
        raise unreadable(one.name, error) from error
    if found is None or not stat.S_ISREG(found.st_mode):
        raise FileError(one.name, "is not a file that can be read again", hint="write the sound to a file")
    shown, exact = printable(path), os.fsencode(path)
    return {
        "path": shown,
        "exact": exact if shown.encode() != exact else None,
        "bytes": found.st_size,
        "modified": found.st_mtime_ns // 1000,
    }


def _key(line: Row) -> bytes:
    # With one byte more an object of Python would take 16 more.
    return hashlib.blake2b(line["exact"] or line["path"].encode(), digest_size=15).digest()
