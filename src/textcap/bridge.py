"""What is done about the modality gap: one object with a text side and an audio side.

The text side runs while training, the audio side while captioning. A bridge is saved with the mapper and
never rebuilt from flags. It knows embeddings only, not where they come from.
"""

import torch
from torch import Tensor

from textcap.adapter import LinearAdapter
from textcap.config import BridgeConfig


class Bridge:
    """An optional linear adapter and Gaussian noise on text embeddings while training, nothing on audio embeddings.

    Paper, section 3.2 (noise) and Table 3 (adapter).
    """

    def __init__(self, config: BridgeConfig, adapter: LinearAdapter | None = None) -> None:
        self.config = config
        self.adapter = adapter

    def text_side(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return text embeddings spread over the neighbourhood where audio embeddings lie.

        Unit length, the adapter if there is one, unit length, then noise, then unit length again, the order of
        CapDec and its successors.

        Args:
            embeddings: `[B, E]`, any length.
            generator: Source of the noise; on the CPU, so that every device draws the same.

        Returns:
            `[B, E]`, unit length.
        """
        unit = torch.nn.functional.normalize(embeddings, dim=-1)
        if self.adapter is not None:
            unit = torch.nn.functional.normalize(self.adapter.apply(unit), dim=-1)
        return _with_noise(unit, self.config.noise_std, generator)

    def audio_training_side(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return audio embeddings as the mapper is trained on them, where pairs are given.

        Args:
            embeddings: `[B, E]`, any length.
            generator: Source of the noise, of which there is none by default; on the CPU.

        Returns:
            `[B, E]`, unit length.
        """
        return _with_noise(self.audio_side(embeddings), self.config.audio_noise_std, generator)

    def audio_side(self, embeddings: Tensor) -> Tensor:
        """Return audio embeddings `[B, E]` as the mapper wants them: unit length."""
        return torch.nn.functional.normalize(embeddings, dim=-1)


def _with_noise(unit: Tensor, noise_std: float, generator: torch.Generator) -> Tensor:
    if noise_std == 0:
        return unit
    noise = torch.randn(unit.shape, generator=generator, dtype=torch.float32).to(unit.device)
    return torch.nn.functional.normalize(unit + noise_std * noise, dim=-1)
