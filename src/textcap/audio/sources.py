"""What can be captioned: the path of a sound file, an open file, or samples in memory."""

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Sound:
    """Samples in memory.

    Attributes:
        samples: `[S]`, or `[S, C]` with C channels, floating point, nominally in the range -1 to 1.
        rate_hz: Sample rate.
    """

    samples: npt.NDArray[np.floating[Any]]
    rate_hz: int


SoundSource = str | os.PathLike[str] | BinaryIO | Sound


def name_of(source: SoundSource) -> str:
    """Return the name of a source for results and messages: a path as it was given, else what the source is."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, Sound):
        return "samples"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else "open file"
