"""Read caption files, or standard input: text with one caption per line, or tables of captions.

A problem that leaves the caption usable is logged as a warning; any other is an InputError with file and line.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from textcap.data import tables
from textcap.data.text import LINE_ENDS, STDIN, TextFile, TextReader, counted
from textcap.errors import InputError

MAX_CHARACTERS = 1000
MAX_WEIGHT = 1000.0
_TOLD = 3  # odd lines of a file that are told one by one
FEW_CAPTIONS = 500  # with fewer distinct ones, a model learns to repeat them

_BOM = "\ufeff"
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
# Characters that end or garble a line in some programs (C0, DEL, C1 and Unicode's two separators), and surrogates,
# which UTF-8 cannot encode: JSON may have them, and so may arguments of the command line.
_CONTROLS = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))}

_logger = logging.getLogger("textcap")


@dataclass(frozen=True)
class CaptionFile:
    """A caption file or pairs file, as the model folder records it."""

    name: str  # the path as given, without the weight, or "standard input"
    sha256: str  # of the file's bytes, in hexadecimal
    n_captions: int
    weight: float = 1.0  # how often each caption is drawn per epoch, on average


@dataclass(frozen=True)
class CaptionSet:
    """Captions in file order, and the files they come from."""

    captions: Sequence[str]  # duplicates are kept; no caption is empty
    files: tuple[CaptionFile, ...]
    known_hash: str = ""  # the content hash, if it is known

    @property
    def content_hash(self) -> str:
        """SHA-256 of the captions in order, in hexadecimal; independent of how the files store them."""
        if self.known_hash:
            return self.known_hash
        digest = hashlib.sha256()
        for caption in self.captions:
            digest.update(caption.encode() + b"\n")  # no caption contains a line end
        return digest.hexdigest()


def load_captions(paths: Sequence[str | Path], *, plain_text: bool = False) -> CaptionSet:
    """Read caption files: one caption per line, or tables, of which all captions of each row are taken.

    A file is a table if its first line is the header of a pairs file, as `read_pairs` reads it, or a JSON
    object with captions; its sounds are not needed. A file whose name ends in .csv, .tsv, .json or .jsonl must be one,
    but of its columns only those of captions matter. All others are plain text.

    Files may have a byte order mark, blank lines and the line ends of any system. Control characters within a line
    become spaces.

    Args:
        paths: UTF-8 files; "-" is standard input. A name may end in ":" and a weight: of "more.txt:0.5" half as many
            captions are drawn per epoch as it has.
        plain_text: Take each line of every file as a caption.

    Raises:
        InputError: A file is missing, contains a NUL or a byte that is not UTF-8, is not the table that its name says,
            or has no captions; or a weight is out of range.
    """
    names, weights = split_weights(paths)
    files: list[CaptionFile] = []
    captions = list(read_captions([TextReader(name) for name in names], weights, files, plain_text=plain_text))
    return CaptionSet(captions, tuple(files))


def read_captions(
    readers: Sequence[TextReader], weights: Sequence[float], files: list[CaptionFile], *, plain_text: bool = False
) -> Iterator[str]:
    """Yield the captions of files one by one, with the errors of `load_captions`.

    Args:
        readers: The files.
        weights: The weight of each.
        files: Gets what is to be recorded of each file once it is read.
        plain_text: See `load_captions`.
    """
    for reader, weight in zip(readers, weights, strict=True):
        n_captions = n_cut = 0
        for place, text in _captions_in(reader, plain_text):
            n_cut += len(text) > MAX_CHARACTERS
            if caption := clean_caption(text, f"{reader.name}, {place}", is_told=n_cut <= _TOLD):
                n_captions += 1
                yield caption
        if not n_captions:
            raise InputError(f"{reader.name} has no captions", hint="write one caption per line")
        if n_cut > _TOLD:
            _logger.warning("%s: %s too long in all", reader.name, counted(n_cut, "caption"))
        files.append(CaptionFile(reader.name, reader.sha256, n_captions, weight))


def warn_of_few(n_distinct: int) -> None:
    """Log a warning if there are too few different captions to learn from."""
    if n_distinct == 1:
        _logger.warning("all captions are alike: a model that is trained on them can say nothing else")
    elif n_distinct < FEW_CAPTIONS:
        _logger.warning("only %s: a model needs thousands to learn from", counted(n_distinct, "distinct caption"))


def _captions_in(reader: TextReader, plain_text: bool) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each caption of a file, as it is written; a text may be blank."""
    chunks = reader.chunks()
    first = next(chunks, "")
    if plain_text or not (reader.name.lower().endswith(_TABLE_SUFFIXES) or _is_table(first)):
        for number, line in reader.lines(itertools.chain([first], chunks)):
            yield f"line {number}", line
        return
    source = TextFile(reader.name, first + "".join(chunks), reader.sha256)  # in this order: all must be read first
    is_json = source.text.lstrip().startswith(("[", "{"))
    records = tables.json_records(source) if is_json else tables.find_table(source, tables.has_captions)
    if records is None:
        problem = f"expected a column caption, captions or caption_1, found {tables.shown_header(source.text)}"
        raise source.error(1, problem, hint="rename one, or use --plain-text to take each line as a caption")
    _logger.info("%s is read as a table of captions", reader.name)
    for place, record in records:
        yield from ((place, caption) for caption in tables.captions_of(source, place, record))


def _is_table(text: str) -> bool:
    """Return whether the first line of a text is a known header, or a JSON object with captions."""
    line = LINE_ENDS.split(text.lstrip(), maxsplit=1)[0]
    record = tables.json_or_none(line) if line.startswith("{") else None
    is_json = isinstance(record, dict) and tables.has_captions(record)
    return is_json or tables.find_delimiter(line, tables.is_pairs_header) is not None


def split_weight(path: str | Path) -> tuple[str, float]:
    """Split "name:weight" into the name of a file and its weight, which is 1 if none is given.

    "more.txt:0.5" is "more.txt", of which half as many captions are drawn per epoch as it has lines. The part after the
    last colon is a weight only if no file has the whole name and one has the part before the colon.

    Raises:
        InputError: The weight is not above 0, or is above `MAX_WEIGHT`.
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


def split_weights(paths: Sequence[str | Path]) -> tuple[list[str], list[float]]:
    """Return the names and the weights of caption files; see `split_weight`.

    Raises:
        InputError: There are none, standard input is among them twice, or a weight is out of range.
    """
    weighted = [split_weight(path) for path in paths]
    names, weights = [name for name, _ in weighted], [weight for _, weight in weighted]
    if not names:
        raise InputError("no caption file was given")
    if names.count(STDIN) > 1:
        raise InputError("standard input was given twice")
    return names, weights


def clean_caption(text: str, place: str, *, is_told: bool = True) -> str:
    """Return a caption ready for training, cut to `MAX_CHARACTERS` with a warning in the log.

    Byte order marks at its start are removed; control characters, line ends and surrogates become spaces.

    Args:
        place: Where the text comes from, for the warning.
        is_told: Whether to log the warning.
    """
    # Concatenated files have a byte order mark in the middle.
    caption = text.lstrip(_BOM).translate(_CONTROLS).strip()
    if len(caption) > MAX_CHARACTERS and is_told:
        _logger.warning("%s: cut from %s to %s characters", place, f"{len(caption):,}", f"{MAX_CHARACTERS:,}")
    return caption[:MAX_CHARACTERS].rstrip()
