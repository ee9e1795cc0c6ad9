"""Read text files as UTF-8, and escape text so that it can be printed and stored.

All files of captions, pairs, references and predictions are read here, so that encodings, byte order marks and line
ends are treated the same everywhere and every error names the line.
"""

import hashlib
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from textcap.errors import FileError, InputError
from textcap.files import unreadable

STDIN = "-"
# Unlike str.splitlines, this does not split at U+2028 and similar characters, which occur in captions.
LINE_ENDS = re.compile(r"\r\n|\n|\r")

MAX_BYTES = 4 << 30  # of a text file; a pipe may have no end
PIPE_WAIT_S = 10.0  # for a program that opens the other end of a named pipe

_BLOCK_BYTES = 1 << 20
_BOM = "\ufeff"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# Characters that end or garble a line in some programs (C0, DEL, C1 and Unicode's two separators), invisible ones and
# those that reorder the text around them (but not the two joiners, which Persian and emoji need), and surrogates, which
# UTF-8 cannot encode: Python uses them for the bytes of a file name that are not UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


@dataclass(frozen=True)
class TextFile:
    """The text of a file, without a byte order mark."""

    name: str  # the path, or "standard input", as shown in messages
    text: str
    sha256: str  # of the file's bytes, in hexadecimal

    def error(self, place: int | str, message: str, *, hint: str | None = None) -> InputError:
        """Return an error that names the file and a place in it: a line, counted from 1, or a text such as "item 3"."""
        where = f"line {place}" if isinstance(place, int) else place
        return InputError(f"{self.name}, {where}: {message}", hint=hint)


def read_text(path: str | Path) -> TextFile:
    """Read a whole UTF-8 text file and keep its line ends.

    Args:
        path: The file; "-" is standard input.

    Raises:
        InputError: The file cannot be read, or is not UTF-8 text; the message names the line.
    """
    reader = TextReader(path)
    text = "".join(reader.chunks())
    return TextFile(reader.name, text, reader.sha256)


class TextReader:
    """Reads a UTF-8 text file once, in pieces.

    Attributes:
        path: The path as given.
        name: The path, or "standard input", as shown in messages.

    Args:
        path: The file; "-" is standard input.
        copy: A copy of it to read instead.
    """

    def __init__(self, path: str | Path, copy: Path | None = None) -> None:
        self.path = str(path if copy is None else copy)
        self.name = "standard input" if str(path) == STDIN else str(path)
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes read so far, in hexadecimal."""
        return self._digest.hexdigest()

    def lines(self, chunks: Iterable[str] | None = None) -> Iterator[tuple[int, str]]:
        r"""Yield each line with its number, counted from 1.

        A line ends with `\n`, `\r\n` or, as on old Macs, `\r`.

        Args:
            chunks: What `chunks` has yielded and will yield, if it was called before.

        Raises:
            InputError: The same errors as `read_text`.
        """
        number = 0
        for chunk in self.chunks() if chunks is None else chunks:
            for line in LINE_ENDS.split(re.sub(r"(\r\n|\n|\r)\Z", "", chunk)):
                number += 1
                yield number, line

    def chunks(self) -> Iterator[str]:
        r"""Yield the text in pieces that end with `\n`, except perhaps the last one.

        Raises:
            InputError: The same errors as `read_text`.
        """
        n_lines = 0
        for raw in self.pieces():
            self._digest.update(raw)
            chunk = self._decode(raw, n_lines)
            yield chunk.removeprefix(_BOM) if not n_lines else chunk
            n_lines += _count_line_ends(raw)

    def pieces(self) -> Iterator[bytes]:
        r"""Yield the bytes in pieces of whole lines, which end with `\n` except perhaps the last one.

        Raises:
            InputError: The file cannot be read, is too large, or is standard input and closed.
        """
        n_bytes, pending = 0, b""
        if self.path == STDIN and (sys.stdin is None or sys.stdin.closed):
            raise InputError("standard input is closed", hint="name a file, or pipe text into the command")
        with nullcontext(sys.stdin.buffer) if self.path == STDIN else open_input(self.path) as file:
            while block := self._read(file):
                n_bytes += len(block)
                if n_bytes > MAX_BYTES:
                    raise FileError(self.name, f"has more than {MAX_BYTES:,} bytes", hint="split it into several files")
                lines, end, rest = block.rpartition(b"\n")
                if end:
                    yield pending + lines + end
                    pending = rest
                else:
                    pending += block
        if pending:
            yield pending

    def _read(self, file: BinaryIO) -> bytes:
        try:
            return file.read(_BLOCK_BYTES)
        except OSError as error:
            raise unreadable(self.name, error) from error

    def _decode(self, raw: bytes, n_lines_before: int) -> str:
        if not n_lines_before and raw.startswith(_UTF_16_MARKS):
            raise InputError(f"{self.name} is UTF-16 text", hint="save it as UTF-8")
        nul = raw.find(b"\0")
        place, problem, guess = nul, "byte 0x00 does not belong in text", "UTF-16"
        try:
            text = raw.decode("utf-8")
            if nul < 0:
                return text
        except UnicodeDecodeError as error:
            line_end = raw.find(b"\n", error.start)
            if nul < 0 or nul > line_end >= 0:  # the NUL, if there is one, is in a later line
                place, guess = error.start, "cp1252"
                problem = f"byte 0x{raw[place]:02x} is not UTF-8"
        line = n_lines_before + _count_line_ends(raw[:place]) + 1
        hint = f"if the file is {guess}, save it as UTF-8"
        raise InputError(f"{self.name}, line {line}: {problem}", hint=hint)


def open_input(path: str | Path) -> BinaryIO:
    """Open a file that a user named for reading; a pipe will do, a device or a folder will not.

    Raises:
        FileError: It does not exist, cannot be read, is a device, or is a named pipe that no program opens for writing
            within `PIPE_WAIT_S`.
        InputError: The name is not one that a file can have.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise FileError(path, "is a device, but must be a file or a pipe")
        return _open_pipe(path) if stat.S_ISFIFO(mode) else open(path, "rb")
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:  # the name contains a NUL or a lone surrogate
        raise InputError(f"{str(path)!r} is not a valid file name") from error


def _open_pipe(path: str | Path) -> BinaryIO:
    opened: list[BinaryIO] = []
    thread = threading.Thread(target=lambda: opened.append(open(path, "rb")), daemon=True)
    thread.start()
    thread.join(PIPE_WAIT_S)
    if thread.is_alive():
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # lets the thread go on
        thread.join()
        opened[0].close()
        raise FileError(path, f"is a pipe that no program has written to for {PIPE_WAIT_S:g} s")
    return opened[0]


def printable(text: str) -> str:
    r"""Return the text with characters escaped that control, hide or reorder text, as in `\x1b`, and surrogates.

    The result is a single line of valid UTF-8. A byte of a file name that is not UTF-8 appears as that byte, as in
    `\xe9`.
    """
    return _UNPRINTABLE.sub(_escape, text)


def counted(n: int, noun: str) -> str:
    """Return a number and a noun with a regular plural, as in "1 file" and "1,200 files"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def escape_json(json_text: str) -> str:
    """Return JSON text with the same values, in which what `printable` escapes is escaped as JSON does; `\\n` stays."""
    return _UNPRINTABLE.sub(lambda match: json.dumps(match[0])[1:-1] if match[0] != "\n" else "\n", json_text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _count_line_ends(raw: bytes) -> int:
    return raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
