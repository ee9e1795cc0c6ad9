"""What a file of references or predictions says of each clip, put together from its entries.

The modules for the single forms yield the entries; `collect` turns them into the captions of each clip.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from textcap.data.text import TextFile, printable
from textcap.errors import InputError

_LONGEST_NAME = 80  # characters of a name or value that an error shows


@dataclass(frozen=True)
class ClipCaptions:
    """The captions of one file by clip.

    Attributes:
        path: The file as it was given, or "standard input".
        form: What the file was read as, one of `formats.FORMS`.
        captions: Captions of each clip by its id, in file order; of predictions exactly one each. Nothing is
            stripped: ids and captions are as the file has them, empty captions among them.
        names: Other names of the clips: kind of name, then name, then id. A name that stands for two clips is left
            out.
        repeated: Clips that the file gives more often than its form allows, with the line where it first does so
            again; the first counts.
    """

    path: str
    form: str
    captions: dict[str, list[str]]
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """What one row, line or item of a file says of a clip.

    Attributes:
        id: The clip.
        captions: Any number of captions of it.
        line: Where it stands, from 1.
        once: What may come only once in the file; None where each caption of a clip has an entry of its own.
        names: Other names of the clip by kind.
    """

    id: str
    captions: list[str]
    line: int
    once: str | None = None
    names: dict[str, str] = field(default_factory=dict)


def collect(source: TextFile, form: str, entries: Iterable[Entry], *, single: bool) -> ClipCaptions:
    """Put the entries of a file together.

    Args:
        single: The file holds predictions: one caption for each clip.

    Raises:
        InputError: An entry has no name, or several captions where there may be one; or no entry has a caption.
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
            raise source.error(entry.line, message, hint="references come first, then predictions")
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
        raise InputError(f"{source.name} holds no caption")
    unambiguous = {kind: {name: to for name, to in ids.items() if to is not None} for kind, ids in names.items()}
    return ClipCaptions(source.name, form, captions, unambiguous, repeated)


def quoted(text: str) -> str:
    """Return a name in quotes for a message, on one line and cut when it is long."""
    shown = text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."
    return f"'{printable(shown)}'"
