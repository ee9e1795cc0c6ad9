"""Captions from JSON: an object of captions by clip, COCO's forms, and JSON Lines.

Knows no files. Yields entries with the line that each comes from, which the json module alone does not say.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from textcap.data.text import LINE_ENDS, TextFile
from textcap.errors import InputError
from textcap.scoring.entries import Entry, quoted

PLAIN, COCO, LINES = "plain", "coco", "jsonl"

# The first of these that a record has names the clip. COCO's annotations have an "id" of their own, and what is
# captioned is their "image_id".
_NAME_KEYS = ("image_id", "file_name", "path", "id")
_CAPTION_KEYS = ("captions", "caption")
_EXPECTED_RECORD = 'expected an object with "id" or "file_name" and "caption" or "captions"'

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def recognise_json(text: str) -> str | None:
    """Return the form of a text of JSON, or None when it is another kind of text.

    Text that begins like JSON and is broken counts as JSON; it is told when it is read.
    """
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        first = LINE_ENDS.split(text.lstrip(), maxsplit=1)[0]
        try:
            is_record = isinstance(json.loads(first), dict)
        except (ValueError, RecursionError):
            # A name can begin with a bracket, but then a tab follows it in its line.
            return None if "\t" in first.strip() else PLAIN
        return LINES if is_record else PLAIN
    if isinstance(document, list):
        return COCO
    if _is_record(document):
        return LINES
    annotations = document.get("annotations")
    if isinstance(annotations, list) and not (annotations and all(isinstance(item, str) for item in annotations)):
        return COCO
    return PLAIN


def json_entries(source: TextFile, form: str) -> Iterator[Entry]:
    """Yield what a text of JSON says of each clip.

    Args:
        form: PLAIN, COCO or LINES.

    Raises:
        InputError: It is not JSON, or not of this form, with the line.
    """
    if form == LINES:
        yield from _line_entries(source)
        return
    document = _parse(source, source.text, 1)
    start = _skip(source.text, 0)
    if form == PLAIN:
        if not isinstance(document, dict):
            raise source.error(1, "expected an object of captions by the clips' names")
        yield from _plain_entries(source, start)
    elif isinstance(document, list):
        yield from _record_entries(source, start, None)
    elif isinstance(document, dict) and isinstance(document.get("annotations"), list):
        yield from _coco_entries(source, start)
    else:
        raise source.error(1, 'expected a list, or an object with "annotations" and "images"')


class _LineCounter:
    """Turns positions in a text, which have to rise, into lines."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position, self._line = 0, 1

    def line_of(self, position: int) -> int:
        self._line += self._text.count("\n", self._position, position)
        self._position = position
        return self._line


def _plain_entries(source: TextFile, start: int) -> Iterator[Entry]:
    lines = _LineCounter(source.text)
    for name, value, position in _members(source.text, start):
        line = lines.line_of(position)
        yield Entry(name, _captions_of(source, line, name, value), line, once=name)


def _coco_entries(source: TextFile, start: int) -> Iterator[Entry]:
    places = {name: position for name, _, position in _members(source.text, start)}
    known: set[str] | None = None
    if "images" in places:
        known = set()
        lines = _LineCounter(source.text)
        if source.text[places["images"]] != "[":
            raise source.error(lines.line_of(places["images"]), 'expected a list for "images"')
        for image, position in _elements(source.text, places["images"]):
            line = lines.line_of(position)
            if not isinstance(image, dict):
                raise source.error(line, f'expected an object with "id", found {_kind(image)}')
            name = _name_of(source, line, "id", image.get("id"))
            known.add(name)
            file_name = image.get("file_name")
            # An image without annotations is a clip without references, and has to be told.
            yield Entry(name, [], line, names={"file_name": file_name} if isinstance(file_name, str) else {})
    yield from _record_entries(source, places["annotations"], known)


def _record_entries(source: TextFile, start: int, known: set[str] | None) -> Iterator[Entry]:
    lines = _LineCounter(source.text)
    for record, position in _elements(source.text, start):
        entry = _record_entry(source, lines.line_of(position), record)
        if known is not None and entry.id not in known:
            raise source.error(entry.line, f'{quoted(entry.id)} is not among the "images"')
        yield entry


def _line_entries(source: TextFile) -> Iterator[Entry]:
    document = None
    try:
        document = json.loads(source.text)
    except (ValueError, RecursionError):
        pass
    if isinstance(document, dict):  # a single record may be spread over lines
        yield _record_entry(source, 1, document)
        return
    for number, line in enumerate(LINE_ENDS.split(source.text), start=1):
        if line.strip():
            yield _record_entry(source, number, _parse(source, line, number))


def _record_entry(source: TextFile, line: int, record: Any) -> Entry:
    if not isinstance(record, dict):
        raise source.error(line, f"{_EXPECTED_RECORD}, found {_kind(record)}")
    if not _is_record(record):
        found = ", ".join(quoted(key) for key in list(record)[:6]) or "nothing"
        raise source.error(line, f"{_EXPECTED_RECORD}, found {found}")
    twice = [key for key in _CAPTION_KEYS if key in record]
    if len(twice) > 1:
        raise source.error(line, f"both {quoted(twice[0])} and {quoted(twice[1])} are given", hint="keep one of them")
    key = next(key for key in _NAME_KEYS if key in record)
    name = _name_of(source, line, key, record[key])
    caption_key = next(key for key in _CAPTION_KEYS if key in record)
    captions = _captions_of(source, line, name, record[caption_key])
    # "caption" may come again for the same clip with another caption, as in COCO; a whole list of them may not.
    return Entry(name, captions, line, once=name if isinstance(record[caption_key], list) else None)


def _is_record(document: dict[str, Any]) -> bool:
    return any(key in document for key in _NAME_KEYS) and any(key in document for key in _CAPTION_KEYS)


def _name_of(source: TextFile, line: int, key: str, value: Any) -> str:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise source.error(line, f'expected a text or a whole number for "{key}", found {_kind(value)}')


def _captions_of(source: TextFile, line: int, name: str, value: Any) -> list[str]:
    captions = value if isinstance(value, list) else [value]
    for caption in captions:
        if not isinstance(caption, str):
            message = f"expected a caption or a list of captions for {quoted(name)}, found {_kind(caption)}"
            raise source.error(line, message)
    return captions


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {str: "a text", list: "a list", dict: "an object"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "a number")


def _parse(source: TextFile, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        message = f"not JSON from column {error.colno} on: {error.msg[:1].lower()}{error.msg[1:]}"
        raise source.error(line, message) from error
    except RecursionError as error:
        raise source.error(first_line, "lists within lists, too deep to be captions") from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{source.name}: cannot be read as JSON: {error}") from error


def _members(text: str, start: int) -> Iterator[tuple[str, Any, int]]:
    """Yield key, value and position of the value for each member of an object, repeated keys too.

    The text has to be valid: it was parsed before.
    """
    position = _skip(text, start + 1)
    while text[position] != "}":
        key, position = _DECODER.raw_decode(text, position)
        place = _skip(text, _skip(text, position) + 1)  # behind the colon
        value, position = _DECODER.raw_decode(text, place)
        yield key, value, place
        position = _behind_comma(text, position)


def _elements(text: str, start: int) -> Iterator[tuple[Any, int]]:
    """Yield value and position for each element of a list, in a text that was parsed before."""
    position = _skip(text, start + 1)
    while text[position] != "]":
        place = position
        value, position = _DECODER.raw_decode(text, place)
        yield value, place
        position = _behind_comma(text, position)


def _behind_comma(text: str, position: int) -> int:
    position = _skip(text, position)
    return _skip(text, position + 1) if text[position] == "," else position


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
