"""Read caption files: one caption per line, from files or standard input.

Problems that leave a caption usable come back as warnings; everything else is an InputError with file and line.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from textcap.data.text import STDIN, TextReader
from textcap.errors import InputError

MAX_CHARACTERS = 1000
MAX_WEIGHT = 1000.0

_BOM = "\ufeff"
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
# Everything that ends or disturbs a line for some reader: C0, DEL, C1 and Unicode's two separators.
_CONTROLS = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}


@dataclass(frozen=True)
class CaptionFile:
    """One source of captions as the model folder records it."""

    name: str  # as it was given, without its weight
    sha256: str  # of its bytes
    n_captions: int
    weight: float = 1.0  # how often each caption is drawn in an epoch, on average


@dataclass(frozen=True)
class CaptionSet:
    """Captions in file order, and where they came from."""

    captions: list[str]  # duplicates kept, never empty
    files: tuple[CaptionFile, ...]
    warnings: tuple[str, ...] = ()

    @property
    def content_hash(self) -> str:
        """SHA-256 of the captions themselves, whatever files they came from, in hexadecimal."""
        digest = hashlib.sha256()
        for caption in self.captions:
            digest.update(caption.encode() + b"\n")  # no caption holds a line end
        return digest.hexdigest()


def load_captions(paths: Sequence[str | Path]) -> CaptionSet:
    """Read caption files, one caption per line.

    A byte order mark, line ends of any system and blank lines are fine; control characters in a line become spaces.

    Args:
        paths: Files in UTF-8; "-" is standard input. A name may end in ":" and a weight, see `split_weight`.

    Raises:
        InputError: A file is missing, holds a NUL or a byte that is not UTF-8, or holds no caption; a weight is out
            of range.
    """
    if not paths:
        raise InputError("no caption file was given")
    weighted = [split_weight(path) for path in paths]
    if [path for path, _ in weighted].count(STDIN) > 1:
        raise InputError("standard input was given twice")
    captions: list[str] = []
    files: list[CaptionFile] = []
    warnings: list[str] = []
    for path, weight in weighted:
        reader, before = TextReader(path), len(captions)
        name = reader.name
        if name.lower().endswith(_TABLE_SUFFIXES):
            warnings.append(f"{name} is read as text, one caption per line; --pairs reads sounds with captions")
        for number, line in reader.lines():
            caption, warning = clean_caption(line)
            if warning is not None:
                warnings.append(f"{name}, line {number}: {warning}")
            if caption:
                captions.append(caption)
        if len(captions) == before:
            raise InputError(f"{name} holds no captions", hint="write one caption per line")
        files.append(CaptionFile(name, reader.sha256, len(captions) - before, weight))
    return CaptionSet(captions, tuple(files), tuple(warnings))


def split_weight(path: str | Path) -> tuple[str, float]:
    """Return a file's name and its weight: "more.txt:0.5" is "more.txt" with half as many draws as lines.

    What follows the last colon counts as a weight only where there is no file of the whole name, and one of the rest.

    Raises:
        InputError: The weight is not above 0, or far too large.
    """
    whole = str(path)
    name, colon, number = whole.rpartition(":")
    if not colon or os.path.lexists(whole) or not (name == STDIN or os.path.lexists(name)):
        return whole, 1.0
    try:
        weight = float(number)
    except ValueError:
        return whole, 1.0
    if not 0 < weight <= MAX_WEIGHT:
        raise InputError(f"the weight of {name} is {number}, but must be above 0 and at most {MAX_WEIGHT:g}")
    return name, weight


def clean_caption(text: str) -> tuple[str, str | None]:
    """Return a caption as it is trained on, and a warning when it had to be cut.

    Byte order marks at its start go, control characters and line ends become spaces.
    """
    # Files that were joined carry a mark in the middle.
    caption = text.lstrip(_BOM).translate(_CONTROLS).strip()
    if len(caption) <= MAX_CHARACTERS:
        return caption, None
    warning = f"cut from {len(caption):,} to {MAX_CHARACTERS:,} characters"
    return caption[:MAX_CHARACTERS].rstrip(), warning
