"""Sounds of people: a man, a woman, a baby, applause, footsteps, snoring.

Each function is the synthesiser of one kind: float64 [S] at any scale, or parts of it, which `Kind` puts together
and scales to a peak of 1.
"""

import numpy as np

import textcap.demo.sounds.primitives as p
from textcap.demo.sounds.kinds import Parts, sound
from textcap.demo.sounds.primitives import Signal

# First three formants in Hz of a man's vowels: a, e, i, o, u.
_VOWELS = ((750, 1150, 2450), (480, 1850, 2500), (290, 2250, 2950), (480, 850, 2400), (320, 720, 2250))


def _speech(
    rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float, pitch_hz: float, tract: float
) -> Parts:
    """Return babble: syllables made of a noisy consonant and a vowel, with pauses between phrases.

    Args:
        tract: Factor on the formant frequencies; a shorter vocal tract has higher ones.
    """
    syllable_s = p.uniform(rng, 0.19, 0.23) / pace
    left_in_phrase = int(rng.integers(4, 8))
    skipped = False
    for t in p.onsets(rng, duration_s, syllable_s, 0.2):
        if left_in_phrase == 0 and not skipped:
            skipped, left_in_phrase = True, int(rng.integers(4, 8))
            continue
        skipped = False
        left_in_phrase -= 1
        n = p.n_samples(syllable_s * p.uniform(rng, 0.7, 0.9), rate_hz)
        start, end = p.uniform(rng, 0.88, 1.2), p.uniform(rng, 0.8, 1.1)
        f0 = pitch_hz * p.curve([(0, start), (1, end)], n) * p.wander(rng, n, rate_hz, 30, 0.985, 1.015)
        source = p.tone(f0, n, rate_hz, p.falling(40, 0.9))
        vowel = _VOWELS[int(rng.integers(len(_VOWELS)))]
        widths_gains = ((90, 1.0), (110, 0.8), (160, 0.45))
        formants = [(f * tract, w, g) for f, (w, g) in zip(vowel, widths_gains, strict=True)]
        voiced = p.resonate(source, rate_hz, formants, 0.01) * p.swell(n, rate_hz, 0.03, 0.07)
        yield t, voiced * p.uniform(rng, 0.7, 1.0) / (np.abs(voiced).max() + 1e-9)
        if rng.random() < 0.4:
            k = p.n_samples(0.06, rate_hz)
            hiss = p.noise(rng, k, rate_hz, 3200 * tract, 7500) * p.swell(k, rate_hz, 0.02, 0.03)
            yield max(0.0, t - 0.04), 0.09 * hiss


@sound("people", paced=True)
def man_speaking(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a low voice that babbles in vowels."""
    return _speech(rng, duration_s, rate_hz, pace, p.uniform(rng, 85, 115), p.uniform(rng, 0.9, 1.0))


@sound("people", paced=True)
def woman_speaking(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a higher voice that babbles in vowels."""
    return _speech(rng, duration_s, rate_hz, pace, p.uniform(rng, 215, 275), p.uniform(rng, 1.17, 1.27))


@sound("people")
def baby_crying(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return wails whose pitch rises and falls, with a gasp after each."""
    pitch_hz = p.uniform(rng, 430, 540)
    formants = [(1150, 350, 1.0), (2900, 600, 0.8), (4600, 900, 0.4)]
    for t in p.onsets(rng, duration_s, p.uniform(rng, 0.8, 0.95), 0.1, first_s=0.02):
        n = p.n_samples(p.uniform(rng, 0.55, 0.68), rate_hz)
        glide = p.curve([(0, 0.8), (0.25, 1.1), (0.6, 1.05), (1, 0.75)], n)
        f0 = glide * pitch_hz * p.wander(rng, n, rate_hz, 14, 0.97, 1.03)
        source = p.tone(f0, n, rate_hz, p.falling(14, 0.4)) * p.wander(rng, n, rate_hz, 28, 0.6, 1.0)
        yield t, p.resonate(source, rate_hz, formants, 0.05) * p.swell(n, rate_hz, 0.07, 0.16)
        k = p.n_samples(0.1, rate_hz)
        yield t + 0.68, 0.12 * p.noise(rng, k, rate_hz, 1500, 5000) * p.swell(k, rate_hz, 0.04, 0.04)


@sound("people")
def people_clapping(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return applause: many hands, each with its own rhythm and resonance."""
    n = p.n_samples(duration_s, rate_hz)
    x = np.zeros(n)
    for _ in range(int(rng.integers(4, 7))):
        k = p.n_samples(0.03, rate_hz)
        hollow_hz = p.uniform(rng, 900, 1900)
        clap = p.resonate(p.noise(rng, k, rate_hz, 500, 4500, order=2), rate_hz, [(hollow_hz, 500, 1.0)], 0.25)
        impulses = np.zeros(n)
        times = np.array(p.onsets(rng, duration_s, p.uniform(rng, 0.21, 0.29), 0.15))
        impulses[np.minimum((times * rate_hz).astype(np.int64), n - 1)] = rng.uniform(0.5, 1.0, times.size)
        x += p.convolve(impulses, clap * p.decay(k, rate_hz, 0.0005, 0.03))
    k = p.n_samples(0.02, rate_hz)
    crowd = p.noise(rng, k, rate_hz, 900, 3000, order=2) * p.decay(k, rate_hz, 0.0005, 0.02)
    return x + 0.35 * p.scatter(rng, n, rate_hz, 60, crowd, 10)


@sound("people", paced=True)
def footsteps(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a walk: the thud of each heel, followed by the scuff of the sole."""
    body_hz = p.uniform(rng, 85, 125)
    for t in p.onsets(rng, duration_s, p.uniform(rng, 0.46, 0.54) / pace, 0.05):
        n = p.n_samples(0.22, rate_hz)
        heel = p.ring(rng, n, rate_hz, [(body_hz, 0.12, 1.0), (2.3 * body_hz, 0.08, 0.5)])
        heel += 0.1 * p.noise(rng, n, rate_hz, 300, 1500) * p.decay(n, rate_hz, 0.001, 0.04)
        k = p.n_samples(0.11, rate_hz)
        scuff = p.noise(rng, k, rate_hz, 1000, 4500, -2.0, order=2) * p.swell(k, rate_hz, 0.03, 0.07)
        level = p.uniform(rng, 0.75, 1.0)
        yield t, level * heel
        yield t + p.uniform(rng, 0.07, 0.1), 0.16 * level * scuff


@sound("people", paced=True)
def person_snoring(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return rough, rattling in-breaths and soft, whistling out-breaths."""
    period_s = p.uniform(rng, 1.5, 1.9) / pace
    for t in p.onsets(rng, duration_s, period_s, 0.05, first_s=0.02):
        n = p.n_samples(0.5 * period_s, rate_hz)
        flutter_hz = p.uniform(rng, 24, 32) * p.curve([(0, 1.1), (1, 0.85)], n)
        flutter = np.clip(p.tone(flutter_hz, n, rate_hz, [1.0]), 0, 1) ** 2
        rattle = p.noise(rng, n, rate_hz, 120, 1600, -3.0, order=2) * flutter
        rattle = p.resonate(rattle, rate_hz, [(240, 200, 1.0), (620, 250, 0.6), (1300, 400, 0.3)])
        yield t, rattle / (np.abs(rattle).max() + 1e-9) * p.swell(n, rate_hz, 0.2 / pace, 0.1)
        k = p.n_samples(0.32 * period_s, rate_hz)
        out = p.noise(rng, k, rate_hz, 1300, 3000, order=2) * p.swell(k, rate_hz, 0.1, 0.2)
        yield t + 0.58 * period_s, 0.045 * out
