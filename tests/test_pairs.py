"""Reading pairs files: every form, skipped sounds, and errors."""

import csv
import io
import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from textcap.data.captions import MAX_CHARACTERS
from textcap.data.pairs import PairSet, log_skipped, read_pairs
from textcap.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of empty files in place of sounds: `read_pairs` does not open them."""
    for name in ("a.wav", "b.flac", " spaced.wav", "蝉.ogg", "yt1_30.WAV", "yt1_60.mp3", "sub/a.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read(folder: Path, content: str | bytes, **options: object) -> PairSet:
    path = folder / "pairs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_pairs(path, **options)  # type: ignore[arg-type]


def captions_by_name(pairs: PairSet, folder: Path) -> dict[str, tuple[str, ...]]:
    return {str(pair.audio.relative_to(folder)): pair.captions for pair in pairs.pairs}


@pytest.mark.parametrize("column", ["file_name", "file", "audio", "audio_path", "path"])
def test_table_with_one_caption_per_row(folder: Path, column: str, caplog: pytest.LogCaptureFixture) -> None:
    pairs = read(folder, f"{column},caption\na.wav,A dog barks\n蝉.ogg,Insects\n")
    assert captions_by_name(pairs, folder) == {"a.wav": ("A dog barks",), "蝉.ogg": ("Insects",)}
    assert pairs.file.n_captions == 2 and not pairs.skipped and not caplog.messages


def test_table_of_clotho(folder: Path) -> None:
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    pairs = read(folder, f'{header}\r\na.wav,"One, two",b,c,d,e\r\nb.flac,f,g,h,i,j\r\n')
    assert captions_by_name(pairs, folder) == {
        "a.wav": ("One, two", "b", "c", "d", "e"),
        "b.flac": ("f", "g", "h", "i", "j"),
    }


def test_table_of_audiocaps_finds_clips_with_any_suffix(folder: Path) -> None:
    rows = "1,yt1,30,First\n2,yt1,30,Second\n3,yt1,60.0,Other\n4,yt2,0,Gone\n"
    pairs = read(folder, f"audiocap_id,youtube_id,start_time,caption\n{rows}")
    assert captions_by_name(pairs, folder) == {"yt1_30.WAV": ("First", "Second"), "yt1_60.mp3": ("Other",)}
    assert [(skipped.name, skipped.reason) for skipped in pairs.skipped] == [
        ("yt2_0", f"{folder / 'yt2_0'}.* does not exist")
    ]


def test_json_lines_and_json_lists(folder: Path) -> None:
    objects = [
        {"file": "a.wav", "caption": "One"},
        {"audio": "b.flac", "captions": ["Two", "Three"], "license": "CC0"},
        {"path": "a.wav", "caption_1": "Four", "caption_2": "Five"},
    ]
    expected = {"a.wav": ("One", "Four", "Five"), "b.flac": ("Two", "Three")}
    assert captions_by_name(read(folder, "\n".join(map(json.dumps, objects)) + "\n\n"), folder) == expected
    assert captions_by_name(read(folder, json.dumps(objects, indent=1)), folder) == expected


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separators_byte_order_mark_and_crlf_are_recognised(folder: Path, delimiter: str) -> None:
    text = "\ufeff" + delimiter.join(["file_name", "caption"]) + "\r\n" + delimiter.join(["a.wav", "x"]) + "\r\n\r\n"
    assert captions_by_name(read(folder, text), folder) == {"a.wav": ("x",)}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_of_a_row_is_right_for_every_line_end(folder: Path, end: str, caplog: pytest.LogCaptureFixture) -> None:
    pairs = read(folder, end.join(["file,caption", "a.wav,x", "", 'a.wav,"two', 'lines"', "b.flac, "]))
    assert captions_by_name(pairs, folder) == {"a.wav": ("x", "two  lines" if end == "\r\n" else "two lines")}
    assert caplog.messages == [f"{folder / 'pairs.csv'}, line 6: b.flac has no caption"]


def log_all(pairs: PairSet) -> None:
    log_skipped(pairs.file.name, [skipped.reason for skipped in pairs.skipped])


def test_ten_skipped_sounds_are_listed_and_the_others_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "".join(f"gone{i:02}.wav,x\n" for i in range(11))
    log_all(read(folder, f"file,caption\n{rows}"))
    lines = caplog.messages
    path = folder / "pairs.csv"
    assert lines[:10] == [f"{path}: skipped: {folder / f'gone{i:02}.wav'} does not exist" for i in range(10)]
    assert lines[10:] == [f"{path}: skipped: 1 more sound"]
    log_all(read(folder, f"file,caption\n{rows}gone11.wav,x\n"))
    assert caplog.messages[21:] == [f"{path}: skipped: 2 more sounds"]


def test_captions_are_cleaned_like_those_of_caption_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = read(folder, f'file,caption\na.wav," Two\nlines\x07 "\nb.flac,"{"x" * 2000}"\n')
    assert pairs.pairs[0].captions == ("Two lines",)
    assert len(pairs.pairs[1].captions[0]) == MAX_CHARACTERS
    assert caplog.messages == [f"{folder / 'pairs.csv'}, line 4: cut from 2,000 to 1,000 characters"]


def test_rows_without_captions_are_warned_about(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = read(folder, "file,caption_1,caption_2\na.wav, ,\nb.flac,,x\n")
    assert captions_by_name(pairs, folder) == {"b.flac": ("x",)}
    assert caplog.messages == [f"{folder / 'pairs.csv'}, line 2: a.wav has no caption"]


def test_sounds_are_looked_up_next_to_the_file_or_in_audio_folder(folder: Path, tmp_path: Path) -> None:
    path = folder / "sub" / "pairs.csv"
    path.write_text("file,caption\na.wav,x\nb.flac,y\n", encoding="utf-8")
    beside = read_pairs(path)
    assert [pair.audio for pair in beside.pairs] == [folder / "sub" / "a.wav"]
    assert [skipped.name for skipped in beside.skipped] == ["b.flac"]
    elsewhere = read_pairs(str(path), audio_folder=str(folder))
    assert [pair.audio for pair in elsewhere.pairs] == [folder / "a.wav", folder / "b.flac"]
    absolute = read(folder, f"file,caption\n{folder / 'a.wav'},x\n")
    assert absolute.pairs[0].audio == folder / "a.wav"
    with pytest.raises(InputError, match="nowhere is not a folder"):
        read_pairs(path, audio_folder=folder / "nowhere")


def test_names_keep_their_spaces_and_folders(folder: Path) -> None:
    pairs = read(folder, "file,caption\n spaced.wav,x\na.wav,y\nsub/a.wav,z\n")
    assert captions_by_name(pairs, folder) == {" spaced.wav": ("x",), "a.wav": ("y",), "sub/a.wav": ("z",)}


def test_hidden_files_of_macos_are_not_clips(folder: Path) -> None:
    (folder / "._yt3_1.wav").touch()
    (folder / "yt3_1.wav").touch()
    pairs = read(folder, "youtube_id,start_time,caption\nyt3,1,x\n._yt3,1,y\n")
    assert captions_by_name(pairs, folder) == {"yt3_1.wav": ("x",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected columns"),
        ("a.wav,A dog barks\n", r"line 1: expected columns file_name .*found 'a.wav', 'A dog barks'"),
        ("file_name,text\na.wav,x\n", "line 1: expected columns"),
        ("file_name,caption\n", "has no pairs"),
        ("file_name,caption\na.wav,x,y\n", r"line 2: expected 2 cells, found 3 \(put quotes around cells"),
        ("file_name,caption\na.wav\n", "line 2: expected 2 cells, found 1"),
        ('file_name,caption\na.wav,"x\n', "line 2: not a valid table row"),
        ("file_name,caption,caption\na.wav,x,y\n", "two columns are named 'caption'"),
        ("file_name,caption\n,x\n", r"line 2: expected the name of a sound file in file_name, found ''"),
        (b"file_name,caption\na.wav,caf\xe9\n", r"line 2: byte 0xe9 is not UTF-8 \(if the file is cp1252"),
        ("file_name,caption\n".encode("utf-16"), r"is UTF-16 text \(save it as UTF-8\)"),
        ('{"file": "a.wav"}\n', 'line 1: expected "caption", a string, or "captions"'),
        ('{"file": "a.wav", "caption": 3}\n', 'line 1: expected "caption", a string'),
        ('{"caption": "x"}\n', "line 1: expected the name of a sound file in file_name, .*youtube_id"),
        ('{"file": 3, "caption": "x"}\n', "expected the name of a sound file in file, found 3"),
        ('{"file": "a.wav", "caption": "x"}\n{\n', "line 2: not valid JSON"),
        ('[{"file": "a.wav", "caption": "x"}, 1]', "item 2: expected an object with captions"),
        ("[", "line 1: not valid JSON"),
        ("[]", r"has no pairs \(use columns file_name"),
    ],
)
def test_errors_name_the_line(folder: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(folder, content)


def test_missing_file_and_standard_input_are_errors(folder: Path) -> None:
    with pytest.raises(InputError, match="nothing.csv does not exist"):
        read_pairs(folder / "nothing.csv")
    with pytest.raises(InputError, match="pairs cannot be read from standard input"):
        read_pairs("-")


_WORDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\ufeff\x85"), min_size=1, max_size=20
).filter(lambda text: text.strip() == text)


@given(captions=st.lists(st.lists(_WORDS, min_size=3, max_size=3), min_size=1, max_size=8))
def test_any_captions_can_be_read_from_a_table(
    tmp_path_factory: pytest.TempPathFactory, captions: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file_name", "caption_1", "caption_2", "caption_3"])
    for i, row in enumerate(captions):
        (folder / f"{i}.wav").touch()
        writer.writerow([f"{i}.wav", *row])
    pairs = read(folder, text.getvalue())
    assert [list(pair.captions) for pair in pairs.pairs] == captions
    assert pairs.file.n_captions == 3 * len(captions)
