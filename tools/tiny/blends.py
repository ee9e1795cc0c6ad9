"""Prefixes as a mapper makes them while it learns: several sounds blended in one vector, noisy, of any length.

The language model learns to read them from its own token vectors, so that a mapper has only to find those. No sound
and no CLAP embedding takes part.
"""

import numpy as np
import torch
from torch import Tensor

from textcap.demo.grammar import word_scene
from textcap.demo.scenes import Scene, sample_scene
from textcap.models.tokenizer import Tokenizer
from tiny.settings import EVENT_SHARES
from tiny.words import list_event

# A mapper at its start makes vectors about eight times as long as those of tokens.
_LONGEST = 16.0
_SHARPEST = 6.0  # from slots that all hold the same blend to slots with one sound each
_NOISIEST = 0.8  # of the length of the vector
_WITHOUT_LAYOUT = 0.25  # of the prefixes: then the sounds themselves have to say how many they are


def draw_blends(
    rng: np.random.Generator,
    tokenizer: Tokenizer,
    token_vectors: Tensor,
    batch_size: int,
    prefix_length: int,
) -> tuple[Tensor, list[str]]:
    """Return prefixes `[B, P, D]` and captions of the same scenes.

    Args:
        token_vectors: `[V, D]`, of the language model.
    """
    scenes = [sample_scene(rng, unseen=False, event_shares=EVENT_SHARES) for _ in range(batch_size)]
    weights = torch.zeros(batch_size, prefix_length, token_vectors.shape[0])  # of each token in each slot
    for row, scene in enumerate(scenes):
        for ids, share in _shares(scene, tokenizer, prefix_length, rng):
            for token in ids:
                weights[row, :, token] += torch.from_numpy(share).float()
    prefixes = torch.nn.functional.normalize(weights @ token_vectors, dim=-1)
    shape = (batch_size, 1, 1)
    noise = torch.from_numpy(rng.standard_normal(prefixes.shape)).float() / prefixes.shape[-1] ** 0.5
    prefixes = prefixes + torch.from_numpy(rng.uniform(0, _NOISIEST, shape)).float() * noise
    length = token_vectors.detach().norm(dim=-1).mean().item()
    scale = np.exp(rng.uniform(np.log(length), np.log(_LONGEST), shape))
    return prefixes * torch.from_numpy(scale).float(), [word_scene(scene, rng) for scene in scenes]


def _shares(
    scene: Scene, tokenizer: Tokenizer, prefix_length: int, rng: np.random.Generator
) -> list[tuple[list[int], np.ndarray]]:
    """Return the tokens of the layout and of each event, with their weight `[P]` in each slot."""
    n_events = len(scene.events)
    place = np.arange(prefix_length) * n_events // prefix_length  # the event that a slot is nearest to
    scores = rng.standard_normal((n_events + 1, prefix_length)) * 0.7
    scores[:n_events] += rng.uniform(0, _SHARPEST) * (place == np.arange(n_events)[:, None])
    if rng.random() < _WITHOUT_LAYOUT:
        scores[n_events] = -np.inf
    shares = np.exp(scores) / np.exp(scores).sum(0)
    texts = [" " + list_event(event) for event in scene.events] + [" " + scene.layout]
    return list(zip(tokenizer.encode(texts), shares, strict=True))
