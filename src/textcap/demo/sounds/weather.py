"""Sounds of weather and nature: rain, thunder, wind, waves, a stream, a fire.

Each function is the synthesiser of one kind: float64 [S] at any scale, or parts of it, which `Kind` puts together
and scales to a peak of 1.
"""

import numpy as np

import textcap.demo.sounds.primitives as p
from textcap.demo.sounds.kinds import sound
from textcap.demo.sounds.primitives import Signal


@sound("weather")
def rain_falling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a steady bright hiss mixed with drops."""
    n = p.n_samples(duration_s, rate_hz)
    hiss = p.noise(rng, n, rate_hz, p.uniform(rng, 1500, 2500), 9000, p.uniform(rng, 0.0, 2.0), order=2)
    k = p.n_samples(0.008, rate_hz)
    drop = p.noise(rng, k, rate_hz, 2500, 7500) * p.decay(k, rate_hz, 0.0003, 0.008)
    drops = p.scatter(rng, n, rate_hz, p.uniform(rng, 60, 160), drop, 20)
    return hiss * p.wander(rng, n, rate_hz, 1.0, 0.9, 1.1) + p.uniform(rng, 0.8, 2.0) * drops


@sound("weather")
def thunder_rumbling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a crack, followed by a rolling low rumble."""
    n = p.n_samples(duration_s, rate_hz)
    rumble = p.noise(rng, n, rate_hz, 25, p.uniform(rng, 130, 200), -2.0, order=2)
    rumble *= p.wander(rng, n, rate_hz, 5, 0.2, 1.0)
    rumble *= p.curve([(0, 0.2), (0.08, 1.0), (0.4, 0.7), (1, 0.15)], n)
    crack_n = p.n_samples(min(duration_s, p.uniform(rng, 0.5, 0.9)), rate_hz)
    crack = p.noise(rng, crack_n, rate_hz, 60, 1500, -4.0, order=2) * p.decay(crack_n, rate_hz, 0.02, 0.8)
    crack *= p.wander(rng, crack_n, rate_hz, 18, 0.2, 1.0)
    return p.place(n, rate_hz, [(0.0, rumble), (p.uniform(rng, 0.01, 0.12), p.uniform(rng, 0.8, 1.5) * crack)])


@sound("weather")
def wind_howling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return gusts: a narrow band of noise whose frequency rises with its strength."""
    n = p.n_samples(duration_s, rate_hz)
    gust = p.wander(rng, n, rate_hz, p.uniform(rng, 1.0, 1.6), 0.0, 1.0)
    carrier_hz = p.uniform(rng, 320, 480) * (1.0 + 0.9 * gust)
    narrow = p.tone(carrier_hz, n, rate_hz, [1.0]) * p.noise(rng, n, rate_hz, 1, 45, order=1)
    narrow += 0.5 * p.tone(1.5 * carrier_hz, n, rate_hz, [1.0]) * p.noise(rng, n, rate_hz, 1, 60, order=1)
    return np.asarray((narrow + 0.25 * p.noise(rng, n, rate_hz, 80, 500, -3.0, order=1)) * (0.25 + gust))


@sound("weather", paced=True)
def waves_crashing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return surf: noise that swells, breaks and brightens, then recedes."""
    n = p.n_samples(duration_s, rate_hz)
    period_s = p.uniform(rng, 1.25, 1.6) / pace
    phase = (np.arange(n) / rate_hz / period_s + p.uniform(rng, 0.0, 0.4)) % 1.0
    rise = np.interp(phase, [0.0, 0.45, 0.55, 1.0], [0.02, 0.7, 1.0, 0.02])
    low = p.noise(rng, n, rate_hz, 60, 900, -3.0, order=2)
    high = p.noise(rng, n, rate_hz, 700, 6000, -3.0, order=2)
    return np.asarray(low * rise**1.2 + 0.8 * high * rise**2.5)


@sound("weather")
def stream_bubbling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return many small bubbles (short rising tones) over the soft noise of water."""
    n = p.n_samples(duration_s, rate_hz)
    parts: list[tuple[float, Signal]] = []
    for _ in range(int(rng.poisson(p.uniform(rng, 22, 32) * duration_s)) + 1):
        length = p.n_samples(p.uniform(rng, 0.03, 0.07), rate_hz)
        base_hz = float(np.exp(rng.uniform(np.log(450), np.log(1500))))
        blip = p.tone(base_hz * p.curve([(0, 1.0), (1, p.uniform(rng, 1.2, 1.6))], length), length, rate_hz, [1.0])
        start_s = rng.uniform(0, duration_s)
        parts.append((start_s, blip * p.decay(length, rate_hz, 0.003, 0.08) * p.uniform(rng, 0.3, 1.0)))
    return p.place(n, rate_hz, parts) + 0.05 * p.noise(rng, n, rate_hz, 400, 2500, -3.0, order=2)


@sound("weather")
def fire_crackling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return sharp random cracks over a low breathing roar."""
    n = p.n_samples(duration_s, rate_hz)
    k = p.n_samples(0.012, rate_hz)
    sharp = p.noise(rng, k, rate_hz, 1200, 7000, order=2) * p.decay(k, rate_hz, 0.0003, 0.012)
    dull = p.noise(rng, k, rate_hz, 500, 3000, order=2) * p.decay(k, rate_hz, 0.0005, 0.02)
    cracks = p.scatter(rng, n, rate_hz, p.uniform(rng, 7, 12), sharp, 14) + p.scatter(rng, n, rate_hz, 6, dull, 14)
    # Add an occasional volley of small cracks.
    for start_s in p.onsets(rng, duration_s, p.uniform(rng, 0.8, 1.3), 0.5):
        start = int(start_s * rate_hz)
        length = min(n - start, p.n_samples(0.2, rate_hz))
        if length > 0:
            volley = p.scatter(rng, length, rate_hz, 60, sharp, 14) * p.swell(length, rate_hz, 0.02, 0.1)
            cracks[start : start + length] += 0.7 * volley
    roar = p.noise(rng, n, rate_hz, 40, 260, -3.0, order=2) * p.wander(rng, n, rate_hz, 4, 0.6, 1.2)
    return cracks + 0.18 * roar
