"""Keep what a run has done, one line per input, so that it can be killed at any moment and continued.

A line is a checksum and JSON: the settings first, the start of each session, inputs that are about to be read, and
results. A line that is torn or altered counts as if it were not there.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from textcap.errors import FileError, InputError
from textcap.files import OVERWRITE_HINT, remove_quietly
from textcap.outputs.rows import Row

SUFFIX = ".textcap-journal"
FORMAT_VERSION = 1

_CRASHED = "could not be read: textcap was killed twice while it read this file"


def journal_of(output: Path) -> Path:
    """Return the path of the journal of an output: there is one while a run is not finished, or inputs have failed."""
    return output.with_name(output.name + SUFFIX)


@contextmanager
def open_journal(output: Path, settings: Mapping[str, Any], *, resume: bool, force: bool) -> Iterator["Journal"]:
    """Yield the journal of an output; that the block ends, even by an error, is recorded: it is not a crash.

    Args:
        output: The file or folder that the run writes.
        settings: Everything besides the inputs that decides what the results are.
        resume: Continue an unfinished run if there is one.
        force: Delete the journal of an unfinished run.

    Raises:
        InputError: Another process writes it, an unfinished run is to be neither continued nor deleted, it was started
            with other settings, or the journal cannot be read or written.
    """
    path = journal_of(output)
    with ExitStack() as stack:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            lock = Path(f"{path}.lock")
            stack.enter_context(FileLock(lock).acquire(blocking=False))
            stack.callback(remove_quietly, lock)
            if force and not resume:
                path.unlink(missing_ok=True)
            file = stack.enter_context(open(path, "a+b"))
        except Timeout as error:
            raise InputError(f"another process is writing {output}", hint="wait for its end") from error
        except OSError as error:
            raise FileError(path, f"cannot be written: {error.strerror or error}") from error
        journal = Journal(path, file)
        journal.begin(settings, resume)
        try:
            yield journal
        finally:
            if not file.closed:
                journal.reading(None)


class Journal:
    """What a run has done; opened by `open_journal`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        self._offsets: dict[str, tuple[int, str | None]] = {}  # by path: of the line, and the identity of the input
        self._crashes: list[str | None] = []  # by session: what was being read when it was killed

    def begin(self, settings: Mapping[str, Any], resume: bool) -> None:
        """Read what the journal holds, or write the settings into a new one, and begin a session."""
        if self._file.seek(0, os.SEEK_END):
            self._read_all(settings, resume)
        else:
            self._append({"settings": {"version": FORMAT_VERSION, **settings}})
        self._append({"session": len(self._crashes)})

    def has(self, path: str, identity: str | None) -> bool:
        """Return whether an input has a result, and is as it was then."""
        return identity is not None and self._offsets.get(path, (0, None))[1] == identity

    def crashed(self, path: str) -> Row | None:
        """Return the result of an input that was being read when the last two sessions were killed, else None."""
        return {"path": path, "error": f"{path} {_CRASHED}"} if self._crashes[-2:] == [path] * 2 else None

    def reading(self, path: str | None) -> None:
        """Record that an input is about to be read; None: that none is."""
        self._append({"reading": path}, durable=False)

    def add(self, rows: Sequence[Row], identities: Sequence[str | None]) -> None:
        """Record the results of several inputs durably, all in one step."""
        for row, identity in zip(rows, identities, strict=True):
            # What failed is tried again, so it has no identity.
            known = None if "error" in row else identity
            self._offsets[row["path"]] = self._append({"row": row, "identity": known}, durable=False), known
        os.fsync(self._file.fileno())

    def rows(self, paths: Sequence[str]) -> Iterator[Row]:
        """Yield the results of inputs, read from the disk one after another."""
        for path in paths:
            self._file.seek(self._offsets[path][0])
            yield _parsed(self._file.readline())["row"]

    def delete(self) -> None:
        """Delete the journal, once its output is written."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _read_all(self, settings: Mapping[str, Any], resume: bool) -> None:
        self._file.seek(0)
        header = _parsed(self._file.readline()).get("settings")
        if not resume:
            message = f"{self.path} is that of an unfinished run"
            raise InputError(message, hint="use --resume to continue it, or --force to start again")
        if not isinstance(header, dict) or header.pop("version", None) != FORMAT_VERSION:
            raise FileError(self.path, "is not a journal of this version of textcap", hint=OVERWRITE_HINT)
        # Compared as JSON gives them: tuples are lists there.
        wanted = json.loads(json.dumps(settings))
        for name in sorted({*wanted, *header}):
            if header.get(name) != wanted.get(name):
                message = f"{self.path} was begun with {name} {header.get(name)!r}, not {wanted.get(name)!r}"
                raise InputError(message, hint="use the same options, or --force to start again")
        offset, torn = self._file.tell(), False
        for line in iter(self._file.readline, b""):
            entry = _parsed(line)
            if "session" in entry:
                self._crashes.append(None)
            elif "reading" in entry and self._crashes:
                self._crashes[-1] = entry["reading"]
            elif "row" in entry:
                self._offsets[entry["row"]["path"]] = offset, entry["identity"]
            offset += len(line)
            torn = not line.endswith(b"\n")
        if torn:
            self._file.write(b"\n")  # so that the next line is whole

    def _append(self, entry: Mapping[str, Any], *, durable: bool = True) -> int:
        text = json.dumps(entry, allow_nan=False)  # names that are not UTF-8 are escaped
        offset = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(f"{_checksum(text)} {text}\n".encode())
            self._file.flush()
        except OSError as error:
            raise FileError(self.path, f"cannot be written: {error.strerror or error}") from error
        if durable:
            os.fsync(self._file.fileno())
        return offset


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parsed(line: bytes) -> dict[str, Any]:
    """Return what a line holds; nothing if it is torn or altered."""
    checksum, _, text = line.decode("utf-8", errors="replace").rstrip("\n").partition(" ")
    return json.loads(text) if checksum == _checksum(text) else {}
