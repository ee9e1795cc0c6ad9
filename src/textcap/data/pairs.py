"""Read pairs files: tables or JSON that list sound files with their captions, as Clotho and AudioCaps do.

Sound files are looked up but not opened. Missing ones are skipped and listed; a row that is not valid is an error that
names its line.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from textcap.data import tables
from textcap.data.captions import CaptionFile, clean_caption
from textcap.data.text import LINE_ENDS, STDIN, TextFile, TextReader, counted, read_text
from textcap.errors import FileError, InputError

_SKIPPED_SHOWN = 10
_EXPECTED = "file_name (or file, audio, path), or youtube_id and start_time; and caption, or caption_1, caption_2, ..."

_logger = logging.getLogger("textcap")


@dataclass(frozen=True)
class AudioPair:
    """A sound file and its captions."""

    audio: Path
    captions: tuple[str, ...]  # at least one


@dataclass(frozen=True)
class SkippedPair:
    """A sound of a pairs file that cannot be used."""

    name: str  # as written in the pairs file, or the path of a sound file that cannot be read
    reason: str  # names the sound file and says what is wrong with it


@dataclass(frozen=True)
class PairSet:
    """The pairs of a pairs file, in file order; several rows for the same sound become one pair."""

    file: CaptionFile
    pairs: tuple[AudioPair, ...]
    skipped: tuple[SkippedPair, ...] = ()


@dataclass(frozen=True)
class _Row:
    place: str  # such as "line 3"
    name: str  # of the sound, as written in the file
    captions: list[str]
    any_suffix: bool = False  # the name is that of a clip, to which a file adds any suffix


def read_pairs(path: str | Path, *, audio_folder: str | Path | None = None) -> PairSet:
    """Read a pairs file: a table, JSON Lines or a JSON list, recognised by its content.

    Tables are separated by commas, semicolons or tabs. A row names its sound in `file_name`, `file`, `audio`,
    `audio_path` or `path`, or as AudioCaps does in `youtube_id` and `start_time`, which stand for
    `<youtube_id>_<start_time>` with any suffix. It has one `caption`, or several as `caption_1` and so on; in JSON
    Lines or a JSON list, `captions` may also be a list.

    Sounds that do not exist are not an error: the result lists them as skipped.

    Args:
        path: The pairs file.
        audio_folder: The folder that names are relative to; by default that of the pairs file.

    Raises:
        InputError: The file cannot be read, or has none of these forms.
    """
    if str(path) == STDIN:
        hint = "name a file: sounds are looked up relative to its folder"
        raise InputError("pairs cannot be read from standard input", hint=hint)
    source = read_text(path)
    folder = Path(path).parent if audio_folder is None else Path(audio_folder)
    if audio_folder is not None and not os.path.isdir(audio_folder):
        raise FileError(audio_folder, "is not a folder")
    by_stem = cache(partial(_by_stem, folder))  # lists the folder when the first name without a suffix is looked up
    captions: dict[Path, list[str]] = {}
    skipped: dict[str, SkippedPair] = {}
    n_rows = 0
    for row in _rows(source):
        n_rows += 1
        cleaned = _clean_captions(source.name, row)
        path = folder / row.name
        audio = by_stem().get(row.name) if row.any_suffix else path if os.path.isfile(path) else None
        if audio is None:
            shown = f"{path}.*" if row.any_suffix else path
            skipped.setdefault(row.name, SkippedPair(row.name, f"{shown} does not exist"))
        elif cleaned:
            captions.setdefault(audio, []).extend(cleaned)
    if not n_rows:
        raise InputError(f"{source.name} has no pairs", hint=f"use columns {_EXPECTED}")
    pairs = tuple(AudioPair(audio, tuple(texts)) for audio, texts in captions.items())
    file = CaptionFile(source.name, source.sha256, sum(len(pair.captions) for pair in pairs))
    return PairSet(file, pairs, tuple(skipped.values()))


def is_pairs_file(path: str | Path) -> bool:
    """Return whether a file names sounds with their captions, by its header or its first JSON object.

    Raises:
        InputError: The file cannot be read.
    """
    if not os.path.isfile(path):  # a pipe could not be read again
        return False
    text = next(TextReader(path).chunks(), "").lstrip()
    if text.startswith(("{", "[")):  # of a list the first object
        record = tables.json_or_none(text[text.find("{") : text.find("}") + 1])
        return isinstance(record, dict) and tables.is_pairs_header([*record])
    return tables.find_delimiter(LINE_ENDS.split(text, maxsplit=1)[0], tables.is_pairs_header) is not None


def log_skipped(name: str, reasons: Sequence[object]) -> None:
    """Log a warning for each of the first skipped sounds of a file or folder, and one with the number of the others."""
    for reason in reasons[:_SKIPPED_SHOWN]:
        _logger.warning("%s: skipped: %s", name, reason)
    if (n_more := len(reasons) - _SKIPPED_SHOWN) > 0:
        _logger.warning("%s: skipped: %s", name, counted(n_more, "more sound"))


def without(pairs: PairSet, unreadable: dict[Path, str]) -> PairSet:
    """Return the pairs without those whose sound cannot be used, which become skipped pairs.

    Args:
        unreadable: The reason for each sound file that cannot be used, by path.
    """
    kept = tuple(pair for pair in pairs.pairs if pair.audio not in unreadable)
    newly_skipped = tuple(SkippedPair(str(p.audio), unreadable[p.audio]) for p in pairs.pairs if p.audio in unreadable)
    file = replace(pairs.file, n_captions=sum(len(pair.captions) for pair in kept))
    return replace(pairs, file=file, pairs=kept, skipped=(*pairs.skipped, *newly_skipped))


def _rows(source: TextFile) -> Iterator[_Row]:
    is_json = source.text.lstrip().startswith(("[", "{"))
    records = tables.json_records(source) if is_json else tables.find_table(source, tables.is_pairs_header)
    if records is None:
        raise source.error(1, f"expected columns {_EXPECTED}, found {tables.shown_header(source.text)}")
    for place, record in records:
        yield _row(source, place, record)


def _row(source: TextFile, place: str, record: Any) -> _Row:
    captions = tables.captions_of(source, place, record)
    column = tables.sound_column(record)
    name = tables.audiocaps_clip(record) if column is None else record[column]
    if not isinstance(name, str) or not name:
        columns = f"{', '.join(tables.SOUND_COLUMNS)}, or youtube_id and start_time"
        where = columns if column is None else f"{column}, found {name!r}"
        raise source.error(place, f"expected the name of a sound file in {where}")
    return _Row(place, name, captions, any_suffix=column is None)


def _clean_captions(name: str, row: _Row) -> list[str]:
    place = f"{name}, {row.place}"
    captions = [cleaned for caption in row.captions if (cleaned := clean_caption(caption, place))]
    if not captions:
        _logger.warning("%s: %s has no caption", place, row.name)
    return captions


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name without suffix; of several formats, the first in alphabetical order."""
    try:
        names = sorted((name for name in os.listdir(folder) if not name.startswith("._")), reverse=True)
    except OSError as error:
        raise FileError(folder, f"cannot be listed: {error.strerror or error}") from error
    return {os.path.splitext(name)[0]: folder / name for name in names}
