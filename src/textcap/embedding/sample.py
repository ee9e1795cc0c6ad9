"""Embed recordings without captions, from which a bridge is computed, through the store."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.audio.inputs import find_inputs
from textcap.data.pairs import log_skipped
from textcap.data.text import STDIN, counted
from textcap.embedding.recordings import Recording, RecordingEmbedder, log_findings
from textcap.errors import FileError, InputError
from textcap.models.backbone import Backbone

MIN_SOUNDS = 10
MOST_SOUNDS = 5000
_ENOUGH = 100

_logger = logging.getLogger("textcap")


def find_sample(folders: Sequence[str | Path]) -> list[str]:
    """Return the sounds in folders and below them, and sounds that are named themselves; the rest is logged.

    Raises:
        InputError: A name leads to no sound, or there are fewer than `MIN_SOUNDS`.
    """
    names = [str(folder) for folder in folders]
    found = find_inputs(names, recursive=True)
    for error in found.errors:
        if not isinstance(error, FileError) or str(error.path) in names:
            raise error
    if remote := next((one.name for one in found.inputs if one.address or one.name == STDIN), None):
        raise InputError(f"{remote} is not a file or folder on this machine", hint="name a folder of recordings")
    for note in found.notes:
        _logger.warning("%s", note)
    log_skipped(", ".join(names), found.errors)
    _require(", ".join(names), len(found.inputs), len(found.errors))
    return [one.name for one in found.inputs]


def embed_sample(
    sounds: Sequence[str],
    name: str,
    backbone: Backbone,
    device: torch.device,
    *,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> NDArray[np.float32]:
    """Return the embeddings of sounds `[N, E]`, unit length, in an order of their own.

    Sounds that are silent or cannot be read are left out, and of equal ones all but one. Of more than `MOST_SOUNDS`, as
    many are drawn at random, always the same ones.

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
    log_skipped(name, [result for result in results if isinstance(result, InputError)])
    heard = [result.embedding for result in results if isinstance(result, Recording) and not result.is_silent]
    kept = np.unique(np.stack(heard), axis=0) if heard else np.empty((0, 0), np.float32)
    _require(name, len(kept), len(sounds) - len(kept))
    if len(kept) < _ENOUGH:
        few = counted(len(kept), "different sound")
        _logger.warning("%s has only %s; a bridge is better with %d or more", name, few, _ENOUGH)
    return kept


def _require(name: str, n: int, n_left_out: int) -> None:
    if n < MIN_SOUNDS:
        left_out = f" ({n_left_out} silent, unreadable or equal to another)" if n_left_out else ""
        found = f"{counted(n, 'different sound')}{left_out}"
        problem = f"{name} has {found} to compute the bridge from, but {MIN_SOUNDS} are needed"
        raise InputError(problem, hint="name a folder with more sounds")
