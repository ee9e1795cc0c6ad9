"""What is done about the modality gap: one object with a text side and an audio side.

The text side runs while training, the audio side while captioning. A bridge is saved with the mapper and
never rebuilt from flags. It knows embeddings only, not where they come from.
"""

import torch
from torch import Tensor

from textcap.config import BridgeConfig


class Bridge:
    """Gaussian noise on text embeddings while training, nothing on audio embeddings (paper, section 3.2)."""

    def __init__(self, config: BridgeConfig) -> None:
        self.config = config

    def text_side(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return text embeddings spread over the neighbourhood where audio embeddings lie.

        Unit length, then noise, then unit length again, the order of CapDec and its successors.

        Args:
            embeddings: `[B, E]`, any length.
            generator: Source of the noise; on the CPU, so that every device draws the same.

        Returns:
            `[B, E]`, unit length.
        """
        unit = torch.nn.functional.normalize(embeddings, dim=-1)
        if self.config.noise_variance == 0:
            return unit
        noise = torch.randn(unit.shape, generator=generator, dtype=torch.float32).to(unit.device)
        return torch.nn.functional.normalize(unit + self.config.noise_std * noise, dim=-1)

    def audio_side(self, embeddings: Tensor) -> Tensor:
        """Return audio embeddings `[B, E]` as the mapper wants them: unit length."""
        return torch.nn.functional.normalize(embeddings, dim=-1)
