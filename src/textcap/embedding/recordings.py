"""Embed recordings of any length: one unit-length vector for each, the mean over its windows.

Knows no captions and no cache. Windows of several files go through the encoder together; a file that cannot be read
becomes an error in its place and does not stop the others.
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
    """What embeds windows: CLAP's audio side."""

    def __call__(self, windows: Tensor) -> Tensor:
        """Return `[W, E]`, unit length, for windows `[W, S]` on the encoder's device."""


@dataclass(frozen=True)
class Recording:
    """What a sound file is to CLAP."""

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
    """Embed each file as the mean of its windows' embeddings, in batches of windows that cross files.

    Args:
        width: E.
        batch_size: Windows embedded at once; embeddings do not depend on it beyond rounding.

    Returns:
        One result per file, in their order: an embedding, or why there is none.
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
    units = torch.nn.functional.normalize(sums, dim=-1)  # the mean's direction is the sum's
    return [errors[i] if i in errors else Recording(units[i], ends_s[i]) for i in range(len(paths))]
