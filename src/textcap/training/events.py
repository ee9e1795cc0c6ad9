"""Events that a training run reports as values; the caller decides what to show."""

from collections.abc import Callable
from dataclasses import dataclass

from textcap.model_folder import ModelConfig
from textcap.training.sources import SourceCount


@dataclass(frozen=True)
class Started:
    """The run is prepared; its first step follows."""

    model: ModelConfig  # what the model folder will record
    sources: tuple[SourceCount, ...]
    total_steps: int
    first_step: int  # steps done already: above 0 if an unfinished run is continued
    warmup_steps: int  # after shortening for a short run


@dataclass(frozen=True)
class Embedded:
    """Progress in embedding captions or sounds."""

    n_done: int
    n_total: int
    what: str = "captions"  # what is embedded: "captions" or "sounds"


@dataclass(frozen=True)
class Stepped:
    """Progress in training: one or more steps are done."""

    step: int  # steps done since the start of the first epoch
    loss: float  # nats per token since the last report
    captions_per_s: float


@dataclass(frozen=True)
class Sample:
    """A held-out caption, and the caption that the model generates from its noisy embedding."""

    reference: str
    caption: str


@dataclass(frozen=True)
class Measured:
    """A measurement at the end of an epoch, or in the midst of a long one; one line of `metrics.jsonl`."""

    epoch: int  # from 1
    epochs: int
    step: int
    loss: float  # nats per token since the measurement before
    held_out_loss: float | None
    learning_rate: float
    captions_per_s: float
    distinct_share: float | None  # share of different captions among those generated from held-out embeddings, 0 to 1
    samples: tuple[Sample, ...]
    within_epoch: bool = False  # whether the epoch goes on


Event = Started | Embedded | Stepped | Measured
Report = Callable[[Event], None]
