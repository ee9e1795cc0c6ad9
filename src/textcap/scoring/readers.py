"""Read references and predictions in the usual file formats, detected from the content.

Returns captions by clip; `matching` pairs predictions with references. Errors name the line of the file, or the number
of the item where the format is one JSON document.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textcap.data import tables
from textcap.data.text import LINE_ENDS, STDIN, TextFile, printable, read_text
from textcap.errors import InputError

REFERENCES, PREDICTIONS = "references", "predictions"
PLAIN, COCO, LINES, TEXT = "plain", "coco", "jsonl", "text"
CLOTHO, AUDIOCAPS, DCASE, CAPTIONS = "clotho", "audiocaps", "dcase", "captions"

# By role, the formats and what a file of each looks like. The first table whose columns fit is the one.
FORMS = {
    REFERENCES: {
        PLAIN: 'JSON {"clip": ["caption", ...]}',
        COCO: 'JSON with "annotations", a list of {"image_id", "caption"}',
        LINES: 'JSON Lines of {"id" or "file_name", "captions" or "caption"}',
        CLOTHO: "CSV file_name,caption_1,caption_2,...",
        AUDIOCAPS: "CSV youtube_id,start_time,caption",
        DCASE: "CSV file_name,caption_reference_01,...",
        CAPTIONS: "CSV file_name,caption",
    },
    PREDICTIONS: {
        PLAIN: 'JSON {"clip": "caption"}',
        COCO: 'JSON list of {"image_id", "caption"}',
        LINES: 'JSON Lines of {"id" or "file_name", "caption"}',
        DCASE: "CSV file_name,caption_predicted or file_name,caption",
        TEXT: "lines of path, tab, caption",
    },
}

# The columns that hold captions in the tables of each role: those that match the first pattern that any matches.
_CAPTION_COLUMNS = {
    (REFERENCES, CLOTHO): [tables.NUMBERED_CAPTION],
    (REFERENCES, AUDIOCAPS): [re.compile("caption")],
    (REFERENCES, DCASE): [re.compile(r"caption_reference(_\d+)?")],
    (REFERENCES, CAPTIONS): [re.compile("caption")],
    (PREDICTIONS, DCASE): [re.compile("caption_predicted"), re.compile("caption")],
}
_JSON_CAPTIONS = [re.compile("captions?")]
# The first of these in a record names the clip. "image_id" comes first because COCO's annotations also have an "id",
# which is that of the annotation.
_NAMES = ("image_id", *tables.SOUND_COLUMNS, "id")
# Another name of an AudioCaps clip, whose id here is <youtube_id>_<start_time>.
_AUDIOCAP_ID = "audiocap_id"
_LONGEST_NAME = 80  # characters of a name or value that a message shows
_SHOWN = 8  # columns, or keys of an object, that a message shows


@dataclass(frozen=True)
class ClipCaptions:
    """The captions of one file, by clip.

    Attributes:
        path: The file as it was given, or "standard input".
        form: The format that the file was read as, one of `FORMS`.
        captions: Captions by clip id, in file order; exactly one per clip in a file of predictions. Ids and captions
            are as in the file: nothing is stripped, and empty captions are kept.
        names: Other names of the clips: for each kind of name, the clip id by name. Names that two clips share are
            not included.
        repeated: Clips that occur more often than the format allows, with the place of the first repetition, such as
            "line 7" or "item 7". Only the first occurrence is used.
    """

    path: str
    form: str
    captions: dict[str, list[str]]
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Entry:
    """One row, line or item of a file: a clip with some of its captions."""

    place: str  # such as "line 7"
    id: str  # the clip
    captions: list[str]
    once: str | None = None  # may occur only once in the file; None in formats where a clip has an entry per caption
    names: dict[str, str] = field(default_factory=dict)  # other names of the clip, by kind of name


def read_references(path: Path, form: str | None = None) -> ClipCaptions:
    """Read captions by humans: any number for each clip.

    Args:
        path: A file in UTF-8; "-" is standard input.
        form: One of FORMS["references"]; by default the format is detected from the content.

    Raises:
        InputError: The file cannot be read, is not in this or a known format, or contains no captions.
    """
    return _read(read_text(path), form, REFERENCES)


def read_predictions(path: Path, form: str | None = None) -> ClipCaptions:
    """Read the captions of a system: one for each clip.

    Args:
        path: A file in UTF-8, such as the output of `textcap caption`; "-" is standard input.
        form: One of FORMS["predictions"]; by default the format is detected from the content.

    Raises:
        InputError: The file cannot be read, is not in this or a known format, or contains no captions.
    """
    return predictions_in(read_text(path), form)


def predictions_in(source: TextFile, form: str | None = None) -> ClipCaptions:
    """Return the captions in a file that has been read already; see `read_predictions`."""
    return _read(source, form, PREDICTIONS)


def check_given_once(paths: Sequence[str]) -> None:
    """Refuse a file that is given twice, by whatever name.

    Raises:
        InputError: One is.
    """
    real = [path if path == STDIN else os.path.realpath(path) for path in paths]
    for path, real_path in zip(paths, real, strict=True):
        if real.count(real_path) > 1:
            raise InputError(f"{'standard input' if path == STDIN else path} was given twice")


def quoted(text: str) -> str:
    """Return a name in quotes for a message: on one line, and shortened if it is long."""
    shown = text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."
    return f"'{printable(shown)}'"


def _read(source: TextFile, form: str | None, role: str) -> ClipCaptions:
    if form is not None and form not in FORMS[role]:
        raise InputError(f"unknown format of {role} {form!r}", hint=f"use one of {', '.join(FORMS[role])}")
    expected = f"expected one of: {'; '.join(f'{look} ({name})' for name, look in FORMS[role].items())}"
    if not source.text.strip():
        raise InputError(f"{source.name} is empty", hint=expected)
    found = form or _recognise(source, role)
    if found is None:
        is_other = _recognise(source, PREDICTIONS if role == REFERENCES else REFERENCES) is not None
        hint = "give references first, then predictions" if is_other else expected
        raise source.error(1, f"not a known format of {role}", hint=hint)
    return _collect(source, found, role)


def _collect(source: TextFile, form: str, role: str) -> ClipCaptions:
    """Group the entries of a file by clip."""
    captions: dict[str, list[str]] = {}
    repeated: dict[str, str] = {}
    names: dict[str, dict[str, set[str]]] = {}
    seen: set[str] = set()
    for entry in _entries(source, form, role):
        if not entry.id.strip():
            raise source.error(entry.place, "expected the name of a clip, found none")
        once = entry.once
        if role == PREDICTIONS:
            once = entry.id
            if not entry.captions:
                continue
            if len(entry.captions) > 1:
                message = f"expected one caption for {quoted(entry.id)}, found {len(entry.captions)}"
                raise source.error(entry.place, message, hint="give references first, then predictions")
        if once in seen:
            repeated.setdefault(entry.id, entry.place)
            continue
        if once is not None:
            seen.add(once)
        captions.setdefault(entry.id, []).extend(entry.captions)
        for kind, name in entry.names.items():
            names.setdefault(kind, {}).setdefault(name, set()).add(entry.id)
    if not any(captions.values()):
        raise InputError(f"{source.name} contains no captions")
    unambiguous = {kind: {name: min(ids) for name, ids in of.items() if len(ids) == 1} for kind, of in names.items()}
    return ClipCaptions(source.name, form, captions, unambiguous, repeated)


def _recognise(source: TextFile, role: str) -> str | None:
    """Return the format of a file, or None if it is none of the role's.

    Text that begins like JSON but is broken counts as JSON, so that reading it reports the error.
    """
    first_line = LINE_ENDS.split(source.text.strip(" \r\n"), maxsplit=1)[0]
    if source.text.lstrip().startswith(("{", "[")):
        document = tables.json_or_none(source.text)
        if isinstance(document, list):
            return COCO
        record = tables.json_or_none(first_line) if document is None else document
        if isinstance(record, dict) and (document is None or _caption_names(record, LINES, role)):
            return LINES
        items = document.get("annotations") if document else None
        if isinstance(items, list) and not (items and all(isinstance(item, str) for item in items)):
            return COCO  # else it is a clip of this name
        if document is not None or "\t" not in first_line:  # before a tab, a path may begin with a bracket
            return PLAIN
    for role_of_form, form in _CAPTION_COLUMNS:
        if role_of_form == role and _find_table(source, form, role) is not None:
            return form
    return TEXT if role == PREDICTIONS and "\t" in first_line else None


def _entries(source: TextFile, form: str, role: str) -> Iterator[_Entry]:
    document = tables.parse_json(source, source.text) if form in (PLAIN, COCO) else None
    if form == COCO and isinstance(document, dict) and isinstance(document.get("annotations"), list):
        return _coco_entries(source, document, role)
    if (role, form) in _CAPTION_COLUMNS:
        table = _find_table(source, form, role)
        if table is None:
            columns = _listed(tables.read_header(source.text))
            raise source.error(1, f"expected {FORMS[role][form]}, found columns {columns}")
        records = table
    elif form == PLAIN:
        if not isinstance(document, tables.JsonObject):
            raise source.error(1, f"expected {FORMS[role][form]}, found {_kind(document)}")
        members = enumerate(document.members, start=1)
        records = ((f"item {number}", {"id": name, "captions": value}) for number, (name, value) in members)
    else:
        lines = _text_records(source) if form == TEXT else tables.json_records(source)
        # A sound that `textcap caption --json` could not read has an error in place of a caption.
        records = (
            one for one in lines if not (isinstance(one[1], dict) and "error" in one[1] and "caption" not in one[1])
        )
    return (_record_entry(source, place, record, form, role) for place, record in records)


def _find_table(source: TextFile, form: str, role: str) -> tables.Records | None:
    return tables.find_table(source, lambda header: bool(_caption_names(header, form, role)))


def _caption_names(names: Collection[str], form: str, role: str) -> list[str]:
    """Return the columns or keys that hold captions; none if a record with these names does not fit the format."""
    needed = tables.CLIP_COLUMNS if form == AUDIOCAPS else [name for name in _NAMES if name in names][:1]
    if needed and all(name in names for name in needed):
        for pattern in _CAPTION_COLUMNS.get((role, form), _JSON_CAPTIONS):
            if found := [name for name in names if pattern.fullmatch(name)]:
                return found
    return []


def _text_records(source: TextFile) -> tables.Records:
    for number, line in enumerate(LINE_ENDS.split(source.text), start=1):
        name, tab, caption = line.partition("\t")
        if line.strip() and not tab:
            raise source.error(number, "expected path, tab, caption, found no tab")
        if line.strip():
            yield f"line {number}", {"id": name, "caption": caption}


def _coco_entries(source: TextFile, document: dict[str, Any], role: str) -> Iterator[_Entry]:
    images = document.get("images", [])
    if not isinstance(images, list):
        raise source.error(1, f'expected a list for "images", found {_kind(images)}')
    image_ids = set()
    for number, image in enumerate(images, start=1):
        place = f'item {number} of "images"'
        if not isinstance(image, dict):
            raise source.error(place, f'expected an object with "id", found {_kind(image)}')
        name = _name_of(source, place, "id", image.get("id"))
        image_ids.add(name)
        file_name = image.get("file_name")
        # An image without annotations is a clip without references, which `matching` reports.
        yield _Entry(place, name, [], names={"file_name": file_name} if isinstance(file_name, str) else {})
    for number, record in enumerate(document["annotations"], start=1):
        entry = _record_entry(source, f'item {number} of "annotations"', record, COCO, role)
        if "images" in document and entry.id not in image_ids:
            raise source.error(entry.place, f'{quoted(entry.id)} is not among the "images"')
        yield entry


def _record_entry(source: TextFile, place: str, record: Any, form: str, role: str) -> _Entry:
    """Return the captions in a row of a table, or in an object of JSON."""
    keys = _caption_names(record, form, role) if isinstance(record, dict) else []
    if not keys:
        raise source.error(place, f"expected {FORMS[role][form]}, found {_kind(record)}")
    if "captions" in keys and "caption" in keys:
        raise source.error(place, "both 'captions' and 'caption' are given", hint="keep one of them")
    name_key = next((key for key in _NAMES if key in record), "")
    clip = tables.audiocaps_clip(record) if form == AUDIOCAPS else record[name_key]
    if form == AUDIOCAPS and clip is None:
        raise source.error(place, "expected a youtube_id and a start_time")
    name = _name_of(source, place, name_key, clip)
    captions: list[Any] = []
    for key in keys:
        captions += record[key] if isinstance(record[key], list) else [record[key]]
    for caption in captions:
        if not isinstance(caption, str):
            message = f"expected a caption or a list of captions for {quoted(name)}, found {_kind(caption)}"
            raise source.error(place, message)
    names = {kind: str(record[kind]) for kind in (tables.YOUTUBE_ID, _AUDIOCAP_ID) if record.get(kind)}
    # A clip may have several records with one caption each, as in COCO, but only one with a list of captions. The
    # number of AudioCaps identifies a caption, not a clip: a clip with five captions has five.
    has_all = form in (PLAIN, CLOTHO, DCASE) or isinstance(record[keys[0]], list)
    return _Entry(place, name, captions, name if has_all else names.get(_AUDIOCAP_ID), names)


def _name_of(source: TextFile, place: str, key: str, value: Any) -> str:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise source.error(place, f'expected a string or an integer for "{key}", found {_kind(value)}')


def _kind(value: Any) -> str:
    """Return what a value of JSON is, for messages."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict):
        return f"an object with {_listed(value)}"
    return "a string" if isinstance(value, str) else "a list" if isinstance(value, list) else "a number"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, list(names)[:_SHOWN])) or "nothing"
