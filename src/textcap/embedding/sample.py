"""Embed recordings without captions, from which a bridge is computed, through the store."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.data.text import counted
from textcap.embedding.recordings import Recording, RecordingEmbedder, log_findings
from textcap.errors import InputError
from textcap.models.backbone import Backbone

MIN_SOUNDS = 10
MOST_SOUNDS = 5000
_ENOUGH = 100

_logger = logging.getLogger("textcap")


def embed_sample(
    sounds: Sequence[str],
    name: str,
    backbone: Backbone,
    device: torch.device,
    *,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> NDArray[np.float32]:
    """Return the embeddings of sounds `[N, E]`, unit length; those that are silent or cannot be read are left out.

    Of more than `MOST_SOUNDS`, as many are drawn at random, always the same ones.

    Args:
        name: What to call them in messages, such as their folder.
        progress: Called with the number of files done and the total.

    Raises:
        InputError: Fewer than `MIN_SOUNDS` can be used.
        DeviceError: The device has too little memory.
    """
    if len(sounds) > MOST_SOUNDS:
        chosen = np.random.default_rng(0).choice(len(sounds), MOST_SOUNDS, replace=False)
        sounds = [sounds[i] for i in np.sort(chosen)]
    results = RecordingEmbedder(backbone, device).embed(sounds, progress=progress)
    log_findings(sounds, results)
    for error in (result for result in results if isinstance(result, InputError)):
        _logger.warning("skipped %s", error)
    kept = [result.embedding for result in results if isinstance(result, Recording) and not result.is_silent]
    if len(kept) < MIN_SOUNDS:
        problem = f"{name} has {counted(len(kept), 'sound')} to compute the bridge from, but {MIN_SOUNDS} are needed"
        raise InputError(problem, hint="name a folder with more sounds")
    if len(kept) < _ENOUGH:
        few = counted(len(kept), "sound")
        _logger.warning("%s has only %s; a bridge is better with %d or more", name, few, _ENOUGH)
    return np.stack(kept)
