"""Decode a sound file: mono samples at a given rate, block by block.

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

from textcap.errors import FileError, InputError

Samples = npt.NDArray[np.float32]

# The most that one block holds: so many samples over all channels, and so many seconds. A header may claim any rate.
_BLOCK_SAMPLES = 1 << 18  # larger blocks read no faster
_BLOCK_S = 6
_LOWEST_RATE_HZ = 1000
_LOUDEST = 1e4  # 80 dB above full scale: no recording is that loud, and such values overflow the spectrum


def read_mono(path: Path, rate_hz: int) -> Iterator[Samples]:
    """Yield the samples of a sound file as mono blocks `[S]` at a rate, never the whole file at once.

    Channels are averaged.

    Raises:
        FileError: The file does not exist, libsndfile cannot read it, or its samples are NaN, infinite or far out of
            range.
    """
    try:
        # The file is opened here because soundfile refuses names that are not UTF-8, and reads `.raw` as bare samples.
        with _open(path) as opened, soundfile.SoundFile(_for_libsndfile(opened), closefd=False) as file:
            if file.samplerate < _LOWEST_RATE_HZ:
                problem = f"has a sample rate of {file.samplerate} Hz, and at least {_LOWEST_RATE_HZ:,} Hz are needed"
                raise FileError(path, problem, hint="export it again")
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
    except ValueError as error:  # a NUL or a lone surrogate in the name
        raise InputError(f"{str(path)!r} is not a valid file name") from error


def _for_libsndfile(file: BinaryIO) -> BinaryIO | int:
    return file if os.name == "nt" else file.fileno()  # a descriptor may be a pipe; on Windows it is not shared


def _check_samples(path: Path, block: Samples) -> None:
    loudest = float(np.abs(block).max())
    if not math.isfinite(loudest):
        raise FileError(path, "holds NaN or infinite samples", hint="export it again")
    if loudest > _LOUDEST:
        problem = f"holds samples far outside the range from -1 to 1, up to {loudest:.3g}"
        raise FileError(path, problem, hint="export it again, scaled to that range")


def _unreadable(path: Path, error: Exception) -> FileError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FileError(path, "does not exist")
    if isinstance(error, IsADirectoryError) or (isinstance(error, PermissionError) and os.path.isdir(path)):
        return FileError(path, "is a folder", hint="name the files in it, for example with a * pattern")
    if isinstance(error, OSError):
        return FileError(path, f"cannot be read: {error.strerror or error}")
    if _is_empty(path):
        return FileError(path, "is empty")
    reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").rstrip(".")
    if "does not exist" in reason:  # libsndfile's words after it tried the file as MP3 and failed
        reason = "Format not recognised"
    return FileError(path, f"cannot be read as sound: {reason}", hint="convert it to WAV or FLAC")


def _is_empty(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:  # deleted since it was read
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0
