"""Sounds of vehicles: car, motorcycle, train whistle, helicopter, aeroplane, bicycle bell.

Each function is the synthesiser of one kind: float64 [S] at any scale, or parts of it, which `Kind` puts together
and scales to a peak of 1.
"""

import numpy as np

import textcap.demo.sounds.primitives as p
from textcap.demo.sounds.kinds import Parts, sound
from textcap.demo.sounds.primitives import Signal


@sound("vehicles")
def car_engine(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a steady low engine with a little road noise."""
    n = p.n_samples(duration_s, rate_hz)
    firing_hz = p.uniform(rng, 45, 70) * p.wander(rng, n, rate_hz, 0.7, 0.95, 1.08)
    harmonics = p.falling(12, 0.5)
    engine = p.tone(firing_hz, n, rate_hz, harmonics) + 0.6 * p.tone(0.5 * firing_hz, n, rate_hz, harmonics)
    body = p.resonate(engine, rate_hz, [(110, 80, 1.0), (260, 120, 0.5)], 0.02)
    return body + 0.06 * p.noise(rng, n, rate_hz, 80, 900, -4.0, order=2)


@sound("vehicles")
def motorcycle_revving(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return throttle bursts: a buzz whose pitch rises and drops back."""
    n = p.n_samples(duration_s, rate_hz)
    idle_hz = p.uniform(rng, 55, 75)
    period_s = p.uniform(rng, 0.85, 1.2)
    phase = (np.arange(n) / rate_hz / period_s + p.uniform(rng, 0.0, 0.3)) % 1.0
    throttle = np.interp(phase, [0.0, 0.35, 0.55, 0.85, 1.0], [0.0, 0.9, 1.0, 0.1, 0.0])
    f0 = idle_hz * (1.0 + p.uniform(rng, 1.8, 2.6) * throttle) * p.wander(rng, n, rate_hz, 40, 0.97, 1.03)
    buzz = p.tone(f0, n, rate_hz, p.falling(30, 0.45)) * (0.35 + 0.65 * throttle)
    return p.resonate(buzz, rate_hz, [(320, 300, 1.0), (850, 500, 0.7), (1500, 600, 0.25)], 0.02)


@sound("vehicles", short=True)
def train_whistle(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return one blast of a steam whistle: a breathy chord whose pitch bends at both ends."""
    n = p.n_samples(p.uniform(rng, 0.95, 1.35), rate_hz)
    bend = p.curve([(0, 0.9), (0.12, 1.0), (0.8, 1.0), (1, 0.88)], n)
    base_hz = p.uniform(rng, 520, 640)
    chord = np.zeros(n)
    for ratio in (1.0, 1.19, 1.5, 1.78):
        chord += p.tone(base_hz * ratio * bend, n, rate_hz, [1.0, 0.2, 0.08]) * p.uniform(rng, 0.7, 1.0)
    breath = p.noise(rng, n, rate_hz, 500, 3500, -2.0, order=2)
    whistle = (chord + 0.7 * breath) * p.swell(n, rate_hz, 0.12, 0.2)
    yield 0.01, whistle


@sound("vehicles", paced=True)
def helicopter_flying(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return the chop of rotor blades over a turbine's hum."""
    n = p.n_samples(duration_s, rate_hz)
    chops_hz = p.uniform(rng, 7.5, 9.5) * pace
    phase = np.cumsum(chops_hz * p.wander(rng, n, rate_hz, 0.7, 0.97, 1.03)) / rate_hz
    chop = np.exp(-5.0 * (phase % 1.0)) * np.clip((phase % 1.0) * 20, 0, 1)
    low = p.noise(rng, n, rate_hz, 50, 350, -2.0, order=2) + 0.6 * p.noise(rng, n, rate_hz, 350, 1500, -3.0, order=2)
    turbine = p.tone(p.uniform(rng, 1900, 2500), n, rate_hz, [1.0, 0.3]) * 0.03
    return np.asarray(low * (0.06 + chop) + turbine)


@sound("vehicles")
def aeroplane_passing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a jet that approaches, passes and recedes: a roar with a whine of falling pitch."""
    n = p.n_samples(duration_s, rate_hz)
    passing = p.uniform(rng, 0.4, 0.6)
    t = np.linspace(0.0, 1.0, n) - passing
    loudness = 1.0 / (1.0 + (t / 0.22) ** 2)
    whine_hz = p.uniform(rng, 1500, 2200) * (1.0 - 0.3 * np.tanh(t / 0.25))
    whine = (p.tone(whine_hz, n, rate_hz, [1.0, 0.4]) + 0.5 * p.tone(1.26 * whine_hz, n, rate_hz, [1.0])) * (t < 0.35)
    roar = p.noise(rng, n, rate_hz, 90, 1300, -3.0, order=1)
    hiss = p.noise(rng, n, rate_hz, 1200, 4000, -2.0, order=1)
    return np.asarray((roar + 0.45 * hiss * loudness + 0.25 * whine * p.swell(n, rate_hz, 0.2, 0.2)) * loudness)


@sound("vehicles", short=True)
def bicycle_bell(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a double ring: two quick rolls on a small bright bell."""
    base_hz = p.uniform(rng, 2300, 2900)
    modes = [
        (base_hz, 0.9, 1.0),
        (base_hz * 1.004, 0.9, 0.7),
        (base_hz * 1.62, 0.6, 0.5),
        (base_hz * 2.4, 0.3, 0.3),
    ]
    strike = p.ring(rng, p.n_samples(0.9, rate_hz), rate_hz, modes)
    for start_s in (0.01, p.uniform(rng, 0.38, 0.48)):
        for t in p.onsets(rng, start_s + 0.25, 0.05, 0.1, first_s=start_s):
            yield t, strike * p.uniform(rng, 0.6, 1.0)
