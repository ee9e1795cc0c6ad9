"""Describe and draw scenes of the sound world: which sounds occur, how they are arranged, how each one sounds.

Audio is left to `textcap.demo.render` and captions to `textcap.demo.grammar`.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcap.demo.sounds import KINDS

LAYOUTS = ("alone", "sequence", "together", "background")
LEVELS = ("loud", "faint")
DISTANCES = ("near", "distant")
PACES = ("fast", "slow")

_EVENT_SHARES = (0.25, 0.50, 0.25)  # shares of scenes with 1, 2 and 3 events
# Shares of the layouts of scenes with several events.
_LAYOUT_SHARES = {"sequence": 0.45, "together": 0.25, "background": 0.30}
# Shares of events with an attribute in scenes with 1, 2 and 3 events: a longer caption has less room for attributes.
# Overall about a third of the events have one.
_ATTRIBUTE_SHARES = (0.60, 0.36, 0.26)
_HELD_OUT_ONE_IN = 6  # one pair of kinds in so many is held out


@dataclass(frozen=True)
class Event:
    """One sound of a scene and how it sounds."""

    kind: str  # a key of sounds.KINDS
    level: str | None = None  # one of LEVELS
    distance: str | None = None  # one of DISTANCES
    pace: str | None = None  # one of PACES; only for paced kinds
    repeated: bool = False  # whether it occurs several times; only for short kinds

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, but must be a key of sounds.KINDS")
        for name, value, allowed in (
            ("level", self.level, LEVELS),
            ("distance", self.distance, DISTANCES),
            ("pace", self.pace, PACES if KINDS[self.kind].paced else ()),
        ):
            if value is not None and value not in allowed:
                raise ValueError(f"{name} of {self.kind} is {value!r}, but must be None or one of {allowed}")
        if self.repeated and not KINDS[self.kind].short:
            raise ValueError(f"repeated is set for {self.kind}, which is not short and cannot be repeated")


@dataclass(frozen=True)
class Scene:
    """One to three different sounds and their layout.

    Layouts: "alone" has one event; in "sequence" the events follow each other, and in "together" they sound at once;
    in "background" the last event sounds softly throughout, behind the others.
    """

    events: tuple[Event, ...]
    layout: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.events) <= 3:
            raise ValueError(f"the number of events is {len(self.events)}, but must be 1 to 3")
        if self.layout not in LAYOUTS or (self.layout == "alone") != (len(self.events) == 1):
            raise ValueError(f"layout {self.layout!r} does not fit the number of events, {len(self.events)}")
        if len(set(self.kinds)) < len(self.events):
            raise ValueError(f"the events of a scene must be of different kinds, not {self.kinds}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the events, in order."""
        return tuple(event.kind for event in self.events)


def is_held_out(a: str, b: str) -> bool:
    """Return whether two kinds never occur together in a training scene, which holds for a sixth of all pairs."""
    pair = "+".join(sorted((a, b)))
    number = int.from_bytes(hashlib.sha256(pair.encode()).digest()[:8], "big")
    return a != b and number % _HELD_OUT_ONE_IN == 0


def sample_scene(
    rng: np.random.Generator, *, unseen: bool, event_shares: tuple[float, float, float] = _EVENT_SHARES
) -> Scene:
    """Draw a scene.

    Args:
        rng: The source of randomness.
        unseen: False draws a training scene, which has no held-out pair of kinds; True draws a scene with at least
            one such pair.
        event_shares: Shares of scenes with 1, 2 and 3 events; they sum to 1. Unseen scenes have at least 2 events.
    """
    names = tuple(KINDS)
    n_events = 1 + int(rng.choice(3, p=event_shares))
    if unseen:
        n_events = max(n_events, 2)
    while True:
        kinds = [names[i] for i in rng.choice(len(names), n_events, replace=False)]
        if _has_held_out_pair(kinds) == unseen:
            break
    layout = _sample_layout(kinds, rng)
    behind = len(kinds) - 1 if layout == "background" else None
    share = _ATTRIBUTE_SHARES[n_events - 1]
    events = tuple(
        _sample_event(kind, rng) if rng.random() < share and i != behind else Event(kind)
        for i, kind in enumerate(kinds)
    )
    return Scene(events, layout)


def _has_held_out_pair(kinds: list[str]) -> bool:
    return any(is_held_out(a, b) for i, a in enumerate(kinds) for b in kinds[:i])


def _sample_layout(kinds: list[str], rng: np.random.Generator) -> str:
    """Draw a layout; for "background", move a lasting sound to the end of `kinds`, in place."""
    if len(kinds) == 1:
        return "alone"
    layout = str(rng.choice(list(_LAYOUT_SHARES), p=list(_LAYOUT_SHARES.values())))
    if layout == "background":
        lasting = [kind for kind in kinds if not KINDS[kind].short]
        if not lasting:
            return "sequence"
        kinds.remove(lasting[-1])
        kinds.append(lasting[-1])
    return layout


def _sample_event(kind: str, rng: np.random.Generator) -> Event:
    """Draw an event with one attribute that suits its kind."""
    values: dict[str, tuple[Any, Any]] = {"level": LEVELS, "distance": DISTANCES}
    if KINDS[kind].paced:
        values["pace"] = PACES
    if KINDS[kind].short:
        values["repeated"] = (True, True)
    attribute, first = str(rng.choice(list(values))), rng.random() < 0.5
    return Event(kind, **{attribute: values[attribute][0 if first else 1]})
