"""Write the pieces of a time line as SubRip and WebVTT subtitles, and as a label track of Audacity.

Captions are text from a model. They are escaped here so that no program takes a part of them for markup or timing.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textcap.data.text import printable
from textcap.results import Piece

LINE_CHARACTERS = 42
CUE_LINES = 2
SHORTEST_MS, LONGEST_MS = 1000, 7000

# SubRip has no escapes, so what players take for a tag or an arrow is replaced by what looks much the same.
_SRT_SAFE = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})
# Some readers take any line with two times for the start of a cue: the colon between digits becomes a ratio sign.
_CLOCK = re.compile(r"(?<=\d):(?=\d)")
_VTT_SAFE = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True)
class Cue:
    """What a subtitle shows at once."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]  # not escaped; none is empty or longer than LINE_CHARACTERS


def srt(pieces: Sequence[Piece], *, brackets: bool = False) -> str:
    """Return the pieces as SubRip subtitles; see `lay_out`."""
    return "\n".join(f"{i}\n{srt_cue(cue)}" for i, cue in enumerate(lay_out(pieces, brackets=brackets), 1))


def vtt(pieces: Sequence[Piece], *, brackets: bool = False) -> str:
    """Return the pieces as WebVTT subtitles; see `lay_out`."""
    return "\n".join(["WEBVTT\n", *map(vtt_cue, lay_out(pieces, brackets=brackets))])


def audacity(pieces: Iterable[Piece], *, brackets: bool = False) -> str:
    """Return the pieces as a label track of Audacity: start and end in seconds and the whole caption, with tabs."""
    labels = ((piece, _wording(piece, brackets)) for piece in pieces)
    return "".join(f"{piece.start_s:.6f}\t{piece.end_s:.6f}\t{text}\n" for piece, text in labels if text)


def lay_out(pieces: Sequence[Piece], *, brackets: bool = False) -> list[Cue]:
    """Return the cues that show the captions of pieces.

    A cue has at most two lines of 42 characters. It is shown from the start of its piece for the length of the piece,
    but no longer than 7 s: a viewer has read it by then, and the picture is free again while the sound goes on. A
    caption that needs more room continues in cues of the same length within its piece, each of 1 s or more. Where there
    is no time for them, it ends with an ellipsis. A piece under 1 s is shown for 1 s if the next piece is not in the
    way. A word is broken only if it is longer than a line.

    Args:
        pieces: In order, not overlapping. Those with an empty caption have no cue.
        brackets: Write `[a dog is barking]`, as is usual for sounds in subtitles.

    Returns:
        The cues in order, not overlapping.
    """
    shown = [(round(p.start_s * 1000), round(p.end_s * 1000), text) for p in pieces if (text := _wording(p, brackets))]
    cues = []
    for i, (start_ms, end_ms, text) in enumerate(shown):
        next_ms = shown[i + 1][0] if i + 1 < len(shown) else start_ms + SHORTEST_MS
        length_ms = max(end_ms, min(start_ms + SHORTEST_MS, next_ms)) - start_ms
        lines = textwrap.wrap(
            text,
            LINE_CHARACTERS,
            max_lines=CUE_LINES * max(1, length_ms // SHORTEST_MS),
            placeholder="…]" if brackets else "…",
            break_on_hyphens=False,
        )
        each_ms = min(LONGEST_MS, length_ms * CUE_LINES // (len(lines) + len(lines) % CUE_LINES))
        if each_ms <= 0:  # no time at all
            continue
        for line in range(0, len(lines), CUE_LINES):
            cues.append(Cue(start_ms, start_ms + each_ms, tuple(lines[line : line + CUE_LINES])))
            start_ms += each_ms
    return cues


def bracketed(caption: str) -> str:
    """Return a caption as subtitles word sounds: in brackets, without a capital at the start and a full stop."""
    caption = caption.strip().removesuffix(".")
    first = caption.partition(" ")[0]
    if first == "A" or first[1:].islower():  # and not "TV" or "I"
        caption = caption[0].lower() + caption[1:]
    return f"[{caption}]"


def srt_cue(cue: Cue) -> str:
    """Return a cue of a SubRip file, without the number before it and the blank line after it."""
    return _cue(cue, ",", _SRT_SAFE)


def vtt_cue(cue: Cue) -> str:
    """Return a cue of a WebVTT file, without the blank line after it."""
    return _cue(cue, ".", _VTT_SAFE)


def _cue(cue: Cue, point: str, safe: dict[int, str]) -> str:
    timing = f"{_time(cue.start_ms, point)} --> {_time(cue.end_ms, point)}"
    return "".join(f"{line}\n" for line in (timing, *(_CLOCK.sub("∶", line).translate(safe) for line in cue.lines)))


def _time(ms: int, point: str) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


def _wording(piece: Piece, brackets: bool) -> str:
    """Return the caption as one printable line, or an empty text if it has no words."""
    caption = printable(" ".join(piece.caption.split()))
    return bracketed(caption) if brackets and caption else caption
