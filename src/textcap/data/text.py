"""Text from outside: read files as UTF-8, and make text safe to show and to record.

Every file of captions, pairs, references or predictions is read here, so that encodings, byte order marks and line ends
are treated alike everywhere, and what is wrong with a file is always named with its line.
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
# str.splitlines would also cut at U+2028 and the like, which captions hold.
LINE_ENDS = re.compile(r"\r\n|\n|\r")

_BOM = "\ufeff"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# What ends or disturbs a line for some reader (C0, DEL, C1 and Unicode's two separators), and surrogates, which
# UTF-8 cannot hold: Python puts them into names for bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class TextFile:
    """The text of a file, without a byte order mark."""

    name: str  # as messages show it
    text: str
    sha256: str  # of the file's bytes, in hexadecimal

    def error(self, line: int, message: str, *, hint: str | None = None) -> InputError:
        """Return the error to raise for a line, counted from 1."""
        return InputError(f"{self.name}, line {line}: {message}", hint=hint)


def read_text(path: str | Path) -> TextFile:
    """Read a whole text file in UTF-8, line ends kept.

    Args:
        path: The file; "-" is standard input.

    Raises:
        InputError: The file cannot be read, or it is not UTF-8; the line is named.
    """
    reader = TextReader(path)
    text = "".join(reader.chunks())
    return TextFile(reader.name, text, reader.sha256)


class TextReader:
    """Reads a text file in UTF-8 piece by piece, once.

    Attributes:
        name: The file as messages show it.

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
        r"""Yield each line with its number from 1; lines end with `\n`, `\r\n` or, as on old Macs, `\r`.

        Raises:
            InputError: As `read_text` does.
        """
        number = 0
        for chunk in self.chunks():
            for line in LINE_ENDS.split(re.sub(r"(\r\n|\n|\r)\Z", "", chunk)):
                number += 1
                yield number, line

    def chunks(self) -> Iterator[str]:
        r"""Yield the text in pieces that end with `\n`, the last one perhaps without.

        Raises:
            InputError: As `read_text` does.
        """
        n_lines = 0
        try:
            with self._open() as file:
                for raw in file:
                    self._digest.update(raw)
                    chunk = self._decode(raw, n_lines)
                    yield chunk.removeprefix(_BOM) if not n_lines else chunk
                    n_lines += _count_line_ends(raw)
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
            if isinstance(error, UnicodeError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise FileError(self.name, f"cannot be read: {reason}") from error

    def _open(self) -> Any:
        if self.path != STDIN:
            return open(self.path, "rb")
        if sys.stdin is None or sys.stdin.closed:
            raise InputError("standard input is closed", hint="name a file, or send text through a pipe")
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
    r"""Return text with control characters and surrogates escaped, as in `\x1b`, and everything else kept.

    The result is one line that any reader of UTF-8 accepts. A byte of a file name that is not UTF-8 is shown as that
    byte, as in `\xe9`.
    """
    return _UNPRINTABLE.sub(_escape, text)


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, as in "1 file" and "1,200 files"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def escape_surrogates(json_text: str) -> str:
    """Return a JSON text that stands for the same values and can be encoded as UTF-8."""
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match.group()):04x}", json_text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _count_line_ends(raw: bytes) -> int:
    return raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
