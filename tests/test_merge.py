"""Sound lines in existing subtitle files: nothing that is there is lost, as independent readers see it."""

import hashlib
import re
import subprocess
from pathlib import Path

import numpy as np
import pysubs2
import pytest
import soundfile
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from test_subtitles import drawn_pieces, milliseconds, read_srt
from textcap.data.text import TextFile, read_text
from textcap.demo.folder import RATE_HZ
from textcap.demo.render import render_scene
from textcap.demo.scenes import Event, Scene
from textcap.errors import InputError
from textcap.outputs.merge import merge_subtitles
from textcap.results import Piece

GOLDEN = Path(__file__).parent / "golden"
RAIN, DOG = Piece(0, 20, "Rain is falling", -0.5), Piece(20, 40, "A dog is barking.", -0.5)

SRT = """1
00:00:02,000 --> 00:00:05,000 X1:10 X2:20
<i>Hello</i>   {\\an8}there

2
00:00:05,500 --> 00:00:21,000
1984

- Who is it?
3
0:00:26.25 --> 00:00:30,5
Bye
"""

VTT = """WEBVTT - A film
Kind: captions

NOTE made by hand

STYLE
::cue(b) { color: peachpuff }

REGION
id:fred
width:40%

intro
00:02.000 --> 00:05.000 region:fred align:right
<v Mary>Hello &amp; <b>welcome</b>

NOTE the second cue
  stays with its note

00:00:05.500 --> 00:00:21.000
- Who is it?
 \t
- Me.

26
00:26.250 --> 00:30.500 line:0
Bye

NOTE the end
"""


def file_of(text: str, *, mark: bool = False, name: str = "old.srt") -> TextFile:
    """A subtitle file as `read_text` returns it."""
    raw = ("\ufeff" * mark + text).encode()
    return TextFile(name, text, hashlib.sha256(raw).hexdigest())


def without_numbers(text: str) -> str:
    return re.sub(r"^[0-9]+(\r?\n)(?=[0-9:]+[,.][0-9]+ -->)", r"#\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize("over_speech", [False, True])
@pytest.mark.parametrize(("form", "old"), [("srt", SRT), ("vtt", VTT)])
def test_merged_file_is_that_of_its_golden_file(form: str, old: str, over_speech: bool) -> None:
    pieces = [RAIN, Piece(20, 21, "A click", -1), Piece(21, 40, "A dog is barking.", -0.5)]
    path = GOLDEN / f"merged{'-over-speech' if over_speech else ''}.{form}"
    merged = merge_subtitles(file_of(old), form, pieces, brackets=True, over_speech=over_speech)
    assert merged == path.read_text(encoding="utf-8")


def test_everything_in_webvtt_is_kept_to_the_byte() -> None:
    merged = merge_subtitles(file_of(VTT), "vtt", [RAIN, DOG], brackets=True)
    new = re.findall(r"[0-9:.]+ --> [0-9:.]+\n\[.*\]\n\n", merged)
    assert len(new) == 2
    for cue in new:
        merged = merged.replace(cue, "")
    assert merged == VTT


def test_subrip_is_numbered_anew_and_else_kept_to_the_byte() -> None:
    merged = merge_subtitles(file_of(SRT), "srt", [RAIN, DOG], brackets=True)
    assert re.findall(r"^([0-9]+)\n[0-9:]+[,.]", merged, flags=re.MULTILINE) == ["1", "2", "3", "4", "5"]
    rest = re.sub(r"[0-9]+\n[0-9:,]+ --> [0-9:,]+\n\[.*\]\n\n", "", merged)
    # A blank line was missing where a sound line goes in.
    assert without_numbers(rest) == without_numbers(SRT).replace("- Who is it?\n", "- Who is it?\n\n")


def test_sound_line_is_cut_to_the_first_gap_of_a_second_in_its_piece() -> None:
    def times(pieces: list[Piece], over_speech: bool = False) -> list[tuple[int, int]]:
        merged = merge_subtitles(file_of(SRT), "srt", pieces, over_speech=over_speech)
        return [cue[:2] for cue in read_srt(merged) if cue[2] in ("rain", "wind")]

    assert times([Piece(0, 60, "rain", 0)]) == [(0, 2000)]
    assert times([Piece(1.5, 60, "rain", 0)]) == [(21000, 26250)]  # 0.5 s before a cue and between two are too short
    assert times([Piece(25, 60, "rain", 0)]) == [(25000, 26250)]
    assert times([Piece(25.5, 60, "rain", 0)]) == [(30500, 37500)]
    assert times([Piece(6, 20, "rain", 0), Piece(20, 21.5, "wind", 0)]) == []
    assert times([Piece(6, 20, "rain", 0), Piece(20, 25, "wind", 0)], over_speech=True) == [
        (6000, 13000),
        (21000, 25000),
    ]


def test_line_ends_and_byte_order_mark_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "old.srt"
    for old in (SRT.replace("\n", "\r\n"), SRT.replace("\n", "\r")):
        path.write_bytes(b"\xef\xbb\xbf" + old.encode())
        merged = merge_subtitles(read_text(path), "srt", [RAIN, DOG])
        assert merged.startswith("\ufeff1")
        line_end = "\r\n" if "\r\n" in old else "\r"
        assert merged[1:].replace(line_end, "\n") == merge_subtitles(file_of(SRT), "srt", [RAIN, DOG])
    path.write_text(SRT, encoding="utf-8")
    assert merge_subtitles(read_text(path), "srt", []) == SRT


def test_empty_file_gets_the_sound_lines() -> None:
    assert read_srt(merge_subtitles(file_of(""), "srt", [RAIN])) == [(0, 7000, "Rain is falling")]
    assert merge_subtitles(file_of(""), "vtt", [RAIN]).startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert merge_subtitles(file_of("WEBVTT"), "vtt", [RAIN]).startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert merge_subtitles(file_of("WEBVTT\n"), "vtt", []) == "WEBVTT\n"


def test_cues_out_of_order_overlapping_and_without_numbers_are_kept() -> None:
    old = "00:10,000 --> 00:12,000\nc\n\n5\n00:00:01,000 --> 00:00:08,000\na\n\n00:00:03,000 --> 00:00:05,000\nb"
    merged = merge_subtitles(file_of(old), "srt", [Piece(0, 30, "rain", 0), Piece(30, 40, "wind", 0)])
    assert merged == (
        "1\n00:00:00,000 --> 00:00:01,000\nrain\n\n".replace(
            "1\n00:00:00,000 --> 00:00:01,000", "1\n00:00:00,000 --> 00:00:01,000"
        )
        + "2\n00:10,000 --> 00:12,000\nc\n\n3\n00:00:01,000 --> 00:00:08,000\na\n\n"
        + "4\n00:00:03,000 --> 00:00:05,000\nb\n\n5\n00:00:30,000 --> 00:00:37,000\nwind\n"
    )


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        (
            "srt",
            "1\n00:00:01,000 --> 00:00:02,000\na\n\n2\n00:00:03 --> 00:00:04\nb\n",
            r"old.srt, line 6: 00:00:03 --> ",
        ),
        ("srt", "1\n00:00:01,000 --> later\x1b[2J\n", r"line 2: 00:00:01,000 --> later\\x1b\[2J has no times"),
        ("srt", "Dear diary,\n", "line 1: no line with times"),
        ("srt", VTT, "line 1: starts with WEBVTT"),
        ("vtt", SRT, "line 1: does not start with WEBVTT"),
        ("vtt", "WEBVTTX\n", "line 1: does not start with WEBVTT"),
        ("vtt", "WEBVTT\n\n00:00:01 --> 00:00:02\na\n", "line 3: 00:00:01 --> 00:00:02 has no times"),
    ],
)
def test_broken_file_is_an_error_that_names_the_line(form: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        merge_subtitles(file_of(text), form, [RAIN])
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def test_file_that_is_not_utf_8_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "old.srt").write_bytes(SRT.replace("Hello", "Olé").encode("cp1252"))
    with pytest.raises(InputError, match=r"old\.srt, line 3: byte 0xe9 is not UTF-8"):
        read_text(tmp_path / "old.srt")


@st.composite
def drawn_cues(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    """Cues with any times, perhaps overlapping and out of order, and text of one or two lines."""
    line = st.text("ab <i>/&{}[]-é…", min_size=1, max_size=20).filter(lambda t: t.strip() and "-->" not in t)
    text = st.lists(line.map(str.strip), min_size=1, max_size=2).map("\n".join)
    time = st.integers(0, 200_000)
    cues = draw(st.lists(st.tuples(time, st.integers(0, 20_000), text), max_size=8))
    return [(start, start + length, words) for start, length, words in cues]


def stamp(ms: int, point: str) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


@given(drawn_cues(), drawn_pieces(100_000), st.booleans(), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_merging_subrip_loses_and_changes_no_cue(
    cues: list[tuple[int, int, str]], pieces: list[Piece], numbers: bool, over_speech: bool, line_end: str
) -> None:
    blocks = [
        f"{7 * i}\n" * numbers + f"{stamp(start, ',')} --> {stamp(end, ',')}\n{text}\n"
        for i, (start, end, text) in enumerate(cues)
    ]
    old = "\n".join(blocks).replace("\n", line_end)
    merged = merge_subtitles(file_of(old), "srt", pieces, over_speech=over_speech)
    before, after = read_srt(old.replace("\r", "")), read_srt(merged.replace("\r", ""))
    order = iter(after)
    assert all(cue in order for cue in before)
    rest = list(after)
    for cue in before:
        rest.remove(cue)
    assert len(after) == len(re.findall(r"^[0-9]+\r?\n[0-9:]+,", merged, flags=re.MULTILINE))
    assert all(end > start for start, end, _ in rest)
    if not over_speech:
        assert not [1 for a in rest for b in before if a[0] < b[1] and b[0] < a[1]]
        assert all(end - start >= 1000 for start, end, _ in rest)


@given(drawn_cues(), drawn_pieces(100_000), st.booleans())
def test_merging_webvtt_loses_and_changes_no_cue(
    cues: list[tuple[int, int, str]], pieces: list[Piece], over_speech: bool
) -> None:
    parts = ["WEBVTT", "STYLE\n::cue { color: red }", "REGION\nid:r"]
    for i, (start, end, text) in enumerate(cues):
        parts += [f"NOTE {i}"] * (i % 2)
        parts.append(f"id {i}\n{stamp(start, '.')} --> {stamp(end, '.')} line:{i} region:r\n{text}")
    old = "\n\n".join(parts) + "\n"
    merged = merge_subtitles(file_of(old), "vtt", pieces, over_speech=over_speech)
    before, after = webvtt.from_string(old), webvtt.from_string(merged)
    assert [str(style.text) for style in after.styles] == [str(style.text) for style in before.styles]
    assert len(after.regions) == 1
    kept = [c for c in after if c.identifier]
    assert [(c.identifier, c.start, c.end, c.raw_text, str(c.settings), c.comments) for c in kept] == [
        (c.identifier, c.start, c.end, c.raw_text, str(c.settings), c.comments) for c in before
    ]
    if not over_speech:
        taken = [(milliseconds(c.start), milliseconds(c.end)) for c in before]
        new = [(milliseconds(c.start), milliseconds(c.end)) for c in after if not c.identifier]
        assert not [1 for a in new for b in taken if a[0] < b[1] and b[0] < a[1]]
        assert all(end - start >= 1000 for start, end in new)


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_film_with_merged_subtitles_opens_in_ffmpeg(tmp_path: Path, form: str) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [ffmpeg, "-hide_banner", "-nostdin", "-y", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)

    sounds = [
        render_scene(Scene((Event(kind),), "alone"), 1, RATE_HZ, 20.0) for kind in ("rain_falling", "dog_barking")
    ]
    soundfile.write(tmp_path / "sound.wav", np.concatenate(sounds), RATE_HZ)
    (tmp_path / f"old.{form}").write_text({"srt": SRT, "vtt": VTT}[form], encoding="utf-8")
    made = run(
        *("-f", "lavfi", "-i", "color=black:s=64x48:d=40:r=5", "-i", "sound.wav", "-i", f"old.{form}"),
        *("-c:v", "mpeg4", "-c:a", "aac", "-c:s", "srt" if form == "srt" else "webvtt", "film.mkv"),
    )
    assert made.returncode == 0, made.stderr
    merged = merge_subtitles(read_text(tmp_path / f"old.{form}"), form, [RAIN, DOG], brackets=True)
    (tmp_path / f"new.{form}").write_text(merged, encoding="utf-8")
    codec = "subrip" if form == "srt" else "webvtt"
    done = run(
        "-i", "film.mkv", "-i", f"new.{form}", "-map", "0:v", "-map", "0:a", "-map", "1", "-c", "copy", "out.mkv"
    )
    assert done.returncode == 0, done.stderr
    shown = run("-i", "out.mkv").stderr
    assert re.search(rf"Stream #0:2.*: Subtitle: {codec}", shown), shown
    extracted = run("-i", "out.mkv", "-map", "0:s:0", "back.srt")
    assert extracted.returncode == 0, extracted.stderr
    cues = pysubs2.load(str(tmp_path / "back.srt"))
    assert len(cues) == 5
    assert [cue.plaintext for cue in cues if cue.plaintext.startswith("[")] == [
        "[rain is falling]",
        "[a dog is barking]",
    ]
    assert [(c.start, c.end) for c in cues if c.plaintext.startswith("[")] == [(0, 2000), (21000, 26250)]
