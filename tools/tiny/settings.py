"""The sizes of the tiny backbone and the settings of its training."""

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
# Shares of scenes with 1, 2 and 3 events: harder than the world's own shares, which lead to more repeated captions.
EVENT_SHARES = (0.15, 0.45, 0.40)

BACKBONE = BackboneConfig(
    name="tiny",
    clap=ClapConfig(
        audio=AudioConfig(
            sample_rate_hz=16000,
            window_s=CLIP_S,
            hop_s=CLIP_S / 2,
            n_fft=1024,
            stft_hop_samples=512,  # gives 126 frames; the tower takes at most 128
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
    """One cycle of the learning rate in the training of the language model."""

    steps: int
    learning_rate: float  # peak of the cycle
    blends: bool = False  # whether two of three steps read blended vectors instead of text


@dataclass(frozen=True)
class LanguageSettings:
    """Settings of the language model's training."""

    # After one round, one sound in ten was named wrongly. From the second round on, only captions count in the loss.
    rounds: tuple[Round, ...] = (Round(1800, 2e-3), Round(1000, 1.5e-3), Round(1400, 1.5e-3, blends=True))
    batch_size: int = 96
    # A language model that was trained on captions alone ignores the prefix, so it must first learn to use context.
    list_share: float = 0.45  # share of captions that follow a list of their sounds
    rewrite_share: float = 0.40  # share of captions that follow another wording
    prefix_length: int = 10  # number of blended vectors before a caption
    seed: int = 11


@dataclass(frozen=True)
class HearingSettings:
    """Settings of the audio tower's first stage, in which it learns to classify kinds of sound."""

    steps: int = 2600
    batch_size: int = 128
    learning_rate: float = 1.2e-3
    mixed_share: float = 0.5  # share of clips to mix with another one, if together they have few enough kinds
    mixed_gain_db: tuple[float, float] = (-8.0, 4.0)  # range of the other clip's gain
    most_events: int = 3  # most kinds of sound in a mixed clip
    seed: int = 13


@dataclass(frozen=True)
class TowerSettings:
    """Settings of the towers' contrastive training."""

    n_clips: int = 28000
    n_validation_clips: int = 600  # half of them have a held-out pair of kinds
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 7e-4
    label_weight: float = 4.0  # weight of the first stage's classification loss, so that it is not forgotten
    # Fixed: if it is learned, the modality gap closes (mean cosine 0.93 to 0.96); at 100, noise cannot bridge the gap.
    logit_scale: float = 40.0
    # Clips of a batch come in groups that share a kind of sound; otherwise one event of three would identify a clip.
    group_size: int = 8
    # Weight of the logarithm of the mean squared cosine of different clips (and of different captions). Without it,
    # the embeddings used about nine directions, and a little noise hid which sounds were named.
    spread_weight: float = 0.75
    # Weight of classifying kinds of sound by their cosine with one direction each, shared by audio and text.
    tag_weight: float = 1.0
    tag_scale: float = 16.0  # factor on these cosines
    # Weight of one minus the mean cosine of pairs, the remaining modality gap.
    alignment_weight: float = 1.0
    seed: int = 12


@dataclass(frozen=True)
class Gap:
    """The modality gap that the projections are fitted with.

    Attributes:
        shift: Share of an embedding's squared length that is the same for all sounds, or for all captions.
        private: Share of it that is private to a sound or a caption.
        target_weight: Weight of one minus the cosine of an embedding and its target, beside the contrastive loss.
    """

    shift: float
    private: float
    target_weight: float


# What ships, and the narrow gap that training gives by itself, which benchmarks.dial starts from.
WIDE, NARROW = Gap(0.15, 0.3, 2.0), Gap(0.0, 0.0, 0.1)


@dataclass(frozen=True)
class ProjectionSettings:
    """Settings of fitting the projections after the towers are trained."""

    n_clips: int = 8000  # not used to train the towers, which recognise more in clips that they were trained on
    steps: int = 1500
    batch_size: int = 256
    learning_rate: float = 2e-3
    logit_scale: float = 40.0
    structure_weight: float = 0.8  # weight of the directions of layout and number of sounds, relative to the kinds
    jitter: float = 0.05  # noise added to the pooled audio, in standard deviations
    n_wordings: int = 5  # captions drawn for each clip
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """Settings of the training of the whole backbone."""

    language: LanguageSettings = LanguageSettings()
    hearing: HearingSettings = HearingSettings()
    towers: TowerSettings = TowerSettings()
    projections: ProjectionSettings = ProjectionSettings()

    def quick(self) -> "Settings":
        """Return settings with a few steps for each stage, to check that every stage runs."""
        rounds = (Round(8, 2e-3), Round(8, 1e-3), Round(8, 1e-3, blends=True))
        return Settings(
            replace(self.language, rounds=rounds),
            replace(self.hearing, steps=4),
            replace(self.towers, n_clips=768, n_validation_clips=64, steps=4),
            replace(self.projections, n_clips=256, steps=300, n_wordings=1),
        )
