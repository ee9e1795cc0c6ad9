"""Gaussian noise on unit-length embeddings (paper, section 3.2).

Noise spreads each caption's embedding over the neighbourhood in which the embeddings of its sounds lie.
"""

import torch
from torch import Tensor


def add_noise(unit: Tensor, noise_std: float, generator: torch.Generator) -> Tensor:
    """Return embeddings with noise on every coordinate, made unit length again.

    Args:
        unit: `[B, E]`, unit length.
        noise_std: Standard deviation of the noise; 0 returns the embeddings as they are.
        generator: Source of the noise, on the CPU, so that every device draws the same.
    """
    if noise_std == 0:
        return unit
    noise = torch.randn(unit.shape, generator=generator, dtype=torch.float32).to(unit.device)
    return torch.nn.functional.normalize(unit + noise_std * noise, dim=-1)
