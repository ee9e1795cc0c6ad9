"""The kinds of sound: the name, the category and the synthesiser of each.

`KINDS[name].make(rng, duration_s, rate_hz, pace)` returns float32 [S] with a peak of 1. Levels relative to other
sounds are left to `textcap.demo.render`.
"""

# Each collects its kinds when it is imported.
from textcap.demo.sounds import alarms, animals, household, music, people, tools_, vehicles, weather  # noqa: F401
from textcap.demo.sounds.kinds import COLLECTED, Kind

# Scenes are drawn by the place of a kind among all.
_CATEGORIES = ("animals", "weather", "vehicles", "household", "people", "tools", "alarms", "music")
KINDS: dict[str, Kind] = {
    kind.name: kind for category in _CATEGORIES for kind in COLLECTED if kind.category == category
}
