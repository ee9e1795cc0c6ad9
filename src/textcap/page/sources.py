"""Read what systems say of clips, from any file that `score` or this package writes, and bring equal clips together."""

import logging
import math
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from textcap.data import tables
from textcap.data.text import LINE_ENDS, TextFile, counted, read_text
from textcap.scoring.matching import pair
from textcap.scoring.metric_names import TITLES
from textcap.scoring.readers import ClipCaptions, check_given_once, predictions_in, read_references

# What clips can be sorted by: the metrics of `score`, and what `caption` and `search` say of their own results.
NUMBERS = {**TITLES, "similarity": "similarity", "score": "score"}
_RESULTS = {"caption", "pieces", "error", "similarity"}  # an object of JSON Lines with a path and one of these is ours

_logger = logging.getLogger(__name__)

Take = dict[str, Any]
"""What a system says of a clip: caption, scores, pieces as start, end and caption, and in `said` all else, in words."""


@dataclass
class Clip:
    """One row of a page, or of a file.

    Attributes:
        id: Its name.
        sounds: What may be the path of its sound: its names in all files, in their order.
        takes: What each system says of it; None of a system that does not have the clip.
        references: Captions by humans.
        start_s: Where in the sound the clip starts.
        duration_s: Length of the sound, if a file has it.
    """

    id: str
    sounds: list[str]
    takes: list[Take | None]
    references: list[str] = field(default_factory=list)
    start_s: float = 0.0
    duration_s: float | None = None


@dataclass
class Source:
    """The captions of one system.

    Attributes:
        name: The file, or what its column `predictions` says.
        clips: What it says, by the clip's name in the file; each clip has one take.
    """

    name: str
    clips: dict[str, Clip] = field(default_factory=dict)


def read_sources(paths: Sequence[str]) -> list[Source]:
    """Read files of captions; a file of the scores of several systems gives several sources.

    Args:
        paths: Files that `textcap score` reads as predictions or writes as the scores of clips, or JSON Lines of
            `textcap caption` and `textcap search`; "-" is standard input.

    Raises:
        InputError: A file cannot be read or is in none of these forms, or one is given twice.
    """
    check_given_once(paths)
    found = [source for path in paths for source in _read(read_text(path))]
    names = [os.path.basename(source.name) for source in found]
    if len(set(names)) == len(names):
        for source, name in zip(found, names, strict=True):
            source.name = name
    return found


def source_of_rows(rows: Iterable[dict[str, Any]], name: str) -> Source:
    """Return the source that the rows of `textcap caption` make."""
    clips = (_clip(row, row["path"]) for row in rows)
    return Source(name, {clip.id: clip for clip in clips})


def find_clips(
    sources: Sequence[Source], references: Path | None = None, *, sample: int | None = None, seed: int = 0
) -> list[Clip]:
    """Match the clips of sources by the rules of `textcap score`: those of the first, then what only others have.

    Args:
        references: A file of captions by humans, in any form that `textcap score` reads.
        sample: How many clips to draw at random; they stay in order.

    Raises:
        InputError: The references cannot be read.
    """
    rows: dict[str, Clip] = {}
    for number, source in enumerate(sources):
        known = matched(rows, source.clips)
        for name, clip in source.clips.items():
            empty = replace(clip, takes=[None] * len(sources), sounds=[])
            row = rows.setdefault(known.get(name, name), empty)
            row.takes[number] = clip.takes[0]
            row.sounds += clip.sounds
            row.references = row.references or clip.references
            row.duration_s = row.duration_s or clip.duration_s
    found = list(rows.values())
    if references is not None:
        theirs = read_references(references)
        known = matched(theirs, rows)
        for row in found:
            row.references = theirs.captions.get(known.get(row.id, ""), row.references)
    return sampled(found, sample, random.Random(seed))


def sampled(clips: list[Clip], n: int | None, rng: random.Random) -> list[Clip]:
    """Return so many of the clips, drawn at random and in their order; all if there are no more, or n is None."""
    if n is None or n >= len(clips):
        return clips
    return [clips[index] for index in sorted(rng.sample(range(len(clips)), n))]


def matched(clips: ClipCaptions | Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Return the clip that each name stands for by the rules of `textcap score`, of those that stand for one."""
    known = clips if isinstance(clips, ClipCaptions) else ClipCaptions("", "", {name: [""] for name in clips})
    found = pair(known, ClipCaptions("", "", {name: [""] for name in names})).found
    return {name: clip for clip, several in found.items() for name in several}


def _read(file: TextFile) -> list[Source]:
    first = tables.json_or_none(LINE_ENDS.split(file.text.lstrip(" \r\n"), maxsplit=1)[0])
    key, records = "id", tables.find_table(file, lambda header: {"id", "caption"} <= set(header))
    if isinstance(first, dict) and "path" in first and _RESULTS & first.keys():
        key, records = "path", tables.json_records(file)
    n_repeated, sources = 0, dict[str, Source]()
    if records is None:
        read = predictions_in(file)
        n_repeated = len(read.repeated)
        records = (("", {"id": name, "caption": texts[0]}) for name, texts in read.captions.items())
    for place, record in records:
        try:
            clip = _clip(record, record[key])
            name = str(record.get("predictions", file.name))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise file.error(place, "not a result of textcap caption, search or score") from error
        clips = sources.setdefault(name, Source(name)).clips
        n_repeated += clip.id in clips
        clips.setdefault(clip.id, clip)
    if n_repeated:
        _logger.warning("%s: left out %s, whose clip came before", file.name, counted(n_repeated, "row"))
    return list(sources.values())


def _clip(record: dict[str, Any], path: str) -> Clip:
    """Return what a record says of a clip.

    Raises:
        AttributeError, KeyError, OverflowError, TypeError, ValueError: A value of the record is not what it must be.
    """
    name, caption, start_s = _text(path), _text(record.get("caption") or ""), 0.0
    pieces = record.get("pieces") or []
    if record.get("start_s") not in (None, ""):  # a piece of a sound that `search` has found
        start_s, end_s = _number(record["start_s"]), _number(record["end_s"])
        name, pieces = f"{path} {start_s:.2f}–{end_s:.2f} s", [{**record, "caption": caption}]
    said = [f"failed: {record['error']}"] if record.get("error") else []
    said += ["silent"] if record.get("silent") is True else []
    numbers = {name: float(record[name]) for name in NUMBERS if record.get(name) not in (None, "")}
    take = {
        "caption": caption,
        "scores": {name: round(number, 6) for name, number in numbers.items() if math.isfinite(number)},
        "pieces": [[_number(one["start_s"]), _number(one["end_s"]), _text(one["caption"])] for one in pieces],
        "said": "; ".join([*said, *map(_text, record.get("notes") or [])]),
    }
    references = [_text(text) for name, text in record.items() if name.startswith("reference_") and text]
    duration_s = record.get("duration_s")
    return Clip(name, [path], [take], references, start_s, None if duration_s is None else _number(duration_s))


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):  # JSON has no place for it
        raise ValueError("expected a finite number")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a string")
    return value
