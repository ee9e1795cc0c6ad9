"""Compare captions with the sounds that they describe, and order candidates by it.

A similarity is the cosine of CLAP's embeddings of a sound and of a caption. It is not calibrated: what counts as high
differs from one sound to another, so it serves to compare captions of one sound.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.errors import CheckpointError, DownloadError
from textcap.models.backbone import Backbone

WITH_TEXT = "msclap-2023"  # its audio encoder is that of clapcap, which has no text encoder


def with_text_encoder(backbone: Backbone) -> Backbone:
    """Return a backbone with a text encoder whose audio encoder is the same as that of another, or that one itself.

    It is looked for on disk only.

    Args:
        backbone: The backbone that sounds are embedded with.

    Raises:
        DownloadError: The backbone has no text encoder, and the weights of the one that has are not on disk.
        CheckpointError: The audio encoders differ.
    """
    if backbone.clap.has_text:
        return backbone
    try:
        found = Backbone.load(WITH_TEXT, offline=True)
    except DownloadError as error:
        message = f"{backbone.name} has no text encoder to compare words and sounds with"
        raise DownloadError(message, hint=f"run textcap fetch {WITH_TEXT}, whose text encoder fits") from error
    own, other = (one.audio_encoder().state_dict() for one in (backbone, found))
    if own.keys() != other.keys() or not all(torch.equal(own[name], other[name]) for name in own):
        message = f"the audio encoder of {backbone.name} is not that of {WITH_TEXT}, whose text encoder was to be used"
        raise CheckpointError(message, hint="leave out --rerank and --similarity, or search with --like")
    return found


def rank(scores: Sequence[float], similarities: Sequence[float], weight: float) -> list[int]:
    """Return the indices of candidates, best first; equal ones keep their order.

    Args:
        scores: Mean log probability of each candidate, in nats.
        similarities: Similarity of each candidate to the sound.
        weight: Weight of the similarity, from 0 to 1; the rest is that of the score. Both are standardised within the
            candidates, and count as 0 where they are all equal.
    """
    combined = weight * _standardised(similarities) + (1 - weight) * _standardised(scores)
    return [int(index) for index in np.argsort(-combined, kind="stable")]


def _standardised(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    # Of equal values the mean may be off by rounding, and the standard deviation not quite 0.
    spread = array.std() if np.ptp(array) else 0.0
    return (array - array.mean()) / spread if spread else np.zeros_like(array)
