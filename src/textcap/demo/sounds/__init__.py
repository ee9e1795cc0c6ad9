"""The kinds of sound: the name, the category and the synthesiser of each.

`KINDS[name].make(rng, duration_s, rate_hz, pace)` returns float32 [S] with a peak of 1. Levels relative to other
sounds are left to `textcap.demo.render`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from textcap.demo.sounds import alarms, animals, household, music, people, tools_, vehicles, weather
from textcap.demo.sounds.primitives import Signal, n_samples, peak_normalised

Synthesiser = Callable[[np.random.Generator, float, int, float], Signal]
Maker = Callable[[np.random.Generator, float, int, float], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Kind:
    """One kind of everyday sound.

    Args:
        make: Function of (generator, duration in s, rate in Hz, pace) that returns float32 [S] with a peak of 1.
            Pace is a factor on the rhythm: below 1 is slower, above 1 faster.
        short: Whether it sounds once, for less than about 1.5 s at the start of its time slot, and can be repeated.
        paced: Whether it has a rhythm that can be fast or slow.
    """

    name: str  # snake_case
    category: str  # animals, weather, vehicles, household, people, tools, alarms, music
    make: Maker
    short: bool
    paced: bool


_MODULES: dict[str, ModuleType] = {
    "animals": animals,
    "weather": weather,
    "vehicles": vehicles,
    "household": household,
    "people": people,
    "tools": tools_,
    "alarms": alarms,
    "music": music,
}

# Category -> (name, short, paced) of each kind; the name is that of a function in the category's module.
_TABLE: dict[str, tuple[tuple[str, bool, bool], ...]] = {
    "animals": (
        ("dog_barking", False, True),
        ("cat_meowing", True, False),
        ("rooster_crowing", False, False),
        ("cow_mooing", False, False),
        ("birds_chirping", False, True),
        ("crickets_chirping", False, True),
    ),
    "weather": (
        ("rain_falling", False, False),
        ("thunder_rumbling", False, False),
        ("wind_howling", False, False),
        ("waves_crashing", False, True),
        ("stream_bubbling", False, False),
        ("fire_crackling", False, False),
    ),
    "vehicles": (
        ("car_engine", False, False),
        ("motorcycle_revving", False, False),
        ("train_whistle", True, False),
        ("helicopter_flying", False, True),
        ("aeroplane_passing", False, False),
        ("bicycle_bell", True, False),
    ),
    "household": (
        ("clock_ticking", False, True),
        ("door_knocking", True, True),
        ("glass_breaking", True, False),
        ("kettle_whistling", False, False),
        ("keyboard_typing", False, True),
        ("vacuum_cleaner", False, False),
    ),
    "people": (
        ("man_speaking", False, True),
        ("woman_speaking", False, True),
        ("baby_crying", False, False),
        ("people_clapping", False, False),
        ("footsteps", False, True),
        ("person_snoring", False, True),
    ),
    "tools": (
        ("hammer_hitting", False, True),
        ("saw_cutting", False, True),
        ("drill_running", False, False),
        ("chainsaw_running", False, False),
        ("scissors_snipping", False, True),
        ("metal_clanging", True, False),
    ),
    "alarms": (
        ("siren_wailing", False, True),
        ("alarm_beeping", False, True),
        ("car_horn", True, False),
        ("church_bell", False, True),
        ("telephone_ringing", False, False),
        ("foghorn_blowing", False, False),
    ),
    "music": (
        ("piano_playing", False, True),
        ("guitar_strumming", False, True),
        ("drums_playing", False, True),
        ("flute_playing", False, True),
        ("violin_playing", False, False),
        ("trumpet_playing", False, True),
    ),
}


def _finished(synthesiser: Synthesiser) -> Maker:
    """Wrap a synthesiser so that its output has the common form: exact length, float32, peak 1."""

    def make(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> npt.NDArray[np.float32]:
        x = peak_normalised(synthesiser(rng, duration_s, rate_hz, pace))
        return x[: n_samples(duration_s, rate_hz)].astype(np.float32)

    return make


KINDS: dict[str, Kind] = {
    name: Kind(name, category, _finished(getattr(_MODULES[category], name)), short, paced)
    for category, rows in _TABLE.items()
    for name, short, paced in rows
}
