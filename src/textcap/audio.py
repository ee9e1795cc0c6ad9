"""Sound files to windows: decode, mix to mono, resample, cut so that every sample is covered.

Knows no model beyond the rate and window length it asks for. Files are read in blocks, so memory does not grow
with their length. Nothing is random: the same file gives the same windows.
"""

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from textcap.config import AudioConfig
from textcap.errors import InputError

Signal = npt.NDArray[np.float32]

# A block holds at most so many samples of all channels, and so many seconds: a header may claim any rate.
_BLOCK_SAMPLES = 1 << 18  # larger blocks read no faster
_BLOCK_S = 6
_LOWEST_RATE_HZ = 1000
_LOUDEST = 1e4  # 80 dB above full scale: no recording, and far louder ones overflow the spectrum


@dataclass(frozen=True)
class Window:
    """One window of a recording.

    Attributes:
        samples: `[S]`, float32, at the model's rate, as long as a window is.
        start_s: Where it begins in the recording, in seconds.
        end_s: Where it ends, in seconds; before a full window's end when the recording is shorter than one.
    """

    samples: Signal
    start_s: float
    end_s: float


def read_windows(path: Path, config: AudioConfig) -> Iterator[Window]:
    """Yield windows that cover every sample of a sound file.

    A recording shorter than a window is repeated to fill it, as msclap does. A longer one gives a window every
    `hop_s`, and a last one flush with its end.

    Raises:
        InputError: The file is missing, no sound that libsndfile reads, empty, or holds values that are no numbers
            or far out of range.
    """
    empty = True
    for window in cut_windows(_mono_blocks(path, config.sample_rate_hz), config):
        empty = False
        yield window
    if empty:  # no samples at all, or so few that none is left at the model's rate
        raise InputError(f"{path} holds no sound: it has no samples")


def cut_windows(blocks: Iterator[Signal], config: AudioConfig) -> Iterator[Window]:
    """Cut a mono signal at the model's rate, given as consecutive blocks `[S]`, by the rule of `read_windows`."""
    size, hop, rate = config.window_samples, config.hop_samples, config.sample_rate_hz
    held: Signal = np.zeros(0, np.float32)
    base = start = 0  # where `held` and the next window begin
    for block in blocks:
        held = np.concatenate((held, block))
        while base + len(held) > start + size:  # more follows, so this window is not the last
            held, base = held[start - base :], start
            yield Window(held[:size], start / rate, (start + size) / rate)
            start += hop
    total = base + len(held)
    if total >= size:
        yield Window(held[-size:], (total - size) / rate, total / rate)
    elif total:
        yield Window(np.resize(held, size), 0.0, total / rate)


def _mono_blocks(path: Path, rate_hz: int) -> Iterator[Signal]:
    """Yield the samples of a file as mono blocks `[S]` at a rate, never all of it at once."""
    try:
        # Opened here: soundfile takes no name that is not UTF-8, and takes `.raw` for sound without a header.
        with _open(path) as opened, soundfile.SoundFile(_for_libsndfile(opened), closefd=False) as file:
            if file.samplerate < _LOWEST_RATE_HZ:
                message = f"{path} has {file.samplerate} samples per second, and sound needs {_LOWEST_RATE_HZ:,}"
                raise InputError(message, hint="export it again")
            resampler = soxr.ResampleStream(file.samplerate, rate_hz, 1, dtype="float32")
            n_frames = max(1, min(_BLOCK_SAMPLES // file.channels, _BLOCK_S * file.samplerate))
            while len(block := file.read(n_frames, dtype="float32", always_2d=True)):
                _check_samples(path, block)
                yield resampler.resample_chunk(block.mean(axis=1))
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise _unreadable(path, error) from error


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except ValueError as error:  # it holds a null character or half a character
        raise InputError(f"{str(path)!r} is no name that a file can have") from error


def _for_libsndfile(file: BinaryIO) -> BinaryIO | int:
    return file if os.name == "nt" else file.fileno()  # a descriptor may be a pipe; on Windows it is not shared


def _check_samples(path: Path, block: Signal) -> None:
    loudest = float(np.abs(block).max())
    if not math.isfinite(loudest):
        raise InputError(f"{path} holds samples that are no numbers", hint="export it again")
    if loudest > _LOUDEST:
        message = f"{path} holds samples far outside -1 to 1, up to {loudest:.3g}"
        raise InputError(message, hint="export it again, scaled to that range")


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"there is no file {path}")
    if isinstance(error, IsADirectoryError) or (isinstance(error, PermissionError) and os.path.isdir(path)):
        return InputError(f"{path} is a folder", hint="give its files, for example with a * pattern")
    if isinstance(error, OSError):
        return InputError(f"{path} cannot be read: {error.strerror or error}")
    if _is_empty(path):
        return InputError(f"{path} is empty")
    reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").rstrip(".")
    if "does not exist" in reason:  # what libsndfile says when it tried the file as MP3 and found none
        reason = "Format not recognised"
    return InputError(f"{path} cannot be read as sound: {reason}", hint="convert it to wav or flac")


def _is_empty(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:  # gone since it was read
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0
