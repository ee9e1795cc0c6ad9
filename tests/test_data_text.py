"""Text from outside made fit for a terminal and for UTF-8."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcap.data.text import printable


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
def test_printable_escapes_what_disturbs_and_keeps_the_rest(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_printable_is_one_line_of_utf_8(text: str) -> None:
    shown = printable(text)
    assert len(shown.encode("utf-8").decode("utf-8").splitlines()) <= 1
    assert printable(shown) == shown
