"""Captions from tables with a header: those of Clotho, AudioCaps and the DCASE tools.

Knows no files. Yields entries with the line that each comes from. No cell is evaluated or stripped.
"""

import re
from collections.abc import Iterator

from textcap.scoring.entries import Entry, Source, quoted
from textcap.tables import DELIMITERS, check_header, table_header, table_rows

CLOTHO, AUDIOCAPS, DCASE = "clotho", "audiocaps", "dcase"

# Other names of a clip of AudioCaps, whose id here is <youtube_id>_<start_time>.
YOUTUBE, AUDIOCAP = "youtube_id", "audiocap_id"

_NAME = "file_name"
_PREDICTED = ("caption_predicted", "caption")
_NUMBERED = {CLOTHO: re.compile(r"caption_\d+"), DCASE: re.compile(r"caption_reference(_\d+)?")}
_AUDIOCAPS = ("youtube_id", "start_time", "caption")
_EXPECTED = {
    CLOTHO: "file_name and caption_1, caption_2, ...",
    AUDIOCAPS: "youtube_id, start_time and caption",
    DCASE: "file_name and caption_reference_01, caption_reference_02, ...",
}
_EXPECTED_PREDICTIONS = "file_name and caption_predicted"


def recognise_csv(text: str, *, single: bool) -> str | None:
    """Return the form of a table, or None when its header is of none of them.

    Args:
        single: Predictions are looked for.
    """
    for delimiter in DELIMITERS:
        for form in (DCASE,) if single else (CLOTHO, AUDIOCAPS, DCASE):
            if _caption_columns(table_header(text, delimiter), form, single=single):
                return form
    return None


def csv_entries(source: Source, form: str, *, single: bool) -> Iterator[Entry]:
    """Yield what each row of a table says of a clip.

    Args:
        form: CLOTHO, AUDIOCAPS or DCASE.
        single: The table holds predictions.

    Raises:
        InputError: A column is missing or there twice, a row has too few or too many cells, or its quotes do not match.
    """
    headers = {delimiter: table_header(source.text, delimiter) for delimiter in DELIMITERS}
    fitting = [d for d in DELIMITERS if _caption_columns(headers[d], form, single=single)]
    if not fitting:
        expected = _EXPECTED_PREDICTIONS if single else _EXPECTED[form]
        found = ", ".join(quoted(cell) for cell in headers[","][:8]) or "nothing"
        raise source.error(1, f"expected columns {expected}, found {found}")
    header = headers[fitting[0]]
    check_header(header, source.error)
    columns = _caption_columns(header, form, single=single)
    for line, row in table_rows(source.text, fitting[0], len(header), source.error):
        cells = dict(zip(header, row, strict=True))
        if form == AUDIOCAPS:
            yield _audiocaps_entry(source, line, cells)
        else:
            yield Entry(cells[_NAME], [row[i] for i in columns], line, once=cells[_NAME])


def _caption_columns(header: list[str], form: str, *, single: bool) -> list[int]:
    """Return the places of the columns with captions, none when the header does not fit the form."""
    if form == AUDIOCAPS:
        return [header.index("caption")] if all(name in header for name in _AUDIOCAPS) else []
    if _NAME not in header:
        return []
    if single:
        return [header.index(name) for name in _PREDICTED if name in header][:1]
    return [i for i, name in enumerate(header) if _NUMBERED[form].fullmatch(name)]


def _audiocaps_entry(source: Source, line: int, cells: dict[str, str]) -> Entry:
    youtube, start = cells["youtube_id"], cells["start_time"]
    if not youtube.strip():
        raise source.error(line, "expected a youtube_id, found none")
    if re.fullmatch(r"\d+\.0+", start):  # a table that went through a library of numbers
        start = start.split(".")[0]
    clip = f"{youtube}_{start}"
    number = cells.get(AUDIOCAP, "")  # of a caption, not of a clip: a clip with five captions has five
    names = {YOUTUBE: youtube, AUDIOCAP: number} if number else {YOUTUBE: youtube}
    return Entry(clip, [cells["caption"]], line, once=number or None, names=names)
