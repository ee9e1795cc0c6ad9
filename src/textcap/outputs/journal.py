"""Keep what a run has done, one line per input, so that it can be killed at any moment and continued.

A line is a checksum and JSON: the settings first, the start of each session, inputs that are about to be read, and
results. A line that is torn or altered counts as if it were not there.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from textcap.errors import FileError, InputError
from textcap.files import OVERWRITE_HINT, remove_quietly
from textcap.outputs.rows import Row

SUFFIX = ".textcap-journal"
FORMAT_VERSION = 1


def journal_of(output: Path) -> Path:
    """Return the path of the journal of an output: there is one while a run is not finished, or inputs have failed."""
    return Path(os.path.abspath(output).rstrip(os.sep) + SUFFIX)


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
            with suppress(NotImplementedError):  # a file system without locks
                stack.enter_context(FileLock(lock).acquire(blocking=False))
                stack.callback(remove_quietly, lock)
            if force and not resume:
                path.unlink(missing_ok=True)
            file = stack.enter_context(open(path, "ab", buffering=0))
        except Timeout as error:
            raise BusyError(f"another process is writing {output}", hint="wait for its end") from error
        except OSError as error:
            raise FileError(path, f"cannot be written: {error.strerror or error}") from error
        journal = Journal(path, file)
        journal.begin(settings, resume)
        try:
            yield journal
        finally:
            if not file.closed:
                with suppress(InputError):  # the first error is the one to report
                    journal.reading(None)


class BusyError(InputError):
    """Another process is writing the same output."""


class Journal:
    """What a run has done, by a key for each input; opened by `open_journal`."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path, self._file = path, file
        self._places: dict[str, tuple[int, str | None]] = {}  # by key: of the line, and the identity of the input
        self._crashes: list[str | None] = []  # by session: what was being read when it was killed

    def begin(self, settings: Mapping[str, Any], resume: bool) -> None:
        """Read what the journal holds, or write the settings into a new one, and begin a session."""
        if not self._read_all(settings, resume):
            self._file.truncate(0)  # a kill may have torn the first line
            self._append({"settings": {"version": FORMAT_VERSION, **settings}})
        self._append({"session": len(self._crashes)}, durable=True)

    def has(self, key: str, identity: str | None) -> bool:
        """Return whether an input has a result, and is as it was then."""
        return identity is not None and self._places.get(key, (0, None))[1] == identity

    def crashed(self, key: str) -> bool:
        """Return whether an input was being read when each of the last two sessions was killed."""
        return self._crashes[-2:] == [key] * 2

    def reading(self, key: str | None) -> None:
        """Record that an input is about to be read; None: that none is."""
        self._append({"reading": key})

    def add(self, keys: Sequence[str], rows: Sequence[Row], identities: Sequence[str | None]) -> None:
        """Record the results of several inputs durably, all in one step."""
        for key, row, identity in zip(keys, rows, identities, strict=True):
            # What failed is tried again, so it has no identity.
            known = None if "error" in row else identity
            place = self._append({"key": key, "row": row, "identity": known}, durable=key is keys[-1])
            self._places[key] = place, known

    def rows(self, keys: Sequence[str]) -> Iterator[Row]:
        """Yield the results of inputs, read from the disk one after another."""
        with open(self.path, "rb") as file:
            for key in keys:
                file.seek(self._places[key][0])
                yield _parsed(file.readline())["row"]

    def delete(self) -> None:
        """Delete the journal, once its output is written."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _read_all(self, settings: Mapping[str, Any], resume: bool) -> bool:
        """Read the lines of earlier sessions; return whether there is one."""
        place, line, header = 0, b"\n", None
        with open(self.path, "rb") as file:
            for line in file:
                entry = _parsed(line)
                header = header or entry.get("settings")
                if "session" in entry:
                    self._crashes.append(None)
                elif "reading" in entry and self._crashes:
                    self._crashes[-1] = entry["reading"]
                elif "row" in entry:
                    self._places[entry["key"]] = place, entry["identity"]
                place += len(line)
        if not header and not self._crashes:
            return False
        if not resume:
            message = f"{self.path} is that of an unfinished run"
            raise InputError(message, hint="use --resume to continue it, or --force to start again")
        if not header or header.pop("version", None) != FORMAT_VERSION:
            raise FileError(self.path, "is not a journal of this version of textcap", hint=OVERWRITE_HINT)
        refuse_differences(self.path, header, settings, hint="use the same options, or --force to start again")
        if not line.endswith(b"\n"):
            self._write(b"\n")  # so that the next line is whole
        return True

    def _append(self, entry: Mapping[str, Any], *, durable: bool = False) -> int:
        """Append a line, and return its place."""
        text = json.dumps(entry, allow_nan=False)  # names that are not UTF-8 are escaped
        place = os.fstat(self._file.fileno()).st_size
        self._write(f"{_checksum(text)} {text}\n".encode(), durable=durable)
        return place

    def _write(self, content: bytes, *, durable: bool = False) -> None:
        try:
            while content:
                content = content[self._file.write(content) :]
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise FileError(self.path, f"cannot be written: {error.strerror or error}") from error


def refuse_differences(path: Path, begun: Mapping[str, Any], settings: Mapping[str, Any], *, hint: str) -> None:
    """Compare the settings in a file with those of now, which are compared as JSON gives them: with lists for tuples.

    Raises:
        InputError: One differs; the message names the first.
    """
    wanted = json.loads(json.dumps(settings))
    for name in sorted({*wanted, *begun}):
        if begun.get(name) != wanted.get(name):
            message = f"{path} was begun with {name} {begun.get(name)!r}, not {wanted.get(name)!r}"
            raise InputError(message, hint=hint)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parsed(line: bytes) -> dict[str, Any]:
    """Return what a line holds; nothing if it is torn or altered."""
    checksum, _, text = line.decode("utf-8", errors="replace").rstrip("\n").partition(" ")
    return json.loads(text) if checksum == _checksum(text) else {}
