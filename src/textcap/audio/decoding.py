"""Decode sound files to mono samples at a given rate.

Files are read in blocks, so memory does not grow with their length. libsndfile decodes and soxr resamples.
"""

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from textcap.data.text import open_input
from textcap.errors import FileError
from textcap.files import unreadable

Samples = npt.NDArray[np.float32]

# Limits of one block: samples over all channels, and seconds, because a header may claim any sample rate.
_BLOCK_SAMPLES = 1 << 18  # larger blocks are not read faster
_BLOCK_S = 6
_LOWEST_RATE_HZ = 1000
_LOUDEST = 1e4  # 80 dB above full scale: no recording is louder, and larger values overflow in the spectrum


def read_mono(path: Path, rate_hz: int) -> Iterator[Samples]:
    """Yield the samples of a sound file in blocks, resampled and with the channels averaged.

    Args:
        path: The sound file.
        rate_hz: Sample rate of the blocks.

    Yields:
        Mono blocks `[S]`, float32, nominally in the range -1 to 1; some may be empty.

    Raises:
        FileError: The file does not exist, libsndfile cannot read it, its sample rate is too low, or it contains
            samples that are NaN, infinite or far out of range.
        InputError: The path is not a valid file name.
    """
    try:
        # Open the file here: soundfile rejects names that are not UTF-8, and expects `.raw` files to have no header.
        with open_input(path) as opened, soundfile.SoundFile(_for_libsndfile(opened), closefd=False) as file:
            if file.samplerate < _LOWEST_RATE_HZ:
                problem = f"has a sample rate of {file.samplerate} Hz, but must have at least {_LOWEST_RATE_HZ:,} Hz"
                raise FileError(path, problem, hint="export it again at a higher rate")
            resampler = soxr.ResampleStream(file.samplerate, rate_hz, 1, dtype="float32")
            n_frames = max(1, min(_BLOCK_SAMPLES // file.channels, _BLOCK_S * file.samplerate))
            while len(block := file.read(n_frames, dtype="float32", always_2d=True)):
                _check_samples(path, block)
                yield resampler.resample_chunk(block.mean(axis=1))
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    except OSError as error:
        raise unreadable(path, error) from error
    except soundfile.LibsndfileError as error:
        raise _not_sound(path, error) from error


def _for_libsndfile(file: BinaryIO) -> BinaryIO | int:
    # A descriptor also works for pipes, but libraries on Windows do not share descriptors.
    return file if os.name == "nt" else file.fileno()


def _check_samples(path: Path, block: Samples) -> None:
    loudest = float(np.abs(block).max())
    if not math.isfinite(loudest):
        raise FileError(path, "contains NaN or infinite samples", hint="export it again")
    if loudest > _LOUDEST:
        problem = f"contains samples far outside the range from -1 to 1, up to {loudest:.3g}"
        raise FileError(path, problem, hint="export it again, scaled to that range")


def _not_sound(path: Path, error: Exception) -> FileError:
    if _is_empty(path):
        return FileError(path, "is empty")
    reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").rstrip(".")
    if "does not exist" in reason:  # libsndfile's misleading reason after trying the file as MP3
        reason = "Format not recognised"
    return FileError(path, f"cannot be read as sound: {reason}", hint="convert it to WAV or FLAC")


def _is_empty(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:  # deleted in the meantime
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0
