"""Reading text files in every encoding and with every line end, and escaping text for terminals and UTF-8."""

import hashlib
import io
import json
import os
import re
import sys
import threading
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import textcap.data.text as text_module
from textcap.data.text import TextReader, counted, escape_json, printable, read_text
from textcap.errors import FileError, InputError

BOM = b"\xef\xbb\xbf"
LINE_ENDS = ("\n", "\r\n", "\r")
# Any text that UTF-8 can encode, except NULs, which are an error, and byte order marks, which may be removed.
_LINES = st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\n\ufeff"), max_size=9))
_TEXTS = st.builds(
    lambda lines, ends: "".join(chain.from_iterable(zip(lines, ends, strict=False))),
    _LINES,
    st.lists(st.sampled_from(LINE_ENDS), min_size=40, max_size=40),
)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read_lines(path: Path) -> list[tuple[int, str]]:
    return list(TextReader(path).lines())


def set_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes, encoding: str = "ascii") -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding=encoding))


@pytest.mark.parametrize("end", LINE_ENDS)
def test_byte_order_mark_is_removed_and_line_ends_are_kept(tmp_path: Path, end: str) -> None:
    text = f"a dog barks{end}{end}the café is loud{end}"
    path = write(tmp_path / "a.txt", BOM + text.encode())
    read = read_text(path)
    assert read.text == text
    assert read.name == str(path)
    assert read.sha256 == hashlib.sha256(BOM + text.encode()).hexdigest()
    assert read_lines(path) == [(1, "a dog barks"), (2, ""), (3, "the café is loud")]


def test_only_one_byte_order_mark_at_the_start_is_removed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", BOM + BOM + b"a\n" + BOM + b"b")
    assert read_text(path).text == "\ufeffa\n\ufeffb"
    assert read_lines(path) == [(1, "\ufeffa"), (2, "\ufeffb")]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (BOM, [""]),
        (b"a", ["a"]),
        (b"\n", [""]),
        (b"\r", [""]),
        (b"a\r\r\nb", ["a", "", "b"]),
        (b"a\n\rb", ["a", "", "b"]),
        (b"a\rb\nc\r\nd", ["a", "b", "c", "d"]),
        (b"a\n\n\n", ["a", "", ""]),
        ("a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\n".encode(), ["a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"]),
    ],
)
def test_lines_end_at_lf_crlf_and_cr_only(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    assert read_lines(write(tmp_path / "a.txt", content)) == list(enumerate(lines, start=1))


@given(text=_TEXTS, last=st.text("a\u2028é犬", max_size=3), mark=st.booleans())
def test_lines_and_chunks_equal_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, last: str, mark: bool
) -> None:
    content = (BOM if mark else b"") + (text + last).encode()
    path = write(tmp_path_factory.mktemp("text") / "a.txt", content)
    assert read_text(path).text == "".join(TextReader(path).chunks()) == text + last
    expected = re.split(r"\r\n|\r|\n", text + last)
    if not last and (text or not mark):
        expected.pop()  # a line end ends the last line and does not begin another
    assert read_lines(path) == list(enumerate(expected, start=1))


def test_hash_covers_the_bytes_as_they_are(tmp_path: Path) -> None:
    reader = TextReader(write(tmp_path / "a.txt", BOM + b"a\r\nb\r\n"))
    assert reader.sha256 == hashlib.sha256().hexdigest()
    assert "".join(reader.chunks()) == "a\r\nb\r\n"
    assert reader.sha256 == hashlib.sha256(BOM + b"a\r\nb\r\n").hexdigest()


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7])
def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    content = BOM + "a dog\r\nthe café\r犬\n\nlast".encode()
    path = write(tmp_path / "a.txt", content)
    whole = list(TextReader(path).lines())
    monkeypatch.setattr(text_module, "_BLOCK_BYTES", block_bytes)
    assert list(TextReader(path).lines()) == whole
    assert whole == [(1, "a dog"), (2, "the café"), (3, "犬"), (4, ""), (5, "last")]


def test_text_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MAX_BYTES", 10)
    assert read_text(write(tmp_path / "a.txt", b"ten bytes\n")).text == "ten bytes\n"
    with pytest.raises(FileError, match="b.txt has more than 10 bytes"):
        read_text(write(tmp_path / "b.txt", b"eleven byte\n"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_read_if_a_program_writes_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"a dog\n"))
    writer.start()
    assert read_text(pipe).text == "a dog\n"
    writer.join()
    monkeypatch.setattr(text_module, "PIPE_WAIT_S", 0.1)
    with pytest.raises(FileError, match="is a pipe that no program has written to for 0.1 s"):
        read_text(pipe)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs devices")
def test_devices_are_refused() -> None:
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(FileError, match="is a device, but must be a file or a pipe"):
            read_text(device)


@given(
    before=_TEXTS, bad=st.sampled_from([b"\xe9", b"caf\xe9 is loud", b"\xc3", b"\x80\n", b"\xed\xa0\x80", b"\xff\xfe"])
)
def test_byte_that_is_not_utf_8_is_named_with_its_line(
    tmp_path_factory: pytest.TempPathFactory, before: str, bad: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("text") / "a.txt", b"a" + before.encode() + bad + b"\nmore\n")
    line = len(re.split(r"\r\n|\r|\n", before))
    byte = next(byte for byte in bad if byte >= 0x80)
    message = f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8 (if the file is cp1252, save it as UTF-8)"
    with pytest.raises(InputError) as caught:
        read_text(path)
    assert str(caught.value) == message
    with pytest.raises(InputError) as caught:
        read_lines(path)
    assert str(caught.value) == message


@pytest.mark.parametrize("end", [*LINE_ENDS, "\r\r\n"])
@pytest.mark.parametrize(("bad", "problem"), [("é", "byte 0xe9 is not UTF-8 .*cp1252"), ("\0", "byte 0x00 .*UTF-16")])
def test_line_of_a_bad_byte_is_right_for_every_line_end(tmp_path: Path, end: str, bad: str, problem: str) -> None:
    text = end.join(["first", "", "third", f"x{bad}", "last", ""])
    path = write(tmp_path / "a.txt", text.encode("cp1252"))
    line = 7 if end == "\r\r\n" else 4
    with pytest.raises(InputError, match=f"a.txt, line {line}: {problem}"):
        read_text(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_nul_is_an_error_with_its_line(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "wide.txt", b"a dog barks\rrain\r" + "é\n".encode(encoding) + b"\xe9")
    with pytest.raises(InputError, match=r"wide\.txt, line 3: byte 0x00 .*\(if the file is UTF-16, save it as UTF-8\)"):
        read_text(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["", "a dog barks\n", "\n", "犬"])
def test_utf_16_with_a_byte_order_mark_is_recognised(tmp_path: Path, encoding: str, text: str) -> None:
    path = write(tmp_path / "a.txt", f"\ufeff{text}".encode(encoding))
    with pytest.raises(InputError) as caught:
        read_text(path)
    assert str(caught.value) == f"{path} is UTF-16 text (save it as UTF-8)"


def test_standard_input_is_read_as_bytes_whatever_its_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    content = BOM + "a dog\r\nthe café\r犬".encode()
    set_stdin(monkeypatch, content)
    read = read_text("-")
    assert (read.name, read.text) == ("standard input", "a dog\r\nthe café\r犬")
    assert read.sha256 == hashlib.sha256(content).hexdigest()
    set_stdin(monkeypatch, b"a\rcaf\xe9", encoding="cp1252")
    with pytest.raises(InputError, match="^standard input, line 2: byte 0xe9 is not UTF-8"):
        read_text("-")


def test_standard_input_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    set_stdin(monkeypatch, b"a\n")
    assert list(TextReader(Path("-")).lines()) == [(1, "a")]
    assert not sys.stdin.buffer.closed


@pytest.mark.parametrize("closed", [True, False])
def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"a\n"))
    stdin.close()
    monkeypatch.setattr(sys, "stdin", stdin if closed else None)  # Python sets None for a closed descriptor
    for read in (read_text, read_lines):
        with pytest.raises(InputError, match="^standard input is closed .*pipe"):
            read(Path("-"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.txt", "nowhere.txt does not exist$"),
        (".", "is a folder .name the files in it"),
        ("n" * 5000, "cannot be read: File name too long$"),
        ("nul\0.txt", r"nul\\x00.txt' is not a valid file name$"),
        ("half\ud800.txt", r"half\\ud800.txt' is not a valid file name$"),
    ],
)
def test_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_text(f"{tmp_path}/{name}")


def test_error_names_file_line_and_hint(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"a\n")
    assert (
        str(read_text(path).error(7, "expected a tab", hint="use tabs")) == f"{path}, line 7: expected a tab (use tabs)"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog barks", "a dog barks"),
        ("Häuser, 犬, 🐕", "Häuser, 犬, 🐕"),
        ("no-break\u00a0space", "no-break\u00a0space"),
        ("a\x1b[31mb\x00", "a\\x1b[31mb\\x00"),
        ("tab\tline\r\n", "tab\\x09line\\x0d\\x0a"),
        ("\x7f\x80\x9f", "\\x7f\\x80\\x9f"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        (os.fsdecode(b"caf\xe9.txt"), "caf\\xe9.txt"),
        ("\ud83d alone", "\\ud83d alone"),
    ],
)
def test_printable_escapes_controls_and_surrogates_only(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_printable_is_one_line_of_utf_8(text: str) -> None:
    shown = printable(text)
    assert len(shown.encode("utf-8").decode("utf-8").splitlines()) <= 1
    assert printable(shown) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_json_with_escaped_surrogates_is_utf_8_with_the_same_value(text: str) -> None:
    escaped = escape_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(escaped.encode("utf-8")) == json.loads(json.dumps(text))


@pytest.mark.parametrize(("n", "shown"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1200, "1,200 files")])
def test_counted_uses_the_plural_unless_the_count_is_1(n: int, shown: str) -> None:
    assert counted(n, "file") == shown


@pytest.mark.parametrize("name", ["gnp.\u202egpj", "a\u200bb", "a\u2066b", "a\u00adb", "a\ufeffb", "a\U000e0041b"])
def test_characters_that_hide_or_reorder_text_are_escaped(name: str) -> None:
    shown = printable(name)
    assert shown.isascii() and "\\" in shown


def test_characters_that_scripts_and_emoji_need_are_kept() -> None:
    for text in ("می\u200cخواهم", "👩\u200d🚒", "café", "犬", "🐕"):
        assert printable(text) == text


@given(st.text(st.characters(exclude_categories=())))
def test_escaped_json_has_nothing_left_that_a_terminal_obeys(text: str) -> None:
    escaped = escape_json(json.dumps([text], ensure_ascii=False, indent=1))
    assert [printable(line) for line in escaped.split("\n")] == escaped.split("\n")
    assert json.loads(escaped) == json.loads(json.dumps([text]))
