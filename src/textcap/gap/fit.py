"""Fit the linear adapter on embeddings of audio-text pairs (paper, Table 3), and evaluate it on held-out pairs.

Reading and writing adapter files is left to `gap.adapter`. Shapes: N clips, M captions, E embedding width.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.config import AdapterFacts, require
from textcap.data.captions import CaptionFile
from textcap.device import seeded_generator
from textcap.embedding.captions import embed_captions
from textcap.embedding.pairs import EmbeddedPairs
from textcap.errors import InputError
from textcap.gap.adapter import LinearAdapter
from textcap.gap.retrieval import Array, Retrieval, measure_retrieval, unit_rows
from textcap.models.backbone import Backbone

MIN_PAIRS = 20
METHODS = ("ridge", "sgd")

# A squared coordinate of a unit vector is 1 / E on average, so these range from no effect to a constant output.
STRENGTHS: tuple[float, ...] = (0.0, *(10.0 ** (k / 2) for k in range(-14, 1)))

_MAX_HELD_OUT = 1000  # clips
_BATCH_SIZE = 128  # of "sgd", in captions
_HELD_OUT_STREAM, _SGD_STREAM = 0, 1  # random streams of the seed


@dataclass(frozen=True)
class FittedAdapter:
    """An adapter fitted on all clips, with the figures on held-out clips of one fitted on the others."""

    matrix: NDArray[np.float32]  # W, [E, E], in the layout of torch.nn.Linear.weight
    bias: NDArray[np.float32]  # b, [E]
    method: str  # "ridge" or "sgd"
    strength: float  # weight of the penalty |W|^2
    loss: float  # squared error summed over the coordinates, mean over all captions
    n_held_out: int  # number of held-out clips
    before: Retrieval  # on held-out clips, without an adapter
    after: Retrieval  # on held-out clips, with an adapter fitted on the other clips

    def adapter(self, backbone: Backbone, file: CaptionFile, n_pairs: int, seed: int) -> LinearAdapter:
        """Return the adapter to save and to train with.

        Args:
            backbone: The backbone whose embeddings it was fitted on.
            file: Where the pairs come from, with the number of captions that were used.
            n_pairs: The number of clips.
            seed: The seed that it was fitted with.
        """
        both = {"before": asdict(self.before), "after": asdict(self.after)}
        facts = AdapterFacts(
            clap_name=backbone.clap.name,
            clap_hash=backbone.clap.content_hash,
            method=self.method,
            strength=self.strength,
            n_pairs=n_pairs,
            n_captions=file.n_captions,
            n_held_out=self.n_held_out,
            pairs_name=file.name,
            pairs_sha256=file.sha256,
            seed=seed,
            **{f"{figure}_{when}": value for when, figures in both.items() for figure, value in figures.items()},
        )
        return LinearAdapter(torch.from_numpy(self.matrix), torch.from_numpy(self.bias), facts)


@dataclass(frozen=True)
class _Rows:
    """Training data: one row per caption, unit length."""

    text: Array  # [M, E]
    audio: Array  # [M, E], row i is the embedding of the clip that caption i describes

    def where(self, chosen: NDArray[np.bool_]) -> "_Rows":
        """Return the rows for which `chosen`, `[M]`, is true."""
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
    """Fit h to minimise the mean squared error between h(text) and audio.

    Both methods minimise `mean |h(t) - a|^2 + strength |W|^2`. "ridge" solves it in closed form, as scikit-learn's
    `Ridge` does with alpha = strength * M; with strength 0 it is the exact minimiser of the paper's loss, and if there
    are several, the one with the smallest matrix. "sgd" uses Adam on batches, as the paper does.

    Args:
        audio: Audio embeddings, `[N, E]`, of any length; they are made unit length first.
        text: Text embeddings, `[M, E]`, of any length; they are made unit length first.
        owners: For each caption the row of `audio` that it describes, `[M]`.
        method: "ridge" or "sgd".
        strength: Weight of the penalty on the matrix. By default the best of `STRENGTHS` on held-out clips for
            "ridge", and 0 for "sgd".
        epochs: Number of passes over the captions, for "sgd" only.
        learning_rate: Adam's initial learning rate, between 0 and 1, for "sgd" only; it decreases linearly to 0.
        seed: Seed of the held-out clips and of the order of the batches.

    Raises:
        InputError: There are too few pairs, or a setting is out of range.
        ValueError: The shapes of the arrays do not match.
    """
    if audio.ndim != 2 or text.shape != (len(owners), audio.shape[1]):
        raise ValueError(f"audio {audio.shape}, text {text.shape} and owners {owners.shape} do not match")
    _check(len(audio), method, strength, epochs, learning_rate)
    clips = unit_rows(audio)
    rows = _Rows(unit_rows(text), clips[owners])
    held_out_clips = _choose_held_out(len(clips), seed)
    is_held_out = np.isin(owners, held_out_clips)
    training, held_out = rows.where(~is_held_out), rows.where(is_held_out)

    def solve(on: _Rows, penalty: float) -> tuple[Array, Array]:
        if method == "ridge":
            return _Ridge(on).solve(penalty)
        return _descend(on, penalty, epochs, learning_rate, seed)

    if strength is None:
        strength = _best_strength(training, held_out) if method == "ridge" else 0.0
    matrix, bias = solve(training, strength)
    first_captions = np.unique(owners[is_held_out], return_index=True)[1]  # the first caption of each held-out clip
    before = measure_retrieval(held_out.audio[first_captions], held_out.text[first_captions])
    after = measure_retrieval(held_out.audio[first_captions], held_out.text[first_captions] @ matrix.T + bias)
    matrix, bias = solve(rows, strength)
    return FittedAdapter(
        matrix=matrix.astype(np.float32),
        bias=bias.astype(np.float32),
        method=method,
        strength=strength,
        loss=_loss(rows, matrix, bias),
        n_held_out=len(held_out_clips),
        before=before,
        after=after,
    )


def fit_adapter_on_pairs(
    pairs: EmbeddedPairs, backbone: Backbone, device: torch.device, *, seed: int = 0, **settings: Any
) -> LinearAdapter:
    """Embed the captions of pairs and fit h on all of them; the settings are those of `fit_adapter`.

    Raises:
        InputError: There are too few pairs, or a setting is out of range.
        DeviceError: The device has too little memory.
    """
    texts = embed_captions(pairs.captions, backbone, device)
    fitted = fit_adapter(pairs.audio, texts, pairs.owners, seed=seed, **settings)
    return fitted.adapter(backbone, pairs.source.file, len(pairs.pairs), seed)


def _check(n_pairs: int, method: str, strength: float | None, epochs: int, learning_rate: float) -> None:
    require(method in METHODS, "method", method, " or ".join(METHODS))
    require(strength is None or 0 <= strength < float("inf"), "strength", strength, "0 or more")
    require(epochs >= 1, "epochs", epochs, "at least 1")
    require(0 < learning_rate < 1, "learning_rate", learning_rate, "above 0 and below 1")
    if n_pairs < MIN_PAIRS:
        raise InputError(f"fitting an adapter needs at least {MIN_PAIRS} pairs, but got {n_pairs}")


def _choose_held_out(n_clips: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of a random fifth of the clips, at most `_MAX_HELD_OUT`.

    Whole clips are held out, so that all captions of a clip are on the same side of the split.
    """
    wanted = min(n_clips // 5, _MAX_HELD_OUT)
    return np.sort(np.random.default_rng([seed, _HELD_OUT_STREAM]).choice(n_clips, wanted, replace=False))


def _best_strength(training: _Rows, held_out: _Rows) -> float:
    """Return the strength whose solution on the training rows has the least error on the held-out rows."""
    ridge = _Ridge(training)
    losses = {strength: _loss(held_out, *ridge.solve(strength)) for strength in STRENGTHS}
    return min(losses, key=lambda strength: (losses[strength], strength))


def _loss(rows: _Rows, matrix: Array, bias: Array) -> float:
    """Return the squared error summed over the coordinates, mean over the rows."""
    errors: Array = np.square(rows.text @ matrix.T + bias - rows.audio)
    return float(errors.sum()) / len(errors)


class _Ridge:
    """Ridge solutions for any strength from one eigendecomposition; the bias is not penalised."""

    def __init__(self, rows: _Rows) -> None:
        self._text_mean, self._audio_mean = rows.text.mean(axis=0), rows.audio.mean(axis=0)
        self._text, self._audio = rows.text - self._text_mean, rows.audio - self._audio_mean
        self._values, self._vectors = np.linalg.eigh(self._text.T @ self._text / len(self._text))  # [E], [E, E]
        self._cross = self._vectors.T @ (self._text.T @ self._audio) / len(self._text)  # [E, E]

    def solve(self, strength: float) -> tuple[Array, Array]:
        """Return the matrix `[E, E]` and the bias `[E]` for a strength."""
        if strength == 0:  # the eigendecomposition squares the condition number, which would lose half of the digits
            matrix = np.linalg.lstsq(self._text, self._audio, rcond=None)[0].T
        else:
            scaled = self._cross / (np.maximum(self._values, 0.0) + strength)[:, None]
            matrix = (self._vectors @ scaled).T
        return matrix, self._audio_mean - matrix @ self._text_mean


def _descend(rows: _Rows, strength: float, epochs: int, learning_rate: float, seed: int) -> tuple[Array, Array]:
    """Minimise the same loss with Adam on batches, starting from the identity; return matrix and bias."""
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
