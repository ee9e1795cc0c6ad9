"""Captions from JSON: an object of captions by clip, the formats of COCO, and JSON Lines.

Yields entries with their line numbers, which the json module does not provide.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from textcap.data.text import LINE_ENDS, TextFile
from textcap.errors import InputError
from textcap.scoring.entries import Entry, quoted

PLAIN, COCO, LINES = "plain", "coco", "jsonl"

# The first of these keys in a record names the clip. "image_id" comes first because COCO's annotations also have an
# "id", which is that of the annotation.
_NAME_KEYS = ("image_id", "file_name", "path", "id")
_CAPTION_KEYS = ("captions", "caption")
_EXPECTED_RECORD = 'expected an object with "id" or "file_name" and "caption" or "captions"'

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def recognise_json(text: str) -> str | None:
    """Return the format of a JSON text, or None if the text is not JSON.

    Text that begins like JSON but is broken counts as JSON, so that reading it reports the error.
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
            # In a text file of path, tab, caption a path may begin with a bracket; the tab tells them apart.
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
    """Yield the clips and captions of a JSON text.

    Args:
        source: The file.
        form: PLAIN, COCO or LINES.

    Raises:
        InputError: The text is not JSON or not in this format; the message names the line.
    """
    if form == LINES:
        yield from _line_entries(source)
        return
    document = _parse(source, source.text, 1)
    start = _skip(source.text, 0)
    if form == PLAIN:
        if not isinstance(document, dict):
            raise source.error(1, "expected an object with the captions of each clip by its name")
        yield from _plain_entries(source, start)
    elif isinstance(document, list):
        yield from _record_entries(source, start, None)
    elif isinstance(document, dict) and isinstance(document.get("annotations"), list):
        yield from _coco_entries(source, start)
    else:
        raise source.error(1, 'expected a list, or an object with "annotations" and "images"')


class _LineCounter:
    """Converts positions in a text to line numbers; the positions must not decrease."""

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
    positions = {name: position for name, _, position in _members(source.text, start)}
    image_ids: set[str] | None = None
    if "images" in positions:
        image_ids = set()
        lines = _LineCounter(source.text)
        if source.text[positions["images"]] != "[":
            raise source.error(lines.line_of(positions["images"]), 'expected a list for "images"')
        for image, position in _elements(source.text, positions["images"]):
            line = lines.line_of(position)
            if not isinstance(image, dict):
                raise source.error(line, f'expected an object with "id", found {_kind(image)}')
            name = _name_of(source, line, "id", image.get("id"))
            image_ids.add(name)
            file_name = image.get("file_name")
            # An image without annotations is a clip without references, which `matching` reports.
            yield Entry(name, [], line, names={"file_name": file_name} if isinstance(file_name, str) else {})
    yield from _record_entries(source, positions["annotations"], image_ids)


def _record_entries(source: TextFile, start: int, image_ids: set[str] | None) -> Iterator[Entry]:
    lines = _LineCounter(source.text)
    for record, position in _elements(source.text, start):
        entry = _record_entry(source, lines.line_of(position), record)
        if image_ids is not None and entry.id not in image_ids:
            raise source.error(entry.line, f'{quoted(entry.id)} is not among the "images"')
        yield entry


def _line_entries(source: TextFile) -> Iterator[Entry]:
    document = None
    try:
        document = json.loads(source.text)
    except (ValueError, RecursionError):
        pass
    if isinstance(document, dict):  # a single record may span several lines
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
    caption_keys = [key for key in _CAPTION_KEYS if key in record]
    if len(caption_keys) > 1:
        message = f"both {quoted(caption_keys[0])} and {quoted(caption_keys[1])} are given"
        raise source.error(line, message, hint="keep one of them")
    key = next(key for key in _NAME_KEYS if key in record)
    name = _name_of(source, line, key, record[key])
    caption_key = caption_keys[0]
    captions = _captions_of(source, line, name, record[caption_key])
    # As in COCO, a clip may have several records with one "caption" each, but only one with a list of captions.
    return Entry(name, captions, line, once=name if isinstance(record[caption_key], list) else None)


def _is_record(document: dict[str, Any]) -> bool:
    return any(key in document for key in _NAME_KEYS) and any(key in document for key in _CAPTION_KEYS)


def _name_of(source: TextFile, line: int, key: str, value: Any) -> str:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise source.error(line, f'expected a string or an integer for "{key}", found {_kind(value)}')


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
    kinds = {str: "a string", list: "a list", dict: "an object"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "a number")


def _parse(source: TextFile, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        message = f"not valid JSON at column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        raise source.error(line, message) from error
    except RecursionError as error:
        raise source.error(first_line, "nested too deeply to be captions") from error
    except ValueError as error:  # a number with thousands of digits
        raise InputError(f"{source.name} cannot be read as JSON: {error}") from error


def _members(text: str, start: int) -> Iterator[tuple[str, Any, int]]:
    """Yield key, value and position of the value for each member of an object, including repeated keys.

    Args:
        text: Valid JSON: it was parsed before.
        start: Position of the object's opening brace.
    """
    position = _skip(text, start + 1)
    while text[position] != "}":
        key, position = _DECODER.raw_decode(text, position)
        value_start = _skip(text, _skip(text, position) + 1)  # after the colon
        value, position = _DECODER.raw_decode(text, value_start)
        yield key, value, value_start
        position = _after_comma(text, position)


def _elements(text: str, start: int) -> Iterator[tuple[Any, int]]:
    """Yield value and position of each element of the list that starts at a position of valid JSON."""
    position = _skip(text, start + 1)
    while text[position] != "]":
        value_start = position
        value, position = _DECODER.raw_decode(text, value_start)
        yield value, value_start
        position = _after_comma(text, position)


def _after_comma(text: str, position: int) -> int:
    position = _skip(text, position)
    return _skip(text, position + 1) if text[position] == "," else position


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
