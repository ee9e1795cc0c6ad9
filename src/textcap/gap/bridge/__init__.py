"""The bridge across the modality gap: one object with a text side and an audio side.

The text side runs while training, the audio side while captioning. A bridge is saved with the mapper and never rebuilt
from flags. Each way across the gap has a module of its own here; `Bridge` puts them in order.
"""

import torch
from torch import Tensor

from textcap.config import BridgeConfig
from textcap.gap.adapter import LinearAdapter
from textcap.gap.bridge.noise import add_noise


class Bridge:
    """An optional linear adapter and Gaussian noise on text embeddings; audio embeddings stay as they are.

    Paper, section 3.2 (noise) and Table 3 (adapter).
    """

    def __init__(self, config: BridgeConfig, adapter: LinearAdapter | None = None) -> None:
        self.config = config
        self.adapter = adapter

    def text_side(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return text embeddings as the mapper is trained on them.

        The steps are: unit length, the adapter if there is one, unit length, noise, unit length. That is the order of
        CapDec and its successors.

        Args:
            embeddings: `[B, E]`, any length.
            generator: Source of the noise, on the CPU.

        Returns:
            `[B, E]`, unit length.
        """
        unit = torch.nn.functional.normalize(embeddings, dim=-1)
        if self.adapter is not None:
            unit = torch.nn.functional.normalize(self.adapter.apply(unit), dim=-1)
        return add_noise(unit, self.config.noise_std, generator)

    def audio_training_side(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return audio embeddings as the mapper is trained on them, where there are pairs to train on.

        Args:
            embeddings: `[B, E]`, any length.
            generator: Source of the noise, on the CPU. By default there is none on audio embeddings.

        Returns:
            `[B, E]`, unit length.
        """
        return add_noise(self.audio_side(embeddings), self.config.audio_noise_std, generator)

    def audio_side(self, embeddings: Tensor) -> Tensor:
        """Return audio embeddings `[B, E]` as the mapper takes them while captioning: unit length."""
        return torch.nn.functional.normalize(embeddings, dim=-1)
