"""The kinds of sound, which the decorator `sound` collects."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textcap.demo.sounds.primitives import Signal, n_samples, peak_normalised, place

Parts = Iterable[tuple[float, Signal]]  # sounds, each with the time in s at which it starts
Synthesiser = Callable[[np.random.Generator, float, int, float], Signal | Parts]


@dataclass(frozen=True)
class Kind:
    """One kind of everyday sound.

    Args:
        short: Whether it sounds once, for less than about 1.5 s at the start of its time slot, and can be repeated.
        paced: Whether it has a rhythm that can be fast or slow.
    """

    name: str  # snake_case
    category: str  # animals, weather, vehicles, household, people, tools, alarms, music
    synthesise: Synthesiser
    short: bool
    paced: bool

    def make(self, rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> npt.NDArray[np.float32]:
        """Return the sound `[S]`, with a peak of 1.

        Args:
            pace: A factor on the rhythm: below 1 is slower, above 1 faster.
        """
        n = n_samples(duration_s, rate_hz)
        made = self.synthesise(rng, duration_s, rate_hz, pace)
        whole = made if isinstance(made, np.ndarray) else place(n, rate_hz, made)
        return peak_normalised(whole)[:n].astype(np.float32)


COLLECTED: list[Kind] = []


def sound(category: str, *, short: bool = False, paced: bool = False) -> Callable[[Synthesiser], Synthesiser]:
    """Make a function the synthesiser of the kind of sound that it is named after; see `Kind`."""

    def register(synthesiser: Synthesiser) -> Synthesiser:
        COLLECTED.append(Kind(synthesiser.__name__, category, synthesiser, short, paced))
        return synthesiser

    return register
