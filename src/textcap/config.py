"""The settings of textcap as frozen dataclasses, with range checks and conversion to and from JSON.

The defaults are those of the paper (arXiv 2309.07372) and of msclap's 2023 checkpoint. This module does not import
torch, so that the command line can read the defaults quickly.
"""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from textcap.errors import InputError, SettingError

_BATCH_LOGITS = 400_000  # in a default batch with one beam
_CACHE_VALUES = 2**20  # of one tensor in the audio tower's first stage; more do not stay in the processor's cache
# Nothing but noise; the mean of each side subtracted; sounds given the mean and covariance of the text.
BRIDGES = ("noise", "centre", "coral")
MOVING = BRIDGES[1:]  # computed from sounds without captions
_CORAL_FROM = 300  # sounds; with fewer, their covariance is of less use than their mean (docs/experiments.md)
KEPT = ("last", "best")
PADDINGS = ("repeat", "repeatpad")
MIN_JUDGED = 50  # held-out sounds from which on an adapter is called helpful or not

MAX_SEED = 2**63 - 1
TOO_MANY = 2**31  # more than torch can count
MAX_LAYERS = 128
MAX_WIDTH = 2**16
MAX_POSITIONS = 4096
MAX_VOCABULARY = 2**20
MAX_WINDOW_SAMPLES = 2**24

_Config = TypeVar("_Config")


def moving_bridge(n_sounds: int) -> str:
    """Return the bridge to compute from so many sounds without captions, where none is asked for."""
    return "coral" if n_sounds >= _CORAL_FROM else "centre"


def require(condition: bool, name: str, value: object, rule: str) -> None:
    """Raise a SettingError that names a field and its value, unless the condition is true."""
    if not condition:
        raise SettingError(name, value, rule)


def counts(most: int = TOO_MANY - 1, least: int = 1) -> dict[str, Any]:
    """Return the limits of a count from `least` to `most`, or of a tuple of such counts, as the metadata of a field."""
    return {"least": least, "most": most, "rule": f"at least {least} and at most {most:,}"}


NOT_NEGATIVE: dict[str, Any] = {"least": 0, "most": sys.float_info.max, "rule": "0 or more"}
SEEDS: dict[str, Any] = {"least": 0, "most": MAX_SEED, "rule": f"between 0 and {MAX_SEED:,}"}


@dataclass(frozen=True)
class Checked:
    """Base of configurations: a field that is out of the limits it was declared with is a SettingError."""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            value, limits = getattr(self, one.name), one.metadata
            if limits and value is not None:
                numbers = value if isinstance(value, tuple) else (value,)
                within = all(limits["least"] <= number <= limits["most"] for number in numbers)
                require(within, one.name, value, limits["rule"])


def from_dict(cls: type[_Config], data: Any) -> _Config:
    """Rebuild a configuration from plain values such as JSON gives.

    Raises:
        InputError: A field is missing, unknown, of the wrong type or out of range.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{cls.__name__} is {data!r}, but must be an object")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(data) - names):
        raise InputError(f"{cls.__name__} has no field {', '.join(unknown)}")
    if missing := sorted(names - set(data)):
        raise InputError(f"{cls.__name__} lacks {', '.join(missing)}")
    return cls(**{name: _typed(hints[name], f"{cls.__name__}.{name}", value) for name, value in data.items()})


def _typed(hint: Any, name: str, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value)
    if hint is Any:
        return value
    if typing.get_origin(hint) in (Mapping, dict):
        require(isinstance(value, dict), name, value, "an object")
        return {key: _typed(typing.get_args(hint)[1], f"{name}.{key}", inner) for key, inner in value.items()}
    if typing.get_origin(hint) is tuple:
        require(isinstance(value, list | tuple), name, value, "a list")
        return tuple(_typed(typing.get_args(hint)[0], name, item) for item in value)
    if isinstance(hint, types.UnionType):
        return None if value is None else _typed(typing.get_args(hint)[0], name, value)
    accepted = (int, float) if hint is float else (hint,)
    is_right = isinstance(value, accepted) and (hint is bool or not isinstance(value, bool))
    require(is_right, name, value, hint.__name__)
    return float(value) if hint is float else value


def _require_heads(config: "LanguageModelConfig | MapperConfig") -> None:
    require(config.width % config.n_heads == 0, "n_heads", config.n_heads, f"a divisor of width {config.width}")


@dataclass(frozen=True)
class AudioConfig(Checked):
    """The audio front end: how the signal is cut into windows, and the log-mel spectrogram of each."""

    sample_rate_hz: int = field(default=44100, metadata=counts(1_000_000))
    window_s: float = 7.0  # length of a window, the tower's input; shorter clips are repeated to fill it
    hop_s: float = 3.5  # distance between the starts of two windows of a long clip
    n_fft: int = field(default=1024, metadata=counts(16_384, least=2))
    stft_hop_samples: int = field(default=320, metadata=counts())
    n_mels: int = field(default=64, metadata=counts(1024))
    # msclap's mel matrix is built for 32 kHz although its input has 44.1 kHz; its checkpoint contains the matrix.
    mel_rate_hz: int = field(default=32000, metadata=counts(1_000_000))
    mel_min_hz: float = field(default=50.0, metadata=NOT_NEGATIVE)
    mel_max_hz: float = 14000.0
    # how a shorter clip fills a window: "repeat", or "repeatpad" for whole repeats and then zeros
    padding: str = "repeat"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.window_s <= 600, "window_s", self.window_s, "above 0 and at most 600")
        require(0 < self.hop_s <= self.window_s, "hop_s", self.hop_s, "above 0 and at most window_s")
        long_enough = self.hop_s >= self.window_s / 100 and self.hop_samples >= 1
        require(long_enough, "hop_s", self.hop_s, "at least a hundredth of window_s, and one sample")
        least = max(self.n_fft // 2, self.stft_hop_samples) + 1
        in_range = least <= self.window_samples <= MAX_WINDOW_SAMPLES
        require(in_range, "window_s", self.window_s, f"{least:,} to {MAX_WINDOW_SAMPLES:,} samples")
        most = self.mel_rate_hz / 2
        in_range = self.mel_min_hz < self.mel_max_hz <= most
        require(in_range, "mel_max_hz", self.mel_max_hz, f"above mel_min_hz and at most {most:g}, half of mel_rate_hz")
        require(self.padding in PADDINGS, "padding", self.padding, " or ".join(PADDINGS))

    @property
    def window_samples(self) -> int:
        """Length of a window in samples."""
        return round(self.window_s * self.sample_rate_hz)

    @property
    def hop_samples(self) -> int:
        """Distance between the starts of two windows in samples."""
        return round(self.hop_s * self.sample_rate_hz)

    @property
    def window_frames(self) -> int:
        """Number of frames in the spectrogram of a window."""
        return self.window_samples // self.stft_hop_samples + 1


@dataclass(frozen=True)
class AudioTowerConfig(Checked):
    """Sizes of the HTSAT audio tower."""

    spec_size: int = field(default=256, metadata=counts(4096))
    patch_size: int = field(default=4, metadata=counts(4096))
    patch_width: int = field(default=96, metadata=counts(MAX_WIDTH))
    depths: tuple[int, ...] = field(default=(2, 2, 6, 2), metadata=counts(32))
    n_heads: tuple[int, ...] = field(default=(4, 8, 16, 32), metadata=counts(MAX_WIDTH))
    attention_window: int = field(default=8, metadata=counts(16))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= len(self.depths) <= 8, "depths", self.depths, "a list of 1 to 8 counts")
        require(len(self.depths) == len(self.n_heads), "n_heads", self.n_heads, "as many as depths")
        widths = [self.patch_width * 2**stage for stage in range(len(self.depths))]
        divide = all(width % n_heads == 0 for width, n_heads in zip(widths, self.n_heads, strict=True))
        require(divide, "n_heads", self.n_heads, f"divisors of the widths {widths}")
        divides = self.spec_size % self.patch_size == 0
        require(divides, "patch_size", self.patch_size, f"a divisor of spec_size {self.spec_size}")

    @property
    def width(self) -> int:
        """Width of the pooled output: each stage after the first doubles the channels."""
        return int(self.patch_width * 2 ** (len(self.depths) - 1))

    @property
    def n_in_cache(self) -> int:
        """Number of windows for each thread of a CPU that are embedded fastest at once."""
        return max(1, _CACHE_VALUES // ((self.spec_size // self.patch_size) ** 2 * self.patch_width))

    @property
    def least_parameters(self) -> int:
        """Number of parameters in the weights of the transformer's blocks, which is less than that of all."""
        return sum(12 * n * (self.patch_width * 2**stage) ** 2 for stage, n in enumerate(self.depths))


@dataclass(frozen=True)
class LanguageModelConfig(Checked):
    """Sizes of the frozen language model that generates the caption."""

    n_layers: int = field(default=12, metadata=counts(MAX_LAYERS))
    width: int = field(default=768, metadata=counts(MAX_WIDTH))
    n_heads: int = field(default=12, metadata=counts(MAX_WIDTH))
    n_positions: int = field(default=1024, metadata=counts(MAX_POSITIONS))
    vocab_size: int = field(default=50257, metadata=counts(MAX_VOCABULARY))

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_heads(self)

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the GPT-2, without any layers around it."""
        width = self.width
        embeddings = (self.vocab_size + self.n_positions) * width
        return embeddings + self.n_layers * (12 * width**2 + 13 * width) + 2 * width


@dataclass(frozen=True)
class TextTowerConfig(LanguageModelConfig):
    """Sizes of the GPT-2 in the text tower."""

    max_tokens: int = field(default=77, metadata=counts())  # longer captions are cut but keep the end token

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.max_tokens <= self.n_positions
        require(fits, "max_tokens", self.max_tokens, f"at most n_positions {self.n_positions}")


@dataclass(frozen=True)
class ClapConfig(Checked):
    """The two CLAP encoders and the embedding space that they share."""

    audio: AudioConfig = field(default_factory=AudioConfig)
    audio_tower: AudioTowerConfig = field(default_factory=AudioTowerConfig)
    text_tower: TextTowerConfig = field(default_factory=TextTowerConfig)
    embedding_width: int = field(default=1024, metadata=counts(MAX_WIDTH))  # dimensions of the shared space

    def __post_init__(self) -> None:
        super().__post_init__()
        tower, n_mels, n_frames = self.audio_tower, self.audio.n_mels, self.audio.window_frames
        require(tower.spec_size % n_mels == 0, "n_mels", n_mels, f"a divisor of spec_size {tower.spec_size}")
        most = tower.spec_size**2 // n_mels
        require(n_frames <= most, "window_s", self.audio.window_s, f"at most {most:,} frames long, not {n_frames:,}")
        # The last stage's map is cut into attention windows, and into as many parts as the time axis was folded into.
        parts = math.lcm(tower.attention_window, tower.spec_size // n_mels)
        multiple = tower.patch_size * 2 ** (len(tower.depths) - 1) * parts
        rule = f"a multiple of {multiple:,} for these patch_size, depths, attention_window and n_mels"
        require(tower.spec_size % multiple == 0, "spec_size", tower.spec_size, rule)


@dataclass(frozen=True)
class MapperConfig(Checked):
    """Sizes of the mapper from an embedding to a prefix (paper, section 3.1; msclap's TransformerMapper)."""

    embedding_width: int = field(default=1024, metadata=counts(MAX_WIDTH))  # that of CLAP
    width: int = field(default=768, metadata=counts(MAX_WIDTH))  # that of the language model
    # also the number of tokens that the embedding is spread over
    prefix_length: int = field(default=40, metadata=counts(MAX_POSITIONS))
    n_layers: int = field(default=8, metadata=counts(MAX_LAYERS))  # of the transformer
    n_heads: int = field(default=8, metadata=counts(MAX_LAYERS))  # of its attention; a divisor of `width`
    hidden_ratio: float = 2.0  # width of the hidden layers, as a multiple of `width`

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_heads(self)
        in_range = 1 <= self.width * self.hidden_ratio <= MAX_WIDTH
        require(in_range, "hidden_ratio", self.hidden_ratio, f"such that the hidden width is 1 to {MAX_WIDTH:,}")

    @property
    def hidden_width(self) -> int:
        """Width of the hidden layers."""
        return int(self.width * self.hidden_ratio)

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        width, hidden = self.width, self.hidden_width
        spread = (self.embedding_width + 2) * self.prefix_length * width  # with its bias and the constants
        return spread + self.n_layers * (4 * width**2 + 2 * width * hidden + 6 * width + hidden)


@dataclass(frozen=True)
class BackboneConfig(Checked):
    """A backbone: CLAP and a language model, which are frozen, a mapper between them, and the default noise."""

    name: str = "msclap-2023"
    clap: ClapConfig = field(default_factory=ClapConfig)
    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    mapper: MapperConfig = field(default_factory=MapperConfig)
    # of the noise that suits the modality gap of this CLAP; None if that is not known
    noise_variance: float | None = field(default=0.015, metadata=NOT_NEGATIVE)
    # means of the embeddings of sounds and of captions, so that a bridge can centre both sides; empty if not known
    mean_sound: tuple[float, ...] = ()
    mean_text: tuple[float, ...] = ()

    def batch_size(self, wanted: int | None = None) -> int:
        """Return the number of sounds or windows at once; by default more where the models are small.

        Raises:
            SettingError: The wanted number is less than 1.
        """
        if wanted is not None:
            require(wanted >= 1, "batch_size", wanted, "at least 1")
            return wanted
        n_captions = _BATCH_LOGITS // self.language_model.vocab_size
        return max(8, min(64, n_captions, self.clap.audio_tower.n_in_cache))

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = self.mapper.embedding_width, self.mapper.width
        wanted = self.clap.embedding_width, self.language_model.width
        require(widths[0] == wanted[0], "mapper.embedding_width", widths[0], f"{wanted[0]}, the width of CLAP")
        require(widths[1] == wanted[1], "mapper.width", widths[1], f"{wanted[1]}, the width of the language model")
        lengths = len(self.mean_sound), len(self.mean_text)
        rule = f"two lists of {wanted[0]} numbers, the width of CLAP, or both empty"
        require(lengths in ((0, 0), (wanted[0], wanted[0])), "mean_sound, mean_text", lengths, rule)

    def noise_for(self, wanted: float | None, *, is_measured: bool) -> float:
        """Return the variance of the noise to train with.

        Args:
            wanted: What the user asked for; None for what suits this CLAP.
            is_measured: Whether something else sets or replaces the noise.

        Raises:
            InputError: It is not known what suits this CLAP.
        """
        variance = self.noise_variance if wanted is None else wanted
        if variance is None and not is_measured:
            hint = "give --noise-from pairs.csv, --noise-variance, or --audio-sample FOLDER"
            raise InputError("the noise that suits this CLAP is not known", hint=hint)
        return variance or 0.0

    @property
    def default_bridge(self) -> str:
        """The bridge that needs no sounds but those of the backbone: "centre" if their mean is known, else "noise"."""
        return "centre" if self.mean_sound else "noise"


@dataclass(frozen=True)
class NoiseCalibration(Checked):
    """The pairs from which the noise was measured."""

    pairs_name: str  # path of the pairs file, as given
    pairs_sha256: str  # of the file's bytes
    n_pairs: int = field(metadata=counts())
    seed: int = field(metadata=SEEDS)  # for drawing the pairs
    rule: str  # how the standard deviation was computed from the pairs


@dataclass(frozen=True)
class AdapterFacts:
    """How a linear adapter was fitted, and the scores on held-out clips of an adapter fitted on the other clips."""

    clap_name: str
    clap_hash: str
    method: str  # "ridge" or "sgd"
    strength: float  # weight of the penalty on the squared matrix, next to the mean squared error
    n_pairs: int  # clips that the adapter was fitted on
    n_captions: int  # captions of these clips
    n_held_out: int  # clips held out for the scores
    pairs_name: str  # path of the pairs file, as given
    pairs_sha256: str  # of the file's bytes
    seed: int
    cosine_before: float  # mean cosine similarity of held-out sounds and captions, without the adapter
    cosine_after: float
    recall_at_1_before: float
    recall_at_1_after: float
    recall_at_10_before: float
    recall_at_10_after: float

    @property
    def helps(self) -> bool | None:
        """Whether held-out sounds are nearer to their captions with the adapter; None if that cannot be told.

        It cannot be with fewer than `MIN_JUDGED` held-out sounds, or if the cosine rises but recall falls.
        """
        if self.n_held_out < MIN_JUDGED:
            return None
        recalls = self.recall_at_1_after - self.recall_at_1_before, self.recall_at_10_after - self.recall_at_10_before
        return self.cosine_after > self.cosine_before and (True if min(recalls) >= 0 else None)


@dataclass(frozen=True)
class AudioSample(Checked):
    """Recordings without captions that a bridge was computed from."""

    name: str  # the folder, as given
    n_sounds: int = field(metadata=counts())
    sha256: str  # of their embeddings


@dataclass(frozen=True)
class BridgeConfig(Checked):
    """How the modality gap is bridged; noise is always given by its variance."""

    # of the Gaussian noise on every coordinate of a unit-length text embedding
    noise_variance: float = field(default=0.015, metadata=NOT_NEGATIVE)
    # of the same noise on audio embeddings, if training uses pairs
    audio_noise_variance: float = field(default=0.0, metadata=NOT_NEGATIVE)
    # how embeddings are moved before the noise, "noise" (not at all), "centre" or "coral"; None for what suits the
    # sample, adapter or backbone
    kind: str | None = None
    calibration: NoiseCalibration | None = None  # how `noise_variance` was measured; None if it was not
    sample: AudioSample | None = None  # what the bridge was computed from; None if it was the backbone or nothing

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind in (None, *BRIDGES), "bridge", self.kind, f"one of {', '.join(BRIDGES)}")

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on text embeddings, the square root of its variance."""
        return float(self.noise_variance**0.5)

    @property
    def audio_noise_std(self) -> float:
        """Standard deviation of the noise on the audio embeddings of training pairs."""
        return float(self.audio_noise_variance**0.5)


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How the mapper is trained (paper, section 4.1)."""

    epochs: int = field(default=30, metadata=counts())  # passes over all captions
    steps: int | None = field(default=None, metadata=counts())  # in place of epochs; None: as many as the epochs have
    batch_size: int = field(default=128, metadata=counts())  # captions per step, over all devices together
    learning_rate: float = 1e-4  # Adam's, after the warm-up
    # steps over which the learning rate rises; fewer in runs of fewer than 10,000 steps
    warmup_steps: int = field(default=2000, metadata=NOT_NEGATIVE)
    # kept for validation; at most a tenth of all captions
    held_out_captions: int = field(default=200, metadata=NOT_NEGATIVE)
    seed: int = field(default=0, metadata=SEEDS)  # of everything random
    keep: str = "last"  # which of the measured mappers is the result: "last", or "best" by the held-out loss
    # stop after this many measurements in a row without a better one; None: never
    patience: int | None = field(default=None, metadata=counts())

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.keep in KEPT, "keep", self.keep, " or ".join(KEPT))
        require(0 < self.learning_rate < 1, "learning_rate", self.learning_rate, "above 0 and below 1")


@dataclass(frozen=True)
class DecodingConfig(Checked):
    """How captions are decoded from prefixes (msclap's beam search)."""

    beam_size: int = field(default=5, metadata=counts())  # beams per clip
    max_tokens: int = field(default=67, metadata=counts())  # per caption, including the end token
    temperature: float = 1.0  # divides the logits
    n_best: int = 1  # captions per clip
    min_tokens: int = field(default=0, metadata=counts(least=0))  # per caption, without the end token

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.temperature < float("inf"), "temperature", self.temperature, "above 0")
        require(1 <= self.n_best <= self.beam_size, "n_best", self.n_best, "between 1 and the beam size")
        require(self.min_tokens < self.max_tokens, "min_tokens", self.min_tokens, "below the maximum number of tokens")
