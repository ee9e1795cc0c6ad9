"""Add Gaussian noise to unit-length embeddings (paper, section 3.2).

The noise spreads each caption's embedding over the neighbourhood that contains the embeddings of matching sounds.
"""

import torch
from torch import Tensor


def add_noise(unit: Tensor, noise_std: float, generator: torch.Generator) -> Tensor:
    """Return embeddings with noise on every coordinate, `[B, E]`, made unit length again.

    Args:
        unit: Embeddings, `[B, E]`, unit length.
        noise_std: Standard deviation of the noise; with 0 the embeddings are returned as they are.
        generator: Source of the noise, on the CPU, so that every device uses the same noise.
    """
    if noise_std == 0:
        return unit
    noise = torch.randn(unit.shape, generator=generator, dtype=torch.float32).to(unit.device)
    return torch.nn.functional.normalize(unit + noise_std * noise, dim=-1)
