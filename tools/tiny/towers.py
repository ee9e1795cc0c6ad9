"""Train the CLAP towers of the tiny backbone contrastively, on clips with newly drawn captions in every batch."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from textcap.config import ClapConfig
from textcap.demo.grammar import word_scene
from textcap.demo.sounds import KINDS
from textcap.models.msclap import MsclapAudioEncoder, MsclapTextEncoder
from textcap.models.tokenizer import Tokenizer
from tiny.hearing import Listener, kinds_present, load_listener, mask
from tiny.log import Log
from tiny.loop import half_precision, train
from tiny.settings import TowerSettings
from tiny.sound import Clips
from tiny.words import draw_caption


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
    listener, checkpoint = load_listener(folder, config), folder / "towers.unfinished"
    audio, text = listener.encoder, MsclapTextEncoder(config, tokenizer)
    model = _Towers(listener, text, len(KINDS), config.embedding_width)
    present = kinds_present(clips.scenes)
    with_kind = {kind: present[:, number].nonzero()[:, 0].numpy() for number, kind in enumerate(KINDS)}

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([settings.seed, step])
        batch = _draw_batch(with_kind, settings, rng)
        log_mel = torch.from_numpy(clips.log_mel[batch].astype(np.float32))[:, None]
        mask(log_mel, rng)
        captions = [draw_caption(clips.scenes[i], rng)[1] for i in batch]
        tokens, lengths = pad_captions(tokenizer, captions, config.text_tower.max_tokens)
        with half_precision():
            pooled = audio.tower(log_mel)
            scores = listener.labels(pooled)
            audio_out, text_out = audio.projection(pooled), text(tokens, lengths)
        audio_out, text_out = F.normalize(audio_out.float(), dim=-1), F.normalize(text_out.float(), dim=-1)
        tags = present[batch] / present[batch].sum(1, keepdim=True)
        loss = _loss(audio_out, text_out, tags, model.directions, settings)
        return loss + settings.label_weight * F.binary_cross_entropy_with_logits(scores.float(), present[batch])

    def report(step: int, loss: float, seconds: float) -> None:
        figures = measure_towers(audio, text, validation, settings.seed)
        log.write("towers", step=step, loss=loss, seconds=seconds, **figures)

    rate, steps = settings.learning_rate, settings.steps
    train(checkpoint, model, loss_of, report, steps=steps, learning_rate=rate, weight_decay=0.02)
    save_towers(folder, "towers", audio, text)
    checkpoint.unlink()


class _Towers(nn.Module):
    """All that the contrastive stage trains."""

    def __init__(self, listener: Listener, text: MsclapTextEncoder, n_kinds: int, width: int) -> None:
        super().__init__()
        self.listener, self.text = listener, text
        self.directions = nn.Parameter(torch.randn(n_kinds, width))  # one for each kind


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
) -> tuple[MsclapAudioEncoder, MsclapTextEncoder]:
    """Return the encoders that `save_towers` wrote."""
    audio, text = MsclapAudioEncoder(config), MsclapTextEncoder(config, tokenizer)
    audio.load_state_dict(load_file(folder / f"audio_encoder.{ending}"))
    text.load_state_dict(load_file(folder / f"text_encoder.{ending}"))
    return audio, text


def save_towers(folder: Path, ending: str, audio: MsclapAudioEncoder, text: MsclapTextEncoder) -> None:
    """Write the weights of both encoders; the ending of the file names tells the stage."""
    for name, model in (("text_encoder", text), ("audio_encoder", audio)):
        partial = folder / f"{name}.partial"
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial)
        os.replace(partial, folder / f"{name}.{ending}")


@torch.inference_mode()
def measure_towers(audio: MsclapAudioEncoder, text: MsclapTextEncoder, clips: Clips, seed: int) -> dict[str, float]:
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
def measure_means(
    audio: MsclapAudioEncoder, text: MsclapTextEncoder, clips: Clips, seed: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean embedding of clips and that of their plain captions, rounded to seven decimal places."""
    rng = np.random.default_rng(seed)
    captions = text.encode([word_scene(scene, rng) for scene in clips.scenes])
    means = (side.double().mean(0).tolist() for side in (embed_clips(audio, clips.log_mel), captions))
    mean_sound, mean_text = (tuple(round(value, 7) for value in mean) for mean in means)
    return mean_sound, mean_text


@torch.inference_mode()
def embed_clips(audio: MsclapAudioEncoder, log_mel: np.ndarray, batch_size: int = 128) -> Tensor:
    """Return embeddings `[W, E]` of cached log-mel spectrograms `[W, F, M]`."""
    batches = torch.from_numpy(log_mel).split(batch_size)
    return torch.cat([audio.embed_log_mel(batch[:, None].float()) for batch in batches])


def pad_captions(tokenizer: Tokenizer, captions: list[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Return padded tokens `[B, T]` as CLAP reads them, and the number of tokens of each caption `[B]`."""
    rows = tokenizer.encode_for_clap(captions, max_tokens)
    width = max(map(len, rows))
    tokens = torch.tensor([row + [tokenizer.end_id] * (width - len(row)) for row in rows])
    return tokens, torch.tensor([len(row) for row in rows])


def _draw_batch(with_kind: dict[str, np.ndarray], settings: TowerSettings, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of clips in groups that share a kind of sound."""
    kinds = rng.choice(list(with_kind), settings.batch_size // settings.group_size, replace=False)
    return np.concatenate([rng.choice(with_kind[kind], settings.group_size, replace=False) for kind in kinds])
