"""Bridges across the modality gap for the dial: what each does to the text while training, and to sounds later.

Those of the package are taken from it; the others are written here from their papers. Every function takes and returns
unit-length rows. Letters: N captions, S sounds, P pairs, E embedding width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from textcap.config import BridgeConfig
from textcap.gap.bridge import Bridge
from textcap.gap.bridge.affine import affine_bridge
from textcap.gap.bridge.moments import Moments, measure_moments
from textcap.gap.fit import fit_adapter
from textcap.gap.retrieval import Array, unit_rows

_TEMPERATURE, _BLEND = 0.02, 0.5  # of the memory
_COMPONENTS = (64, 128)
_RANK = 64  # of the spectral truncation

Move = Callable[[Array], Array]


@dataclass(frozen=True)
class Sides:
    """What bridges are computed from."""

    text: Array  # [N, E], of the training captions
    sounds: Array  # [S, E], of recordings without captions
    pairs_text: Array  # [P, E], of captions of the first P sounds
    one_kind: Array  # [300, E] or fewer, of recordings that all have one kind of sound

    @property
    def pairs_audio(self) -> Array:
        """Embeddings of the sounds of the pairs, `[P, E]`."""
        return self.sounds[: len(self.pairs_text)]

    @cached_property
    def text_moments(self) -> Moments:
        """Moments of the training captions."""
        return measure_moments(self.text)

    def affine(self, kind: str, sounds: Array) -> Callable[[Array], Array]:
        """Return the audio side of a bridge of the package, for a mapper that is trained on text that is not moved."""
        audio = measure_moments(sounds)
        if kind == "coral":
            bridge = affine_bridge(kind, audio, self.text_moments)
            return lambda rows: unit_rows(bridge.moved(rows, rows)[0])
        return lambda rows: unit_rows(rows - audio.mean + self.text_moments.mean)


def text_side(name: str, sides: Sides) -> Array:
    """Return the training captions as a bridge moves them, before the noise."""
    return unit_rows(TEXT_SIDES[name](sides))


def audio_sides(trained_on: str, sides: Sides, sizes: Sequence[int]) -> dict[str, Move]:
    """Return the bridges that a mapper can caption sounds across, by name.

    Args:
        trained_on: "text" as it is, "audio", or the bridge that moved the text.
        sizes: Numbers of sounds to compute those of the package from, besides all; if there are none, only these
            bridges are returned.
    """
    if trained_on == "centre":
        mean = sides.sounds.mean(axis=0)
        return {"centre": lambda rows: unit_rows(rows - mean)}
    if trained_on == "comet":
        return {"comet": _comet(sides)[1]}
    if trained_on != "text":
        return {trained_on: unit_rows}
    found: dict[str, Move] = {"none": unit_rows}
    for kind in ("centre", "coral"):
        found[kind] = sides.affine(kind, sides.sounds)
        found |= {f"{kind}, {n} sounds": sides.affine(kind, sides.sounds[-n:]) for n in sizes}
        if sizes:
            found[f"{kind}, {len(sides.one_kind)} of one kind"] = sides.affine(kind, sides.one_kind)
    if not sizes:
        return found
    found |= {f"{k} components": partial(_truncate, sides, k, found["centre"]) for k in _COMPONENTS}
    for kind in ("none", "centre", "coral"):
        found[f"{kind}, memory"] = partial(_with_memory, sides.text, found[kind], 1.0)
        found[f"{kind}, half memory"] = partial(_with_memory, sides.text, found[kind], _BLEND)
    return found


class CovarianceNoise(Bridge):
    """CLOSE (arXiv 2211.09778): text moved by the mean difference, and noise with the covariance of the pairs' rest."""

    def __init__(self, sides: Sides, noise_std: float) -> None:
        super().__init__(BridgeConfig(noise_std**2))
        rest = sides.pairs_audio - sides.pairs_text
        self._mean = torch.from_numpy(rest.mean(axis=0)).float()
        self._rest = torch.from_numpy((rest - rest.mean(axis=0)) / len(rest) ** 0.5).float()  # [P, E]

    def text_side(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return text embeddings `[B, E]` with the difference of a random mixture of pairs added, unit length."""
        weights = torch.randn(len(embeddings), len(self._rest), generator=generator)
        moved = torch.nn.functional.normalize(embeddings, dim=-1) + self._mean + weights @ self._rest
        return super().text_side(moved, generator)


def _realign(sides: Sides) -> Array:
    """ReAlign of ReVision: the text gets the mean and the spread of the sounds, and after that their mean again."""
    audio, text = measure_moments(sides.sounds), sides.text_moments
    scale = (audio.spread / text.spread) ** 0.5
    moved = unit_rows(audio.mean + scale * (sides.text - text.mean))
    return unit_rows(moved - moved.mean(axis=0) + audio.mean)


def _coral_on_text(sides: Sides) -> Array:
    bridge = affine_bridge("coral", sides.text_moments, measure_moments(sides.sounds))
    return bridge.moved(sides.text, sides.text)[0]


def _adapter(sides: Sides) -> Array:
    fitted = fit_adapter(sides.pairs_audio, sides.pairs_text, np.arange(len(sides.pairs_text)))
    return sides.text @ fitted.matrix.T + fitted.bias


def _comet(sides: Sides) -> tuple[Array, Move]:
    """COMET (arXiv 2605.29628): both sides on the leading directions of the pairs' cross-covariance."""
    audio, text = sides.pairs_audio, sides.pairs_text
    mean_audio, mean_text = audio.mean(axis=0), text.mean(axis=0)
    left, _, right = np.linalg.svd((audio - mean_audio).T @ (text - mean_text), full_matrices=False)
    onto, turn = right[:_RANK].T @ right[:_RANK], left[:, :_RANK] @ right[:_RANK]
    return (sides.text - mean_text) @ onto, lambda rows: unit_rows((rows - mean_audio) @ turn)


def _truncate(sides: Sides, k: int, move: Move, rows: Array) -> Array:
    """Keep the part of moved sounds that lies in the first k principal components of the text."""
    vectors = np.linalg.eigh(sides.text_moments.covariance)[1][:, -k:]
    mean = sides.text_moments.mean
    return unit_rows(mean + (move(rows) - mean) @ vectors @ vectors.T)


def _with_memory(text: Array, move: Move, share: float, rows: Array) -> Array:
    return remember(text, move(rows), share)


def remember(memory: Array, moved: Array, share: float) -> Array:
    """Replace a share of moved sounds `[S, E]` by what a memory of captions `[N, E]` holds near them (DeCap, MATS)."""
    scores = moved @ memory.T / _TEMPERATURE
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    near = unit_rows(weights / weights.sum(axis=1, keepdims=True) @ memory)
    return unit_rows((1 - share) * moved + share * near)


TEXT_SIDES: dict[str, Callable[[Sides], Array]] = {
    "text": lambda sides: sides.text,
    "centre": lambda sides: sides.text - sides.text_moments.mean,
    "realign": _realign,
    "coral-text": _coral_on_text,
    "adapter": _adapter,
    "covariance": lambda sides: sides.text,
    "comet": lambda sides: _comet(sides)[0],
}
