"""Make captions safe for the Java programs, which read one caption per line and `|||` as a separator."""

import re
from collections.abc import Iterable

# All characters that Python or Java treats as a line end, and all other control characters except the tab.
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATES = re.compile("[\ud800-\udfff]")  # cannot be encoded as UTF-8
_BARS = re.compile(r"\|{3,}")  # METEOR reads three bars as a separator between captions


def clean(caption: str) -> str:
    """Return a caption with spaces in place of line ends, control characters and `|||`, and U+FFFD for surrogates."""
    return _SURROGATES.sub("\ufffd", _BARS.sub(" ", _CONTROLS.sub(" ", caption)))


def clean_all(captions: Iterable[str]) -> tuple[list[str], int]:
    """Return the cleaned captions, and how many of them changed.

    A change at the start or end of a caption, such as a final line end, does not affect scores and is not counted.
    """
    captions = list(captions)
    cleaned = [clean(caption) for caption in captions]
    return cleaned, sum(new.strip() != old.strip() for old, new in zip(captions, cleaned, strict=True))
