"""Tests of the sound world's synthesisers and of the rendering of scenes."""

import re
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textcap.demo.render import render_scene
from textcap.demo.scenes import Event, Scene, sample_scene
from textcap.demo.sounds import KINDS

RATE_HZ = 16000
CATEGORIES = {"animals", "weather", "vehicles", "household", "people", "tools", "alarms", "music"}
Signal = npt.NDArray[np.float32]


def make(kind: str, seed: int, duration_s: float = 2.0, pace: float = 1.0, rate_hz: int = RATE_HZ) -> Signal:
    return KINDS[kind].make(np.random.default_rng(seed), duration_s, rate_hz, pace)


def alone(kind: str, seed: int, duration_s: float = 4.0, **attributes: object) -> Signal:
    return render_scene(Scene((Event(kind, **attributes),), "alone"), seed, RATE_HZ, duration_s)  # type: ignore[arg-type]


def rms_db(x: Signal) -> float:
    return float(10 * np.log10(np.mean(x.astype(np.float64) ** 2) + 1e-12))


def band_db(x: Signal, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(x)) ** 2 / x.size
    f = np.fft.rfftfreq(x.size, 1 / RATE_HZ)
    return float(10 * np.log10(power[(f >= low_hz) & (f < high_hz)].sum() / x.size + 1e-12))


def centroid_hz(x: Signal) -> float:
    power = np.abs(np.fft.rfft(x)) ** 2
    return float((power * np.fft.rfftfreq(x.size, 1 / RATE_HZ)).sum() / power.sum())


def envelope(x: Signal, frame_s: float = 0.02) -> npt.NDArray[np.float64]:
    frame = int(frame_s * RATE_HZ)
    frames = x[: x.size // frame * frame].reshape(-1, frame).astype(np.float64)
    return np.asarray(np.sqrt((frames**2).mean(axis=1)))


def count_sounds(x: Signal, gap_s: float) -> int:
    """Return the number of stretches of sound that are separated by at least `gap_s` of near silence."""
    e = envelope(x)
    times = np.flatnonzero(e > 0.15 * e.max()) * 0.02
    return 1 + int((np.diff(times) > gap_s).sum())


def test_each_category_has_at_least_six_kinds() -> None:
    assert len(KINDS) >= 48
    counts = Counter(kind.category for kind in KINDS.values())
    assert set(counts) == CATEGORIES
    assert min(counts.values()) >= 6
    assert all(name == kind.name and re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name, kind in KINDS.items())
    assert any(kind.short for kind in KINDS.values()) and any(kind.paced for kind in KINDS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_sound_of_a_kind_depends_only_on_its_seed(kind: str) -> None:
    first, again, other = make(kind, 1), make(kind, 1), make(kind, 2)
    assert np.array_equal(first, again)
    # They differ in more than a detail: by at least a tenth of their RMS.
    assert np.sqrt(np.mean((first - other) ** 2)) > 0.1 * np.sqrt(np.mean(first**2))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 2**32 - 1),
    duration_s=st.floats(0.4, 3.0),
    pace=st.floats(0.5, 2.0),
    rate_hz=st.sampled_from([16000, 44100]),
)
def test_sound_of_a_kind_is_finite_with_the_right_length_and_peak(
    kind: str, seed: int, duration_s: float, pace: float, rate_hz: int
) -> None:
    x = make(kind, seed, duration_s, pace, rate_hz)
    assert x.dtype == np.float32
    assert x.shape == (round(duration_s * rate_hz),)
    assert np.isfinite(x).all()
    assert np.abs(x).max() == pytest.approx(1.0, abs=1e-5)
    assert np.sqrt(np.mean(x**2)) > 0.003  # a single tick in three seconds is about 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_short_kinds_end_and_lasting_kinds_continue(kind: str) -> None:
    late = np.mean([np.mean(make(kind, seed, 4.0)[int(1.7 * RATE_HZ) :] ** 2) for seed in range(2)])
    early = np.mean([np.mean(make(kind, seed, 4.0)[: int(1.7 * RATE_HZ)] ** 2) for seed in range(2)])
    if KINDS[kind].short:
        assert late < 1e-3 * early
    else:
        assert late > 0.02 * early


@pytest.mark.parametrize("kind", KINDS)
def test_pace_changes_only_paced_kinds(kind: str) -> None:
    same = np.array_equal(make(kind, 3, pace=0.6), make(kind, 3, pace=1.7))
    assert same is not KINDS[kind].paced


@pytest.mark.parametrize(
    "kind",
    ["clock_ticking", "footsteps", "hammer_hitting", "alarm_beeping", "scissors_snipping"],
)
def test_fast_has_more_beats_than_slow(kind: str) -> None:
    def beats(pace: str) -> float:
        counts = []
        for seed in range(3):
            e = envelope(alone(kind, seed, pace=pace), 0.01)
            loud = e > 0.3 * e.max()
            # Count a rise as a beat if there was none in the 50 ms before it.
            rises = np.flatnonzero(loud[1:] & ~loud[:-1])
            counts.append(1 + int((np.diff(rises) > 5).sum()))
        return float(np.mean(counts))

    assert beats("fast") > 1.6 * beats("slow")


def mel_features(x: Signal) -> npt.NDArray[np.float64]:
    """Return the mean, the spread and the changes over three lags of the levels in 24 log-spaced bands."""
    window, hop = 1024, 512
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.unique(np.geomspace(3, window // 2, 25).astype(int))
    bands = np.log10(np.add.reduceat(power[:, : window // 2], edges[:-1], axis=1) + 1e-3)
    moved = [np.abs(bands[lag:] - bands[:-lag]).mean(axis=0) for lag in (1, 4, 12)]
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0), *moved])


def test_nearest_centroid_distinguishes_the_kinds() -> None:
    def features(seeds: range) -> npt.NDArray[np.float64]:
        return np.stack([[mel_features(alone(kind, seed, 2.0)) for seed in seeds] for kind in KINDS])

    train, test = features(range(4)), features(range(100, 102))
    spread = (train - train.mean(axis=1, keepdims=True)).std(axis=(0, 1))
    centroids = train.mean(axis=1) / spread
    distances = ((test[:, :, None, :] / spread - centroids) ** 2).sum(axis=-1)
    correct = distances.argmin(axis=-1) == np.arange(len(KINDS))[:, None]
    # Chance is 1 in 48, or 0.02; measured 0.96.
    assert correct.mean() > 0.9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), unseen=st.booleans())
def test_render_is_bounded_and_repeatable(seed: int, unseen: bool) -> None:
    scene = sample_scene(np.random.default_rng(seed), unseen=unseen)
    x = render_scene(scene, seed)
    assert x.dtype == np.float32
    assert x.shape == (4 * RATE_HZ,)
    assert np.abs(x).max() <= 1.0
    assert rms_db(x) > -50
    assert np.array_equal(x, render_scene(scene, seed))
    assert not np.array_equal(x, render_scene(scene, seed + 1))


def test_render_follows_rate_and_duration() -> None:
    scene = Scene((Event("violin_playing"),), "alone")
    assert render_scene(scene, 0, 32000, 2.5).shape == (80000,)


def test_render_does_not_overload_with_three_loud_near_sounds() -> None:
    events = tuple(Event(k, "loud", "near") for k in ("drums_playing", "hammer_hitting", "thunder_rumbling"))
    for seed in range(3):
        x = render_scene(Scene(events, "together"), seed)
        assert np.abs(x).max() <= 1.0
        assert (np.abs(x) > 0.98).mean() < 1e-3


@pytest.mark.parametrize("kind", ["rain_falling", "cow_mooing", "car_horn", "clock_ticking", "piano_playing"])
def test_loud_is_louder_and_faint_is_fainter(kind: str) -> None:
    loud, plain, faint = (
        np.mean([rms_db(alone(kind, seed, level=level)) for seed in range(4)]) for level in ("loud", None, "faint")
    )
    assert loud > plain + 4
    assert plain > faint + 6


@pytest.mark.parametrize("kind", ["rain_falling", "dog_barking", "violin_playing"])
def test_distance_makes_sounds_fainter_and_darker(kind: str) -> None:
    near = [alone(kind, seed, distance="near") for seed in range(4)]
    distant = [alone(kind, seed, distance="distant") for seed in range(4)]
    assert np.mean([rms_db(x) for x in near]) > np.mean([rms_db(x) for x in distant]) + 6
    assert np.mean([centroid_hz(x) for x in near]) > 1.1 * np.mean([centroid_hz(x) for x in distant])


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.short])
def test_repeated_sounds_occur_two_to_four_times(kind: str) -> None:
    for seed in range(3):
        # The pauses of knocks and trills within one occurrence are shorter than the gap between occurrences.
        once, several = alone(kind, seed), alone(kind, seed, repeated=True)
        e = envelope(several)
        halves = [part.max() for part in np.array_split(e, 2)]
        assert min(halves) > 0.3 * max(halves)
        assert np.ptp(np.flatnonzero(envelope(once) > 0.3 * envelope(once).max())) * 0.02 < 1.6
    counts = [count_sounds(alone("car_horn", seed, repeated=True), 0.06) for seed in range(12)]
    assert set(counts) == {2, 3, 4}


LOW, HIGH = "car_engine", "crickets_chirping"  # with most energy below 400 Hz, and above 4 kHz


def halves_db(x: Signal) -> dict[str, list[float]]:
    first, second = x[: int(1.8 * RATE_HZ)], x[int(2.2 * RATE_HZ) :]
    return {
        LOW: [band_db(h, 50, 400) for h in (first, second)],
        HIGH: [band_db(h, 4000, 8000) for h in (first, second)],
    }


@pytest.mark.parametrize(("before", "after"), [(LOW, HIGH), (HIGH, LOW)])
def test_events_of_a_sequence_sound_in_order(before: str, after: str) -> None:
    for seed in range(4):
        levels = halves_db(render_scene(Scene((Event(before), Event(after)), "sequence"), seed))
        assert levels[before][0] > levels[before][1] + 8
        assert levels[after][1] > levels[after][0] + 8


def test_events_together_sound_at_once() -> None:
    for seed in range(4):
        levels = halves_db(render_scene(Scene((Event(LOW), Event(HIGH)), "together"), seed))
        assert abs(levels[LOW][0] - levels[LOW][1]) < 3
        assert abs(levels[HIGH][0] - levels[HIGH][1]) < 3


def test_background_sounds_softly_throughout() -> None:
    softer = []
    for seed in range(4):
        levels = halves_db(render_scene(Scene((Event("siren_wailing"), Event(HIGH)), "background"), seed))
        plain = halves_db(alone(HIGH, seed))
        assert abs(levels[HIGH][0] - levels[HIGH][1]) < 3
        softer.append(plain[HIGH][0] - levels[HIGH][0])
    assert 5 < np.mean(softer) < 13


def test_faint_distant_sound_stays_audible_beside_a_loud_one() -> None:
    loud = Event(LOW, "loud", "near")
    for seed in range(4):
        both = render_scene(Scene((loud, Event(HIGH, "faint", "distant")), "together"), seed)
        without = render_scene(Scene((loud, Event("thunder_rumbling", "faint", "distant")), "together"), seed)
        assert band_db(both, 4000, 7000) > band_db(without, 4000, 7000) + 10
        # The attributes alone would make them differ by 29 dB, which would mask the fainter one.
        assert band_db(both, 4000, 8000) > band_db(both, 50, 400) - 22


@pytest.mark.parametrize(("rate_hz", "duration_s", "wrong"), [(8000, 4.0, "8000"), (16000, 1.0, "1.0")])
def test_render_refuses_too_low_rates_and_durations(rate_hz: int, duration_s: float, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        render_scene(Scene((Event("cat_meowing"),), "alone"), 0, rate_hz, duration_s)
