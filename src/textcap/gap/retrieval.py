"""How well sound finds its caption among others, by cosine in CLAP's space.

Knows arrays only. It returns the figures that say whether something done to embeddings has helped.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Retrieval:
    """Figures of N pairs of embeddings."""

    cosine: float  # mean over the pairs, -1 to 1
    recall_at_1: float  # share of sounds whose own caption is nearest, 0 to 1
    recall_at_10: float  # share of sounds whose own caption is among the ten nearest, 0 to 1


def measure_retrieval(audio: NDArray[Any], text: NDArray[Any]) -> Retrieval:
    """Return the mean cosine of pairs, and how often a sound finds its own caption among all of them.

    A caption that is as near as the own one does not count against it: the same words describe several clips.

    Args:
        audio: `[N, E]`, any length.
        text: `[N, E]`, row i for row i of the audio, any length.

    Raises:
        ValueError: The two differ in shape, or are empty.
    """
    if audio.shape != text.shape or not len(audio):
        raise ValueError(f"embeddings of shapes {audio.shape} and {text.shape} make no pairs")
    sounds, captions = unit_rows(audio), unit_rows(text)
    own = (sounds * captions).sum(axis=1)
    # Copies of a caption give products that differ in the last bit.
    ranks = np.concatenate(
        [
            (sounds[i : i + _ROWS_AT_ONCE] @ captions.T > own[i : i + _ROWS_AT_ONCE, None] + 1e-9).sum(axis=1)
            for i in range(0, len(sounds), _ROWS_AT_ONCE)
        ]
    )
    return Retrieval(float(own.mean()), float((ranks < 1).mean()), float((ranks < 10).mean()))


def unit_rows(embeddings: NDArray[Any]) -> Array:
    """Return embeddings `[N, E]` in float64, each of length 1; one of length 0 stays."""
    rows = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = rows / np.where(lengths > 0, lengths, 1.0)
    return unit
