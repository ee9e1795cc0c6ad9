"""Put sound lines into an existing subtitle file, and leave everything else in it as it is.

Only the timing lines are parsed. All else stays raw text, so that nothing is lost that a reader of subtitles would drop
or reword: settings, styles, regions, notes, tags, blank lines and line ends.
"""

import hashlib
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from textcap.data.text import LINE_ENDS, TextFile, printable
from textcap.outputs.subtitles import SHORTEST_MS, lay_out, srt_cue, vtt_cue
from textcap.results import Piece

_TIME = r"(?:([0-9]{1,6}):)?([0-9]{1,2}):([0-9]{1,2})[,.]([0-9]{1,3})"
# As lenient as players are: a comma or a point in both forms, and hours or none.
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s|$)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$")
_SIGNATURE = re.compile(r"WEBVTT(?:\s|$)")
_NEVER_MS = 2**62

_Times = tuple[int, int]  # start and end in ms


@dataclass(frozen=True)
class _Block:
    """A cue with the lines that belong to it, such as a number, or a note before it."""

    lines: list[str]  # with their line ends
    timing: int  # which of them is the timing line
    times_ms: _Times
    is_new: bool = False


def merge_subtitles(
    existing: TextFile,
    form: Literal["srt", "vtt"],
    pieces: Sequence[Piece],
    *,
    brackets: bool = False,
    over_speech: bool = False,
) -> str:
    """Return a subtitle file with the captions of pieces added where it has no cues of its own.

    The caption of a piece is shown in the first gap between the existing cues that has 1 s or more within the piece,
    laid out as by `subtitles.lay_out`. What is there stays as it is, but for the numbers of SubRip's cues, and for a
    blank line where one is missing beside a new cue.

    Args:
        existing: The subtitle file, as `data.text.read_text` returns it. It may be empty.
        pieces: In order, not overlapping.
        brackets: Write `[a dog is barking]`.
        over_speech: Whether a caption that finds no gap is shown nevertheless, from the start of its piece and at the
            same time as existing cues. Otherwise it is left out.

    Returns:
        The text of the new file, with a byte order mark if there was one.

    Raises:
        InputError: The file does not have this form; the message names the line.
    """
    head, blocks = _split(existing, form)
    found = LINE_ENDS.search(existing.text)
    line_end = found[0] if found else "\n"
    merged: list[_Block] = []
    cues = lay_out(_in_gaps(pieces, [block.times_ms for block in blocks], over_speech), brackets=brackets)
    waiting = deque((cue.start_ms, (srt_cue if form == "srt" else vtt_cue)(cue)) for cue in cues)
    for block in [*blocks, None]:
        while waiting and (block is None or waiting[0][0] < block.times_ms[0]):
            start_ms, text = waiting.popleft()
            merged.append(_Block([text.replace("\n", line_end)], 0, (start_ms, start_ms), is_new=True))
        if block is not None:
            merged.append(block)
    if form == "vtt" and not head:
        head = f"WEBVTT{line_end}"
    had_mark = hashlib.sha256(existing.text.encode()).hexdigest() != existing.sha256
    return "\ufeff" * had_mark + _join(head, merged, line_end, numbered=form == "srt")


def _split(file: TextFile, form: str) -> tuple[str, list[_Block]]:
    """Return the text before the first cue, and a block for each cue; together they are the whole file."""
    lines = _LINE.findall(file.text)
    if bool(_SIGNATURE.match(file.text)) != (form == "vtt") and file.text.strip():
        problem = (
            "does not start with WEBVTT" if form == "vtt" else "starts with WEBVTT, but the file is read as SubRip"
        )
        raise file.error(1, problem, hint="a SubRip file is named .srt, a WebVTT file .vtt")
    timings = {i: _read_times(file, i + 1, line) for i, line in enumerate(lines) if "-->" in line}
    if form == "srt" and not timings and file.text.strip():
        raise file.error(1, "no line with times, such as 00:00:01,000 --> 00:00:03,500, in this line or below")
    starts = [_block_start(lines, timing, previous, form) for previous, timing in pairwise((-1, *timings))]
    stops = [*starts, len(lines)][1:]
    blocks = [
        _Block(lines[start:stop], timing - start, times_ms)
        for start, stop, (timing, times_ms) in zip(starts, stops, timings.items(), strict=True)
    ]
    return "".join(lines[: starts[0]] if starts else lines), blocks


def _block_start(lines: Sequence[str], timing: int, previous: int, form: str) -> int:
    """Return the first line of the block with this timing line; `previous` is the timing line before, or -1."""
    if form == "srt":
        has_number = timing - 1 > previous and re.fullmatch(r"\s*[0-9]+\s*", lines[timing - 1])
        return timing - 1 if has_number else timing
    is_blank = [not line.strip("\r\n") for line in lines[previous + 1 : timing]]
    if True not in is_blank:
        return timing
    # Notes between two cues go with the second one. Before the first cue, styles and regions stay at the head.
    blank = is_blank.index(True) if previous >= 0 else len(is_blank) - 1 - is_blank[::-1].index(True)
    return next(i for i in range(previous + 1 + blank, timing + 1) if i == timing or lines[i].strip("\r\n"))


def _read_times(file: TextFile, number: int, line: str) -> _Times:
    match = _TIMING.match(line)
    if match is None:
        problem = f"{printable(line.strip()[:60])} has no times as in 00:00:01,000 --> 00:00:03,500"
        raise file.error(number, problem, hint="repair or delete the cue")
    ends = []
    for hours, minutes, seconds, fraction in (match.groups()[:4], match.groups()[4:]):
        whole_s = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
        ends.append(whole_s * 1000 + int(fraction.ljust(3, "0")))
    return min(ends), max(ends)


def _in_gaps(pieces: Sequence[Piece], taken_ms: Sequence[_Times], over_speech: bool) -> list[Piece]:
    """Return the pieces cut to their first gap of sufficient length, and the others whole or not at all."""
    gaps_ms: list[_Times] = []
    free_ms = 0
    for start_ms, end_ms in [*sorted(taken_ms), (_NEVER_MS, _NEVER_MS)]:
        if start_ms - free_ms >= SHORTEST_MS:
            gaps_ms.append((free_ms, start_ms))
        free_ms = max(free_ms, end_ms)
    shown = []
    for piece in pieces:
        start_ms, end_ms = round(piece.start_s * 1000), round(piece.end_s * 1000)
        for gap_start_ms, gap_end_ms in gaps_ms[bisect_right(gaps_ms, start_ms, key=lambda gap: gap[1]) :]:
            left_ms, right_ms = max(start_ms, gap_start_ms), min(end_ms, gap_end_ms)
            if right_ms - left_ms >= SHORTEST_MS:
                shown.append(replace(piece, start_s=left_ms / 1000, end_s=right_ms / 1000))
                break
        else:
            if over_speech:
                shown.append(piece)
    return shown


def _join(head: str, blocks: Sequence[_Block], line_end: str, *, numbered: bool) -> str:
    """Return the text of a file, with a blank line around each new cue."""
    parts = [head] if head else []
    for number, block in enumerate(blocks, 1):
        lines = list(block.lines)
        if numbered and block.timing:
            lines[0] = re.sub(r"[0-9]+", str(number), lines[0], count=1)
        elif numbered:
            lines.insert(0, f"{number}{line_end}")
        if parts and (block.is_new or blocks[number - 2].is_new):
            tail = re.search(r"[\r\n]*\Z", parts[-1])
            parts.append(line_end * (2 - len(LINE_ENDS.findall(tail[0] if tail else ""))))
        parts.append("".join(lines))
    return "".join(parts)
