"""Subtitles and labels of time lines: golden files, read back by pysubs2, webvtt-py and csv."""

import csv
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pysubs2
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from textcap.outputs.subtitles import audacity, lay_out, srt, vtt
from textcap.results import Piece

GOLDEN = Path(__file__).parent / "golden"
LONG = (
    "A man is speaking into a microphone in a large hall while people clap and cheer loudly, then a dog barks, "
    "a bell rings in the distance and water drips from the roof onto the floor"
)
PIECES = [
    Piece(0.0, 4.25, "A dog is barking.", -0.4),
    Piece(4.25, 61.5, "Rain falls on a roof while wind blows & howls <softly>", -0.5),
    Piece(61.5, 70.0, LONG, -0.9),
    Piece(70.0, 71.2, LONG, -0.9),
    Piece(71.2, 71.6, "TV --> static", -0.7),
    Piece(3725.004, 3730.0, "a bell\trings\ntwice\u202e\x1b[31m", -0.3),
]


def read_srt(text: str) -> list[tuple[int, int, str]]:
    events = pysubs2.SSAFile.from_string(text, format_="srt", keep_html_tags=True)
    return [(event.start, event.end, event.text.replace("\\N", "\n")) for event in events]


def read_vtt(text: str) -> list[tuple[int, int, str]]:
    captions = webvtt.from_string(text)
    return [(milliseconds(c.start), milliseconds(c.end), html.unescape(c.raw_text)) for c in captions]


def milliseconds(stamp: str) -> int:
    hours, minutes, seconds = stamp.split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000 + round(float(seconds) * 1000)


@pytest.mark.parametrize("brackets", [False, True])
@pytest.mark.parametrize(("name", "write"), [("srt", srt), ("vtt", vtt), ("labels.txt", audacity)])
def test_form_is_that_of_its_golden_file(name: str, write: object, brackets: bool) -> None:
    path = GOLDEN / f"timeline{'-brackets' if brackets else ''}.{name}"
    assert callable(write)
    assert write(PIECES, brackets=brackets) == path.read_text(encoding="utf-8")


def test_golden_files_are_read_alike_by_independent_readers() -> None:
    for name in ("timeline", "timeline-brackets"):
        by_pysubs2 = [(e.start, e.end) for e in pysubs2.load(str(GOLDEN / f"{name}.srt")) if e.type == "Dialogue"]
        by_webvtt = [(start, end) for start, end, _ in read_vtt((GOLDEN / f"{name}.vtt").read_text(encoding="utf-8"))]
        from_srt = webvtt.from_srt(str(GOLDEN / f"{name}.srt"))
        assert by_pysubs2 == by_webvtt
        assert [(milliseconds(c.start), milliseconds(c.end)) for c in from_srt] == by_pysubs2
        webvtt.from_string((GOLDEN / f"{name}.vtt").read_text(encoding="utf-8"), strict=True)


def test_cue_stays_for_seven_seconds_at_most_and_a_long_caption_goes_on() -> None:
    cues = lay_out(PIECES)
    assert [(c.start_ms, c.end_ms) for c in cues[:4]] == [(0, 4250), (4250, 11250), (61500, 64333), (64333, 67166)]
    assert " ".join(line for cue in cues[2:5] for line in cue.lines) == LONG
    assert cues[5].lines[-1].endswith("…")  # 1.2 s have room for one cue
    assert (cues[5].start_ms, cues[5].end_ms) == (70000, 71200)
    assert (cues[6].start_ms, cues[6].end_ms) == (71200, 72200)  # too short a piece, and nothing follows at once


def test_short_piece_is_not_shown_over_the_next_one() -> None:
    cues = lay_out([Piece(5, 5.3, "a click", 0), Piece(5.6, 9, "a hum", 0)])
    assert [(c.start_ms, c.end_ms) for c in cues] == [(5000, 5600), (5600, 9000)]


def test_brackets_word_a_sound_as_subtitles_do() -> None:
    def lines(caption: str) -> tuple[str, ...]:
        return lay_out([Piece(0, 5, caption, 0)], brackets=True)[0].lines

    assert lines("A dog is barking.") == ("[a dog is barking]",)
    assert lines("TV noise") == ("[TV noise]",)
    assert lines("I hear rain") == ("[I hear rain]",)
    assert lines("Rain") == ("[rain]",)
    assert lay_out([Piece(0, 3, LONG, 0)], brackets=True)[-1].lines[-1].endswith("the floor]")
    assert lay_out([Piece(0, 1.5, LONG, 0)], brackets=True)[-1].lines[-1].endswith("…]")


def test_piece_without_words_has_no_cue() -> None:
    pieces = [Piece(0, 5, "", 0), Piece(5, 9, " \n", 0)]
    assert lay_out(pieces, brackets=True) == lay_out(pieces) == []
    assert srt(pieces) == audacity(pieces) == "" and vtt(pieces) == "WEBVTT\n"


@pytest.mark.parametrize(
    "attack", ["<b>", "</c>", "{\\an8}", "-->", "00:00:01,000 --> 00:00:02,000", "&lt;i>", "\r\n\r\n7"]
)
def test_text_does_not_act(attack: str) -> None:
    pieces = [Piece(0, 5, f"rain {attack} falls", 0), Piece(5, 9, attack, 0), Piece(9, 12, "wind", 0)]
    [first, second, last] = pysubs2.SSAFile.from_string(srt(pieces), format_="srt")
    assert first.text.startswith("rain ") and first.text.endswith(" falls") and last.text == "wind"
    assert first.plaintext == first.text  # pysubs2 has found no tags, and there are no braces of override codes
    assert "<" not in srt(pieces) and "{" not in srt(pieces) and srt(pieces).count("-->") == 3
    captions = webvtt.from_string(vtt(pieces), strict=True).captions
    said = [" ".join(html.unescape(c.raw_text).split()).replace("∶", ":") for c in captions]
    assert said == [" ".join(p.caption.split()) for p in pieces]
    assert "&" not in vtt(pieces).replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")


def test_times_beyond_99_hours_keep_their_hours() -> None:
    assert "100:00:01,500 --> 100:00:05,000\n" in srt([Piece(360001.5, 360005, "wind", 0)])
    assert "100:00:01.500 --> 100:00:05.000\n" in vtt([Piece(360001.5, 360005, "wind", 0)])


@st.composite
def drawn_pieces(draw: st.DrawFn, latest_ms: int = 10_000_000) -> list[Piece]:
    """Pieces in order, of 1 ms to 100 s, with or without a gap between them, with any text."""
    text = st.one_of(
        st.text(),
        st.text("a <>&-\n{}[]é字…\\", max_size=200),
        st.lists(st.text("abcdefgh", min_size=1, max_size=60), max_size=40).map(" ".join),
    )
    steps = draw(st.lists(st.tuples(st.integers(1, 100_000), st.sampled_from([0, 0, 400, 5000]), text), max_size=12))
    pieces, at_ms = [], draw(st.integers(0, latest_ms))
    for length_ms, gap_ms, caption in steps:
        pieces.append(Piece(at_ms / 1000, (at_ms + length_ms) / 1000, caption, -1.0))
        at_ms += length_ms + gap_ms
    return pieces


def check_cues(cues: Sequence[tuple[int, int, str]], pieces: Sequence[Piece]) -> None:
    assert all(start < end for start, end, _ in cues)
    assert all(a[1] <= b[0] for a, b in zip(cues, cues[1:], strict=False))
    for start, end, text in cues:
        lines = text.split("\n")
        assert len(lines) <= 2 and max(map(len, lines)) <= 42
        assert end - start <= 7000
        piece = [p for p in pieces if round(p.start_s * 1000) <= start][-1]
        if round(piece.end_s * 1000) - round(piece.start_s * 1000) >= 1000:
            assert end - start >= 1000 and end <= round(piece.end_s * 1000)


@given(drawn_pieces(), st.booleans())
def test_any_pieces_give_files_that_both_readers_read_alike(pieces: list[Piece], brackets: bool) -> None:
    cues = lay_out(pieces, brackets=brackets)
    times = [(cue.start_ms, cue.end_ms) for cue in cues]
    texts = [re.sub(r"(?<=\d):(?=\d)", "∶", "\n".join(cue.lines)) for cue in cues]
    from_vtt = read_vtt(vtt(pieces, brackets=brackets))
    assert [cue[:2] for cue in from_vtt] == times
    assert [cue[2] for cue in from_vtt] == texts
    check_cues([(start, end, text) for (start, end), text in zip(times, texts, strict=True)], pieces)
    from_srt = read_srt(srt(pieces, brackets=brackets))
    assert [cue[:2] for cue in from_srt] == times
    also = webvtt.from_buffer(io.StringIO(srt(pieces, brackets=brackets)), format="srt") if cues else []
    assert [(milliseconds(c.start), milliseconds(c.end)) for c in also] == times


@given(drawn_pieces())
def test_label_track_has_one_row_for_each_piece(pieces: list[Piece]) -> None:
    rows = list(csv.reader(io.StringIO(audacity(pieces)), delimiter="\t", quoting=csv.QUOTE_NONE))
    said = [piece for piece in pieces if piece.caption.split()]
    assert [len(row) for row in rows] == [3] * len(said)
    assert [(float(start), float(end)) for start, end, _ in rows] == [
        (pytest.approx(p.start_s, abs=1e-6), pytest.approx(p.end_s, abs=1e-6)) for p in said
    ]
