"""Cut sound into windows of the length that CLAP takes, so that every sample is covered.

Nothing is random: the same file gives the same windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textcap.audio.decoding import Samples, read_mono
from textcap.config import AudioConfig
from textcap.errors import FileError


@dataclass(frozen=True)
class Window:
    """One window of a recording.

    Attributes:
        samples: `[S]`, float32, at the model's rate, as long as a window is.
        start_s: Where it begins in the recording, in seconds.
        end_s: Where it ends, in seconds; before a full window's end when the recording is shorter than one.
    """

    samples: Samples
    start_s: float
    end_s: float


def read_windows(path: Path, config: AudioConfig) -> Iterator[Window]:
    """Yield windows that cover every sample of a sound file.

    A recording shorter than a window is repeated to fill it, as msclap does. A longer one gives a window every
    `hop_s`, and a last one flush with its end.

    Raises:
        FileError: The file cannot be decoded (see `read_mono`), or it holds no samples.
    """
    empty = True
    for window in cut_windows(read_mono(path, config.sample_rate_hz), config):
        empty = False
        yield window
    if empty:  # no samples at all, or so few that none is left at the model's rate
        raise FileError(path, "holds no sound: it has no samples")


def cut_windows(blocks: Iterator[Samples], config: AudioConfig) -> Iterator[Window]:
    """Cut a mono signal at the model's rate, given as consecutive blocks `[S]`, by the rule of `read_windows`."""
    size, hop, rate = config.window_samples, config.hop_samples, config.sample_rate_hz
    held: Samples = np.zeros(0, np.float32)
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
