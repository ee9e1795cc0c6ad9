"""Embed recordings of any length: one unit-length vector for each, the mean over its windows.

Windows of several files go through the encoder in one batch. Caching is left to `embedding.store.audio`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from textcap.audio.windows import read_windows
from textcap.config import AudioConfig
from textcap.errors import InputError


class AudioWindowEncoder(Protocol):
    """Embeds audio windows, as CLAP's audio encoder does."""

    def __call__(self, windows: Tensor) -> Tensor:
        """Return embeddings `[W, E]`, unit length, of windows `[W, S]` on the encoder's device."""


@dataclass(frozen=True)
class Recording:
    """The CLAP embedding of a sound file, and its duration."""

    embedding: Tensor  # [E], float32, unit length, on the CPU
    duration_s: float


@torch.inference_mode()
def embed_recordings(
    paths: Sequence[Path],
    encoder: AudioWindowEncoder,
    config: AudioConfig,
    *,
    width: int,
    device: torch.device,
    batch_size: int,
) -> list[Recording | InputError]:
    """Embed each file as the mean of the embeddings of its windows, made unit length.

    Args:
        width: Embedding width E.
        device: The encoder's device.
        batch_size: Number of windows to embed at once, over several files; it affects embeddings only by rounding.

    Returns:
        One result per file, in the given order: its embedding, or the error why it cannot be read.
    """
    sums = torch.zeros(len(paths), width)
    ends_s: dict[int, float] = {}
    errors: dict[int, InputError] = {}
    pending: list[tuple[int, Tensor]] = []

    def flush() -> None:
        if pending:
            windows = torch.stack([samples for _, samples in pending]).to(device)  # [W, S]
            owners = torch.tensor([i for i, _ in pending])
            sums.index_add_(0, owners, encoder(windows).float().cpu())
            pending.clear()

    for i, path in enumerate(paths):
        try:
            for window in read_windows(path, config):
                pending.append((i, torch.from_numpy(window.samples)))
                ends_s[i] = window.end_s
                if len(pending) == batch_size:
                    flush()
        except InputError as error:
            errors[i] = error
    flush()
    units = torch.nn.functional.normalize(sums, dim=-1)  # the sum and the mean have the same direction
    return [errors[i] if i in errors else Recording(units[i], ends_s[i]) for i in range(len(paths))]
