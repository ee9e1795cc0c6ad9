"""Both sides of audio-text pairs as embeddings, from the caches as far as they have them.

Knows neither the form of a pairs file nor what the embeddings are for. Pairs whose sound cannot be read are left out
and named.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.config import CAPTION_BATCH_SIZE
from textcap.data.pairs import AudioPair, PairSet, SkippedPair, describe_skipped, without
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

    source: PairSet  # less what could not be read
    audio: NDArray[np.float32]  # [N, E], unit length, row i for pairs[i]
    warnings: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[AudioPair, ...]:
        """The pairs whose sound could be embedded, in file order."""
        return self.source.pairs

    @property
    def skipped(self) -> tuple[SkippedPair, ...]:
        """Sounds that are missing or cannot be read."""
        return self.source.skipped

    @property
    def notices(self) -> tuple[str, ...]:
        """One line for each thing that the user should know: warnings, and the sounds that are left out."""
        return (*self.source.warnings, *self.warnings, *describe_skipped(self.source))

    @property
    def captions(self) -> list[str]:
        """All M captions, in the order of the pairs."""
        return [caption for pair in self.pairs for caption in pair.captions]

    @property
    def owners(self) -> NDArray[np.int64]:
        """The row of `audio` that each caption describes, `[M]`."""
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
        min_pairs: How many are needed.
        progress: Told how many files of how many are done.

    Raises:
        InputError: Too few pairs are left; it says how many are needed and why the first ones were left out.
        DeviceError: The device's memory is too small.
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
    readable = without(pairs, {pairs.pairs[place].audio: str(error) for place, error in embedded.errors.items()})
    _require(readable, min_pairs)
    return EmbeddedPairs(readable, embedded.vectors, embedded.warnings)


def embed_pair_captions(
    pairs: EmbeddedPairs,
    backbone: Backbone,
    device: torch.device,
    *,
    progress: Callable[[int], None] = lambda n_done: None,
) -> NDArray[np.float32]:
    """Return the text embeddings of all captions `[M, E]`, unit length, row i for `pairs.captions[i]`."""
    captions = pairs.captions
    digest = hashlib.sha256()
    for caption in captions:
        digest.update(caption.encode() + b"\n")  # no caption holds a line end
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
    """Return the text embedding of one caption of each pair, drawn by a seed, `[N, E]`.

    Args:
        text: `[M, E]`, of all captions.
    """
    counts = np.array([len(pair.captions) for pair in pairs.pairs])
    firsts = np.cumsum(counts) - counts
    chosen = firsts + np.random.default_rng([seed, _CAPTION_STREAM]).integers(counts)
    return np.asarray(text[chosen])


def _require(pairs: PairSet, n: int) -> None:
    if len(pairs.pairs) >= n:
        return
    message = f"{pairs.file.name} has {len(pairs.pairs)} pairs whose sound can be read, and {n} are needed"
    if pairs.skipped:
        reasons = "; ".join(skipped.reason for skipped in pairs.skipped[:_REASONS_SHOWN])
        more = len(pairs.skipped) - _REASONS_SHOWN
        message += f": {reasons}" + (f"; and {more} more" if more > 0 else "")
    raise InputError(message, hint="say with --audio-dir where the sounds are" if pairs.skipped else None)
