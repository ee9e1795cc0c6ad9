"""Embed the sounds of audio-text pairs, through the store.

Reading the pairs file is left to `data.pairs`. Pairs whose sound cannot be read or is silent are skipped and reported.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.data.pairs import AudioPair, PairSet, log_skipped, without
from textcap.data.text import counted
from textcap.embedding.recordings import Recording, RecordingEmbedder, log_findings
from textcap.errors import InputError
from textcap.models.backbone import Backbone

_CAPTION_STREAM = 7
_REASONS_SHOWN = 3


@dataclass(frozen=True)
class EmbeddedPairs:
    """Pairs with the embeddings of their sounds."""

    source: PairSet  # the pairs with a readable sound file, and what was skipped
    audio: NDArray[np.float32]  # [N, E], unit length; row i belongs to pairs[i]

    @property
    def pairs(self) -> tuple[AudioPair, ...]:
        """The N pairs whose sound was embedded, in file order."""
        return self.source.pairs

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
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> EmbeddedPairs:
    """Embed the sounds of pairs; those that are skipped are logged.

    Args:
        min_pairs: Least number of pairs with a readable sound file.
        progress: Called with the number of files done and the total.

    Raises:
        InputError: Fewer than `min_pairs` pairs have a readable sound file; the message gives the first reasons.
        DeviceError: The device has too little memory.
    """
    _require(pairs, min_pairs)
    sounds = [pair.audio for pair in pairs.pairs]
    results = dict(zip(sounds, RecordingEmbedder(backbone, device).embed(sounds, progress=progress), strict=True))
    log_findings(sounds, list(results.values()))
    unusable = {sound: str(result) for sound, result in results.items() if isinstance(result, InputError)}
    unusable |= {s: f"{s} is silent" for s, r in results.items() if isinstance(r, Recording) and r.is_silent}
    usable = without(pairs, unusable)
    _require(usable, min_pairs)
    log_skipped(usable.file.name, [skipped.reason for skipped in usable.skipped])
    kept = [results[pair.audio] for pair in usable.pairs]
    return EmbeddedPairs(usable, np.stack([result.embedding for result in kept if isinstance(result, Recording)]))


def one_caption_each(pairs: PairSet, seed: int) -> PairSet:
    """Return the pairs with one caption each, drawn at random with a seed."""
    counts = [len(pair.captions) for pair in pairs.pairs]
    chosen = np.random.default_rng([seed, _CAPTION_STREAM]).integers(counts)
    kept = (AudioPair(pair.audio, (pair.captions[i],)) for pair, i in zip(pairs.pairs, chosen, strict=True))
    return replace(pairs, pairs=tuple(kept))


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
