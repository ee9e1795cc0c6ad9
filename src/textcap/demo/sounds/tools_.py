"""Sounds of tools: hammer, saw, drill, chainsaw, scissors, metal.

Each function is the synthesiser of one kind: float64 [S] at any scale, or parts of it, which `Kind` puts together
and scales to a peak of 1.
"""

import numpy as np

import textcap.demo.sounds.primitives as p
from textcap.demo.sounds.kinds import Parts, sound
from textcap.demo.sounds.primitives import Signal


@sound("tools", paced=True)
def hammer_hitting(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return blows on a nail: a wooden thump and a metallic ping whose pitch rises as the nail goes in."""
    base_hz = p.uniform(rng, 1300, 1900)
    for i, t in enumerate(p.onsets(rng, duration_s, p.uniform(rng, 0.40, 0.48) / pace, 0.06)):
        n = p.n_samples(0.25, rate_hz)
        nail_hz = base_hz * (1.0 + 0.03 * i)
        blow = p.ring(rng, n, rate_hz, [(nail_hz, 0.16, 0.7), (nail_hz * 1.83, 0.12, 0.6), (nail_hz * 2.9, 0.08, 0.4)])
        blow += p.ring(rng, n, rate_hz, [(p.uniform(rng, 150, 190), 0.12, 1.2), (430, 0.06, 0.6)])
        blow += 0.5 * p.noise(rng, n, rate_hz, 400, 6000, order=2) * p.decay(n, rate_hz, 0.0005, 0.02)
        yield t, blow * p.uniform(rng, 0.75, 1.0)


@sound("tools", paced=True)
def saw_cutting(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a hand saw: strong forward strokes and weaker backward ones."""
    stroke_s = p.uniform(rng, 0.26, 0.32) / pace
    for i, t in enumerate(p.onsets(rng, duration_s, stroke_s, 0.04)):
        n = p.n_samples(0.85 * stroke_s, rate_hz)
        away = i % 2 == 0
        teeth_hz = p.curve([(0, 70), (0.5, 130), (1, 80)], n) * (1.0 if away else 1.25)
        rasp = p.noise(rng, n, rate_hz, 1000 if away else 1800, 5500, order=2)
        rasp *= 0.35 + np.clip(p.tone(teeth_hz, n, rate_hz, [1.0]), 0, 1)
        rasp += 0.5 * p.resonate(p.noise(rng, n, rate_hz, 300, 900), rate_hz, [(520, 150, 1.0)])
        yield t, rasp * p.swell(n, rate_hz, 0.3 * stroke_s, 0.3 * stroke_s) * (1.0 if away else 0.5)


@sound("tools")
def drill_running(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return an electric drill: a motor whine that spins up, bites and slows down."""
    pitch_hz = p.uniform(rng, 620, 820)
    burst_s = p.uniform(rng, 0.9, 1.3)
    for t in p.onsets(rng, duration_s, burst_s + 0.25, 0.1, first_s=0.01):
        n = p.n_samples(burst_s, rate_hz)
        speed = p.curve([(0, 0.3), (0.18, 1.0), (0.5, 0.88), (0.8, 0.92), (1, 0.45)], n)
        f0 = pitch_hz * speed * p.wander(rng, n, rate_hz, 25, 0.985, 1.015)
        whine = p.tone(f0, n, rate_hz, [0.6, 0.8, 1.0, 0.5, 0.7, 0.3, 0.3, 0.2])
        grind = p.noise(rng, n, rate_hz, 1500, 6500, order=2) * p.wander(rng, n, rate_hz, 30, 0.3, 1.0)
        yield t, (whine + 0.4 * grind) * p.swell(n, rate_hz, 0.06, 0.1)


@sound("tools")
def chainsaw_running(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a two-stroke engine: a bright, rough snarl that rises and falls."""
    n = p.n_samples(duration_s, rate_hz)
    period_s = p.uniform(rng, 0.5, 0.7)
    phase = (np.arange(n) / rate_hz / period_s + p.uniform(rng, 0.0, 1.0)) % 1.0
    gas = np.interp(phase, [0.0, 0.12, 0.6, 0.75, 1.0], [0.25, 1.0, 0.9, 0.3, 0.25])
    f0 = p.uniform(rng, 95, 120) * (0.6 + 0.8 * gas) * p.wander(rng, n, rate_hz, 60, 0.95, 1.05)
    engine = p.tone(f0, n, rate_hz, p.falling(60, 0.15)) * (0.35 + 0.65 * gas)
    chain = p.noise(rng, n, rate_hz, 1800, 6000, order=2) * gas
    snarl = p.resonate(engine, rate_hz, [(1300, 700, 1.0), (2600, 900, 0.9), (4000, 1000, 0.5)], 0.08)
    return np.asarray(snarl / np.abs(snarl).max() + 0.12 * chain)


@sound("tools", paced=True)
def scissors_snipping(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return snips: a high, rising scrape of the blades that ends in a click."""
    parts: list[tuple[float, Signal]] = []
    for t in p.onsets(rng, duration_s, p.uniform(rng, 0.36, 0.44) / pace, 0.1):
        n = p.n_samples(p.uniform(rng, 0.11, 0.15) / pace**0.5, rate_hz)
        rise = p.curve([(0, 0.0), (1, 1.0)], n)
        scrape = p.noise(rng, n, rate_hz, 3800, 5500) * (1 - rise) + p.noise(rng, n, rate_hz, 5200, 7800) * rise
        click_n = p.n_samples(0.05, rate_hz)
        click = p.ring(rng, click_n, rate_hz, [(p.uniform(rng, 4200, 5200), 0.05, 1.2), (6800, 0.04, 0.9)])
        parts += [(t, 0.5 * scrape * (0.15 + rise)), (t + n / rate_hz, 1.5 * click)]
    return p.band_pass(p.place(p.n_samples(duration_s, rate_hz), rate_hz, parts), rate_hz, 2500, 20000)


@sound("tools", short=True)
def metal_clanging(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return one harsh, inharmonic clang of a dropped pan or pipe, with one to three bounces."""
    base_hz = p.uniform(rng, 480, 700)
    ratios = (1.0, 1.47, 2.09, 2.56, 3.39, 4.08, 5.4, 7.1)
    n = p.n_samples(1.2, rate_hz)
    modes = [
        (base_hz * r * p.uniform(rng, 0.97, 1.03), p.uniform(rng, 0.7, 1.1), p.uniform(rng, 0.5, 1.0)) for r in ratios
    ]
    clang = p.ring(rng, n, rate_hz, modes)
    clang += 2.0 * p.noise(rng, n, rate_hz, 800, 7000, order=2) * p.decay(n, rate_hz, 0.0005, 0.06)
    yield 0.01, clang
    time_s, level, gap_s = 0.01, 1.0, p.uniform(rng, 0.22, 0.3)
    for _ in range(int(rng.integers(1, 4))):
        time_s, level, gap_s = time_s + gap_s, 0.55 * level, 0.6 * gap_s
        yield time_s, level * clang
