"""Cut sound into windows of the length that CLAP takes, so that together they cover every sample.

Nothing is random: the same file always gives the same windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from textcap.audio.decoding import SILENCE, SoundReader, mix
from textcap.audio.ffmpeg import Note, Samples
from textcap.audio.sources import SoundSource, name_of
from textcap.config import AudioConfig
from textcap.errors import FileError


@dataclass(frozen=True)
class Window:
    """One window of a recording.

    Attributes:
        samples: `[S]`, float32, at the model's sample rate; S is always the full window length.
        start_s: Start of the window in seconds, in the container's own time.
        end_s: End of the window in seconds; if the recording is shorter than a window, the end of the recording.
        is_silent: Whether its peak, without the DC offset, is below `SILENCE`.
    """

    samples: Samples
    start_s: float
    end_s: float
    is_silent: bool = False


def read_windows(source: SoundSource, config: AudioConfig, *, note: Note = lambda text: None) -> Iterator[Window]:
    """Yield windows that cover every sample of a sound, with the channels averaged.

    A recording shorter than a window is repeated to fill it, as its CLAP does it. A longer one gives a window every
    `hop_s` seconds, and a last one that ends with the recording. Where the channels of a window cancel, its loudest
    channel stands for all.

    Args:
        note: Called with what the user must know about the sound, worded to follow its name.

    Raises:
        InputError: The sound cannot be used (see `SoundReader`).
    """
    reader = SoundReader(source, config.sample_rate_hz, note)
    n_windows = n_cancelled = 0
    for cut in cut_windows(reader, config):
        samples, is_cancelled = mix(cut.samples)
        n_windows, n_cancelled = n_windows + 1, n_cancelled + is_cancelled
        once = samples[: round((cut.end_s - cut.start_s) * config.sample_rate_hz)]  # not repeated
        is_silent = bool(np.abs(once - once.mean()).max() < SILENCE)
        yield Window(samples, reader.start_s + cut.start_s, reader.start_s + cut.end_s, is_silent)
    if not n_windows:  # so few samples that none remains after resampling
        raise FileError(name_of(source), "has no samples")
    if n_cancelled:
        note("has channels whose mean is almost silent, so the loudest one is used")


def cut_windows(blocks: Iterator[Samples] | SoundReader, config: AudioConfig) -> Iterator[Window]:
    """Yield the windows of a signal by the rule of `read_windows`, from time 0 on and with all channels.

    Args:
        blocks: The signal at the model's sample rate, as consecutive blocks `[S]` or `[S, C]`.
    """
    size, hop, rate = config.window_samples, config.hop_samples, config.sample_rate_hz
    held: Samples | None = None
    base = start = 0  # in samples: the start of `held`, and of the next window
    for block in blocks:
        held = block if held is None else np.concatenate((held, block))
        while base + len(held) > start + size:  # samples follow, so this window is not the last
            held, base = held[start - base :], start
            yield Window(held[:size], start / rate, (start + size) / rate)
            start += hop
    if held is None or not len(held):
        return
    total = base + len(held)
    if total >= size:
        yield Window(held[-size:], (total - size) / rate, total / rate)
    else:
        yield Window(_filled(held, size, config.padding), 0.0, total / rate)


def _filled(samples: Samples, size: int, padding: str) -> Samples:
    """Return samples repeated to a size, or as often as they fit and then zeros."""
    repeated = np.resize(samples, (size, *samples.shape[1:]))
    if padding == "repeatpad":
        repeated[size // len(samples) * len(samples) :] = 0
    return repeated
