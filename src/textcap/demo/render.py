"""Render a scene of the sound world as audio: place its events in time, set their levels and mix them.

The sound of each kind is left to `textcap.demo.sounds`.
"""

import numpy as np
import numpy.typing as npt

from textcap.demo.scenes import Event, Scene
from textcap.demo.sounds import KINDS
from textcap.demo.sounds.primitives import Signal, convolve, n_samples, noise, uniform

Clip = npt.NDArray[np.float32]  # [S]

_PLAIN_RMS = 0.07  # RMS of the loudest moments of a sound without attributes
# Levels in dB that attributes add, and ranges of the factor on the rhythm.
_LEVEL_DB = {"loud": 8.0, None: 0.0, "faint": -11.0}
_DISTANCE_DB = {"near": 3.0, None: 0.0, "distant": -7.0}
_PACE = {"slow": (0.55, 0.68), None: (0.9, 1.12), "fast": (1.5, 1.8)}
_QUIETEST_DB = -14.0  # lowest level relative to the loudest sound of the scene: fainter ones would be masked
_BACKGROUND_DB = -9.0  # added to the level of the event in the background


def render_scene(scene: Scene, seed: int, rate_hz: int = 16000, duration_s: float = 4.0) -> Clip:
    """Return a scene rendered as audio.

    Args:
        scene: The scene to render.
        seed: Seed of everything random; the same scene and seed give the same samples.
        rate_hz: Sampling rate in Hz, at least 16000.
        duration_s: Length of the clip in s, at least 2.

    Returns:
        float32 [S], S samples, between -1 and 1.

    Raises:
        ValueError: The rate or the duration is too small.
    """
    if rate_hz < 16000:
        raise ValueError(f"rate_hz is {rate_hz}, but must be at least 16000, because sounds reach up to 8 kHz")
    if duration_s < 2.0:
        raise ValueError(f"duration_s is {duration_s}, but must be at least 2 to hold a scene")
    rng = np.random.default_rng(seed)
    n = n_samples(duration_s, rate_hz)
    levels_db = _event_levels(rng, scene)
    x = np.zeros(n)
    for event, (start_s, end_s), level_db in zip(
        scene.events, _time_slots(rng, scene, duration_s), levels_db, strict=True
    ):
        sound = _event_sound(rng, event, rate_hz, end_s - start_s)
        start = int(start_s * rate_hz)
        room = min(sound.size, n - start)
        x[start : start + room] += sound[:room] * 10.0 ** (level_db / 20.0)
    x *= 10.0 ** (uniform(rng, -2.0, 2.0) / 20.0)
    # A room is never silent: add noise of random colour, well below the faintest event.
    floor_db = min(levels_db) + uniform(rng, -34.0, -24.0)
    x += _PLAIN_RMS * 10.0 ** (floor_db / 20.0) * noise(rng, n, rate_hz, 40, 7000, uniform(rng, -5.0, 0.0), order=1)
    return _limit(x).astype(np.float32)


def _event_levels(rng: np.random.Generator, scene: Scene) -> list[float]:
    """Return the level of each event in dB, relative to a sound without attributes."""
    levels_db = []
    for i, event in enumerate(scene.events):
        level_db = uniform(rng, -2.0, 2.0) + _LEVEL_DB[event.level] + _DISTANCE_DB[event.distance]
        if scene.layout == "background" and i == len(scene.events) - 1:
            level_db += _BACKGROUND_DB
        levels_db.append(level_db)
    quietest_db = max(levels_db) + _QUIETEST_DB
    return [max(level_db, quietest_db) for level_db in levels_db]


def _time_slots(rng: np.random.Generator, scene: Scene, duration_s: float) -> list[tuple[float, float]]:
    """Return the start and end in s of each event."""
    if scene.layout in ("alone", "sequence"):
        return _consecutive(rng, scene.events, duration_s)
    if scene.layout == "background":
        return [*_consecutive(rng, scene.events[:-1], duration_s), (0.0, duration_s)]
    slots = []
    for event in scene.events:
        if KINDS[event.kind].short and not event.repeated:
            start_s = uniform(rng, 0.1, 0.55) * (duration_s - 1.2)
            slots.append((start_s, duration_s))
        else:
            slots.append((uniform(rng, 0.0, 0.3), duration_s - uniform(rng, 0.0, 0.3)))
    return slots


def _consecutive(rng: np.random.Generator, events: tuple[Event, ...], duration_s: float) -> list[tuple[float, float]]:
    """Return consecutive slots with a small gap or overlap; a short sound that is not repeated gets less time."""
    shares = np.array([1.4 if e.repeated else 0.8 if KINDS[e.kind].short else 1.0 for e in events])
    shares *= rng.uniform(0.9, 1.1, len(events))
    edges = np.concatenate([[0.0], np.cumsum(shares) / shares.sum()]) * duration_s
    slots = []
    for event, start, end in zip(events, edges[:-1], edges[1:], strict=True):
        start_s, end_s = float(start) + uniform(rng, 0.0, 0.08), float(end) + uniform(rng, -0.08, 0.06)
        if KINDS[event.kind].short and not event.repeated:
            start_s += uniform(rng, 0.0, 1.0) * max(0.0, end_s - start_s - 1.3)
        slots.append((start_s, min(end_s, duration_s)))
    return slots


def _event_sound(rng: np.random.Generator, event: Event, rate_hz: int, length_s: float) -> Signal:
    """Return the sound of one event with its pace, repeats and distance, at the level of a plain sound."""
    kind = KINDS[event.kind]
    pace = uniform(rng, *_PACE[event.pace])
    if event.repeated:
        count = int(rng.integers(2, 5)) if length_s > 2.0 else 2
        each_s = length_s / count
        # Every occurrence has the same source: the same cat, the same horn.
        source = int(rng.integers(2**32))
        each = [
            kind.make(np.random.default_rng(source), each_s * uniform(rng, 0.8, 0.92), rate_hz, pace)
            for _ in range(count)
        ]
        x = np.zeros(n_samples(length_s, rate_hz))
        for i, part in enumerate(each):
            start = int(i * each_s * rate_hz)
            faded = _fade_ends(part.astype(np.float64), rate_hz)[: x.size - start]
            x[start : start + faded.size] += faded
    else:
        x = _fade_ends(kind.make(rng, length_s, rate_hz, pace).astype(np.float64), rate_hz)
    if event.distance == "distant":
        x = _make_distant(rng, x, rate_hz)
    return x * (_PLAIN_RMS / (_loudness(x, rate_hz) + 1e-9))


def _fade_ends(x: Signal, rate_hz: int) -> Signal:
    """Return the signal with both ends faded, so that a lasting sound starts and stops without a click."""
    n_in, n_out = min(x.size, rate_hz // 200), min(x.size, rate_hz // 25)
    x = x.copy()
    x[:n_in] *= np.linspace(0.0, 1.0, n_in)
    x[x.size - n_out :] *= np.linspace(1.0, 0.0, n_out)
    return x


def _make_distant(rng: np.random.Generator, x: Signal, rate_hz: int) -> Signal:
    """Return the sound as heard from a distance: with softer high frequencies and the echoes of open space."""
    length = n_samples(uniform(rng, 0.5, 0.8), rate_hz)
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= 0.6 / np.sqrt(np.sum(tail**2))
    tail[0] += 0.6
    # One pole at 1.2 kHz falls by only 6 dB per octave, so that a cricket can still be recognised.
    pole = np.exp(-2 * np.pi * 1200 / rate_hz)
    low_pass = (1 - pole) * pole ** np.arange(n_samples(0.01, rate_hz))
    return convolve(convolve(x, low_pass), tail)


def _loudness(x: Signal, rate_hz: int) -> float:
    """Return the RMS of the loudest tenth of the 50 ms frames, so that a tick counts as loud as a hum."""
    frame = rate_hz // 20
    frames = x[: x.size // frame * frame].reshape(-1, frame) if x.size >= frame else x[None]
    power = np.sort((frames**2).mean(axis=1))[::-1]
    return float(np.sqrt(power[: max(1, power.size // 10)].mean()))


def _limit(x: Signal) -> Signal:
    """Return the signal limited to -1 to 1: unchanged up to 0.7 in magnitude, softly compressed above."""
    over = np.abs(x) - 0.7
    if over.max() <= 0.0:
        return x
    return np.where(over > 0.0, np.sign(x) * (0.7 + 0.3 * np.tanh(over / 0.3)), x)
