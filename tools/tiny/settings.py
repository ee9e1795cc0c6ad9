"""Sizes and settings of the tiny backbone and of how it is trained; nothing else."""

from dataclasses import dataclass

from textcap.config import (
    AudioConfig,
    AudioTowerConfig,
    BackboneConfig,
    ClapConfig,
    LanguageModelConfig,
    MapperConfig,
    TextTowerConfig,
)

VOCAB_SIZE = 1000
CLIP_S = 4.0
EVENT_SHARES = (0.15, 0.45, 0.40)  # of 1, 2 and 3 events: harder than the world itself, whose captions repeat more

BACKBONE = BackboneConfig(
    name="tiny",
    clap=ClapConfig(
        audio=AudioConfig(
            sample_rate_hz=16000,
            window_s=CLIP_S,
            hop_s=CLIP_S / 2,
            n_fft=1024,
            stft_hop_samples=512,  # 126 frames; the tower takes 128 at most
            n_mels=32,
            mel_rate_hz=16000,
            mel_min_hz=50.0,
            mel_max_hz=8000.0,
        ),
        audio_tower=AudioTowerConfig(
            spec_size=64,
            patch_size=4,
            patch_width=64,
            depths=(2, 2, 2),
            n_heads=(2, 4, 8),
            attention_window=4,
        ),
        text_tower=TextTowerConfig(
            n_layers=3, width=128, n_heads=4, n_positions=64, vocab_size=VOCAB_SIZE, max_tokens=64
        ),
        embedding_width=256,
    ),
    language_model=LanguageModelConfig(n_layers=4, width=160, n_heads=4, n_positions=128, vocab_size=VOCAB_SIZE),
    mapper=MapperConfig(embedding_width=256, width=160, prefix_length=10, n_layers=3, n_heads=8),
    noise_variance=0.0015,
)


@dataclass(frozen=True)
class Round:
    """One cycle of the learning rate."""

    steps: int
    learning_rate: float  # at its peak
    blends: bool = False  # every other step reads blended vectors instead of text


@dataclass(frozen=True)
class LanguageSettings:
    """How the language model is trained."""

    # After one round one sound in ten was named wrong. From the second on the captions alone are counted.
    rounds: tuple[Round, ...] = (Round(1800, 2e-3), Round(1200, 1.5e-3), Round(450, 1.2e-3, blends=True))
    batch_size: int = 96
    # Pretrained on captions alone, a language model ignores the prefix: it has to have learned to listen.
    list_share: float = 0.45
    rewrite_share: float = 0.40
    prefix_length: int = 10
    seed: int = 11


@dataclass(frozen=True)
class TowerSettings:
    """How the towers are trained."""

    n_clips: int = 18000
    n_validation_clips: int = 600  # half of them with held-out pairs of kinds
    steps: int = 1300
    batch_size: int = 128
    learning_rate: float = 1e-3
    # Fixed: learned, it closes the modality gap (mean cosine 0.93 to 0.96); at 100 noise cannot bridge it.
    logit_scale: float = 40.0
    # Clips of a batch come in groups that share a kind of sound: else one event of three tells them apart.
    group_size: int = 8
    # Of the logarithm of the mean squared cosine of different clips (and of different captions). Without it
    # the embeddings used about nine directions, and small noise hid which sounds were named.
    spread_weight: float = 0.75
    # Of naming the kinds of sound by their cosine with one direction each, the same for sounds and captions.
    tag_weight: float = 1.0
    tag_scale: float = 16.0
    # Of one less the mean cosine of pairs: what is left of the modality gap.
    alignment_weight: float = 1.0
    seed: int = 12


@dataclass(frozen=True)
class ProjectionSettings:
    """How the projections are fitted once the towers are done."""

    steps: int = 1500
    batch_size: int = 256
    learning_rate: float = 2e-3
    logit_scale: float = 40.0
    # Of one less the cosine of an embedding with the sum of its kinds' directions.
    target_weight: float = 12.0
    alignment_weight: float = 2.0  # of one less the mean cosine of pairs
    jitter: float = 0.05  # of the pooled sounds, in standard deviations
    n_wordings: int = 5  # of each clip
    seed: int = 0
