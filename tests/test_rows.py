"""Rows as text, JSON Lines and CSV: golden files of each form, and independent readers of what they hold."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcap.data.text import printable
from textcap.errors import FileError
from textcap.outputs.rows import Row, csv_header, csv_lines, json_line, row_of, text_lines
from textcap.results import Candidate, CaptionResult, Piece

GOLDEN = Path(__file__).parent / "golden"
BEST, SECOND = Candidate("A dog, barking", -0.5, 0.25), Candidate('A "dog"', -1.25, 0.5)
RESULTS = [
    CaptionResult("a,b.wav", (BEST, SECOND), None, 4.0),
    CaptionResult("sub/quiet.wav", (), None, 1.5, is_silent=True),
    CaptionResult("cut\n.flac", (SECOND,), None, 2.0, notes=("ends early: 1.00 s of 3.00 s are missing",)),
    CaptionResult("gone.wav", error=FileError("gone.wav", "does not exist")),
]
TIMELINES = [
    CaptionResult("film.mp4", (), (Piece(0.0, 4.25, "Rain", -0.5), Piece(4.25, 9.0, "A dog, barking", -1.0)), 9.0),
    CaptionResult("quiet.wav", (), (), 1.5, is_silent=True),
    RESULTS[-1],
]
TEXT = st.text(max_size=12)


@pytest.mark.parametrize(
    ("name", "results", "n_captions"),
    [("captions", RESULTS, 1), ("candidates", RESULTS, 2), ("timeline", TIMELINES, 1)],
)
def test_forms_are_those_of_the_golden_files(name: str, results: list[CaptionResult], n_captions: int) -> None:
    rows = [row_of(result, n_captions) for result in results]
    header = csv_header(name == "timeline", n_captions)
    written = {
        "txt": "".join(map(text_lines, rows)),
        "jsonl": "".join(map(json_line, rows)),
        "csv": header + "".join(csv_lines(row, n_captions) for row in rows),
    }
    for ending, text in written.items():
        assert text == (GOLDEN / f"{name}.{ending}").read_bytes().decode(), ending


def captioned(names: list[str], captions: list[str]) -> list[Row]:
    return [row_of(CaptionResult(name, (Candidate(text, -1.0),))) for name, text in zip(names, captions, strict=False)]


@given(st.lists(TEXT, max_size=5), st.lists(TEXT, max_size=5))
def test_independent_readers_get_every_row_back(names: list[str], captions: list[str]) -> None:
    rows = captioned(names, captions)
    assert [json.loads(line) for line in "".join(map(json_line, rows)).splitlines()] == rows
    table = csv_header(False, 1) + "".join(csv_lines(row, 1) for row in rows)
    read = list(csv.reader(io.StringIO(table, newline=""), strict=True))
    assert read[1:] == [[printable(row["path"]), printable(row["caption"])] for row in rows]
    lines = "".join(map(text_lines, rows)).splitlines()
    assert [line.split("\t") for line in lines] == read[1:]
