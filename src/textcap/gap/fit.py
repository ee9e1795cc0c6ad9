"""Fit the linear adapter on embeddings of audio-text pairs (paper, Table 3).

Knows arrays only: no files, no CLAP. It returns the adapter's matrix and bias with what they do on held-out pairs.
Letters: N clips, M captions, E embedding width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.config import AdapterFacts, require
from textcap.device import seeded_generator
from textcap.embedding.pairs import EmbeddedPairs, embed_pair_captions
from textcap.errors import InputError
from textcap.gap.adapter import LinearAdapter
from textcap.gap.retrieval import Array, Retrieval, measure_retrieval, unit_rows
from textcap.models.backbone import Backbone

MIN_PAIRS = 20
METHODS = ("ridge", "sgd")

# The mean of E squared coordinates of a unit vector is 1 / E, so these reach from no effect to a constant.
STRENGTHS: tuple[float, ...] = (0.0, *(10.0 ** (k / 2) for k in range(-14, 1)))

_MOST_HELD_OUT = 1000
_BATCH_SIZE = 128
_HELD_OUT_STREAM, _SGD_STREAM = 0, 1


@dataclass(frozen=True)
class FittedAdapter:
    """An adapter with what it did on held-out clips, where one fitted on the rest alone was measured."""

    matrix: NDArray[np.float32]  # [E, E], as torch.nn.Linear has it
    bias: NDArray[np.float32]  # [E]
    method: str
    strength: float
    loss: float  # mean squared error over all captions, summed over the coordinates
    n_held_out: int  # clips
    before: Retrieval
    after: Retrieval


@dataclass(frozen=True)
class _Rows:
    """One row for each caption, unit length."""

    text: Array  # [M, E]
    audio: Array  # [M, E]: that of the clip it describes

    def where(self, chosen: NDArray[np.bool_]) -> "_Rows":
        return _Rows(self.text[chosen], self.audio[chosen])


def fit_adapter(
    audio: NDArray[Any],
    text: NDArray[Any],
    owners: NDArray[np.int64],
    *,
    method: str = "ridge",
    strength: float | None = None,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> FittedAdapter:
    """Fit h with the least mean squared error between h(text) and audio.

    "ridge" is the closed form of `mean |h(t) - a|^2 + strength |W|^2`, which is scikit-learn's `Ridge` with alpha
    = strength * M; strength 0 is the exact minimiser of the paper's loss, with the least matrix where there are
    several. "sgd" minimises the same by Adam, the paper's way.

    Args:
        audio: `[N, E]`, any length: made unit length here.
        text: `[M, E]`, any length.
        owners: `[M]`, the row of `audio` that each caption describes.
        strength: By default the best of a grid on held-out clips for "ridge", 0 for "sgd".
        epochs: Of "sgd".
        learning_rate: Of "sgd", at its start; it falls to 0.

    Raises:
        InputError: There are too few pairs, or a setting is out of range.
        ValueError: The arrays do not fit one another.
    """
    if audio.ndim != 2 or text.shape != (len(owners), audio.shape[1]):
        raise ValueError(f"embeddings of shapes {audio.shape} and {text.shape} with {len(owners)} owners")
    _check(len(audio), method, strength, epochs, learning_rate)
    clips = unit_rows(audio)
    rows = _Rows(unit_rows(text), clips[owners])
    held_out = _choose_held_out(len(clips), seed)
    is_held_out = np.isin(owners, held_out)
    learned, kept = rows.where(~is_held_out), rows.where(is_held_out)

    def solve(on: _Rows, penalty: float) -> tuple[Array, Array]:
        if method == "ridge":
            return _Ridge(on).solve(penalty)
        return _descend(on, penalty, epochs, learning_rate, seed)

    if strength is None:
        strength = _best_strength(learned, kept) if method == "ridge" else 0.0
    matrix, bias = solve(learned, strength)
    # One caption of each clip: the first.
    firsts = np.unique(owners[is_held_out], return_index=True)[1]
    before = measure_retrieval(kept.audio[firsts], kept.text[firsts])
    after = measure_retrieval(kept.audio[firsts], kept.text[firsts] @ matrix.T + bias)
    matrix, bias = solve(rows, strength)
    return FittedAdapter(
        matrix=matrix.astype(np.float32),
        bias=bias.astype(np.float32),
        method=method,
        strength=strength,
        loss=_loss(rows, matrix, bias),
        n_held_out=len(held_out),
        before=before,
        after=after,
    )


def fit_adapter_on_pairs(
    pairs: EmbeddedPairs,
    backbone: Backbone,
    device: torch.device,
    *,
    method: str = "ridge",
    strength: float | None = None,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> LinearAdapter:
    """Embed the captions of pairs and fit h on all of them; settings as `fit_adapter` takes them.

    Raises:
        InputError: There are too few pairs, or a setting is out of range.
    """
    text = embed_pair_captions(pairs, backbone, device)
    fitted = fit_adapter(
        pairs.audio,
        text,
        pairs.owners,
        method=method,
        strength=strength,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
    )
    facts = AdapterFacts(
        backbone_name=backbone.config.name,
        backbone_hash=backbone.content_hash,
        method=fitted.method,
        strength=fitted.strength,
        n_pairs=len(pairs.pairs),
        n_captions=len(pairs.captions),
        n_held_out=fitted.n_held_out,
        pairs_name=pairs.source.file.name,
        pairs_sha256=pairs.source.file.sha256,
        seed=seed,
        cosine_before=fitted.before.cosine,
        cosine_after=fitted.after.cosine,
        recall_at_1_before=fitted.before.recall_at_1,
        recall_at_1_after=fitted.after.recall_at_1,
        recall_at_10_before=fitted.before.recall_at_10,
        recall_at_10_after=fitted.after.recall_at_10,
    )
    return LinearAdapter(torch.from_numpy(fitted.matrix), torch.from_numpy(fitted.bias), facts)


def _check(n_pairs: int, method: str, strength: float | None, epochs: int, learning_rate: float) -> None:
    require(method in METHODS, "method", method, " or ".join(METHODS))
    require(strength is None or 0 <= strength < float("inf"), "strength", strength, "0 or more")
    require(epochs >= 1, "epochs", epochs, "at least 1")
    require(0 < learning_rate < 1, "learning_rate", learning_rate, "between 0 and 1")
    if n_pairs < MIN_PAIRS:
        raise InputError(f"{MIN_PAIRS} pairs are needed to fit an adapter, and there are {n_pairs}")


def _choose_held_out(n_clips: int, seed: int) -> NDArray[np.int64]:
    """Return a fifth of the clips: all captions of a clip are on one side."""
    wanted = min(n_clips // 5, _MOST_HELD_OUT)
    return np.sort(np.random.default_rng([seed, _HELD_OUT_STREAM]).choice(n_clips, wanted, replace=False))


def _best_strength(learned: _Rows, kept: _Rows) -> float:
    """Return the strength whose solution has the least error on what it was not fitted on."""
    ridge = _Ridge(learned)
    losses = {strength: _loss(kept, *ridge.solve(strength)) for strength in STRENGTHS}
    return min(losses, key=lambda strength: (losses[strength], strength))


def _loss(rows: _Rows, matrix: Array, bias: Array) -> float:
    errors: Array = np.square(rows.text @ matrix.T + bias - rows.audio)
    return float(errors.sum()) / len(errors)


class _Ridge:
    """Solutions for any strength from one decomposition; the bias is not penalised."""

    def __init__(self, rows: _Rows) -> None:
        self._text_mean, self._audio_mean = rows.text.mean(axis=0), rows.audio.mean(axis=0)
        self._text, self._audio = rows.text - self._text_mean, rows.audio - self._audio_mean
        self._values, self._vectors = np.linalg.eigh(self._text.T @ self._text / len(self._text))  # [E], [E, E]
        self._cross = self._vectors.T @ (self._text.T @ self._audio) / len(self._text)  # [E, E]

    def solve(self, strength: float) -> tuple[Array, Array]:
        """Return matrix and bias for a strength."""
        if strength == 0:  # the squared condition of the decomposition would cost half of the digits
            matrix = np.linalg.lstsq(self._text, self._audio, rcond=None)[0].T
        else:
            scaled = self._cross / (np.maximum(self._values, 0.0) + strength)[:, None]
            matrix = (self._vectors @ scaled).T
        return matrix, self._audio_mean - matrix @ self._text_mean


def _descend(rows: _Rows, strength: float, epochs: int, learning_rate: float, seed: int) -> tuple[Array, Array]:
    """Minimise the same by Adam over batches, from the adapter that changes nothing."""
    text, audio = torch.from_numpy(rows.text).float(), torch.from_numpy(rows.audio).float()
    n_rows, width = text.shape
    matrix, bias = torch.eye(width, requires_grad=True), torch.zeros(width, requires_grad=True)
    optimizer = torch.optim.Adam([matrix, bias], lr=learning_rate)
    n_steps = -(-n_rows // _BATCH_SIZE) * epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)
    for epoch in range(epochs):
        order = torch.randperm(n_rows, generator=seeded_generator(seed, _SGD_STREAM, epoch))
        for batch in torch.split(order, _BATCH_SIZE):
            optimizer.zero_grad()
            error = (text[batch] @ matrix.T + bias - audio[batch]).square().sum(dim=1).mean()
            torch.autograd.backward(error + strength * matrix.square().sum())
            optimizer.step()
            schedule.step()
    return matrix.detach().double().numpy(), bias.detach().double().numpy()
