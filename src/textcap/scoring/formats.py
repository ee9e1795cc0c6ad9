"""Read references and predictions in the usual file formats, detected from the content.

Returns captions by clip; `matching` pairs predictions with references. Errors name the line of the file.
"""

from collections.abc import Iterator
from pathlib import Path

from textcap.data.text import LINE_ENDS, TextFile, read_text
from textcap.errors import InputError
from textcap.scoring.csv_forms import AUDIOCAPS, CLOTHO, DCASE, csv_entries, recognise_csv
from textcap.scoring.entries import ClipCaptions, Entry, collect
from textcap.scoring.json_forms import COCO, LINES, PLAIN, json_entries, recognise_json

__all__ = ["FORMS", "ClipCaptions", "read_predictions", "read_references"]

TEXT = "text"

REFERENCES, PREDICTIONS = "references", "predictions"
FORMS = {
    REFERENCES: (PLAIN, COCO, LINES, CLOTHO, AUDIOCAPS, DCASE),
    PREDICTIONS: (PLAIN, COCO, LINES, DCASE, TEXT),
}

_EXPECTED = {
    REFERENCES: "JSON, JSON Lines, or a table with the header of Clotho, AudioCaps or DCASE",
    PREDICTIONS: "JSON, JSON Lines, a table with file_name and caption_predicted, or lines of path, tab, caption",
}


def read_references(path: Path, form: str | None = None) -> ClipCaptions:
    """Read captions by humans: any number for each clip.

    Args:
        path: A file in UTF-8; "-" is standard input.
        form: One of FORMS["references"]; by default the format is detected from the content.

    Raises:
        InputError: The file cannot be read, is not in this or a known format, or contains no captions.
    """
    return _read(path, form, REFERENCES)


def read_predictions(path: Path, form: str | None = None) -> ClipCaptions:
    """Read the captions of a system: one for each clip.

    Args:
        path: A file in UTF-8, such as the output of `textcap caption`; "-" is standard input.
        form: One of FORMS["predictions"]; by default the format is detected from the content.

    Raises:
        InputError: The file cannot be read, is not in this or a known format, or contains no captions.
    """
    return _read(path, form, PREDICTIONS)


def check_form(form: str | None, role: str) -> None:
    """Make sure that a format is known.

    Args:
        form: The format; None, which stands for detecting it, is always accepted.
        role: REFERENCES or PREDICTIONS.

    Raises:
        InputError: The format is unknown.
    """
    if form is not None and form not in FORMS[role]:
        raise InputError(f"unknown format of {role} {form!r}", hint=f"use one of {', '.join(FORMS[role])}")


def _read(path: Path, form: str | None, role: str) -> ClipCaptions:
    check_form(form, role)
    source = read_text(path)
    if not source.text.strip():
        raise InputError(f"{source.name} is empty", hint=f"expected {_EXPECTED[role]}")
    found = form or _recognise(source, role)
    if found is None:
        other = PREDICTIONS if role == REFERENCES else REFERENCES
        hint = f"expected {_EXPECTED[role]}"
        if _recognise(source, other) is not None:
            hint = "give references first, then predictions"
        raise source.error(1, f"not a known format of {role}", hint=hint)
    single = role == PREDICTIONS
    return collect(source, found, _entries(source, found, single=single), single=single)


def _recognise(source: TextFile, role: str) -> str | None:
    single = role == PREDICTIONS
    form = recognise_json(source.text) or recognise_csv(source, single=single)
    if form is None and single and "\t" in _first_line(source.text):
        return TEXT
    return form


def _entries(source: TextFile, form: str, *, single: bool) -> Iterator[Entry]:
    if form == TEXT:
        return _text_entries(source)
    if form in (PLAIN, COCO, LINES):
        return json_entries(source, form)
    return csv_entries(source, form, single=single)


def _text_entries(source: TextFile) -> Iterator[Entry]:
    for number, line in enumerate(LINE_ENDS.split(source.text), start=1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab:
            raise source.error(number, "expected path, tab, caption, found no tab")
        yield Entry(name, [caption], number, once=name)


def _first_line(text: str) -> str:
    return next((line for line in LINE_ENDS.split(text) if line.strip()), "")
