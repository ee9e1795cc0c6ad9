"""The captions of each clip, gathered from the entries of a file of references or predictions.

`csv_forms`, `json_forms` and `formats` yield the entries of each file format; `collect` groups them by clip.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from textcap.data.text import TextFile, printable
from textcap.errors import InputError

_LONGEST_NAME = 80  # characters of a name or value that a message shows


@dataclass(frozen=True)
class ClipCaptions:
    """The captions of one file, by clip.

    Attributes:
        path: The file as it was given, or "standard input".
        form: The format that the file was read as, one of `formats.FORMS`.
        captions: Captions by clip id, in file order; exactly one per clip in a file of predictions. Ids and captions
            are as in the file: nothing is stripped, and empty captions are kept.
        names: Other names of the clips: for each kind of name, the clip id by name. Names that two clips share are
            not included.
        repeated: Clips that occur more often than the format allows, with the line of the first repetition. Only the
            first occurrence is used.
    """

    path: str
    form: str
    captions: dict[str, list[str]]
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One row, line or item of a file: a clip with some of its captions.

    Attributes:
        id: The clip.
        captions: Any number of captions of the clip.
        line: Line of the file, from 1.
        once: Key that may occur only once in the file; None in formats where a clip has one entry per caption.
        names: Other names of the clip, by kind of name.
    """

    id: str
    captions: list[str]
    line: int
    once: str | None = None
    names: dict[str, str] = field(default_factory=dict)


def collect(source: TextFile, form: str, entries: Iterable[Entry], *, single: bool) -> ClipCaptions:
    """Group the entries of a file by clip.

    Args:
        source: The file, for messages.
        form: Its format, one of `formats.FORMS`.
        entries: Its entries, in file order.
        single: Whether the file contains predictions, with one caption per clip.

    Raises:
        InputError: An entry has no name, a prediction has several captions, or the file has no captions.
    """
    captions: dict[str, list[str]] = {}
    repeated: dict[str, int] = {}
    names: dict[str, dict[str, str | None]] = {}
    seen: set[str] = set()
    for entry in entries:
        if not entry.id.strip():
            raise source.error(entry.line, "expected the name of a clip, found none")
        if single and not entry.captions:
            continue
        if single and len(entry.captions) > 1:
            message = f"expected one caption for {quoted(entry.id)}, found {len(entry.captions)}"
            raise source.error(entry.line, message, hint="give references first, then predictions")
        once = entry.id if single else entry.once
        if once in seen:
            repeated.setdefault(entry.id, entry.line)
            continue
        if once is not None:
            seen.add(once)
        captions.setdefault(entry.id, []).extend(entry.captions)
        for kind, name in entry.names.items():
            ids = names.setdefault(kind, {})
            ids[name] = entry.id if ids.get(name, entry.id) == entry.id else None
    if not any(captions.values()):
        raise InputError(f"{source.name} contains no captions")
    unambiguous = {kind: {name: clip for name, clip in ids.items() if clip is not None} for kind, ids in names.items()}
    return ClipCaptions(source.name, form, captions, unambiguous, repeated)


def quoted(text: str) -> str:
    """Return a name in quotes for a message: on one line, and shortened if it is long."""
    shown = text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."
    return f"'{printable(shown)}'"
