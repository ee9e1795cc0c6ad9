"""Embed the sounds and captions of audio-text pairs, through the caches.

Reading the pairs file is left to `data.pairs`. Pairs whose sound file cannot be read are skipped and reported.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.config import CAPTION_BATCH_SIZE
from textcap.data.pairs import AudioPair, PairSet, SkippedPair, describe_skipped, without
from textcap.data.text import counted
from textcap.device import memory_errors
from textcap.embedding.store.audio import embed_audio_files
from textcap.embedding.store.text import embed_captions
from textcap.errors import InputError
from textcap.models.backbone import Backbone

_CAPTION_STREAM = 7
_REASONS_SHOWN = 3


@dataclass(frozen=True)
class EmbeddedPairs:
    """Pairs with the embeddings of their sounds."""

    source: PairSet  # the pairs with a readable sound file, and what was skipped
    audio: NDArray[np.float32]  # [N, E], unit length; row i belongs to pairs[i]
    warnings: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[AudioPair, ...]:
        """The N pairs whose sound was embedded, in file order."""
        return self.source.pairs

    @property
    def skipped(self) -> tuple[SkippedPair, ...]:
        """The sounds that do not exist or cannot be read."""
        return self.source.skipped

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines to show to the user: warnings, and the sounds that were skipped."""
        return (*self.source.warnings, *self.warnings, *describe_skipped(self.source))

    @property
    def captions(self) -> list[str]:
        """All M captions, pair by pair."""
        return [caption for pair in self.pairs for caption in pair.captions]

    @property
    def owners(self) -> NDArray[np.int64]:
        """For each caption the row of `audio` that it describes, `[M]`."""
        return np.repeat(np.arange(len(self.pairs)), [len(pair.captions) for pair in self.pairs])


def embed_pairs(
    pairs: PairSet,
    backbone: Backbone,
    device: torch.device,
    *,
    min_pairs: int = 1,
    batch_size: int = CAPTION_BATCH_SIZE,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> EmbeddedPairs:
    """Embed the sounds of pairs.

    Args:
        min_pairs: Least number of pairs with a readable sound file.
        batch_size: Number of audio windows to embed at once.
        progress: Called with the number of files done and the total.

    Raises:
        InputError: Fewer than `min_pairs` pairs have a readable sound file; the message gives the first reasons.
        DeviceError: The device has too little memory.
    """
    _require(pairs, min_pairs)
    with memory_errors(f"on {device} while embedding sounds", hint="use --device cpu"):
        embedded = embed_audio_files(
            [pair.audio for pair in pairs.pairs],
            backbone_hash=backbone.content_hash,
            audio=backbone.config.clap.audio,
            width=backbone.config.clap.embedding_width,
            load_encoder=lambda: backbone.audio_encoder(device),
            device=device,
            batch_size=batch_size,
            progress=progress,
        )
    readable = without(pairs, {pairs.pairs[i].audio: str(error) for i, error in embedded.errors.items()})
    _require(readable, min_pairs)
    return EmbeddedPairs(readable, embedded.vectors, embedded.warnings)


def embed_pair_captions(
    pairs: EmbeddedPairs,
    backbone: Backbone,
    device: torch.device,
    *,
    progress: Callable[[int], None] = lambda n_done: None,
) -> NDArray[np.float32]:
    """Return the text embeddings of all captions, `[M, E]`, unit length; row i belongs to `pairs.captions[i]`.

    Args:
        progress: Called with the number of captions done.

    Raises:
        InputError: The embeddings cannot be written, neither to the cache nor to a temporary file.
        DeviceError: The device has too little memory.
    """
    captions = pairs.captions
    digest = hashlib.sha256()
    for caption in captions:
        digest.update(caption.encode() + b"\n")  # captions contain no line ends
    with memory_errors(f"on {device} while embedding captions", hint="use --device cpu"):
        return embed_captions(
            captions,
            content_hash=digest.hexdigest(),
            backbone_hash=backbone.content_hash,
            width=backbone.config.clap.embedding_width,
            load_encoder=lambda: backbone.text_encoder(device),
            progress=progress,
        ).vectors


def one_caption_per_pair(pairs: EmbeddedPairs, text: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return the text embedding of one randomly drawn caption per pair, `[N, E]`.

    Args:
        text: Embeddings of all captions, `[M, E]`.
        seed: Seed of the draw.
    """
    counts = np.array([len(pair.captions) for pair in pairs.pairs])
    firsts = np.cumsum(counts) - counts
    chosen = firsts + np.random.default_rng([seed, _CAPTION_STREAM]).integers(counts)
    return np.asarray(text[chosen])


def _require(pairs: PairSet, n: int) -> None:
    """Raise an InputError unless there are at least n pairs."""
    if len(pairs.pairs) >= n:
        return
    n_pairs = counted(len(pairs.pairs), "pair")
    message = f"{pairs.file.name} has {n_pairs} with a readable sound file, but must have at least {n}"
    if pairs.skipped:
        reasons = "; ".join(skipped.reason for skipped in pairs.skipped[:_REASONS_SHOWN])
        more = len(pairs.skipped) - _REASONS_SHOWN
        message += f": {reasons}" + (f"; and {more} more" if more > 0 else "")
    raise InputError(message, hint="use --audio-dir to name the folder of the sounds" if pairs.skipped else None)
