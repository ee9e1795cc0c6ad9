"""Read files of four formats, several rates and one or two channels as mono sound at 44.1 kHz, against librosa."""

import importlib.util
from dataclasses import dataclass

import numpy as np

from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.processes import CannotRunError
from benchmarks.sounds import mixed_sounds
from textcap.audio.windows import read_windows
from textcap.config import AudioConfig

# Relative to the loudness of the sound. Two decoders of a lossy format differ by a little, as do two resamplers.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Sizes:
    """How much to read."""

    files: int = option(200, "files")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure both readers."""
    if importlib.util.find_spec("librosa") is None:
        raise CannotRunError("needs librosa: pip install librosa")
    import librosa

    paths, audio = mixed_sounds(bench.work, sizes.files), AudioConfig()

    def ours() -> list[np.ndarray]:
        windows = [next(read_windows(path, audio)) for path in paths]  # no sound is longer than a window
        return [one.samples[: round(one.end_s * audio.sample_rate_hz)] for one in windows]

    def theirs() -> list[np.ndarray]:
        return [librosa.load(path, sr=audio.sample_rate_hz, mono=True)[0] for path in paths]

    contenders = [Contender("textcap", ours, sizes.files), Contender("librosa", theirs, sizes.files)]
    what = f"{sizes.files} mixed files to 44.1 kHz"
    found = bench.compare(what, contenders, differing_sounds, n_rounds=7)
    bench.bar(what, "librosa", found["librosa"].median_s / found["textcap"].median_s, 1.1)


def differing_sounds(ours: list[np.ndarray], theirs: list[np.ndarray]) -> str:
    """Return which sound differs most, if it differs by more than decoders and resamplers do."""
    worst, at = 0.0, 0
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        n = min(len(a), len(b))
        difference = float(np.linalg.norm(a[:n] - b[:n]) / np.linalg.norm(a[:n]))
        # The ends of a lossy file may be cut differently by a packet.
        if abs(len(a) - len(b)) > 2400:
            return f"has {len(b):,} samples of sound {index}, not {len(a):,}"
        worst, at = max((worst, at), (difference, index))
    return "" if worst <= TOLERANCE else f"differs by {worst:.1%} in sound {at}"
