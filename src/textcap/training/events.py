"""Events that a training run reports as values; the caller decides what to show."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from textcap.training.sources import SourceCount


@dataclass(frozen=True)
class Warned:
    """A warning; the run continues."""

    message: str


@dataclass(frozen=True)
class Started:
    """The run is prepared; its first step follows."""

    backbone: str
    device: str
    precision: str
    n_processes: int
    n_captions: int  # captions to train on, without those held out
    n_held_out: int  # captions held out
    noise_variance: float
    noise_std: float
    epochs: int
    total_steps: int
    first_step: int  # steps done already: above 0 if an unfinished run is continued
    warmup_steps: int  # after shortening for a short run
    warmup_asked: int  # as the settings ask for
    sources: tuple[SourceCount, ...] = ()
    noise_from: str | None = None  # name of the pairs file that the noise on text was measured on
    audio_noise_variance: float = 0.0
    adapter: str | None = None  # file of the linear adapter


@dataclass(frozen=True)
class Embedded:
    """Progress in embedding captions or sounds."""

    n_done: int
    n_total: int
    what: str = "captions"  # what is embedded: "captions" or "sounds"


@dataclass(frozen=True)
class Stepped:
    """Progress in training: one or more steps are done."""

    epoch: int  # from 1
    step: int  # steps done since the start of the first epoch
    total_steps: int
    loss: float  # nats per token since the last report
    learning_rate: float
    captions_per_s: float
    left_s: float  # estimated seconds to the end of the run


@dataclass(frozen=True)
class Sample:
    """A held-out caption, and the caption that the model generates from its noisy embedding."""

    reference: str
    caption: str


@dataclass(frozen=True)
class EpochDone:
    """The results of an epoch; written as one line of `metrics.jsonl`."""

    epoch: int  # from 1
    epochs: int
    step: int
    loss: float  # nats per token over the epoch
    held_out_loss: float | None
    learning_rate: float
    captions_per_s: float
    distinct_share: float | None  # share of different captions among those generated from held-out embeddings, 0 to 1
    samples: tuple[Sample, ...]


Event = Warned | Started | Embedded | Stepped | EpochDone
Report = Callable[[Event], None]


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return an event as plain values for JSON, with the name of its class under "kind"."""
    return {"kind": type(event).__name__, **dataclasses.asdict(event)}


def event_from_dict(data: dict[str, Any]) -> Event:
    """Return the event that `event_to_dict` turned into plain values."""
    values = dict(data)
    kind = values.pop("kind")
    if kind == "EpochDone":
        values["samples"] = tuple(Sample(**sample) for sample in values["samples"])
    if kind == "Started":
        values["sources"] = tuple(SourceCount(**source) for source in values["sources"])
    kinds: dict[str, Callable[..., Event]] = {
        event.__name__: event for event in (Warned, Started, Embedded, Stepped, EpochDone)
    }
    return kinds[kind](**values)
