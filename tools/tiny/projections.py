"""Last stage of the towers: fit both projections again, on pooled outputs of the towers that are computed once.

Beside the contrastive loss, embeddings are pulled towards a sum of three parts:

- What is heard: every kind of sound, layout and number of sounds has its own direction, orthogonal to all others and
  shared by audio and text. A small mapper can learn to read such embeddings in a few hundred steps.
- A shift: one direction for all sounds, another for all captions.
- What is private: how a sound was made, how a caption is worded. It is what is left of a pooled output when the best
  linear prediction from the scene is taken away, turned into the same dimensions by a random map for each side.

Without the last two the modality gap is narrow and hardly a shift.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textcap.demo.scenes import LAYOUTS, Scene
from textcap.demo.sounds import KINDS
from textcap.models.msclap import MsclapAudioEncoder, MsclapTextEncoder
from tiny.log import Log
from tiny.settings import Gap, ProjectionSettings
from tiny.sound import Clips
from tiny.towers import contrastive_loss, pad_captions
from tiny.words import draw_caption

_KINDS = {kind: number for number, kind in enumerate(KINDS)}
_RIDGE = 3.0


def fit_projections(
    audio: MsclapAudioEncoder, text: MsclapTextEncoder, clips: Clips, gap: Gap, settings: ProjectionSettings, log: Log
) -> None:
    """Train the projections of both encoders in place; the towers are not changed."""
    audio.eval(), text.eval()
    generator = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    pooled_audio = _pool_sounds(audio, clips)
    pooled_text = torch.stack([_pool_captions(text, clips.scenes, rng) for _ in range(settings.n_wordings)])
    heard = _heard(clips.scenes, audio.config.embedding_width, settings.structure_weight, generator)
    features = scene_features(clips.scenes)
    sound_targets = _targets(heard, pooled_audio[None], features, gap, generator)[0]
    caption_targets = _targets(heard, pooled_text, features, gap, generator)
    jitter = settings.jitter * pooled_audio.std(0)
    parameters = [*audio.projection.parameters(), *text.projection.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    start = time.monotonic()
    for step in range(1, settings.steps + 1):
        pick = torch.randint(len(pooled_audio), (settings.batch_size,), generator=generator)
        wording = torch.randint(len(pooled_text), (settings.batch_size,), generator=generator)
        noise = jitter * torch.randn(settings.batch_size, pooled_audio.shape[1], generator=generator)
        sounds = F.normalize(audio.projection(pooled_audio[pick] + noise), dim=-1)
        captions = F.normalize(text.projection(pooled_text[wording, pick]), dim=-1)
        sides = ((sounds, sound_targets[pick]), (captions, caption_targets[wording, pick]))
        target_loss = sum((1 - (side * target).sum(1)).mean() for side, target in sides)
        loss = contrastive_loss(sounds, captions, settings.logit_scale) + gap.target_weight * target_loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 300 == 0:
            log.write("projections", step=step, loss=loss.item(), seconds=time.monotonic() - start)


def scene_features(scenes: list[Scene]) -> Tensor:
    """Return what is said of a scene without a wording, `[N, features]`.

    Which kinds occur, which come first and which later, the layout and the number of sounds, each as 0 or 1, and a 1.
    """
    n_kinds = len(_KINDS)
    features = torch.zeros(len(scenes), 3 * n_kinds + len(LAYOUTS) + 4)
    for row, scene in enumerate(scenes):
        for place, kind in enumerate(scene.kinds):
            features[row, [_KINDS[kind], n_kinds * (1 + (place > 0)) + _KINDS[kind]]] = 1
        features[row, [3 * n_kinds + LAYOUTS.index(scene.layout), -1 - len(scene.events), -1]] = 1
    return features


def ridge_weights(vectors: Tensor, features: Tensor) -> Tensor:
    """Return the weights `[F, D]` with which features `[N, F]` predict vectors `[N, D]` best, by ridge regression."""
    penalty = _RIDGE * torch.eye(features.shape[1])
    return torch.linalg.solve(features.T @ features + penalty, features.T @ vectors)


def private_part(vectors: Tensor, features: Tensor, weights: Tensor) -> Tensor:
    """Return what features `[N, F]` do not predict of vectors `[N, D]`, at unit length."""
    return F.normalize(vectors - features @ weights, dim=-1)


def _heard(scenes: list[Scene], width: int, structure_weight: float, generator: torch.Generator) -> Tensor:
    """Return the unit-length sum of the directions of each scene's kinds, layout and number of sounds, `[N, E]`."""
    n_kinds, n_layouts, n_lengths = len(_KINDS), len(LAYOUTS), 3
    directions = _orthonormal(n_kinds + n_layouts + n_lengths, width, generator)
    present = torch.zeros(len(scenes), len(directions))
    for row, scene in enumerate(scenes):
        present[row, [_KINDS[kind] for kind in scene.kinds]] = 1
        present[row, n_kinds + LAYOUTS.index(scene.layout)] = structure_weight
        present[row, n_kinds + n_layouts + len(scene.events) - 1] = structure_weight
    return F.normalize(present @ directions, dim=-1)


def _targets(heard: Tensor, pooled: Tensor, features: Tensor, gap: Gap, generator: torch.Generator) -> Tensor:
    """Return the targets `[K, N, E]` of one side, of pooled outputs `[K, N, D]` of K versions of the same scenes."""
    shift = F.normalize(torch.randn(heard.shape[1], generator=generator), dim=0)
    turn = _orthonormal(pooled.shape[2], heard.shape[1], generator)
    outputs, repeated = pooled.flatten(0, 1), features.repeat(len(pooled), 1)
    private = private_part(outputs, repeated, ridge_weights(outputs, repeated)) @ turn
    kept = (1 - gap.shift - gap.private) ** 0.5
    moved = kept * heard + gap.private**0.5 * private.view(len(pooled), *heard.shape) + gap.shift**0.5 * shift
    return F.normalize(moved, dim=-1)


def _orthonormal(n: int, width: int, generator: torch.Generator) -> Tensor:
    """Return n random directions at right angles to each other, `[n, width]`."""
    return torch.linalg.qr(torch.randn(width, n, generator=generator))[0].T


@torch.no_grad()
def _pool_sounds(audio: MsclapAudioEncoder, clips: Clips, batch_size: int = 64) -> Tensor:
    batches = torch.from_numpy(clips.log_mel).split(batch_size)
    return torch.cat([audio.tower(batch[:, None].float()) for batch in batches])


@torch.no_grad()
def _pool_captions(
    text: MsclapTextEncoder, scenes: list[Scene], rng: np.random.Generator, batch_size: int = 256
) -> Tensor:
    captions = [draw_caption(scene, rng)[1] for scene in scenes]
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    pooled = torch.empty(len(captions), text.config.text_tower.width)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        max_tokens = text.config.text_tower.max_tokens
        tokens, lengths = pad_captions(text.tokenizer, [captions[i] for i in batch], max_tokens)
        pooled[batch] = text.pooled(tokens, lengths)
    return pooled
