"""Bridges that need sounds without captions: an affine map of each side, made of the means and covariances.

Letters: B rows, E embedding width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from textcap.config import MOVING
from textcap.errors import InputError
from textcap.gap.bridge.moments import Moments
from textcap.gap.retrieval import Array

_LEAST_SPREAD = 0.01  # of the sounds, beside that of the text


@dataclass(frozen=True)
class AffineBridge:
    """x M + b of unit-length embeddings on the audio side, x + c on the text side."""

    text_shift: Tensor  # c, [E]
    audio_shift: Tensor  # b, [E]
    audio_matrix: Tensor | None = None  # M, [E, E]; None leaves an embedding as it is

    def moved(self, audio: Array, text: Array) -> tuple[Array, Array]:
        """Return unit-length embeddings of both sides, `[B, E]`, moved but not unit length."""
        matrices = torch.from_numpy(audio), torch.from_numpy(text)
        return self.audio_side(matrices[0]).numpy(), self.text_side(matrices[1]).numpy()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, as `AffineBridge` takes them."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def text_side(self, unit: Tensor) -> Tensor:
        """Return text embeddings `[B, E]` moved, not unit length."""
        return unit + self.text_shift.to(unit)

    def audio_side(self, unit: Tensor) -> Tensor:
        """Return audio embeddings `[B, E]` moved, not unit length."""
        turned = unit if self.audio_matrix is None else unit @ self.audio_matrix.to(unit)
        return turned + self.audio_shift.to(unit)


def shapes(kind: str | None, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a kind of bridge; none if it moves nothing."""
    found: dict[str, tuple[int, ...]] = {}
    if kind in MOVING:
        found = {"text_shift": (width,), "audio_shift": (width,)}
    if kind == "coral":
        found["audio_matrix"] = (width, width)
    return found


def centring(mean_audio: Array, mean_text: Array) -> AffineBridge:
    """Return the bridge that subtracts from each side its mean `[E]` (C3, arXiv 2401.08567)."""
    return AffineBridge(_float(-mean_text), _float(-mean_audio))


def coral(audio: Moments, text: Moments) -> AffineBridge:
    """Return the bridge that gives sounds the mean and the covariance of the text.

    Sounds are centred, whitened and coloured like the text (CORAL, Sun et al. 2016, arXiv 1511.05547); both covariances
    are shrunk first. The text side stays as it is.

    Raises:
        InputError: The sounds are copies of each other, or nearly.
    """
    if audio.spread <= _LEAST_SPREAD * text.spread:
        hint = "name a folder of different recordings, or take the bridge centre"
        raise InputError("the sounds of the audio sample are too alike for the bridge coral", hint=hint)
    matrix = _power(audio.shrunk, -0.5) @ _power(text.shrunk, 0.5)
    shift = text.mean - audio.mean @ matrix
    return AffineBridge(torch.zeros(len(shift)), _float(shift), _float(matrix))


def affine_bridge(kind: str, audio: Moments, text: Moments) -> AffineBridge:
    """Return the bridge of a kind, "centre" or "coral", from the moments of both sides."""
    return coral(audio, text) if kind == "coral" else centring(audio.mean, text.mean)


def _power(covariance: Array, exponent: float) -> Array:
    """Return a power of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(covariance)
    least = max(float(values[-1]), 1e-12) * 1e-7  # float32's precision: what is less is rounding
    powered: Array = (vectors * np.maximum(values, least) ** exponent) @ vectors.T
    return powered


def _float(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
