"""Reading caption files: what is accepted, what is an error, and the messages."""

import hashlib
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcap.data.captions import load_captions, warn_of_few
from textcap.errors import InputError


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_captions_keep_order_and_duplicates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = write(tmp_path / "a.txt", b"a dog barks\na bell rings\na dog barks\n")
    second = write(tmp_path / "b.txt", b"rain falls")
    loaded = load_captions([first, str(second)])
    assert loaded.captions == ["a dog barks", "a bell rings", "a dog barks", "rain falls"]
    assert [file.n_captions for file in loaded.files] == [3, 1]
    assert [file.name for file in loaded.files] == [str(first), str(second)]
    assert not caplog.messages


def test_file_hash_covers_the_bytes_of_the_file(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfa dog barks\r\n\r\n  \na bell rings"
    loaded = load_captions([write(tmp_path / "a.txt", content)])
    assert loaded.files[0].sha256 == hashlib.sha256(content).hexdigest()
    assert loaded.captions == ["a dog barks", "a bell rings"]


def test_content_hash_ignores_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    plain = load_captions([write(tmp_path / "a.txt", b"a\nb\n")])
    windows = load_captions([write(tmp_path / "b.txt", b"\xef\xbb\xbfa\r\n\r\nb")])
    other = load_captions([write(tmp_path / "c.txt", b"ab\n")])
    assert plain.content_hash == windows.content_hash != other.content_hash


def test_byte_order_marks_of_concatenated_files_are_removed(tmp_path: Path) -> None:
    loaded = load_captions([write(tmp_path / "a.txt", b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n\xef\xbb\xbf\n")])
    assert loaded.captions == ["a", "b"]


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1c", "\t", "\x1b"])
def test_control_character_inside_a_line_does_not_split_it(tmp_path: Path, inside: str) -> None:
    loaded = load_captions([write(tmp_path / "a.txt", f"a dog{inside}barks\nrain\n".encode())])
    assert loaded.captions == ["a dog barks", "rain"]


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\r\r\n"])
def test_line_ends_of_all_systems_are_recognised(tmp_path: Path, end: bytes, caplog: pytest.LogCaptureFixture) -> None:
    content = end.join([b"a dog barks", b"rain", b"x" * 1001, b""])
    loaded = load_captions([write(tmp_path / "a.txt", content)])
    assert loaded.captions == ["a dog barks", "rain", "x" * 1000]
    assert loaded.files[0].sha256 == hashlib.sha256(content).hexdigest()
    line = 5 if end == b"\r\r\n" else 3
    assert caplog.messages == [f"{tmp_path / 'a.txt'}, line {line}: cut from 1,001 to 1,000 characters"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_nul_byte_is_an_error_with_its_line_and_likely_cause(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "wide.txt", b"a dog barks\n" + "rain\n".encode(encoding))
    with pytest.raises(InputError, match=r"wide\.txt, line 2: byte 0x00 .*UTF-16, save it as UTF-8"):
        load_captions([path])


def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # Python sets None for a closed descriptor
    with pytest.raises(InputError, match="standard input is closed"):
        load_captions(["-"])


def test_non_ascii_text_is_unchanged(tmp_path: Path) -> None:
    text = "l'été — “cigales” 蝉 🦗"
    assert load_captions([write(tmp_path / "a.txt", text.encode())]).captions == [text]


def test_byte_that_is_not_utf_8_names_file_line_and_likely_cause(tmp_path: Path) -> None:
    path = write(tmp_path / "old.txt", b"a dog\nthe caf\xe9 is loud\n")
    with pytest.raises(InputError, match=r"old\.txt, line 2: byte 0xe9 is not UTF-8 .*cp1252"):
        load_captions([path])


def test_utf_16_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt is UTF-16 text \(save it as UTF-8\)"):
        load_captions([write(tmp_path / "a.txt", "a dog barks\n".encode("utf-16"))])


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b" \t\r\n"])
def test_file_without_captions_is_an_error(tmp_path: Path, content: bytes) -> None:
    good = write(tmp_path / "good.txt", b"a dog barks\n")
    with pytest.raises(InputError, match=r"empty\.txt has no captions"):
        load_captions([good, write(tmp_path / "empty.txt", content)])


def test_missing_file_and_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.txt does not exist"):
        load_captions([tmp_path / "nowhere.txt"])
    with pytest.raises(InputError, match="is a folder"):
        load_captions([tmp_path])
    with pytest.raises(InputError, match="no caption file was given"):
        load_captions([])


def test_long_line_is_cut_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.txt", b"short\n" + b"x" * 1000 + b"\n" + b"y" * 1001 + b"\n")
    loaded = load_captions([path])
    assert loaded.captions == ["short", "x" * 1000, "y" * 1000]
    assert caplog.messages == [f"{path}, line 3: cut from 1,001 to 1,000 characters"]


def test_dash_reads_standard_input_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("a dog\r\nthe café\n".encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", stdin)
    loaded = load_captions(["-"])
    assert loaded.captions == ["a dog", "the café"]
    assert loaded.files[0].name == "standard input"
    with pytest.raises(InputError, match="twice"):
        load_captions(["-", "-"])


@given(st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))), min_size=1))
def test_every_line_becomes_one_caption(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = write(tmp_path_factory.mktemp("any") / "a.txt", "\n".join(["first", *lines]).encode())
    expected = [line.lstrip("\ufeff").strip() for line in lines]
    assert load_captions([path]).captions == ["first", *(line for line in expected if line)]


CLOTHO = (
    b'file_name,caption_1,caption_2\r\nrain.wav,Rain falls,"Rain, on a roof"\r\ndog.wav,A dog barks,\r\n',
    ["Rain falls", "Rain, on a roof", "A dog barks"],
)
AUDIOCAPS = (
    b"audiocap_id,youtube_id,start_time,caption\n1,x,30,A man speaks\n2,y,40,A bell\n",
    ["A man speaks", "A bell"],
)
TSV = (b"file\tcaption\na.wav\tWind, and rain\n", ["Wind, and rain"])
JSON_LINES = (
    b'{"file": "a.wav", "captions": ["A dog", "A bark"]}\n\n{"audio": "b.wav", "caption": "Rain"}\n'
    b'{"caption_1": "Wind"}',
    ["A dog", "A bark", "Rain", "Wind"],
)
TABLES = {"clotho": CLOTHO, "audiocaps": AUDIOCAPS, "tsv": TSV, "jsonl": JSON_LINES}


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("name", ["captions.txt", "captions", "captions.csv", "captions.jsonl"])
def test_table_gives_all_captions_whatever_its_name(tmp_path: Path, form: str, name: str) -> None:
    content, captions = TABLES[form]
    for mark in (b"", b"\xef\xbb\xbf", b"\n"):
        loaded = load_captions([write(tmp_path / name, mark + content)])
        assert loaded.captions == captions
        assert loaded.files[0].sha256 == hashlib.sha256(mark + content).hexdigest()
        assert loaded.files[0].n_captions == len(captions)


def test_table_on_standard_input_and_with_a_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CLOTHO[0])))
    assert load_captions(["-"]).captions == CLOTHO[1]
    path = write(tmp_path / "a.csv", CLOTHO[0])
    loaded = load_captions([f"{path}:0.5"])
    assert (loaded.captions, loaded.files[0].weight) == (CLOTHO[1], 0.5)


@pytest.mark.parametrize(
    "content",
    [
        b"a dog barks, then a caption\nrain, wind\n",
        b"caption\nrain\n",
        b"caption,caption_1\nrain,x\n",
        b"[a dog barks]\nrain\n",
        b'{"text": "a dog"}\n',
        b"{a dog} barks\n",
        b"file and caption\n",
    ],
)
def test_text_that_is_no_known_table_is_read_by_lines(tmp_path: Path, content: bytes) -> None:
    assert load_captions([write(tmp_path / "a.txt", content)]).captions == content.decode().splitlines()


@pytest.mark.parametrize("form", TABLES)
def test_plain_text_takes_every_line(tmp_path: Path, form: str) -> None:
    content = TABLES[form][0]
    loaded = load_captions([write(tmp_path / "a.csv", content)], plain_text=True)
    assert loaded.captions == [line.replace("\t", " ") for line in content.decode().splitlines() if line]


def test_table_by_name_needs_captions_only(tmp_path: Path) -> None:
    assert load_captions([write(tmp_path / "a.csv", b"id;caption\n1;rain\n2;wind, rain\n")]).captions == [
        "rain",
        "wind, rain",
    ]
    assert load_captions([write(tmp_path / "a.json", b'[{"caption": "rain"},\n{"captions": ["wind"]}]')]).captions == [
        "rain",
        "wind",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"file,text\na.wav,rain\n",
            r"a\.csv, line 1: expected a column caption, .* found 'file', 'text' .*--plain-text",
        ),
        ("a.TSV", b"a dog barks\n", r"a\.TSV, line 1: expected a column caption, .*found 'a dog barks'"),
        ("a.jsonl", b'{"file": "a.wav", "text": "rain"}\n', r"a\.jsonl, line 1: expected .*found 'file', 'text'"),
        ("a.json", b'{"data": [{"caption": "rain"}]}', r"a\.json, line 1: expected .*found 'data'"),
        ("a.json", b'[{"caption": "rain"}, 5]', r"a\.json, item 2: expected an object with captions"),
        ("a.txt", b'{"caption": "rain"}\nrain\n', r"a\.txt, line 2: not valid JSON"),
        ("a.txt", b"file,caption\na.wav,rain,wind\n", r"a\.txt, line 2: expected 2 cells, found 3 .*quotes"),
        ("a.csv", b"file,caption\na.wav,\n", r"a\.csv has no captions"),
    ],
)
def test_table_that_cannot_be_used_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_captions([write(tmp_path / name, content)])


def test_few_or_equal_captions_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_few(500)
    assert not caplog.messages
    warn_of_few(1)
    warn_of_few(499)
    assert [message.split(":")[0] for message in caplog.messages] == [
        "all captions are alike",
        "only 499 distinct captions",
    ]
