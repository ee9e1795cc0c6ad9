"""Where examples come from: text files and pairs side by side, and which of them an epoch draws.

Knows no models and no files. A source is a run of consecutive captions with a weight; what an epoch draws from it
follows from the seed and the epoch alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.device import seeded_generator

Indices = NDArray[np.int64]

TEXT, AUDIO = "text", "audio"

DRAW_STREAM = 5  # beside the streams of `data`


@dataclass(frozen=True)
class Source:
    """The captions of one file among all examples."""

    name: str
    kind: str  # TEXT: learned from text embeddings; AUDIO: from the embeddings of sounds
    first: int
    end: int  # behind the last
    weight: float = 1.0


@dataclass(frozen=True)
class SourceCount:
    """What a run takes from one file."""

    name: str
    kind: str
    n_captions: int  # trained on, without the held-out ones
    n_per_epoch: int


class MixedEmbeddings:
    """Embeddings of captions and of sounds as one table, without a copy of either.

    Args:
        text: `[N, E]`; a memory map may do.
        audio: `[C, E]`, one row per clip.
        owners: `[M]`, the row of `audio` for each caption of a pair; these come behind the N of text.
    """

    def __init__(self, text: NDArray[np.float32], audio: NDArray[np.float32], owners: Indices) -> None:
        self._text, self._audio, self._owners = text, audio, owners

    def __len__(self) -> int:
        return len(self._text) + len(self._owners)

    def __getitem__(self, rows: Indices) -> NDArray[np.float32]:
        """Return `[B, E]` for indices `[B]`."""
        n_text = len(self._text)
        of_text = rows < n_text
        found = np.empty((len(rows), self._audio.shape[1]), np.float32)
        found[of_text] = self._text[rows[of_text]]
        found[~of_text] = self._audio[self._owners[rows[~of_text] - n_text]]
        return found


def draw_epoch(sources: Sequence[Source], training: Indices, seed: int, epoch: int) -> Indices:
    """Return the places in `training` that an epoch learns from, source by source.

    A source of weight 1 gives every caption once, in order. Another gives `n_per_epoch` captions out of shuffled
    rounds through all of them, which go on from one epoch to the next: over many epochs each is drawn equally often.

    Args:
        training: Indices of the captions that are trained on, in rising order.
    """
    parts = []
    for number, source in enumerate(sources):
        places = _places(source, training)
        wanted = n_per_epoch(source, training)
        if source.weight == 1:
            parts.append(places)
            continue
        start, drawn = epoch * wanted, []
        while wanted:
            turn, offset = divmod(start, len(places))
            generator = seeded_generator(seed, DRAW_STREAM, number, turn)
            order = torch.randperm(len(places), generator=generator).numpy()[offset : offset + wanted]
            drawn.append(places[order])
            start, wanted = start + len(order), wanted - len(order)
        parts.append(np.concatenate(drawn) if drawn else places[:0])
    return np.concatenate(parts)


def n_per_epoch(source: Source, training: Indices) -> int:
    """Return how many captions of a source an epoch draws: its weight times those trained on, at least one."""
    n_captions = len(_places(source, training))
    return max(1, round(source.weight * n_captions)) if n_captions else 0


def count_sources(sources: Sequence[Source], training: Indices) -> tuple[SourceCount, ...]:
    """Return what an epoch takes from each source."""
    return tuple(
        SourceCount(source.name, source.kind, len(_places(source, training)), n_per_epoch(source, training))
        for source in sources
    )


def group_captions(captions: Sequence[str], clips: Sequence[int] | None = None) -> Indices:
    """Number captions so that copies of one, and all captions of a clip, have the same number.

    Args:
        clips: For each caption the clip it is of, or -1; by default none is of a clip.

    Returns:
        `[N]`, int64: the index of the first caption of each one's group.
    """
    first_of: dict[object, int] = {}
    leader = list(range(len(captions)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for i, caption in enumerate(captions):
        keys: list[object] = [caption]
        if clips is not None and clips[i] >= 0:
            keys.append(int(clips[i]))
        for key in keys:
            a, b = find(i), find(first_of.setdefault(key, i))
            leader[max(a, b)] = min(a, b)
    return np.array([find(i) for i in range(len(captions))], dtype=np.int64)


def _places(source: Source, training: Indices) -> Indices:
    first, end = np.searchsorted(training, [source.first, source.end])
    return np.arange(first, end)
