"""Text from outside (file names, commands, captions) as it may be shown and recorded.

Knows no files and no terminal. What comes back is one line that any reader of UTF-8 takes.
"""

import re

# What ends or disturbs a line for some reader (C0, DEL, C1 and Unicode's two separators), and surrogates, which
# UTF-8 cannot hold: Python puts them into names for bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return text with its control characters and surrogates escaped, as in `\x1b`, and all else kept.

    A byte of a file name that is not UTF-8 is shown as that byte, as in `\xe9`.
    """
    return _UNPRINTABLE.sub(_escape, text)


def escape_surrogates(json_text: str) -> str:
    """Return a JSON text that UTF-8 can hold and that stands for the same values."""
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match.group()):04x}", json_text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
