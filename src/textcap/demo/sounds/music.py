"""Sounds of musical instruments: piano, guitar, drums, flute, violin, trumpet.

Each function is the synthesiser of one kind: float64 [S] at any scale, or parts of it, which `Kind` puts together
and scales to a peak of 1.
"""

import numpy as np

import textcap.demo.sounds.primitives as p
from textcap.demo.sounds.kinds import Parts, sound
from textcap.demo.sounds.primitives import Signal

_MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)  # semitones above the tonic
_CHORDS = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (9, 12, 16))


def _melody(rng: np.random.Generator, tonic_hz: float, n_notes: int) -> list[float]:
    """Return the pitches in Hz of a random walk along a major scale."""
    step = int(rng.integers(0, len(_MAJOR)))
    pitches = []
    for _ in range(n_notes):
        pitches.append(tonic_hz * 2.0 ** (_MAJOR[step] / 12))
        move = int(rng.choice([-2, -1, 1, 2]))
        step = step + move if 0 <= step + move < len(_MAJOR) else step - move
    return pitches


@sound("music", paced=True)
def piano_playing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a melody of struck notes that ring and fade, with a bass note under every fourth."""
    tonic_hz = p.uniform(rng, 250, 400)
    times = p.onsets(rng, duration_s, p.uniform(rng, 0.26, 0.33) / pace, 0.0)
    n = p.n_samples(0.9, rate_hz)
    release = p.swell(n, rate_hz, 0.006, 0.3)
    low, high = p.decay(n, rate_hz, 0.003, 1.3) * release, p.decay(n, rate_hz, 0.003, 0.4) * release
    for i, (t, pitch_hz) in enumerate(zip(times, _melody(rng, tonic_hz, len(times)), strict=True)):
        for f0 in [pitch_hz, 0.5 * tonic_hz] if i % 4 == 0 else [pitch_hz]:
            # The higher partials of a struck string decay faster.
            note = p.tone(f0, n, rate_hz, p.falling(3, 1.3)) * low
            note += p.tone(f0, n, rate_hz, [0, 0, 0, 0.16, 0.12, 0.1, 0.08, 0.06]) * high
            yield t, note * p.uniform(rng, 0.7, 1.0)


@sound("music", paced=True)
def guitar_strumming(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return chords strummed across six strings, alternately down and up."""
    root_hz = p.uniform(rng, 82, 110)
    times = p.onsets(rng, duration_s, p.uniform(rng, 0.30, 0.38) / pace, 0.03)
    n = p.n_samples(0.7, rate_hz)
    pluck, body = p.decay(n, rate_hz, 0.002, 0.25), p.decay(n, rate_hz, 0.002, 0.8)
    notes: dict[int, Signal] = {}
    chord = _CHORDS[0]
    for i, t in enumerate(times):
        down = i % 2 == 0
        if down:
            chord = _CHORDS[int(rng.integers(len(_CHORDS)))]
        strings = [chord[0], chord[2], chord[0] + 12, chord[1] + 12, chord[2] + 12, chord[0] + 24]
        for j, semitone in enumerate(strings if down else strings[::-1]):
            if semitone not in notes:
                f0 = root_hz * 2.0 ** (semitone / 12)
                bright, dull = p.tone(f0, n, rate_hz, p.falling(30, 0.5)), p.tone(f0, n, rate_hz, p.falling(6, 1.2))
                notes[semitone] = bright * pluck + dull * body
            yield t + 0.012 * j, notes[semitone] * p.uniform(rng, 0.8, 1.0)


@sound("music", paced=True)
def drums_playing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a drum kit: alternating bass drum and snare, with a steady hi-hat."""
    half_beat_s = p.uniform(rng, 0.15, 0.18) / pace
    n = p.n_samples(0.28, rate_hz)
    kick = p.tone(p.curve([(0, 150), (0.2, 65), (1, 50)], n), n, rate_hz, [1.0]) * p.decay(n, rate_hz, 0.002, 0.35)
    rattle = p.noise(rng, n, rate_hz, 1000, 7000, order=2) * p.decay(n, rate_hz, 0.001, 0.22)
    snare = 0.5 * rattle + 0.6 * p.ring(rng, n, rate_hz, [(p.uniform(rng, 180, 220), 0.15, 1.0), (330, 0.1, 0.6)])
    hat = 0.22 * p.noise(rng, n, rate_hz, 5800, 12000) * p.decay(n, rate_hz, 0.001, 0.07)
    for i, t in enumerate(p.onsets(rng, duration_s, half_beat_s, 0.0)):
        yield t, hat * p.uniform(rng, 0.7, 1.0)
        if i % 4 == 0 or (i % 8 == 5 and rng.random() < 0.6):
            yield t, 1.2 * kick
        elif i % 4 == 2:
            yield t, snare * p.uniform(rng, 0.8, 1.0)


@sound("music", paced=True)
def flute_playing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Signal:
    """Return a legato tune of nearly pure notes mixed with breath noise."""
    times = p.onsets(rng, duration_s, p.uniform(rng, 0.28, 0.36) / pace, 0.02, first_s=0.01)
    pitches = _melody(rng, p.uniform(rng, 620, 820), len(times))
    n = p.n_samples(duration_s, rate_hz)
    seconds = np.arange(n) / rate_hz
    index = np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, None)
    f0 = np.asarray(pitches)[index]
    since_s = seconds - np.asarray(times)[index]
    vibrato = 1.0 + 0.008 * np.sin(2 * np.pi * p.uniform(rng, 4.5, 5.5) * seconds)
    breath = p.noise(rng, n, rate_hz, 600, 3500, -2.0, order=2)
    tongued = 0.25 + 0.75 * np.clip(since_s / 0.05, 0.0, 1.0)
    return np.asarray((p.tone(f0 * vibrato, n, rate_hz, [1.0, 0.18, 0.06]) + 0.05 * breath) * tongued)


@sound("music")
def violin_playing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return long bowed notes, rich in overtones, with wide vibrato."""
    times = p.onsets(rng, duration_s, p.uniform(rng, 0.75, 1.0), 0.1, first_s=0.01)
    body = [(p.uniform(rng, 440, 520), 200, 0.8), (1100, 500, 0.7), (2600, 1100, 1.0)]
    for i, pitch_hz in enumerate(_melody(rng, p.uniform(rng, 330, 500), len(times))):
        end_s = times[i + 1] if i + 1 < len(times) else duration_s
        n = p.n_samples(end_s - times[i] + 0.03, rate_hz)
        seconds = np.arange(n) / rate_hz
        depth = 0.022 * np.clip(seconds / 0.25, 0.0, 1.0)
        f0 = pitch_hz * (1.0 + depth * np.sin(2 * np.pi * p.uniform(rng, 5.5, 6.5) * seconds))
        bowed = p.tone(f0, n, rate_hz, p.falling(24, 0.8)) + 0.04 * p.noise(rng, n, rate_hz, 1500, 7000)
        yield times[i], p.resonate(bowed, rate_hz, body, 0.15) * p.swell(n, rate_hz, 0.12, 0.08)


@sound("music", paced=True)
def trumpet_playing(rng: np.random.Generator, duration_s: float, rate_hz: int, pace: float) -> Parts:
    """Return a fanfare: separate brassy notes of one chord."""
    tonic_hz = p.uniform(rng, 340, 440)
    ratios = (1.0, 1.0, 1.26, 1.5, 1.5, 2.0)
    gap_s = p.uniform(rng, 0.21, 0.26) / pace
    for t in p.onsets(rng, duration_s, gap_s, 0.0, first_s=0.01):
        n = p.n_samples(gap_s * p.uniform(rng, 0.68, 0.78), rate_hz)
        f0 = tonic_hz * ratios[int(rng.integers(len(ratios)))] * p.curve([(0, 0.97), (0.12, 1.0), (1, 1.0)], n)
        # Brass gets brighter as it gets louder, so the rich tone fades in after the plain one.
        plain = p.tone(f0, n, rate_hz, p.falling(4, 1.0))
        rich = p.tone(f0, n, rate_hz, [0.7, 0.9, 1.0, 0.9, 0.8, 0.6, 0.5, 0.35, 0.25, 0.2, 0.12])
        bite = p.curve([(0, 0.0), (0.2, 1.0), (1, 0.7)], n)
        yield t, (plain * (1 - bite) + rich * bite) * p.swell(n, rate_hz, 0.025, 0.03)
