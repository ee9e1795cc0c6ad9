"""Draw prefixes like those of a mapper in training: noisy blends of several sounds, with vectors of any length.

They are blended from the language model's own token vectors, so once it can read them, a mapper only has to find those
vectors. No audio and no CLAP embedding is used.
"""

import numpy as np
import torch
from torch import Tensor

from textcap.demo.scenes import Scene, sample_scene
from textcap.models.tokenizer import Tokenizer
from tiny.settings import EVENT_SHARES
from tiny.words import draw_caption, list_event

# Longest vector of a prefix. An untrained mapper returns vectors about eight times as long as those of tokens.
_LONGEST = 16.0
_SHARPEST = 6.0  # largest score of a slot's own event: at 0 all slots hold similar blends, at 6 about one sound each
_NOISIEST = 0.8  # largest length of the noise, as a share of the vector's length
_WITHOUT_LAYOUT = 0.25  # share of prefixes without the layout, so that the model counts the sounds themselves


def draw_blends(
    rng: np.random.Generator,
    tokenizer: Tokenizer,
    token_vectors: Tensor,
    batch_size: int,
    prefix_length: int,
) -> tuple[Tensor, list[str]]:
    """Return prefixes `[B, P, D]` and captions of the same scenes.

    Args:
        token_vectors: Token vectors of the language model, `[V, D]`.
    """
    scenes = [sample_scene(rng, unseen=False, event_shares=EVENT_SHARES) for _ in range(batch_size)]
    # Weight of each token in each slot, [B, P, V].
    weights = torch.zeros(batch_size, prefix_length, token_vectors.shape[0])
    styles, captions = zip(*(draw_caption(scene, rng) for scene in scenes), strict=True)
    for row, (scene, style) in enumerate(zip(scenes, styles, strict=True)):
        for ids, share in _shares(scene, style, tokenizer, prefix_length, rng):
            for token in ids:
                weights[row, :, token] += torch.from_numpy(share).float()
    prefixes = torch.nn.functional.normalize(weights @ token_vectors, dim=-1)
    shape = (batch_size, 1, 1)
    noise = torch.from_numpy(rng.standard_normal(prefixes.shape)).float() / prefixes.shape[-1] ** 0.5
    prefixes = prefixes + torch.from_numpy(rng.uniform(0, _NOISIEST, shape)).float() * noise
    length = token_vectors.detach().norm(dim=-1).mean().item()
    scale = np.exp(rng.uniform(np.log(length), np.log(_LONGEST), shape))
    return prefixes * torch.from_numpy(scale).float(), list(captions)


def _shares(
    scene: Scene, style: str, tokenizer: Tokenizer, prefix_length: int, rng: np.random.Generator
) -> list[tuple[list[int], np.ndarray]]:
    """Return the tokens of each event, of the layout and of a style that is not plain, with their weights `[P]`."""
    texts = [list_event(event) for event in scene.events] + [scene.layout] + [style] * (style != "plain")
    n_events = len(scene.events)
    place = np.arange(prefix_length) * n_events // prefix_length  # the slot's own event
    scores = rng.standard_normal((len(texts), prefix_length)) * 0.7
    scores[:n_events] += rng.uniform(0, _SHARPEST) * (place == np.arange(n_events)[:, None])
    if rng.random() < _WITHOUT_LAYOUT:
        scores[n_events] = -np.inf
    shares = np.exp(scores) / np.exp(scores).sum(0)
    return list(zip(tokenizer.encode([" " + text for text in texts]), shares, strict=True))
