"""Write a page: one HTML file with its data, script and style, which loads nothing but the sounds it names."""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from textcap.data.text import counted, escape_json
from textcap.errors import FileError, InputError
from textcap.files import atomic_write_with
from textcap.page.sounds import find_sounds, hear, is_played, link_to
from textcap.page.sources import NUMBERS, Clip, Source

MOST_ROWS = 20_000
_OTHER_RULES = "media-src 'self' file: data:; base-uri 'none'; form-action 'none'"
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
    sources: Sequence[Source],
    clips: Sequence[Clip],
    *,
    folders: Sequence[Path] = (),
    audio_dir: Path | None = None,
    embed_limit: int | None = None,
    blind: dict[str, Any] | None = None,
    progress: Callable[[int], None] = lambda n_done: None,
) -> list[str | FileError]:
    """Write a page that plays clips and shows what each source says of them.

    Args:
        path: The file; one that exists is replaced.
        clips: The rows, as `find_clips` or `draw_ballot` returns them.
        folders, audio_dir: Where sounds are, as in `find_sounds`.
        embed_limit: Bytes of MP3 that may become part of the page; None to link to sounds.
        blind: What `draw_ballot` says of the page, which then has no names, scores or references.
        progress: Called with the number of rows that are done.

    Returns:
        What the user should know, one line each, and why sounds that are there could not be read.

    Raises:
        InputError: There are too many rows, or the file cannot be written.
    """
    check_rows(len(clips))
    if blind is not None:
        sources = []
        hidden = [[take and {**take, "scores": {}} for take in clip.takes] for clip in clips]
        clips = [replace(clip, takes=takes, references=[]) for clip, takes in zip(clips, hidden, strict=True)]
    used = {name for clip in clips for take in clip.takes if take for name in take["scores"]}
    numbers = [{"name": name, "title": title} for name, title in NUMBERS.items() if name in used]
    facts = {"systems": [source.name for source in sources], "numbers": numbers, "blind": blind}
    template = resources.files("textcap.page").joinpath("page.html").read_text(encoding="utf-8")
    before, after = template.replace("{policy}", _policy(template)).split("{data}")
    notes: list[str | FileError] = []
    problems: Counter[str] = Counter()
    sounds = find_sounds(clips, folders, audio_dir, notes)

    def lines() -> Iterator[str]:
        yield f'{before}{{"facts":{_json(facts)},"clips":[\n'
        n_left = embed_limit
        for number, clip in enumerate(clips, start=1):
            row = {"id": clip.id, "start": clip.start_s, "length": clip.duration_s, "takes": clip.takes}
            try:
                heard, n_bytes = _heard(clip, sounds.get(clip.id), path, n_left)
            except FileError as error:
                notes.append(error)
                heard, n_bytes = {"problem": error.problem}, 0
            else:
                problems.update([heard["problem"]] if "problem" in heard else [])
            n_left = None if n_left is None else n_left - n_bytes
            yield _json({**row, "references": clip.references, **heard}) + ("," if number < len(clips) else "") + "\n"
            progress(number)
        yield f"]}}{after}"

    def write(new: Path) -> None:
        with open(new, "w", encoding="utf-8", newline="") as file:
            file.writelines(lines())

    atomic_write_with(path, write)
    return notes + [f"{n:,} of {counted(len(clips), 'clip')}: {problem}" for problem, n in problems.items()]


def _heard(clip: Clip, sound: str | None, page: Path, n_left: int | None) -> tuple[dict[str, Any], int]:
    """Return what a row has of its sound, and how many bytes of MP3 are part of it.

    Args:
        n_left: How many may be; None to link to the sound.

    Raises:
        FileError: The sound cannot be read.
    """
    if sound is None:
        is_remote = any("://" in name for name in clip.sounds)
        return {"problem": "a remote sound, which the page does not load" if is_remote else "no sound was found"}, 0
    length_s, spectrogram, mp3 = hear(sound, n_left)
    found = {"length": length_s, "spectrogram": spectrogram}
    if mp3 is not None:
        return {**found, "sound": f"data:audio/mpeg;base64,{base64.b64encode(mp3).decode()}"}, len(mp3)
    if n_left is not None:
        return {**found, "problem": "left out, as the page would exceed --embed-limit"}, 0
    if is_played(sound):
        return {**found, "sound": link_to(sound, page)}, 0
    return {**found, "problem": f"browsers do not play {Path(sound).suffix}; --embed makes it MP3"}, 0


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
