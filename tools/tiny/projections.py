"""Last stage of the towers: fit both projections again, on pooled outputs of the towers that are computed once.

Every kind of sound, layout and number of sounds gets its own direction, orthogonal to all others and shared by audio
and text. A small mapper can learn to read such embeddings in a few hundred steps.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textcap.demo.grammar import word_scene
from textcap.demo.scenes import LAYOUTS, Scene
from textcap.demo.sounds import KINDS
from textcap.models.clap import AudioEncoder, TextEncoder
from tiny.log import Log
from tiny.settings import ProjectionSettings
from tiny.sound import Clips
from tiny.towers import contrastive_loss, pad_captions

_KINDS = {kind: number for number, kind in enumerate(KINDS)}


def fit_projections(
    audio: AudioEncoder, text: TextEncoder, clips: Clips, settings: ProjectionSettings, log: Log
) -> None:
    """Train the projections of both encoders in place; the towers are not changed."""
    audio.eval(), text.eval()
    generator = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    pooled_audio = _pool_sounds(audio, clips)
    pooled_text = torch.stack([_pool_captions(text, clips.scenes, rng) for _ in range(settings.n_wordings)])
    targets = _targets(clips.scenes, audio.config.embedding_width, settings.structure_weight, generator)
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
        target_loss = sum((1 - (side * targets[pick]).sum(1)).mean() for side in (sounds, captions))
        loss = contrastive_loss(sounds, captions, settings.logit_scale)
        loss = loss + settings.target_weight * target_loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 300 == 0:
            log.write("projections", step=step, loss=loss.item(), seconds=time.monotonic() - start)


def _targets(scenes: list[Scene], width: int, structure_weight: float, generator: torch.Generator) -> Tensor:
    """Return the unit-length sum of the directions of each scene's kinds, layout and number of sounds, `[N, E]`."""
    n_kinds, n_layouts, n_lengths = len(_KINDS), len(LAYOUTS), 3
    directions = torch.linalg.qr(torch.randn(width, n_kinds + n_layouts + n_lengths, generator=generator))[0].T
    present = torch.zeros(len(scenes), len(directions))
    for row, scene in enumerate(scenes):
        present[row, [_KINDS[kind] for kind in scene.kinds]] = 1
        present[row, n_kinds + LAYOUTS.index(scene.layout)] = structure_weight
        present[row, n_kinds + n_layouts + len(scene.events) - 1] = structure_weight
    return F.normalize(present @ directions, dim=-1)


@torch.no_grad()
def _pool_sounds(audio: AudioEncoder, clips: Clips, batch_size: int = 64) -> Tensor:
    batches = torch.from_numpy(clips.log_mel).split(batch_size)
    return torch.cat([audio.tower(batch[:, None].float()) for batch in batches])


@torch.no_grad()
def _pool_captions(text: TextEncoder, scenes: list[Scene], rng: np.random.Generator, batch_size: int = 256) -> Tensor:
    captions = [word_scene(scene, rng) for scene in scenes]
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    pooled = torch.empty(len(captions), text.config.text_tower.width)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        max_tokens = text.config.text_tower.max_tokens
        tokens, lengths = pad_captions(text.tokenizer, [captions[i] for i in batch], max_tokens)
        pooled[batch] = text.pooled(tokens, lengths)
    return pooled
