"""Embed recordings without captions, from which a bridge is computed, through the store."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.audio.inputs import find_inputs
from textcap.data.text import counted
from textcap.embedding.recordings import Recording, RecordingEmbedder, log_findings
from textcap.errors import InputError
from textcap.models.backbone import Backbone

MIN_SOUNDS = 10
MOST_SOUNDS = 5000
_ENOUGH, _SKIPPED_SHOWN = 100, 3

_logger = logging.getLogger("textcap")


def find_sample(folders: Sequence[str | Path]) -> list[str]:
    """Return the sounds in folders and below them, and sounds that are named themselves.

    Raises:
        InputError: A name leads to no sound.
    """
    found = find_inputs([str(folder) for folder in folders], recursive=True)
    if found.errors:
        raise found.errors[0]
    return [one.name for one in found.inputs]


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
    errors = [result for result in results if isinstance(result, InputError)]
    for error in errors[:_SKIPPED_SHOWN]:
        _logger.warning("skipped: %s", error)
    if (n_more := len(errors) - _SKIPPED_SHOWN) > 0:
        _logger.warning("%s: skipped: %s", name, counted(n_more, "more sound"))
    kept = [result.embedding for result in results if isinstance(result, Recording) and not result.is_silent]
    if len(kept) < MIN_SOUNDS:
        problem = f"{name} has {counted(len(kept), 'sound')} to compute the bridge from, but {MIN_SOUNDS} are needed"
        raise InputError(problem, hint="name a folder with more sounds")
    if len(kept) < _ENOUGH:
        few = counted(len(kept), "sound")
        _logger.warning("%s has only %s; a bridge is better with %d or more", name, few, _ENOUGH)
    return np.stack(kept)
