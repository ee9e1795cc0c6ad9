"""Train the CLAP towers of the tiny backbone contrastively, on clips with newly drawn captions in every batch."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from textcap.config import ClapConfig
from textcap.demo.grammar import word_scene
from textcap.demo.scenes import Scene
from textcap.demo.sounds import KINDS
from textcap.models.clap import AudioEncoder, TextEncoder
from textcap.models.tokenizer import Tokenizer
from tiny.hearing import kinds_present, load_listener, mask
from tiny.log import Log
from tiny.settings import TowerSettings
from tiny.sound import Clips


def train_towers(
    folder: Path,
    tokenizer: Tokenizer,
    config: ClapConfig,
    settings: TowerSettings,
    clips: Clips,
    validation: Clips,
    log: Log,
) -> None:
    """Train both towers, the audio tower from the result of `train_hearing`; write files that end in "towers"."""
    torch.manual_seed(settings.seed)
    listener = load_listener(folder, config)
    audio, text = listener.encoder, TextEncoder(config, tokenizer)
    directions = torch.nn.Parameter(torch.randn(len(KINDS), config.embedding_width))  # one for each kind
    parameters = [directions, *listener.parameters(), *text.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    start, losses = time.monotonic(), []
    for step, (log_mel, captions, present) in enumerate(_batches(clips, settings), start=1):
        listener.train(), text.train()
        tokens, lengths = pad_captions(tokenizer, captions, config.text_tower.max_tokens)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = audio.tower(log_mel)
            scores = listener.labels(pooled)
            audio_out, text_out = audio.projection(pooled), text(tokens, lengths)
        audio_out, text_out = F.normalize(audio_out.float(), dim=-1), F.normalize(text_out.float(), dim=-1)
        loss = _loss(audio_out, text_out, present / present.sum(1, keepdim=True), directions, settings)
        loss = loss + settings.label_weight * F.binary_cross_entropy_with_logits(scores.float(), present)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == settings.steps:
            figures = measure_towers(audio, text, validation, settings.seed)
            log.write("towers", step=step, loss=np.mean(losses[-50:]), seconds=time.monotonic() - start, **figures)
            save_towers(folder, "towers" if step == settings.steps else "so-far", audio, text)


def contrastive_loss(audio: Tensor, text: Tensor, logit_scale: float) -> Tensor:
    """Return CLIP's symmetric cross-entropy between unit-length embeddings `[B, E]` of the same clips."""
    scores = logit_scale * audio @ text.T
    target = torch.arange(len(scores))
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def _loss(audio: Tensor, text: Tensor, tags: Tensor, directions: Tensor, settings: TowerSettings) -> Tensor:
    """Return the contrastive loss of embeddings `[B, E]` plus the terms that make them use many directions.

    Args:
        tags: For each clip, equal shares of the kinds of sound in it, `[B, kinds]`; they sum to 1.
        directions: One direction for each kind of sound, `[kinds, E]`, of any length.
    """
    different = ~torch.eye(len(audio), dtype=torch.bool)
    spread = sum(((side @ side.T)[different] ** 2).mean().log() for side in (audio, text)) / 2
    unit = F.normalize(directions, dim=-1)
    tagged = sum(F.cross_entropy(settings.tag_scale * side @ unit.T, tags) for side in (audio, text)) / 2
    misalignment = 1 - (audio * text).sum(1).mean()
    return (
        contrastive_loss(audio, text, settings.logit_scale)
        + settings.spread_weight * spread
        + settings.tag_weight * tagged
        + settings.alignment_weight * misalignment
    )


def load_towers(
    folder: Path, ending: str, tokenizer: Tokenizer, config: ClapConfig
) -> tuple[AudioEncoder, TextEncoder]:
    """Return the encoders that `save_towers` wrote."""
    audio, text = AudioEncoder(config), TextEncoder(config, tokenizer)
    audio.load_state_dict(load_file(folder / f"audio_encoder.{ending}"))
    text.load_state_dict(load_file(folder / f"text_encoder.{ending}"))
    return audio, text


def save_towers(folder: Path, ending: str, audio: AudioEncoder, text: TextEncoder) -> None:
    """Write the weights of both encoders; the ending of the file names tells the stage."""
    for name, model in (("text_encoder", text), ("audio_encoder", audio)):
        partial = folder / f"{name}.partial"
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial)
        os.replace(partial, folder / f"{name}.{ending}")


@torch.inference_mode()
def measure_towers(audio: AudioEncoder, text: TextEncoder, clips: Clips, seed: int) -> dict[str, float]:
    """Return recall (sound to caption) among 500 pairs, and measures of the modality gap."""
    audio.eval(), text.eval()
    rng = np.random.default_rng(seed)
    pick = rng.permutation(len(clips.scenes))[:500]
    audio_embeddings = embed_clips(audio, clips.log_mel[pick])
    text_embeddings = text.encode([word_scene(clips.scenes[i], rng) for i in pick])
    scores = audio_embeddings @ text_embeddings.T
    pairs = scores.diagonal()
    rank = (scores > pairs[:, None]).sum(1)
    off = (scores.sum() - pairs.sum()) / (scores.numel() - len(pairs))
    return {
        "recall_1": (rank < 1).float().mean().item(),
        "recall_10": (rank < 10).float().mean().item(),
        "pair_cosine": pairs.mean().item(),
        "other_cosine": off.item(),
        "infinity_norm": (audio_embeddings - text_embeddings).abs().amax(1).mean().item(),
        "directions": 1 / (text_embeddings @ text_embeddings.T).square().mean().item(),
        "mean_distance": (audio_embeddings.mean(0) - text_embeddings.mean(0)).norm().item(),
    }


@torch.inference_mode()
def embed_clips(audio: AudioEncoder, log_mel: np.ndarray, batch_size: int = 128) -> Tensor:
    """Return embeddings `[W, E]` of cached log-mel spectrograms `[W, F, M]`."""
    batches = torch.from_numpy(log_mel).split(batch_size)
    return torch.cat([audio.embed_log_mel(batch[:, None].float()) for batch in batches])


def pad_captions(tokenizer: Tokenizer, captions: list[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Return padded tokens `[B, T]` as CLAP reads them, and the number of tokens of each caption `[B]`."""
    rows = tokenizer.encode_for_clap(captions, max_tokens)
    width = max(map(len, rows))
    tokens = torch.tensor([row + [tokenizer.end_id] * (width - len(row)) for row in rows])
    return tokens, torch.tensor([len(row) for row in rows])


def _batches(clips: Clips, settings: TowerSettings) -> Iterator[tuple[Tensor, list[str], Tensor]]:
    """Yield partly masked log-mel spectrograms `[B, 1, F, M]`, newly drawn captions, and the kinds `[B, kinds]`."""
    rng = np.random.default_rng(settings.seed)
    scenes: list[Scene] = clips.scenes
    with_kind = {kind: np.array([i for i, s in enumerate(scenes) if kind in s.kinds]) for kind in KINDS}
    present = kinds_present(scenes)
    for _ in range(settings.steps):
        kinds = rng.choice(list(KINDS), settings.batch_size // settings.group_size, replace=False)
        batch = np.concatenate([rng.choice(with_kind[kind], settings.group_size, replace=False) for kind in kinds])
        log_mel = torch.from_numpy(clips.log_mel[batch].astype(np.float32))[:, None]
        mask(log_mel, rng)
        yield log_mel, [word_scene(scenes[i], rng) for i in batch], present[batch]
