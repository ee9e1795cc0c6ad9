"""Sounds of animals: dog, cat, rooster, cow, birds, crickets.

Each function is the synthesiser of one kind: float64 [S] at any scale, or parts of it, which `Kind` puts together
and scales to a peak of 1.
"""

import numpy as np

import textcap.demo.sounds.primitives as p
from textcap.demo.sounds.kinds import Parts, sound
from textcap.demo.sounds.primitives import Signal


@sound("animals", paced=True)
def dog_barking(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return hoarse barks, each a fast rise and fall of pitch."""
    size = p.uniform(rng, 0.8, 1.35)  # size of the dog: a larger one barks lower
    formants = [(650 / size, 350, 1.0), (1350 / size, 500, 0.7), (2700 / size, 900, 0.2)]

    def bark() -> Signal:
        n = p.n_samples(p.uniform(rng, 0.14, 0.22), rate_hz)
        top_hz = p.uniform(rng, 420, 560) / size
        glide = p.curve([(0, 0.6 * top_hz), (0.25, top_hz), (1, 0.5 * top_hz)], n)
        f0 = glide * p.wander(rng, n, rate_hz, 90, 0.94, 1.06)
        voice = p.tone(f0, n, rate_hz, p.falling(16, 0.5)) + 0.9 * p.noise(rng, n, rate_hz, 400, 3500)
        return p.resonate(voice, rate_hz, formants) * p.decay(n, rate_hz, 0.015, 0.45) * p.uniform(rng, 0.7, 1.0)

    for t in p.onsets(rng, duration_s, p.uniform(rng, 0.42, 0.55) / pace, 0.25):
        yield t, bark()


@sound("animals", short=True)
def cat_meowing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return one meow: the pitch rises and falls while the mouth opens and closes."""
    n = p.n_samples(p.uniform(rng, 0.7, 1.05), rate_hz)
    pitch_hz = p.uniform(rng, 480, 640)
    f0 = p.curve([(0, 0.75), (0.3, 1.2), (0.6, 1.1), (1, 0.7)], n) * pitch_hz * p.wander(rng, n, rate_hz, 8, 0.98, 1.02)
    source = p.tone(f0, n, rate_hz, p.falling(14, 0.6))
    closed = p.resonate(source, rate_hz, [(900, 500, 1.0), (2600, 500, 0.3)])
    open_ = p.resonate(source, rate_hz, [(1500, 600, 1.0), (3400, 800, 0.6)])
    opening = p.curve([(0, 0), (0.35, 1), (0.6, 0.8), (1, 0)], n)
    meow = (closed * (1 - opening) + open_ * opening) * p.swell(n, rate_hz, 0.12, 0.3)
    yield 0.01, meow


@sound("animals")
def rooster_crowing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return crows (cock-a-doodle-doo): three short calls and a long one that falls in pitch."""
    pitch_hz = p.uniform(rng, 620, 780)

    def call(length_s: float, points: list[tuple[float, float]]) -> Signal:
        n = p.n_samples(length_s, rate_hz)
        f0 = p.curve(points, n) * pitch_hz * p.wander(rng, n, rate_hz, 40, 0.97, 1.03)
        source = p.tone(f0, n, rate_hz, p.falling(10, 0.25)) + 0.25 * p.noise(rng, n, rate_hz, 1000, 5000)
        return p.resonate(source, rate_hz, [(1600, 900, 1.0), (3000, 900, 0.8)]) * p.swell(n, rate_hz, 0.03, 0.06)

    for start_s in p.onsets(rng, duration_s, p.uniform(rng, 1.9, 2.3), 0.05, first_s=0.02):
        long_s = p.uniform(rng, 0.55, 0.8)
        yield start_s, call(0.16, [(0, 0.7), (1, 0.9)])
        yield start_s + 0.20, call(0.12, [(0, 1.0), (1, 1.0)])
        yield start_s + 0.35, call(0.14, [(0, 0.9), (1, 1.2)])
        yield start_s + 0.52, call(long_s, [(0, 1.2), (0.15, 1.5), (0.5, 1.4), (1, 0.8)])


@sound("animals")
def cow_mooing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return long, low moos that swell and brighten."""
    pitch_hz = p.uniform(rng, 125, 175)

    def moo(length_s: float) -> Signal:
        n = p.n_samples(length_s, rate_hz)
        f0 = p.curve([(0, 0.75), (0.3, 1.05), (0.75, 1.0), (1, 0.65)], n) * pitch_hz
        source = p.tone(f0 * p.wander(rng, n, rate_hz, 20, 0.98, 1.02), n, rate_hz, p.falling(24, 0.7))
        closed = p.resonate(source, rate_hz, [(260, 150, 1.0)], 0.005)
        open_ = p.resonate(source, rate_hz, [(480, 200, 1.0), (900, 300, 0.7), (2300, 600, 0.1)], 0.01)
        opening = p.curve([(0, 0), (0.25, 0.1), (0.5, 1), (0.8, 1), (1, 0.2)], n)
        return np.asarray((closed * (1 - opening) + open_ * opening) * p.swell(n, rate_hz, 0.15, 0.3))

    for t in p.onsets(rng, duration_s, p.uniform(rng, 1.9, 2.3), 0.1, first_s=0.02):
        yield t, moo(min(p.uniform(rng, 1.2, 1.7), max(0.5, duration_s - t)))


@sound("animals", paced=True)
def birds_chirping(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return groups of quick whistled sweeps: several birds at different pitches."""
    for start_s in p.onsets(rng, duration_s, 0.55 / pace, 0.4):
        centre_hz = p.uniform(rng, 2800, 5000)
        bend = p.uniform(rng, 0.2, 0.4) * float(rng.choice([-1.0, 1.0]))
        gap_s = p.uniform(rng, 0.09, 0.13) / pace
        for i in range(int(rng.integers(2, 5))):
            n = p.n_samples(0.65 * gap_s, rate_hz)
            f0 = centre_hz * p.curve([(0, 1 - bend), (0.5, 1), (1, 1 + bend)], n)
            yield start_s + i * gap_s, p.tone(f0, n, rate_hz, [1.0]) * p.swell(n, rate_hz, 0.012, 0.02)


@sound("animals", paced=True)
def crickets_chirping(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a high, steady tone cut into trills of three or four pulses."""
    carrier_hz = p.uniform(rng, 5000, 6400)
    pulses = int(rng.integers(3, 5))
    pulse_s = p.uniform(rng, 0.028, 0.034) / pace**0.3
    n = p.n_samples(pulse_s, rate_hz)
    for start_s in p.onsets(rng, duration_s, p.uniform(rng, 0.26, 0.34) / pace, 0.04):
        for i in range(pulses):
            chirp = p.tone(carrier_hz * p.uniform(rng, 0.99, 1.01), n, rate_hz, [1.0, 0.1])
            yield start_s + i * 1.45 * pulse_s, chirp * p.swell(n, rate_hz, 0.006, 0.01)
