"""Sounds of alarms and signals: siren, beeper, car horn, church bell, telephone, foghorn.

Each function is the synthesiser of one kind: float64 [S] at any scale, or parts of it, which `Kind` puts together
and scales to a peak of 1.
"""

import numpy as np

import textcap.demo.sounds.primitives as p
from textcap.demo.sounds.kinds import Parts, sound
from textcap.demo.sounds.primitives import Signal


@sound("alarms", paced=True)
def siren_wailing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a wail: a tone that glides up and down over more than an octave."""
    n = p.n_samples(duration_s, rate_hz)
    period_s = p.uniform(rng, 1.0, 1.35) / pace
    phase = (np.arange(n) / rate_hz / period_s + p.uniform(rng, 0.0, 1.0)) % 1.0
    glide = np.interp(phase, [0.0, 0.45, 1.0], [0.0, 1.0, 0.0])
    f0 = p.uniform(rng, 520, 640) * p.uniform(rng, 2.2, 2.6) ** glide
    return p.tone(f0, n, rate_hz, [1.0, 0.35, 0.25, 0.1]) * p.wander(rng, n, rate_hz, 2, 0.85, 1.0)


@sound("alarms", paced=True)
def alarm_beeping(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return evenly spaced electronic beeps on one high note."""
    interval_s = p.uniform(rng, 0.27, 0.34) / pace
    n = p.n_samples(0.5 * interval_s, rate_hz)
    beep = p.tone(p.uniform(rng, 2900, 3500), n, rate_hz, [1.0, 0.25]) * p.swell(n, rate_hz, 0.004, 0.004)
    for t in p.onsets(rng, duration_s, interval_s, 0.0):
        yield t, beep


@sound("alarms", short=True)
def car_horn(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return one honk: two reedy notes a third apart that start and stop abruptly."""
    n = p.n_samples(p.uniform(rng, 0.45, 0.9), rate_hz)
    base_hz = p.uniform(rng, 330, 410)
    third = p.uniform(rng, 1.19, 1.26)
    honk = p.tone(base_hz, n, rate_hz, p.falling(22, 0.35)) + p.tone(base_hz * third, n, rate_hz, p.falling(18, 0.35))
    honk = p.resonate(honk, rate_hz, [(1100, 1200, 1.0), (2700, 1200, 0.8)], 0.25) * p.swell(n, rate_hz, 0.02, 0.03)
    yield 0.01, honk


@sound("alarms", paced=True)
def church_bell(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return tolls of a large bell: hum, prime, minor third, fifth and nominal, with a long decay."""
    prime_hz = p.uniform(rng, 300, 420)
    n = p.n_samples(3.0, rate_hz)
    modes = [
        (0.5 * prime_hz, 3.0, 0.7),
        (prime_hz, 2.4, 1.0),
        (prime_hz * 1.004, 2.4, 0.6),
        (1.19 * prime_hz, 2.0, 0.9),
        (1.5 * prime_hz, 1.4, 0.5),
        (2.0 * prime_hz, 1.3, 0.9),
        (2.98 * prime_hz, 0.6, 0.4),
    ]
    toll = p.ring(rng, n, rate_hz, modes)
    for t in p.onsets(rng, duration_s, p.uniform(rng, 1.0, 1.3) / pace, 0.03, first_s=p.uniform(rng, 0.01, 0.08)):
        yield t, toll * p.uniform(rng, 0.8, 1.0)


@sound("alarms")
def telephone_ringing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a desk telephone: a trill between two tones, on and off."""
    low_hz = p.uniform(rng, 850, 1050)
    ratio = p.uniform(rng, 1.22, 1.32)
    trill_hz = p.uniform(rng, 11, 13.5)
    ring_s = p.uniform(rng, 0.7, 0.9)
    for t in p.onsets(rng, duration_s, ring_s + p.uniform(rng, 0.35, 0.5), 0.0, first_s=0.02):
        n = p.n_samples(ring_s, rate_hz)
        upper = np.tanh(6 * p.tone(trill_hz, n, rate_hz, [1.0])) * 0.5 + 0.5
        f0 = low_hz * (1.0 + (ratio - 1.0) * upper)
        warble = p.tone(f0, n, rate_hz, [1.0, 0.2, 0.5, 0.1, 0.25]) * (0.6 + 0.4 * upper)
        yield t, warble * p.swell(n, rate_hz, 0.01, 0.05)


@sound("alarms")
def foghorn_blowing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return very low steady blasts that end in a grunt."""
    pitch_hz = p.uniform(rng, 62, 84)
    for t in p.onsets(rng, duration_s, p.uniform(rng, 1.6, 2.1), 0.05, first_s=0.02):
        n = p.n_samples(min(p.uniform(rng, 1.1, 1.5), max(0.5, duration_s - t)), rate_hz)
        f0 = pitch_hz * p.curve([(0, 0.98), (0.05, 1.0), (0.88, 1.0), (0.92, 0.8), (1, 0.78)], n)
        blast = p.tone(f0, n, rate_hz, p.falling(10, 0.6)) + 0.15 * p.noise(rng, n, rate_hz, 60, 400)
        blast = p.resonate(blast, rate_hz, [(150, 160, 1.0), (330, 150, 0.4)], 0.01)
        yield t, blast * p.swell(n, rate_hz, 0.06, 0.12)
