"""Find the sounds of clips, and make what a page shows and plays of them: a spectrogram, a link, the sound itself."""

import base64
import io
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile
from numpy.typing import NDArray

from textcap.audio.decoding import SILENCE, SoundReader, mix
from textcap.audio.inputs import ENDINGS, find_inputs
from textcap.page.sources import Clip, matched

# What Chromium, Firefox and Safari all play in an audio element, or all but older versions of Safari.
_PLAYED = frozenset("aac flac m4a m4b m4v mov mp1 mp2 mp3 mp4 oga ogg ogv opus wav wave webm".split())
RATE_HZ = 44_100  # of reading, and of embedded sounds: one that MP3 has
_BANDS, _COLUMNS = 32, 128  # of a spectrogram, at most
_FRAME = 1024  # samples
_LOWEST_HZ, _RANGE_DB = 60.0, 60.0  # what is shown: from this frequency on, and this far below the loudest
_logger = logging.getLogger(__name__)
_QUIETEST_DB = 20 * np.log10(SILENCE)


def find_sounds(clips: Sequence[Clip], folders: Sequence[Path], audio_dir: Path | None) -> dict[str, str]:
    """Return the paths of the sounds that exist, by the clip's id.

    Args:
        folders: What relative paths in files may be relative to, besides the current folder.
        audio_dir: A folder, with those below it, in which the others are looked up by the rules of `textcap score`.
    """
    found: dict[str, str] = {}
    for clip in clips:
        places = (os.path.join(folder, name) for name in clip.sounds for folder in (Path(), *folders))
        if path := next((place for place in places if "\0" not in place and os.path.isfile(place)), None):
            found[clip.id] = path
    if audio_dir is not None:
        listed = find_inputs([str(audio_dir)], recursive=True)
        for note in listed.notes:
            _logger.warning("%s", note)
        files = {one.below: one.name for one in listed.inputs}
        for place in range(max((len(clip.sounds) for clip in clips), default=0)):  # one name of each clip at a time
            missing = [clip for clip in clips if clip.id not in found and place < len(clip.sounds)]
            known = matched(files, (clip.sounds[place] for clip in missing))
            found |= {clip.id: files[known[clip.sounds[place]]] for clip in missing if clip.sounds[place] in known}
    return found


def is_played(path: str) -> bool:
    """Return whether browsers play such a file, by its ending; what no sound ends in is tried."""
    ending = os.path.splitext(path)[1][1:].lower()
    return ending in _PLAYED or ending not in ENDINGS


def link_to(path: str, page: Path) -> str:
    """Return the address of a sound relative to a page, percent-encoded, or absolute if it is on another drive."""
    try:
        relative = os.path.relpath(path, page.parent)
        if relative.startswith(os.pardir):  # which a browser takes off a path without looking at links
            place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            relative = os.path.relpath(place, os.path.realpath(page.parent))
    except ValueError:
        return Path(path).resolve().as_uri()
    # "./", because a colon in the first name would end the name of a scheme.
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))


def hear(path: str, most_bytes: int | None = None) -> tuple[float, str, bytes | None]:
    """Read a sound once, in blocks, for its spectrogram and perhaps as MP3.

    Args:
        most_bytes: The largest size of the MP3; None for no MP3.

    Returns:
        The length in seconds; the spectrogram; and the MP3, mono, or None if it is not wanted or too large. The
        spectrogram is in base 64, with two levels from 0 to 15 a byte, low nibble first: up to `_COLUMNS` columns in
        order of time, of `_BANDS` bands each from low to high.

    Raises:
        FileError: As `SoundReader`.
    """
    encoded, levels_db, n_samples = io.BytesIO(), [], 0
    rest = np.zeros(0, np.float32)
    mp3: Any = None
    if most_bytes is not None:
        mp3 = soundfile.SoundFile(encoded, "w", RATE_HZ, 1, format="MP3", subtype="MPEG_LAYER_III")
    for block in SoundReader(path, RATE_HZ, lambda text: None):
        samples = mix(block)[0]
        n_samples += len(samples)
        rest = np.concatenate([rest, samples])
        n_framed = len(rest) - len(rest) % _FRAME
        levels_db.append(_levels_db(rest[:n_framed]))
        rest = rest[n_framed:]
        if mp3 is not None and most_bytes is not None:
            mp3.write(np.clip(samples, -1, 1))
            if encoded.tell() > most_bytes:
                mp3 = None
    levels_db.append(_levels_db(np.pad(rest, (0, -len(rest) % _FRAME))))
    if mp3 is not None:
        mp3.close()
    is_wanted = mp3 is not None and most_bytes is not None and encoded.getbuffer().nbytes <= most_bytes
    return n_samples / RATE_HZ, _packed(np.concatenate(levels_db)), encoded.getvalue() if is_wanted else None


def _levels_db(samples: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return the level of each band in each frame `[F, _BANDS]`; 10 MB for an hour."""
    window, starts = _bands()
    frames, power = samples.reshape(-1, _FRAME), [np.zeros((0, _BANDS))]
    for start in range(0, len(frames), 16):  # new memory for more of them at once takes longer than the arithmetic
        spectra = np.fft.rfft(frames[start : start + 16] * window)
        power.append(np.add.reduceat(spectra.real**2 + spectra.imag**2, starts, axis=1))
    levels_db: NDArray[np.float16] = (10 * np.log10(np.maximum(np.concatenate(power), 1e-13))).astype(np.float16)
    return levels_db


def _packed(levels_db: NDArray[np.float16]) -> str:
    if len(levels_db) > _COLUMNS:  # a column shows its loudest frame
        starts = np.arange(_COLUMNS) * len(levels_db) // _COLUMNS
        levels_db = np.maximum.reduceat(levels_db, starts)
    loudest = max(float(levels_db.max(initial=-130)), _QUIETEST_DB)
    levels = np.clip(np.rint(15 * (1 + (levels_db - loudest) / _RANGE_DB)), 0, 15).astype(np.uint8)
    return base64.b64encode((levels[:, ::2] | levels[:, 1::2] << 4).tobytes()).decode()


@cache
def _bands() -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """Return a window `[_FRAME]` with which a sine at full scale has a power of 1, and where the bands begin.

    Bands have equal ratios. Low ones are narrower than the steps between frequencies: those that begin at the same one
    both show it.
    """
    window = np.hanning(_FRAME)
    ratio = (RATE_HZ / 2 / _LOWEST_HZ) ** (1 / (_BANDS - 1))
    edges_hz = _LOWEST_HZ * ratio ** (np.arange(_BANDS) - 0.5)
    return (window * 2 / window.sum()).astype(np.float32), np.rint(edges_hz * _FRAME / RATE_HZ).astype(int)
