"""Read files of audio-text pairs: tables or JSON, in the forms of Clotho and AudioCaps among others.

Knows no sound beyond whether a file is there. It returns the pairs in file order, and what was left out with the
reason; a file that cannot be understood is an error that names the line.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textcap.captions import STDIN, CaptionFile, clean_caption
from textcap.errors import InputError
from textcap.tables import DELIMITERS, check_header, table_header, table_rows

_AUDIO = ("file_name", "file", "audio", "audio_path", "path")
_CAPTIONS = ("captions", "caption")
_NUMBERED = re.compile(r"caption_\d+")
_YOUTUBE = ("youtube_id", "start_time")
_NAMED = 10
_EXPECTED = "file_name (or file, audio, path) or youtube_id and start_time, and caption or caption_1, caption_2, ..."


@dataclass(frozen=True)
class AudioPair:
    """A sound file and what was said of it."""

    audio: Path
    captions: tuple[str, ...]  # at least one


@dataclass(frozen=True)
class SkippedPair:
    """A sound that a pairs file names and that cannot be used."""

    name: str  # as it stands in the file
    reason: str


@dataclass(frozen=True)
class PairSet:
    """The pairs of a file, in its order; several rows of one sound are one pair."""

    file: CaptionFile
    pairs: tuple[AudioPair, ...]
    skipped: tuple[SkippedPair, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    place: str  # such as "line 3"
    name: str
    captions: list[str]
    any_suffix: bool = False  # the name is that of a clip, not of a file


def read_pairs(path: str | Path, *, audio_folder: str | Path | None = None) -> PairSet:
    """Read a file of pairs; what it is, a table or JSON, is told from its content.

    Tables are separated by commas, semicolons or tabs. A row names a sound by `file_name`, `file`, `audio`,
    `audio_path` or `path`, or as AudioCaps does by `youtube_id` and `start_time`, which stand for
    `<youtube_id>_<start_time>` with any suffix. It has a `caption`, or several as `caption_1` and so on; in JSON
    Lines, or a JSON list, `captions` may be a list.

    Args:
        audio_folder: What names are relative to; by default the folder of the file.

    Raises:
        InputError: The file cannot be read, or is of no such form.
    """
    if str(path) == STDIN:
        raise InputError("pairs cannot come from standard input", hint="sounds are looked for beside a file")
    path = Path(path)
    content = _read(path)
    text = _decode(path, content)
    folder = path.parent if audio_folder is None else Path(audio_folder)
    if audio_folder is not None and not os.path.isdir(audio_folder):
        raise InputError(f"there is no folder {audio_folder}")
    found = _Sounds(folder)
    captions: dict[Path, list[str]] = {}
    skipped: dict[str, SkippedPair] = {}
    warnings: list[str] = []
    n_rows = 0
    for row in _rows(path, text):
        n_rows += 1
        said = _cleaned(path, row, warnings)
        audio = found.find(row)
        if audio is None:
            skipped.setdefault(row.name, SkippedPair(row.name, f"there is no file {found.wanted(row)}"))
        elif said:
            captions.setdefault(audio, []).extend(said)
    if not n_rows:
        raise InputError(f"{path} holds no pair", hint=f"expected columns {_EXPECTED}")
    pairs = tuple(AudioPair(audio, tuple(said)) for audio, said in captions.items())
    file = CaptionFile(str(path), hashlib.sha256(content).hexdigest(), sum(len(pair.captions) for pair in pairs))
    return PairSet(file, pairs, tuple(skipped.values()), tuple(warnings))


def left_out(pairs: PairSet) -> list[str]:
    """Return lines that say which sounds are left out and why: the first few, and how many more there are."""
    name = pairs.file.name
    lines = [f"{name}: left out: {skipped.reason}" for skipped in pairs.skipped[:_NAMED]]
    if len(pairs.skipped) > _NAMED:
        lines.append(f"{name}: left out: {len(pairs.skipped) - _NAMED} more sounds")
    return lines


def without(pairs: PairSet, unreadable: dict[Path, str]) -> PairSet:
    """Return pairs less those whose sound cannot be used, by path with the reason."""
    left = tuple(pair for pair in pairs.pairs if pair.audio not in unreadable)
    lost = tuple(SkippedPair(str(p.audio), unreadable[p.audio]) for p in pairs.pairs if p.audio in unreadable)
    n_captions = sum(len(pair.captions) for pair in left)
    return replace(pairs, file=replace(pairs.file, n_captions=n_captions), pairs=left, skipped=(*pairs.skipped, *lost))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from error


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        guess = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
        message = f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8"
        raise InputError(message, hint=f"if the file is {guess}, save it as UTF-8") from error


def _rows(path: Path, text: str) -> Iterator[_Row]:
    start = text.lstrip()[:1]
    if start == "[":
        yield from _json_rows(path, text)
    elif start == "{":
        yield from _json_lines(path, text)
    else:
        yield from _table_rows(path, text)


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _error(path, f"line {getattr(error, 'lineno', 1)}", f"not JSON: {error}") from error
    for number, value in enumerate(values, start=1):
        yield _json_row(path, f"item {number}", value)


def _json_lines(path: Path, text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _error(
                    path, f"line {number}", f"not JSON: {error}", hint="one object per line is expected"
                ) from error
            yield _json_row(path, f"line {number}", value)


def _json_row(path: Path, place: str, value: Any) -> _Row:
    if not isinstance(value, dict):
        raise _error(path, place, "expected an object with a sound and its captions")
    cells = {str(name): cell for name, cell in value.items()}
    captions: list[Any] = []
    for name, cell in cells.items():
        if name in _CAPTIONS or _NUMBERED.fullmatch(name):
            captions += cell if isinstance(cell, list) else [cell]
    if not captions or not all(isinstance(caption, str) for caption in captions):
        raise _error(path, place, "expected caption, a text, or captions, a list of them")
    return _named_row(path, place, cells, captions)


def _table_rows(path: Path, text: str) -> Iterator[_Row]:
    headers = {delimiter: table_header(text, delimiter) for delimiter in DELIMITERS}
    delimiter = next((d for d in DELIMITERS if _is_header(headers[d])), None)
    if delimiter is None:
        found = ", ".join(repr(cell[:40]) for cell in headers[","][:8]) or "nothing"
        raise _error(path, "line 1", f"expected columns {_EXPECTED}, found {found}")
    header = headers[delimiter]

    def error(line: int, message: str, *, hint: str | None = None) -> InputError:
        return _error(path, f"line {line}", message, hint=hint)

    check_header(header, error)
    columns = [i for i, name in enumerate(header) if name == "caption" or _NUMBERED.fullmatch(name)]
    for line, row in table_rows(text, delimiter, len(header), error):
        yield _named_row(path, f"line {line}", dict(zip(header, row, strict=True)), [row[i] for i in columns])


def _is_header(names: list[str]) -> bool:
    has_sound = any(name in names for name in _AUDIO) or all(name in names for name in _YOUTUBE)
    return has_sound and any(name == "caption" or _NUMBERED.fullmatch(name) for name in names)


def _named_row(path: Path, place: str, cells: dict[str, Any], captions: list[str]) -> _Row:
    for column in _AUDIO:
        if column in cells:
            name = cells[column]
            if not isinstance(name, str) or not name:
                raise _error(path, place, f"expected the name of a sound in {column}, found {name!r}")
            return _Row(place, name, captions)
    youtube, start = (str(cells.get(name, "")) for name in _YOUTUBE)
    if not youtube or not start:
        raise _error(path, place, "expected the name of a sound, as file_name, file, audio or path")
    if re.fullmatch(r"\d+\.0+", start):  # a table that went through a library of numbers
        start = start.split(".")[0]
    return _Row(place, f"{youtube}_{start}", captions, any_suffix=True)


def _cleaned(path: Path, row: _Row, warnings: list[str]) -> list[str]:
    said = []
    for caption in row.captions:
        cleaned, warning = clean_caption(caption)
        if warning is not None:
            warnings.append(f"{path}, {row.place}: {warning}")
        if cleaned:
            said.append(cleaned)
    if not said:
        warnings.append(f"{path}, {row.place}: no caption of {row.name}")
    return said


class _Sounds:
    """Looks sounds up in a folder, whose names are read once where clips are named without suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_stem: dict[str, Path] | None = None

    def find(self, row: _Row) -> Path | None:
        """Return the file of a row, or None when there is none."""
        if row.any_suffix:
            return self._stems().get(row.name)
        path = self._folder / row.name
        return path if os.path.isfile(path) else None

    def wanted(self, row: _Row) -> str:
        """Return what was looked for, as a message names it."""
        return str(self._folder / row.name) + (".*" if row.any_suffix else "")

    def _stems(self) -> dict[str, Path]:
        if self._by_stem is None:
            try:
                names = sorted(name for name in os.listdir(self._folder) if not name.startswith("._"))
            except OSError as error:
                raise InputError(f"cannot read the folder {self._folder}: {error.strerror or error}") from error
            # The first in order of their names counts where one clip is there in several formats.
            self._by_stem = {}
            for name in names:
                self._by_stem.setdefault(os.path.splitext(name)[0], self._folder / name)
        return self._by_stem


def _error(path: Path, place: str, message: str, *, hint: str | None = None) -> InputError:
    return InputError(f"{path}, {place}: {message}", hint=hint)
