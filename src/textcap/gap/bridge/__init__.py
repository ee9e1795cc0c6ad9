"""The bridge across the modality gap: how text embeddings change in training, and audio embeddings in captioning.

A bridge is saved with the mapper and never rebuilt from flags. Each technique has its own module in this package;
`Bridge` applies them in order.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from textcap.config import BridgeConfig
from textcap.gap.adapter import LinearAdapter
from textcap.gap.bridge.affine import AffineBridge
from textcap.gap.bridge.noise import add_noise


@dataclass(eq=False)
class Bridge:
    """An optional linear adapter and Gaussian noise on text embeddings (paper, Table 3 and section 3.2).

    Between the two, an affine bridge can move the embeddings of both sides. Noise on audio embeddings is for training
    on pairs.
    """

    config: BridgeConfig
    adapter: LinearAdapter | None = None
    affine: AffineBridge | None = None

    def text_side(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return text embeddings as the mapper is trained on them.

        The steps are: unit length, the adapter or the affine bridge if there is one, unit length, noise, unit length.
        CapDec, C3 and their successors use the same order.

        Args:
            embeddings: Text embeddings, `[B, E]`, of any length.
            generator: Source of the noise, on the CPU.

        Returns:
            `[B, E]`, unit length.
        """
        return add_noise(self.moved_text(embeddings), self.config.noise_std, generator)

    def moved_text(self, embeddings: Tensor) -> Tensor:
        """Return text embeddings `[B, E]` of any length at unit length, as `text_side` does before the noise."""
        unit = torch.nn.functional.normalize(embeddings, dim=-1)
        if self.adapter is not None:
            unit = torch.nn.functional.normalize(self.adapter.apply(unit), dim=-1)
        if self.affine is not None:
            unit = torch.nn.functional.normalize(self.affine.text_side(unit), dim=-1)
        return unit

    def audio_training_side(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return audio embeddings as the mapper is trained on them, when it is trained on pairs.

        Args:
            embeddings: Audio embeddings, `[B, E]`, of any length.
            generator: Source of the noise, on the CPU; unused if the noise variance on audio embeddings is 0.

        Returns:
            `[B, E]`, unit length.
        """
        return add_noise(self.audio_side(embeddings), self.config.audio_noise_std, generator)

    def audio_side(self, embeddings: Tensor) -> Tensor:
        """Return audio embeddings `[B, E]` as the mapper takes them in captioning: moved, and made unit length."""
        unit = torch.nn.functional.normalize(embeddings, dim=-1)
        return unit if self.affine is None else torch.nn.functional.normalize(self.affine.audio_side(unit), dim=-1)
