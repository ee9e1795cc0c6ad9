"""Sizes and settings of the tiny backbone and of how it is trained; nothing else."""

from dataclasses import dataclass, replace

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
    noise_variance=0.005,
)


@dataclass(frozen=True)
class Round:
    """One cycle of the learning rate."""

    steps: int
    learning_rate: float  # at its peak
    blends: bool = False  # two steps of three read blended vectors instead of text


@dataclass(frozen=True)
class LanguageSettings:
    """How the language model is trained."""

    # After one round one sound in ten was named wrong. From the second on the captions alone are counted.
    rounds: tuple[Round, ...] = (Round(1800, 2e-3), Round(1000, 1.5e-3), Round(1400, 1.5e-3, blends=True))
    batch_size: int = 96
    # Pretrained on captions alone, a language model ignores the prefix: it has to have learned to listen.
    list_share: float = 0.45
    rewrite_share: float = 0.40
    prefix_length: int = 10
    seed: int = 11


@dataclass(frozen=True)
class HearingSettings:
    """How the audio tower learns to name kinds of sound before it meets captions."""

    steps: int = 2600
    batch_size: int = 128
    learning_rate: float = 1.2e-3
    # Of the clips, as many as together have few enough sounds, are mixed with another one.
    mixed_share: float = 0.5
    mixed_gain_db: tuple[float, float] = (-8.0, 4.0)
    most_events: int = 3
    seed: int = 13


@dataclass(frozen=True)
class TowerSettings:
    """How the towers are trained."""

    n_clips: int = 28000
    n_validation_clips: int = 600  # half of them with held-out pairs of kinds
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 7e-4
    label_weight: float = 4.0  # of naming the kinds as in the first lesson, so that it is not forgotten
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

    n_clips: int = 8000  # that the towers did not learn on: of those they hear more than of new ones
    steps: int = 1500
    batch_size: int = 256
    learning_rate: float = 2e-3
    logit_scale: float = 40.0
    structure_weight: float = 0.8  # of the directions of layout and number of sounds beside those of the kinds
    # Of one less the cosine of an embedding with the sum of its scene's directions. From 0.4 on it closes the modality
    # gap (mean cosine 0.90) and leaves noise nothing to bridge; with 0 the mean cosine is 0.82.
    target_weight: float = 0.1
    jitter: float = 0.05  # of the pooled sounds, in standard deviations
    n_wordings: int = 5  # of each clip
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """How the whole backbone is trained."""

    language: LanguageSettings = LanguageSettings()
    hearing: HearingSettings = HearingSettings()
    towers: TowerSettings = TowerSettings()
    projections: ProjectionSettings = ProjectionSettings()

    def quick(self) -> "Settings":
        """Return settings of a few steps each, which show that every stage runs."""
        rounds = (Round(8, 2e-3), Round(8, 1e-3), Round(8, 1e-3, blends=True))
        return Settings(
            replace(self.language, rounds=rounds),
            replace(self.hearing, steps=4),
            replace(self.towers, n_clips=768, n_validation_clips=64, steps=4),
            replace(self.projections, n_clips=256, steps=300, n_wordings=1),
        )
