"""What a training run reports while it runs, as values; whoever asked for the run decides what to show.

Knows nothing of how the run is done.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from textcap.training.sources import SourceCount


@dataclass(frozen=True)
class Warned:
    """Something is odd, and the run goes on."""

    message: str


@dataclass(frozen=True)
class Started:
    """The run is prepared, and the first step is next."""

    backbone: str
    device: str
    precision: str
    n_processes: int
    n_captions: int  # trained on, without the held-out ones
    n_held_out: int
    noise_variance: float
    noise_std: float
    epochs: int
    total_steps: int
    first_step: int  # above 0 when a run is continued
    warmup_steps: int
    warmup_asked: int
    sources: tuple[SourceCount, ...] = ()
    noise_from: str | None = None  # the pairs that the noise was measured on
    audio_noise_variance: float = 0.0
    adapter: str | None = None  # its file


@dataclass(frozen=True)
class Embedded:
    """So many captions, or sounds, have their embeddings."""

    n_done: int
    n_total: int
    what: str = "captions"  # or "sounds"


@dataclass(frozen=True)
class Stepped:
    """A few more steps are done."""

    epoch: int  # from 1
    step: int  # steps done in all epochs
    total_steps: int
    loss: float  # nats per token since the last report
    learning_rate: float
    captions_per_s: float
    left_s: float


@dataclass(frozen=True)
class Sample:
    """A held-out caption, and what the model says to its text embedding with noise."""

    reference: str
    caption: str


@dataclass(frozen=True)
class EpochDone:
    """One epoch is done; a line of `metrics.jsonl`."""

    epoch: int  # from 1
    epochs: int
    step: int
    loss: float  # nats per token over the epoch
    held_out_loss: float | None
    learning_rate: float
    captions_per_s: float
    distinct_share: float | None  # different captions among those made from held-out embeddings
    samples: tuple[Sample, ...]


Event = Warned | Started | Embedded | Stepped | EpochDone
Report = Callable[[Event], None]


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return an event as plain values that JSON can hold, with its kind."""
    return {"kind": type(event).__name__, **dataclasses.asdict(event)}


def event_from_dict(data: dict[str, Any]) -> Event:
    """Rebuild an event from `event_to_dict`'s output."""
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
