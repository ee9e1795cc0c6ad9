"""Measure audio-to-text retrieval: how often the caption nearest to a sound in CLAP's space is its own.

The figures show whether an adapter brings text embeddings closer to audio embeddings.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Retrieval:
    """Retrieval figures of N pairs of embeddings."""

    cosine: float  # of a sound and its own caption, mean over the pairs, -1 to 1
    recall_at_1: float  # share of sounds whose own caption is the nearest, 0 to 1
    recall_at_10: float  # share of sounds whose own caption is among the ten nearest, 0 to 1


def measure_retrieval(audio: NDArray[Any], text: NDArray[Any]) -> Retrieval:
    """Return the mean cosine of the pairs, and the recall of each sound's own caption among all captions.

    A caption as near as the sound's own does not count against it, because several clips may have the same caption.

    Args:
        audio: Audio embeddings, `[N, E]`, of any length.
        text: Text embeddings, `[N, E]`, of any length; row i belongs to row i of `audio`.

    Raises:
        ValueError: The shapes of the two arrays differ, or they are empty.
    """
    if audio.shape != text.shape or not len(audio):
        raise ValueError(f"audio {audio.shape} and text {text.shape} differ in shape or are empty")
    sounds, captions = unit_rows(audio), unit_rows(text)
    own = (sounds * captions).sum(axis=1)
    # The tolerance: cosines of identical captions may differ in the last bit.
    ranks = np.concatenate(
        [
            (sounds[i : i + _ROWS_AT_ONCE] @ captions.T > own[i : i + _ROWS_AT_ONCE, None] + 1e-9).sum(axis=1)
            for i in range(0, len(sounds), _ROWS_AT_ONCE)
        ]
    )
    return Retrieval(float(own.mean()), float((ranks < 1).mean()), float((ranks < 10).mean()))


def unit_rows(embeddings: NDArray[Any]) -> Array:
    """Return embeddings `[N, E]` in float64, scaled to length 1; a row of length 0 is left as it is."""
    rows = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = rows / np.where(lengths > 0, lengths, 1.0)
    return unit
