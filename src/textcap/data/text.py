"""Read text files as UTF-8, and escape text so that it can be printed and stored.

All files of captions, pairs, references and predictions are read here, so that encodings, byte order marks and line
ends are treated the same everywhere and every error names the line.
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textcap.errors import FileError, InputError

STDIN = "-"
# Unlike str.splitlines, this does not split at U+2028 and similar characters, which occur in captions.
LINE_ENDS = re.compile(r"\r\n|\n|\r")

_BOM = "\ufeff"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# Characters that end or garble a line in some programs (C0, DEL, C1 and Unicode's two separators), and surrogates,
# which UTF-8 cannot encode: Python uses them for the bytes of a file name that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class TextFile:
    """The text of a file, without a byte order mark."""

    name: str  # the path, or "standard input", as shown in messages
    text: str
    sha256: str  # of the file's bytes, in hexadecimal

    def error(self, line: int, message: str, *, hint: str | None = None) -> InputError:
        """Return an error that names the file and a line, counted from 1."""
        return InputError(f"{self.name}, line {line}: {message}", hint=hint)


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
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.name = "standard input" if self.path == STDIN else self.path
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes read so far, in hexadecimal."""
        return self._digest.hexdigest()

    def lines(self) -> Iterator[tuple[int, str]]:
        r"""Yield each line with its number, counted from 1.

        A line ends with `\n`, `\r\n` or, as on old Macs, `\r`.

        Raises:
            InputError: The same errors as `read_text`.
        """
        number = 0
        for chunk in self.chunks():
            for line in LINE_ENDS.split(re.sub(r"(\r\n|\n|\r)\Z", "", chunk)):
                number += 1
                yield number, line

    def chunks(self) -> Iterator[str]:
        r"""Yield the text in pieces that end with `\n`, except perhaps the last one.

        Raises:
            InputError: The same errors as `read_text`.
        """
        n_lines = 0
        try:
            with self._open() as file:
                for raw in file:
                    self._digest.update(raw)
                    chunk = self._decode(raw, n_lines)
                    yield chunk.removeprefix(_BOM) if not n_lines else chunk
                    n_lines += _count_line_ends(raw)
        except OSError as error:
            raise FileError(self.name, f"cannot be read: {error.strerror or error}") from error

    def _open(self) -> Any:
        if self.path != STDIN:
            try:
                return open(self.path, "rb")
            except ValueError as error:  # the name contains a NUL or a lone surrogate
                raise InputError(f"{self.name!r} is not a valid file name") from error
        if sys.stdin is None or sys.stdin.closed:
            raise InputError("standard input is closed", hint="name a file, or pipe text into the command")
        return nullcontext(sys.stdin.buffer)

    def _decode(self, raw: bytes, n_lines_before: int) -> str:
        if not n_lines_before and raw.startswith(_UTF_16_MARKS):
            raise InputError(f"{self.name} is UTF-16 text", hint="save it as UTF-8")
        try:
            if (nul := raw.find(b"\0")) < 0:
                return raw.decode("utf-8")
            place, problem, guess = nul, "byte 0x00 does not belong in text", "UTF-16"
        except UnicodeDecodeError as error:
            place, guess = error.start, "cp1252"
            problem = f"byte 0x{raw[place]:02x} is not UTF-8"
        line = n_lines_before + _count_line_ends(raw[:place]) + 1
        hint = f"if the file is {guess}, save it as UTF-8"
        raise InputError(f"{self.name}, line {line}: {problem}", hint=hint)


def printable(text: str) -> str:
    r"""Return the text with control characters and surrogates escaped, as in `\x1b`, and everything else unchanged.

    The result is a single line of valid UTF-8. A byte of a file name that is not UTF-8 appears as that byte, as in
    `\xe9`.
    """
    return _UNPRINTABLE.sub(_escape, text)


def counted(n: int, noun: str) -> str:
    """Return a number and a noun with a regular plural, as in "1 file" and "1,200 files"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def escape_surrogates(json_text: str) -> str:
    """Return JSON text with the same values and with surrogates escaped, so that UTF-8 can encode it."""
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match.group()):04x}", json_text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _count_line_ends(raw: bytes) -> int:
    return raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
