"""Captions from CSV tables with a header: the formats of Clotho, AudioCaps and the DCASE tools.

Yields entries with their line numbers. Cells are neither evaluated nor stripped.
"""

import re
from collections.abc import Callable, Iterator

from textcap.data.tables import (
    NUMBERED_CAPTION,
    START_TIME,
    YOUTUBE_ID,
    audiocaps_clip,
    find_table,
    read_header,
)
from textcap.data.text import TextFile
from textcap.scoring.entries import Entry, quoted

CLOTHO, AUDIOCAPS, DCASE = "clotho", "audiocaps", "dcase"

# Another name of an AudioCaps clip, whose id here is <youtube_id>_<start_time>.
AUDIOCAP = "audiocap_id"

_NAME = "file_name"
_PREDICTED = ("caption_predicted", "caption")
_NUMBERED = {CLOTHO: NUMBERED_CAPTION, DCASE: re.compile(r"caption_reference(_\d+)?")}
_AUDIOCAPS = (YOUTUBE_ID, START_TIME, "caption")
_EXPECTED = {
    CLOTHO: "file_name and caption_1, caption_2, ...",
    AUDIOCAPS: "youtube_id, start_time and caption",
    DCASE: "file_name and caption_reference_01, caption_reference_02, ...",
}
_EXPECTED_PREDICTIONS = "file_name and caption_predicted"


def recognise_csv(source: TextFile, *, single: bool) -> str | None:
    """Return the format of a table, or None if its header matches none.

    Args:
        source: The file.
        single: Whether to recognise predictions rather than references.
    """
    for form in (DCASE,) if single else (CLOTHO, AUDIOCAPS, DCASE):
        if find_table(source, _header_test(form, single)) is not None:
            return form
    return None


def csv_entries(source: TextFile, form: str, *, single: bool) -> Iterator[Entry]:
    """Yield the clip and captions of each row of a table.

    Args:
        source: The file.
        form: CLOTHO, AUDIOCAPS or DCASE.
        single: Whether the table contains predictions, with one caption per clip.

    Raises:
        InputError: A column is missing or repeated, a row has too few or too many cells, or its quotes do not match.
    """
    table = find_table(source, _header_test(form, single))
    if table is None:
        expected = _EXPECTED_PREDICTIONS if single else _EXPECTED[form]
        found = ", ".join(quoted(cell) for cell in read_header(source.text)[:8]) or "nothing"
        raise source.error(1, f"expected columns {expected}, found {found}")
    columns = _caption_columns(table.header, form, single=single)
    for line, row in table.rows():
        cells = dict(zip(table.header, row, strict=True))
        if form == AUDIOCAPS:
            yield _audiocaps_entry(source, line, cells)
        else:
            yield Entry(cells[_NAME], [row[i] for i in columns], line, once=cells[_NAME])


def _header_test(form: str, single: bool) -> Callable[[list[str]], bool]:
    return lambda header: bool(_caption_columns(header, form, single=single))


def _caption_columns(header: list[str], form: str, *, single: bool) -> list[int]:
    """Return the indices of the caption columns; empty if the header does not match the format."""
    if form == AUDIOCAPS:
        return [header.index("caption")] if all(name in header for name in _AUDIOCAPS) else []
    if _NAME not in header:
        return []
    if single:
        return [header.index(name) for name in _PREDICTED if name in header][:1]
    return [i for i, name in enumerate(header) if _NUMBERED[form].fullmatch(name)]


def _audiocaps_entry(source: TextFile, line: int, cells: dict[str, str]) -> Entry:
    clip = audiocaps_clip(cells)
    if clip is None:
        raise source.error(line, "expected a youtube_id and a start_time")
    number = cells.get(AUDIOCAP, "")  # identifies a caption, not a clip: a clip with five captions has five
    names = {YOUTUBE_ID: cells[YOUTUBE_ID], **({AUDIOCAP: number} if number else {})}
    return Entry(clip, [cells["caption"]], line, once=number or None, names=names)
