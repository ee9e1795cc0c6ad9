"""Combine the captions of several text and pairs files, and draw what an epoch trains on.

A source is a range of consecutive captions with a weight. What an epoch draws from it follows from the seed and the
epoch alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.data.stored import distinct
from textcap.device import seeded_generator

Indices = NDArray[np.int64]

TEXT, AUDIO = "text", "audio"

DRAW_STREAM = 5  # follows the streams that `textcap.training.data` numbers


@dataclass(frozen=True)
class Source:
    """The captions of one file among all examples."""

    name: str  # of the file
    kind: str  # TEXT: learned from text embeddings; AUDIO: learned from the embeddings of sounds
    first: int  # index of its first caption among all captions
    end: int  # index after its last caption
    weight: float = 1.0  # captions drawn per epoch, divided by the captions to train on


@dataclass(frozen=True)
class SourceCount:
    """The number of captions that a run trains on from one file."""

    name: str  # of the file
    kind: str  # TEXT or AUDIO
    n_captions: int  # captions to train on, without those held out
    n_per_epoch: int  # captions drawn in an epoch


class MixedEmbeddings:
    """The embeddings of captions and of sounds as one table, without copying them.

    Args:
        text: `[M, E]`, one row for each different caption of text files; may be a memory map.
        rows: `[N]`, the row of `text` for each caption of a text file.
        audio: `[C, E]`, one row for each clip.
        owners: `[M]`, int64, the row of `audio` for each caption of a pair. In the table these captions follow the N
            captions of text files.
    """

    def __init__(
        self, text: NDArray[np.float32], rows: NDArray[np.integer[Any]], audio: NDArray[np.float32], owners: Indices
    ) -> None:
        self._text, self._rows, self._audio, self._owners = text, rows, audio, owners

    def __len__(self) -> int:
        return len(self._rows) + len(self._owners)

    def __getitem__(self, rows: Indices) -> NDArray[np.float32]:
        """Return the embeddings `[B, E]` of the captions with indices `[B]`."""
        n_text = len(self._rows)
        is_text = rows < n_text
        found = np.empty((len(rows), self._audio.shape[1]), np.float32)
        found[is_text] = self._text[self._rows[rows[is_text]]]
        found[~is_text] = self._audio[self._owners[rows[~is_text] - n_text]]
        return found


def draw_epoch(sources: Sequence[Source], training: Indices, seed: int, epoch: int) -> Indices:
    """Return the positions in `training` of the captions that an epoch trains on, source by source.

    A source of weight 1 gives every caption once, in order. Any other gives `n_per_epoch` captions from shuffled passes
    through all its captions. The passes continue from one epoch to the next, so that over many epochs every caption is
    drawn equally often.

    Args:
        sources: The sources, in order.
        training: Indices of the captions to train on, in ascending order.
        seed: Seed of the draw.
        epoch: The epoch, counted from 0.
    """
    parts = []
    for number, source in enumerate(sources):
        positions = _positions(source, training)
        wanted = count_source(source, training).n_per_epoch
        if source.weight == 1:
            parts.append(positions)
            continue
        start, drawn = epoch * wanted, []
        while wanted:
            n_passes, offset = divmod(start, len(positions))
            generator = seeded_generator(seed, DRAW_STREAM, number, n_passes)
            order = torch.randperm(len(positions), generator=generator).numpy()[offset : offset + wanted]
            drawn.append(positions[order])
            start, wanted = start + len(order), wanted - len(order)
        parts.append(np.concatenate(drawn) if drawn else positions[:0])
    return np.concatenate(parts)


def count_source(source: Source, training: Indices) -> SourceCount:
    """Return how many captions of a source there are to train on, and how many an epoch draws."""
    n_captions = len(_positions(source, training))
    drawn = max(1, round(source.weight * n_captions)) if n_captions else 0
    return SourceCount(source.name, source.kind, n_captions, drawn)


def group_captions(captions: Sequence[str], clips: Sequence[int] | Indices | None = None) -> Indices:
    """Group captions so that all copies of a caption, and all captions of a clip, are in one group.

    Args:
        captions: All N captions.
        clips: For each caption the number of its clip, or -1 if it has none; by default no caption has one.

    Returns:
        For each caption the index of the first caption in its group, `[N]`, int64.
    """
    groups = np.array(distinct(captions)[1], np.int64)  # of equal captions; joined below by clips
    if clips is not None:
        joined: dict[int, int] = {}

        def root(group: int) -> int:
            while (above := joined.get(group, group)) != group:
                joined[group] = joined.get(above, above)  # halves the way for the next time
                group = above
            return group

        owners = np.asarray(clips)[: len(groups)]
        for i in np.flatnonzero(owners >= 0).tolist():
            one, other = root(int(groups[i])), root(-1 - int(owners[i]))  # groups of clips have numbers below 0
            joined[min(one, other)] = max(one, other)
        changed = [group for group in joined if group >= 0]
        renamed = np.arange(groups.max() + 1)
        renamed[changed] = [root(group) for group in changed]
        groups = renamed[groups]
    first = np.empty(groups.max() + 1, np.int64)
    first[groups[::-1]] = np.arange(len(groups))[::-1]  # the last to be written is the first caption
    return first[groups]


def _positions(source: Source, training: Indices) -> Indices:
    first, end = np.searchsorted(training, [source.first, source.end])
    return np.arange(first, end)
