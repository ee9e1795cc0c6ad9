"""Captions on disk, mapped rather than read, so that memory hardly grows with their number.

A folder holds the text of all lines, where each line ends, and which lines are alike. Letters: N lines, M different
captions.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from textcap.config import from_dict
from textcap.data.captions import CaptionFile, CaptionSet, read_captions, split_weights
from textcap.data.text import STDIN, TextReader
from textcap.errors import InputError
from textcap.files import (
    atomic_write_text,
    atomic_write_with,
    read_sealed,
    remove_quietly,
    seal,
    sha256_of_file,
    unwritable,
)

_FACTS_FILE = "captions.json"  # written last
_TEXT_FILE, _ARRAYS = "captions.txt", ("ends", "rows", "firsts")
_STDIN_FILE = "stdin.txt"
_BATCH = 4096

Indices = NDArray[np.int64]
T = TypeVar("T")


class Lazy(Sequence[T]):
    """A sequence whose items are computed as they are asked for."""

    def __init__(self, n_items: int, item: Callable[[int], T]) -> None:
        self._n_items, self._item = n_items, item

    def __len__(self) -> int:
        return self._n_items

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._item(i) for i in range(*index.indices(self._n_items))]
        return self._item(range(self._n_items)[index])


class StoredCaptions(Lazy[str]):
    """The captions in a folder that `store_captions` wrote.

    Attributes:
        rows: [N], int32, the number of each line's caption among the different ones, by first occurrence.
        firsts: [M], int64, the first line of each different caption.
    """

    FILES: ClassVar = (_TEXT_FILE, *(f"{name}.npy" for name in _ARRAYS))

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # As plain arrays: a memmap takes three times as long for each item.
        arrays = (np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in _ARRAYS)
        self._ends, self.rows, self.firsts = arrays
        self._text = np.memmap(folder / _TEXT_FILE, np.uint8, mode="r").view(np.ndarray)
        super().__init__(len(self.rows), self._line)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredCaptions, (self._folder,)

    def _line(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._text[start : self._ends[index] - 1].tobytes().decode()


def distinct(captions: Sequence[str]) -> tuple[Sequence[str], NDArray[np.integer[Any]]]:
    """Return the M different captions by first occurrence, and the number of each of the N among them, `[N]`."""
    if isinstance(captions, StoredCaptions):
        firsts = captions.firsts
        return Lazy(len(firsts), lambda i: captions[int(firsts[i])]), captions.rows
    numbers: dict[str, int] = {}
    rows = np.array([numbers.setdefault(caption, len(numbers)) for caption in captions], dtype=np.int64)
    return list(numbers), rows


def kept(path: Path | None, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return an array, mapped from a file that is written if it is not there; without a path, in memory."""
    if path is None:
        return make()
    with suppress(OSError, ValueError, EOFError):
        found: NDArray[Any] = np.load(path, mmap_mode="r")
        return found
    array = make()
    with suppress(InputError):  # without space it is used as it is, and made again by a resume
        atomic_write_with(path, lambda new: np.save(new, array))
        array = np.load(path, mmap_mode="r")
    return array


def store_captions(captions: CaptionSet | Sequence[str | Path], folder: Path, *, plain_text: bool) -> CaptionSet:
    """Store captions, or the captions of files, in a folder; if it holds those of the same files, read nothing.

    Args:
        captions: Captions, or caption files as `load_captions` takes them.
        folder: A folder for these captions alone.
        plain_text: See `load_captions`.

    Returns:
        The captions, mapped.

    Raises:
        InputError: The same errors as of `load_captions`, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(captions, CaptionSet):
            stored = write_captions(captions.captions, folder)
            return CaptionSet(stored, captions.files, sha256_of_file(folder / _TEXT_FILE))
        names, weights = split_weights(captions)
        if STDIN in names:
            with open(folder / _STDIN_FILE, "wb") as copy:
                copy.writelines(TextReader(STDIN).pieces())
        readers = [TextReader(name, folder / _STDIN_FILE if name == STDIN else None) for name in names]
        inputs = [plain_text, [[reader.name, weight] for reader, weight in zip(readers, weights, strict=True)]]
        if (known := _known(folder, inputs, readers)) is not None:
            return known
        files: list[CaptionFile] = []
        stored = write_captions(read_captions(readers, weights, files, plain_text=plain_text), folder)
        hashes = _hashes(folder)
        facts = {"inputs": inputs, "found": [asdict(file) for file in files], "stored": hashes}
        atomic_write_text(folder / _FACTS_FILE, json.dumps(seal(facts)))
        return CaptionSet(stored, tuple(files), hashes[_TEXT_FILE])
    except OSError as error:
        raise unwritable(folder, error) from error


def _hashes(folder: Path) -> dict[str, str]:
    return {name: sha256_of_file(folder / name) for name in StoredCaptions.FILES}


def _known(folder: Path, inputs: list[Any], readers: list[TextReader]) -> CaptionSet | None:
    """Return the captions that the folder holds, if they are of the files that are asked for, and unchanged."""
    try:
        facts = read_sealed(folder / _FACTS_FILE)
        files = tuple(from_dict(CaptionFile, values) for values in facts.get("found", []))
        if facts.get("inputs") != inputs:
            return None
        hashes, found = _hashes(folder), [sha256_of_file(Path(reader.path)) for reader in readers]
        is_same = facts.get("stored") == hashes and [file.sha256 for file in files] == found
    except InputError:
        return None
    return CaptionSet(StoredCaptions(folder), files, hashes[_TEXT_FILE]) if is_same else None


def write_captions(captions: Iterable[str], folder: Path) -> StoredCaptions:
    """Store captions in a folder, in place of others."""
    folder.mkdir(parents=True, exist_ok=True)
    # What was made of other captions goes, the facts first.
    for path in sorted(folder.iterdir(), key=lambda path: path.name != _FACTS_FILE):
        if path.name != _STDIN_FILE:
            remove_quietly(path)
    remaining, ends, keys = iter(captions), [np.zeros(0, np.int64)], bytearray()
    with open(folder / _TEXT_FILE, "wb") as text:
        while batch := [caption.encode() + b"\n" for caption in islice(remaining, _BATCH)]:
            ends.append(text.tell() + np.cumsum([len(line) for line in batch]))
            keys += b"".join(hashlib.sha256(line).digest()[:16] for line in batch)
            text.write(b"".join(batch))
    rows, firsts = _number(np.frombuffer(keys, "<u8").reshape(-1, 2))
    arrays: tuple[NDArray[Any], ...] = (np.concatenate(ends), rows, firsts)
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(folder / f"{name}.npy", array)
    return StoredCaptions(folder)


def _number(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], Indices]:
    """Number different keys `[N, 2]` by first occurrence: the number of each key `[N]`, and the first of each `[M]`."""
    order = np.lexsort((keys[:, 0], keys[:, 1]))  # stable, so the first of equal keys comes first
    is_new = np.ones(len(keys), bool)
    is_new[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    firsts = order[is_new]
    by_first = firsts.argsort()
    numbers = np.empty(len(firsts), np.int32)
    numbers[by_first] = np.arange(len(firsts), dtype=np.int32)
    rows = np.empty(len(keys), np.int32)
    rows[order] = numbers[is_new.cumsum(dtype=np.int32) - 1]
    return rows, firsts[by_first]
