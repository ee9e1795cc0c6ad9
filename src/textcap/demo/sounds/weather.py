"""Sounds of weather and nature: rain, thunder, wind, waves, a stream, a fire.

Each function is the synthesiser of one kind and returns float64 [S] at any scale. `textcap.demo.sounds` looks it up
by its name and scales its output to a peak of 1.
"""

import numpy as np

from textcap.demo.sounds.primitives import (
    Signal,
    curve,
    decay,
    n_samples,
    noise,
    onsets,
    place,
    scatter,
    swell,
    tone,
    uniform,
    wander,
)


def rain_falling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a steady bright hiss mixed with drops."""
    n = n_samples(duration_s, rate_hz)
    hiss = noise(rng, n, rate_hz, uniform(rng, 1500, 2500), 9000, uniform(rng, 0.0, 2.0), order=2)
    k = n_samples(0.008, rate_hz)
    drop = noise(rng, k, rate_hz, 2500, 7500) * decay(k, rate_hz, 0.0003, 0.008)
    drops = scatter(rng, n, rate_hz, uniform(rng, 60, 160), drop, 20)
    return hiss * wander(rng, n, rate_hz, 1.0, 0.9, 1.1) + uniform(rng, 0.8, 2.0) * drops


def thunder_rumbling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a crack, followed by a rolling low rumble."""
    n = n_samples(duration_s, rate_hz)
    rumble = noise(rng, n, rate_hz, 25, uniform(rng, 130, 200), -2.0, order=2) * wander(rng, n, rate_hz, 5, 0.2, 1.0)
    rumble *= curve([(0, 0.2), (0.08, 1.0), (0.4, 0.7), (1, 0.15)], n)
    crack_n = n_samples(min(duration_s, uniform(rng, 0.5, 0.9)), rate_hz)
    crack = noise(rng, crack_n, rate_hz, 60, 1500, -4.0, order=2) * decay(crack_n, rate_hz, 0.02, 0.8)
    crack *= wander(rng, crack_n, rate_hz, 18, 0.2, 1.0)
    return place(n, rate_hz, [(0.0, rumble), (uniform(rng, 0.01, 0.12), uniform(rng, 0.8, 1.5) * crack)])


def wind_howling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return gusts: a narrow band of noise whose frequency rises with its strength."""
    n = n_samples(duration_s, rate_hz)
    gust = wander(rng, n, rate_hz, uniform(rng, 1.0, 1.6), 0.0, 1.0)
    carrier_hz = uniform(rng, 320, 480) * (1.0 + 0.9 * gust)
    narrow = tone(carrier_hz, n, rate_hz, [1.0]) * noise(rng, n, rate_hz, 1, 45, order=1)
    narrow += 0.5 * tone(1.5 * carrier_hz, n, rate_hz, [1.0]) * noise(rng, n, rate_hz, 1, 60, order=1)
    return np.asarray((narrow + 0.25 * noise(rng, n, rate_hz, 80, 500, -3.0, order=1)) * (0.25 + gust))


def waves_crashing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return surf: noise that swells, breaks and brightens, then recedes."""
    n = n_samples(duration_s, rate_hz)
    period_s = uniform(rng, 1.25, 1.6) / pace
    phase = (np.arange(n) / rate_hz / period_s + uniform(rng, 0.0, 0.4)) % 1.0
    rise = np.interp(phase, [0.0, 0.45, 0.55, 1.0], [0.02, 0.7, 1.0, 0.02])
    low = noise(rng, n, rate_hz, 60, 900, -3.0, order=2)
    high = noise(rng, n, rate_hz, 700, 6000, -3.0, order=2)
    return np.asarray(low * rise**1.2 + 0.8 * high * rise**2.5)


def stream_bubbling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return many small bubbles (short rising tones) over the soft noise of water."""
    n = n_samples(duration_s, rate_hz)
    parts: list[tuple[float, Signal]] = []
    for _ in range(int(rng.poisson(uniform(rng, 22, 32) * duration_s)) + 1):
        length = n_samples(uniform(rng, 0.03, 0.07), rate_hz)
        base_hz = float(np.exp(rng.uniform(np.log(450), np.log(1500))))
        blip = tone(base_hz * curve([(0, 1.0), (1, uniform(rng, 1.2, 1.6))], length), length, rate_hz, [1.0])
        parts.append((rng.uniform(0, duration_s), blip * decay(length, rate_hz, 0.003, 0.08) * uniform(rng, 0.3, 1.0)))
    return place(n, rate_hz, parts) + 0.05 * noise(rng, n, rate_hz, 400, 2500, -3.0, order=2)


def fire_crackling(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return sharp random cracks over a low breathing roar."""
    n = n_samples(duration_s, rate_hz)
    k = n_samples(0.012, rate_hz)
    sharp = noise(rng, k, rate_hz, 1200, 7000, order=2) * decay(k, rate_hz, 0.0003, 0.012)
    dull = noise(rng, k, rate_hz, 500, 3000, order=2) * decay(k, rate_hz, 0.0005, 0.02)
    cracks = scatter(rng, n, rate_hz, uniform(rng, 7, 12), sharp, 14) + scatter(rng, n, rate_hz, 6, dull, 14)
    # Add an occasional volley of small cracks.
    for start_s in onsets(rng, duration_s, uniform(rng, 0.8, 1.3), 0.5):
        start = int(start_s * rate_hz)
        length = min(n - start, n_samples(0.2, rate_hz))
        if length > 0:
            volley = scatter(rng, length, rate_hz, 60, sharp, 14) * swell(length, rate_hz, 0.02, 0.1)
            cracks[start : start + length] += 0.7 * volley
    roar = noise(rng, n, rate_hz, 40, 260, -3.0, order=2) * wander(rng, n, rate_hz, 4, 0.6, 1.2)
    return cracks + 0.18 * roar
