"""Sounds of household objects: clock, door knock, breaking glass, kettle, keyboard, vacuum cleaner.

Each function is the synthesiser of one kind: float64 [S] at any scale, or parts of it, which `Kind` puts together
and scales to a peak of 1.
"""

import numpy as np

import textcap.demo.sounds.primitives as p
from textcap.demo.sounds.kinds import Parts, sound
from textcap.demo.sounds.primitives import Signal


@sound("household", paced=True)
def clock_ticking(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return dry, evenly spaced ticks; tick and tock differ a little in pitch."""
    base_hz = p.uniform(rng, 2600, 3600)
    n = p.n_samples(0.05, rate_hz)
    ticks = []
    for pitch in (1.0, p.uniform(rng, 0.75, 0.85)):
        modes = [
            (base_hz * pitch, 0.03, 1.0),
            (base_hz * pitch * 1.7, 0.02, 0.6),
            (base_hz * pitch * 0.45, 0.02, 0.3),
        ]
        ticks.append(p.ring(rng, n, rate_hz, modes))
    for i, t in enumerate(p.onsets(rng, duration_s, p.uniform(rng, 0.30, 0.36) / pace, 0.0)):
        yield t, ticks[i % 2]


@sound("household", short=True, paced=True)
def door_knocking(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return three to five knocks on wood."""
    base_hz = p.uniform(rng, 190, 280)
    gap_s = p.uniform(rng, 0.2, 0.25) / pace
    n = p.n_samples(0.15, rate_hz)
    for i in range(int(rng.integers(3, 6))):
        modes = [
            (base_hz, 0.12, 1.0),
            (base_hz * 1.7, 0.09, 0.8),
            (base_hz * 2.9, 0.06, 0.5),
            (base_hz * 4.7, 0.04, 0.2),
        ]
        knock = p.ring(rng, n, rate_hz, modes)
        knock += 0.3 * p.noise(rng, n, rate_hz, 200, 1200) * p.decay(n, rate_hz, 0.001, 0.03)
        yield 0.01 + i * gap_s * p.uniform(rng, 0.97, 1.03), knock * p.uniform(rng, 0.75, 1.0)


@sound("household", short=True)
def glass_breaking(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a crash and a shower of high, ringing splinters."""
    n = p.n_samples(1.3, rate_hz)
    crash = 1.2 * p.noise(rng, n, rate_hz, 1500, 7900, order=2) * p.decay(n, rate_hz, 0.001, 0.25)
    parts: list[tuple[float, Signal]] = [(0.0, crash)]
    for _ in range(int(rng.integers(22, 34))):
        length = p.n_samples(0.25, rate_hz)
        start_s = min(1.0, rng.exponential(0.28))
        pitch_hz = p.uniform(rng, 2500, 7500)
        splinter = p.ring(rng, length, rate_hz, [(pitch_hz, p.uniform(rng, 0.08, 0.25), 1.0)])
        parts.append((start_s, splinter * p.uniform(rng, 0.3, 1.0) * float(np.exp(-1.5 * start_s))))
    yield 0.01, p.place(n, rate_hz, parts)


@sound("household")
def kettle_whistling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a whistle that rises in pitch while steam builds up, then holds."""
    n = p.n_samples(duration_s, rate_hz)
    pitch_hz = p.uniform(rng, 1900, 2500)
    rise = 1.0 - p.uniform(rng, 0.25, 0.4) * np.exp(-np.arange(n) / (0.28 * n))
    f0 = pitch_hz * rise * p.wander(rng, n, rate_hz, 12, 0.995, 1.005)
    whistle = p.tone(f0, n, rate_hz, [1.0, 0.25, 0.1]) * p.wander(rng, n, rate_hz, 14, 0.8, 1.0)
    steam = p.noise(rng, n, rate_hz, 1500, 7000, order=2)
    return (whistle + 0.22 * steam) * p.curve([(0, 0.25), (0.35, 0.9), (1, 1.0)], n)


@sound("household", paced=True)
def keyboard_typing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return soft, uneven clacks: each key press is followed by its release."""
    n = p.n_samples(0.06, rate_hz)
    body_hz = p.uniform(rng, 700, 1100)
    for t in p.onsets(rng, duration_s, p.uniform(rng, 0.12, 0.15) / pace, 0.65):
        level = p.uniform(rng, 0.5, 1.0)
        press = p.noise(rng, n, rate_hz, 900, 4000, -2.0, order=2) * p.decay(n, rate_hz, 0.001, 0.035)
        press += p.ring(rng, n, rate_hz, [(body_hz * p.uniform(rng, 0.85, 1.2), 0.05, 2.0)])
        yield t, level * press
        yield t + p.uniform(rng, 0.05, 0.08), 0.3 * level * press


@sound("household")
def vacuum_cleaner(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a steady roar of air mixed with the whine of a motor."""
    n = p.n_samples(duration_s, rate_hz)
    motor_hz = p.uniform(rng, 230, 320) * p.wander(rng, n, rate_hz, 0.6, 0.98, 1.02)
    motor = p.tone(motor_hz, n, rate_hz, [1.0, 0.5, 0.7, 0.3, 0.2, 0.15])
    air = p.noise(rng, n, rate_hz, 250, 4000, -1.5, order=2)
    whine = p.tone(motor_hz * 9.7, n, rate_hz, p.falling(2, 1.0))
    return np.asarray(air + p.uniform(rng, 0.7, 1.0) * motor + 0.15 * whine)
