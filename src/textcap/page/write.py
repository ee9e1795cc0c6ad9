"""Write a page: one HTML file with its data, script and style, which loads nothing but the sounds it names."""

import base64
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from textcap.data.text import counted, escape_json
from textcap.errors import FileError, InputError
from textcap.files import atomic_write_lines
from textcap.page.sounds import find_sounds, hear, is_played, link_to
from textcap.page.sources import NUMBERS, Clip

MOST_ROWS = 20_000
_MP3 = "data:audio/mpeg;base64,"
_MISSING = "no sound was found"
_OTHER_RULES = "media-src 'self' file: data:; base-uri 'none'; form-action 'none'"
_logger = logging.getLogger(__name__)
_ENDS = re.compile("[<>&]")  # what could end the block of data; escaped as JSON allows


def check_rows(n_rows: int) -> None:
    """Refuse more rows than a browser shows with ease.

    Raises:
        InputError: There are too many, or none.
    """
    if n_rows > MOST_ROWS:
        most = f"a page has at most {MOST_ROWS:,}"
        raise InputError(f"{n_rows:,} rows are too many: {most}", hint="draw some with textcap page --sample")
    if not n_rows:
        raise InputError("no clip is left to show")


def write_page(
    path: Path,
    systems: Sequence[str],
    clips: Sequence[Clip],
    *,
    folders: Sequence[Path] = (),
    audio_dir: Path | None = None,
    embed_limit: int | None = None,
    blind: dict[str, Any] | None = None,
    progress: Callable[[int], None] = lambda n_done: None,
) -> list[FileError]:
    """Write a page that plays clips and shows what each system says of them.

    Args:
        path: The file; one that exists is replaced.
        systems: Their names, in the order of the clips' takes; none for a blind page.
        clips: The rows, as `find_clips` or `draw_ballot` returns them.
        folders, audio_dir: Where sounds are, as in `find_sounds`.
        embed_limit: Bytes that sounds may add to the page; None to link to them.
        blind: What `draw_ballot` says of the page, to be exported with votes.
        progress: Called with the number of rows that are done.

    Returns:
        Why sounds that are there could not be read. How many others are missing or cannot be played is a warning.

    Raises:
        InputError: There are too many rows, or the file cannot be written.
    """
    check_rows(len(clips))
    used = {name for clip in clips for take in clip.takes if take for name in take["scores"]}
    numbers = [{"name": name, "title": title} for name, title in NUMBERS.items() if name in used]
    template = resources.files("textcap.page").joinpath("page.html").read_text(encoding="utf-8")
    before, after = template.replace("{policy}", _policy(template)).split("{data}")
    sounds = find_sounds(clips, folders, audio_dir)
    errors: list[FileError] = []
    problems: Counter[str] = Counter()

    def lines() -> Iterator[str]:
        yield f'{before}{{"facts":{_json({"systems": systems, "numbers": numbers, "blind": blind})},"clips":[\n'
        n_left, first = embed_limit, dict[str, int]()  # the first row that has a sound
        for number, clip in enumerate(clips, start=1):
            row = {"id": clip.id, "start": clip.start_s, "length": clip.duration_s, "takes": clip.takes}
            sound = sounds.get(clip.id, "")
            try:
                found = dict[str, Any](same=first[sound]) if sound in first else _found(clip, sound, path, n_left)
                problems.update([found["problem"]] if "problem" in found else [])
            except FileError as error:
                errors.append(error)
                found = {"problem": error.problem}
            if sound:
                first.setdefault(sound, number - 1)
            n_left = None if n_left is None else n_left - len(found.get("sound", ""))
            yield _json({**row, "references": clip.references, **found}) + ("," if number < len(clips) else "") + "\n"
            progress(number)
        yield f"]}}{after}"

    atomic_write_lines(path, lines())
    for problem, n in problems.items():
        hint = " (--audio-dir names a folder to look in)" if problem == _MISSING else ""
        _logger.warning("%s of %s: %s%s", f"{n:,}", counted(len(clips), "clip"), problem, hint)
    return errors


def _found(clip: Clip, sound: str, page: Path, n_left: int | None) -> dict[str, Any]:
    """Return what a row has of its sound.

    Args:
        sound: Its path; empty if none was found.
        n_left: Bytes that it may add to the page; None to link to it.

    Raises:
        FileError: The sound cannot be read.
    """
    if not sound:
        is_remote = any("://" in name for name in clip.sounds)
        return {"problem": "a remote sound, which the page does not load" if is_remote else _MISSING}
    length_s, spectrogram, mp3 = hear(sound, None if n_left is None else n_left * 3 // 4 - len(_MP3))
    found = {"length": length_s, "spectrogram": spectrogram}
    if mp3 is not None:
        return {**found, "sound": _MP3 + base64.b64encode(mp3).decode()}
    if n_left is not None:
        return {**found, "problem": "left out, as the page would exceed --embed-limit"}
    if is_played(sound):
        return {**found, "sound": link_to(sound, page)}
    return {**found, "problem": f"browsers do not play {Path(sound).suffix}: use textcap page --embed"}


def _policy(template: str) -> str:
    """Return a Content-Security-Policy that allows the page's own script and style, by their hashes, and its sounds."""
    rules = ["default-src 'none'"]
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
        rules.append(f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")
    return "; ".join([*rules, _OTHER_RULES])


def _json(value: Any) -> str:
    text = escape_json(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    return _ENDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
