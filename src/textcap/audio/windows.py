"""Cut sound into windows of the length that CLAP takes, so that together they cover every sample.

Nothing is random: the same file always gives the same windows.
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
        samples: `[S]`, float32, at the model's sample rate; S is always the full window length.
        start_s: Start of the window in the recording, in seconds.
        end_s: End of the window in seconds; if the recording is shorter than a window, the end of the recording.
    """

    samples: Samples
    start_s: float
    end_s: float


def read_windows(path: Path, config: AudioConfig) -> Iterator[Window]:
    """Yield windows that cover every sample of a sound file.

    A recording shorter than a window is repeated to fill it, as in msclap. A longer one gives a window every `hop_s`
    seconds, and a last one that ends with the recording.

    Raises:
        InputError: The file cannot be decoded (see `read_mono`), or has no samples.
    """
    empty = True
    for window in cut_windows(read_mono(path, config.sample_rate_hz), config):
        empty = False
        yield window
    if empty:  # no samples at all, or so few that none remains after resampling
        raise FileError(path, "has no samples")


def cut_windows(blocks: Iterator[Samples], config: AudioConfig) -> Iterator[Window]:
    """Yield the windows of a signal by the rule of `read_windows`.

    Args:
        blocks: The mono signal at the model's sample rate, as consecutive blocks `[S]`.
    """
    size, hop, rate = config.window_samples, config.hop_samples, config.sample_rate_hz
    held: Samples = np.zeros(0, np.float32)
    base = start = 0  # in samples: the start of `held`, and of the next window
    for block in blocks:
        held = np.concatenate((held, block))
        while base + len(held) > start + size:  # samples follow, so this window is not the last
            held, base = held[start - base :], start
            yield Window(held[:size], start / rate, (start + size) / rate)
            start += hop
    total = base + len(held)
    if total >= size:
        yield Window(held[-size:], (total - size) / rate, total / rate)
    elif total:
        yield Window(np.resize(held, size), 0.0, total / rate)
