r"""Captions as the Java programs can take them: one line each, with nothing that one of them reads as a sign.

Knows no program and no metric. Returns as many captions as it is given.
"""

import re
from collections.abc import Iterable

# Everything that Python or Java takes for the end of a line, all other control characters but the tab, and
# surrogates, which UTF-8 cannot hold.
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
_BARS = re.compile(r"\|{3,}")  # three separate captions in what METEOR reads


def clean(caption: str) -> str:
    """Return a caption with a space for each line end, control character and `|||`, and no surrogate."""
    return _SURROGATES.sub("\ufffd", _BARS.sub(" ", _CONTROLS.sub(" ", caption)))


def clean_all(captions: Iterable[str]) -> tuple[list[str], int]:
    """Return the captions cleaned, and how many of them changed.

    A line end after the last word changes nothing that is scored and does not count.
    """
    captions = list(captions)
    cleaned = [clean(caption) for caption in captions]
    return cleaned, sum(new.strip() != old.strip() for old, new in zip(captions, cleaned, strict=True))
