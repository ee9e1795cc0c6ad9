"""Building blocks of the synthesisers: noise, tones, resonances, envelopes and their placement in time.

Functions that return a signal return float64 [S], S samples. Nothing loops over samples.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float64]

_TABLE_SIZE = 4096  # a power of two; looking up the nearest entry leaves an error 60 dB below the tone


def n_samples(duration_s: float, rate_hz: int) -> int:
    """Return the number of samples in a duration, at least one."""
    return max(1, round(duration_s * rate_hz))


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw one number between `low` and `high`."""
    return float(rng.uniform(low, high))


def _fft_size(n: int) -> int:
    """Return n rounded up to a multiple of 1024, so that the FFT never has a large prime factor."""
    return -(-n // 1024) * 1024


def band_gain(frequencies_hz: Signal, low_hz: float, high_hz: float, order: int = 4) -> Signal:
    """Return the gain of a band with Butterworth-like edges, 0 to 1, at each frequency."""
    f = np.maximum(frequencies_hz, 1e-3)
    return np.asarray(1.0 / np.sqrt((1.0 + (low_hz / f) ** (2 * order)) * (1.0 + (f / high_hz) ** (2 * order))))


def noise(
    rng: np.random.Generator,
    n: int,
    rate_hz: int,
    low_hz: float,
    high_hz: float,
    tilt_db: float = 0.0,
    order: int = 4,
) -> Signal:
    """Return unit-RMS noise in a band.

    Args:
        tilt_db: Slope within the band in dB per octave; negative values sound darker.
        order: Steepness of the band's edges; each unit adds 6 dB per octave.
    """
    size = _fft_size(n)
    f = np.fft.rfftfreq(size, 1.0 / rate_hz)
    gain = band_gain(f, low_hz, high_hz, order)
    if tilt_db:
        gain = gain * (np.maximum(f, 20.0) / 1000.0) ** (tilt_db / 6.02)
    parts = rng.standard_normal(2 * f.size, dtype=np.float32).view(np.complex64)
    spectrum = gain * parts
    x = np.fft.irfft(spectrum, size)[:n]
    return np.asarray(x / (np.sqrt(np.mean(x**2)) + 1e-12))


def band_pass(x: Signal, rate_hz: int, low_hz: float, high_hz: float) -> Signal:
    """Return the signal filtered to a band, without delay."""
    size = _fft_size(x.size + rate_hz // 20)
    f = np.fft.rfftfreq(size, 1.0 / rate_hz)
    return np.asarray(np.fft.irfft(np.fft.rfft(x, size) * band_gain(f, low_hz, high_hz), size)[: x.size])


def resonate(x: Signal, rate_hz: int, formants: Iterable[tuple[float, float, float]], floor: float = 0.02) -> Signal:
    """Return the signal filtered by parallel resonances, without delay.

    Args:
        formants: (centre in Hz, width in Hz, gain) of each resonance.
        floor: Gain far from every resonance.
    """
    size = _fft_size(x.size + rate_hz // 20)
    f = np.fft.rfftfreq(size, 1.0 / rate_hz)
    gain = np.full(f.size, floor)
    for centre_hz, width_hz, peak in formants:
        gain += peak / (1.0 + (2.0 * (f - centre_hz) / width_hz) ** 2)
    return np.asarray(np.fft.irfft(np.fft.rfft(x, size) * gain, size)[: x.size])


def tone(f0_hz: Signal | float, n: int, rate_hz: int, amplitudes: Sequence[float] | Signal) -> Signal:
    """Return a harmonic tone that follows a pitch curve.

    Args:
        f0_hz: The pitch in Hz, one number or one per sample [S].
        amplitudes: Amplitude of each harmonic, fundamental first; harmonics near or above half the rate are dropped.
    """
    curve = np.broadcast_to(np.asarray(f0_hz, dtype=np.float64), (n,))
    highest = max(1, int(0.48 * rate_hz / max(float(curve.max()), 1.0)))
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex128)
    kept = np.asarray(amplitudes, dtype=np.float64)[:highest]
    # Quadratic phases keep the peaks of a rich tone low: otherwise each pitch period would click.
    spectrum[1 : kept.size + 1] = kept * np.exp(-1j * np.pi * np.arange(kept.size) ** 2 / max(kept.size, 1))
    table = np.fft.irfft(spectrum, _TABLE_SIZE) * _TABLE_SIZE / 2
    steps = np.cumsum(curve * (_TABLE_SIZE / rate_hz)).astype(np.int64)
    return np.asarray(table[steps & (_TABLE_SIZE - 1)])


def falling(n_harmonics: int, exponent: float) -> Signal:
    """Return harmonic amplitudes that fall as a power of the harmonic number."""
    return np.asarray(np.arange(1, n_harmonics + 1, dtype=np.float64) ** -exponent)


def ring(
    rng: np.random.Generator,
    n: int,
    rate_hz: int,
    modes: Iterable[tuple[float, float, float]],
) -> Signal:
    """Return damped sinusoids struck at the start.

    Args:
        modes: (frequency in Hz, time in s to fall by 60 dB, amplitude) of each mode; modes near or above half
            the rate are dropped.
    """
    x = np.zeros(n)
    for frequency_hz, fall_s, amplitude in modes:
        if frequency_hz >= 0.49 * rate_hz:
            continue
        length = min(n, n_samples(fall_s, rate_hz))
        t = np.arange(length) / rate_hz
        phase = rng.uniform(0, 2 * np.pi)
        x[:length] += amplitude * np.exp(-6.9 * t / fall_s) * np.sin(2 * np.pi * frequency_hz * t + phase)
    return x


def curve(points: Sequence[tuple[float, float]], n: int) -> Signal:
    """Return a curve of straight lines through (position 0 to 1, value) points, one value per sample."""
    positions, values = zip(*points, strict=True)
    return np.asarray(np.interp(np.linspace(0.0, 1.0, n), positions, values))


def swell(n: int, rate_hz: int, attack_s: float, release_s: float) -> Signal:
    """Return an envelope that rises from 0, holds at 1 and falls to 0 at the end, with rounded corners."""
    t = np.arange(n) / rate_hz
    rise = np.clip(t / max(attack_s, 1e-4), 0.0, 1.0)
    fall = np.clip((n / rate_hz - t) / max(release_s, 1e-4), 0.0, 1.0)
    return np.asarray(np.sin(0.5 * np.pi * np.minimum(rise, fall)) ** 2)


def decay(n: int, rate_hz: int, attack_s: float, fall_s: float) -> Signal:
    """Return an envelope with a short rise and an exponential fall (60 dB in `fall_s`)."""
    t = np.arange(n) / rate_hz
    return np.asarray(np.clip(t / max(attack_s, 1e-4), 0.0, 1.0) * np.exp(-6.9 * t / fall_s))


def wander(rng: np.random.Generator, n: int, rate_hz: int, changes_hz: float, low: float, high: float) -> Signal:
    """Return a random curve between `low` and `high` that turns about `changes_hz` times a second."""
    # Half cosines between random knots, computed on a coarse grid: computing one per sample would take most of
    # the time of a synthesiser.
    fine = 8
    knots = int(np.ceil(n / rate_hz * changes_hz)) + 3
    values = rng.uniform(low, high, knots)
    weight = 0.5 - 0.5 * np.cos(np.pi * np.arange(fine) / fine)
    grid = (values[:-1, None] * (1.0 - weight) + values[1:, None] * weight).ravel()
    position = (rng.uniform(0.0, 1.0) + np.arange(n) * (changes_hz / rate_hz)) * fine
    return np.asarray(np.interp(position, np.arange(grid.size), grid))


def onsets(
    rng: np.random.Generator,
    duration_s: float,
    interval_s: float,
    jitter: float = 0.0,
    first_s: float | None = None,
) -> list[float]:
    """Return the times in s of events about `interval_s` apart.

    Args:
        jitter: Largest random change of each interval, as a share of the interval, 0 to 1.
        first_s: Time of the first event in s; by default drawn from the first fifth of an interval.
    """
    time = uniform(rng, 0.01, 0.01 + 0.2 * interval_s) if first_s is None else first_s
    times = [time]
    while True:
        time += interval_s * (1.0 + jitter * uniform(rng, -1.0, 1.0))
        if time >= duration_s - 0.03:
            return times
        times.append(time)


def place(n: int, rate_hz: int, parts: Iterable[tuple[float, Signal]]) -> Signal:
    """Return the sum of sounds, each starting at its time in s; the end is cut off with a short fade."""
    x = np.zeros(n)
    for start_s, part in parts:
        start = int(start_s * rate_hz)
        length = min(part.size, n - start)
        if length > 0:
            x[start : start + length] += part[:length]
    fade = min(n, rate_hz // 50)
    x[n - fade :] *= np.linspace(1.0, 0.0, fade)
    return x


def scatter(
    rng: np.random.Generator, n: int, rate_hz: int, per_s: float, kernel: Signal, spread_db: float = 12.0
) -> Signal:
    """Return many copies of one short sound at random times and levels, about `per_s` a second."""
    count = max(1, int(rng.poisson(per_s * n / rate_hz)))
    impulses = np.zeros(n)
    levels = 10.0 ** (-rng.uniform(0.0, spread_db, count) / 20.0) * rng.choice([-1.0, 1.0], count)
    np.add.at(impulses, rng.integers(0, n, count), levels)
    return convolve(impulses, kernel)


def convolve(x: Signal, kernel: Signal) -> Signal:
    """Return the signal filtered by a causal kernel, cut to the signal's length."""
    size = _fft_size(x.size + kernel.size)
    return np.asarray(np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(kernel, size), size)[: x.size])


def peak_normalised(x: Signal) -> Signal:
    """Return the signal scaled to a peak of 1; silence stays silence."""
    peak = float(np.abs(x).max())
    return x / peak if peak > 0.0 else x
