"""Widen a narrow gap to a mean cosine; one share of its squared distance is a shift, and the rest is private."""

from collections.abc import Sequence

import numpy as np
import torch

from textcap.demo.scenes import Scene
from textcap.gap.retrieval import Array, unit_rows
from tiny.projections import private_part, ridge_weights, scene_features

_SEED = 6006


class Dial:
    """Moves embeddings of both sides apart: n(wc x + wp n(p) R + ws u), with R and u of each side.

    x is an embedding, p what a ridge regression on its scene does not predict of it, R a random orthonormal map, u a
    random direction, n scales to unit length. The weights follow from the mean cosine and the share of the squared
    distance that is a shift.
    """

    def __init__(self, audio: Array, text: Array, scenes: Sequence[Scene], cosine: float, share: float) -> None:
        """Fit the regressions on pairs `[N, E]` and their scenes."""
        pairs = (unit_rows(audio) * unit_rows(text)).sum(axis=1)
        kept, shift = cosine / float(pairs.mean()), share * (1 - cosine)
        self._weights = kept**0.5, max(1 - kept - shift, 0.0) ** 0.5, shift**0.5
        generator, width = torch.Generator().manual_seed(_SEED), audio.shape[1]
        features, self._sides = scene_features(list(scenes)), {}
        for side, rows in (("audio", audio), ("text", text)):
            direction = torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)
            rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
            self._sides[side] = direction, rotation, ridge_weights(torch.from_numpy(rows), features)

    def turned(self, side: str, rows: Array, scenes: Sequence[Scene]) -> Array:
        """Return embeddings `[M, E]` of "audio" or "text" moved, unit length."""
        direction, rotation, weights = self._sides[side]
        kept, private, shift = self._weights
        vectors = torch.from_numpy(rows)
        turned = private_part(vectors, scene_features(list(scenes)), weights) @ rotation
        moved = kept * vectors + private * turned + shift * direction
        return unit_rows(moved.numpy()).astype(np.float32)
