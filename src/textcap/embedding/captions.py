"""Embed captions with CLAP's text encoder, each of them once."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.data.stored import Lazy
from textcap.device import memory_errors
from textcap.errors import CheckpointError
from textcap.models.backbone import Backbone
from textcap.store import Store


def embed_captions(
    captions: Sequence[str],
    backbone: Backbone,
    device: torch.device,
    *,
    progress: Callable[[int], None] = lambda n_done: None,
) -> NDArray[np.float32]:
    """Return the text embeddings of captions, and compute only those that are not in the store.

    Args:
        progress: Called with the number of captions done, if any has to be embedded.

    Returns:
        `[N, E]`, in the order of the captions, unit length, read-only; a memory map unless there are none.

    Raises:
        CheckpointError: The encoder's weights are damaged.
        InputError: The backbone has no text encoder, or the embeddings can be written nowhere.
        DeviceError: The device has too little memory.
    """
    clap = backbone.config.clap
    store = Store.of("text", backbone.clap.name, backbone.clap.content_hash, clap.embedding_width)
    encoder = cache(lambda: backbone.text_encoder(device))

    def encode(indices: list[int]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = encoder().encode([captions[index] for index in indices]).numpy()
        if not np.isfinite(vectors).all():
            message = f"the text encoder of {backbone.name} gives embeddings that are NaN or infinite"
            raise CheckpointError(message, hint="its weights are damaged; download or copy them again")
        return vectors

    keys = Lazy(len(captions), lambda i: hashlib.sha256(captions[i].encode()).digest())
    with memory_errors(f"on {device} while embedding captions", hint="close other programs, or use --device cpu"):
        return store.vectors(keys, encode, progress=progress)
