"""The modality gap and retrieval, compared with direct computations."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from textcap.errors import InputError
from textcap.gap.measure import draw_pairs, measure_gap
from textcap.gap.retrieval import measure_retrieval, unit_rows


def embeddings(n: int, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return audio and text embeddings `[N, E]` of n pairs, not unit length, with a gap between them."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(n, width)) * 3
    return audio, 0.5 * audio + rng.normal(size=(n, width)) + 0.7


def test_figures_equal_a_direct_computation() -> None:
    audio, text = embeddings(60)
    report = measure_gap(audio, text, n=30, draws=4, seed=5)
    chosen = draw_pairs(60, 30, 5)
    a = audio / np.sqrt((audio**2).sum(1, keepdims=True))
    t = text / np.sqrt((text**2).sum(1, keepdims=True))
    cosines = [float(a[i] @ t[i]) for i in chosen]
    norms = [max(abs(x - y) for x, y in zip(a[i], t[i], strict=True)) for i in chosen]
    sample = report.sample
    assert sample.mean_cosine == pytest.approx(np.mean(cosines), rel=1e-12)
    assert sample.mean_infinity_norm == pytest.approx(np.mean(norms), rel=1e-12)
    assert sample.max_infinity_norm == pytest.approx(max(norms), rel=1e-12)
    distance = np.linalg.norm(a[chosen].mean(0) - t[chosen].mean(0))
    assert sample.modality_distance == pytest.approx(distance, rel=1e-12)
    assert sample.noise_std == sample.mean_infinity_norm
    assert sample.noise_variance == pytest.approx(np.mean(norms) ** 2)
    c = np.mean(cosines)
    assert sample.cosine_variance == pytest.approx((1 / c**2 - 1) / 16)
    assert report.every_pair.mean_cosine == pytest.approx((a * t).sum(1).mean())


def test_spread_equals_a_direct_computation_over_the_draws() -> None:
    audio, text = embeddings(200)
    report = measure_gap(audio, text, n=20, draws=7, seed=1)
    norms = []
    for draw in range(7):
        chosen = draw_pairs(200, 20, 1, draw)
        norms.append(np.abs(unit_rows(audio)[chosen] - unit_rows(text)[chosen]).max(1).mean())
    spread = report.spread["mean_infinity_norm"]
    assert (spread.mean, spread.std) == (pytest.approx(np.mean(norms)), pytest.approx(np.std(norms, ddof=1)))
    assert (spread.least, spread.largest) == (pytest.approx(min(norms)), pytest.approx(max(norms)))


def test_cosine_variance_recovers_the_variance_of_known_noise() -> None:
    """Noise of variance (1/c^2 - 1)/d moves a unit vector in d dimensions to the cosine c."""
    rng = np.random.default_rng(0)
    audio = unit_rows(rng.normal(size=(400, 1024)))
    variance = (1 / 0.6**2 - 1) / 1024
    text = unit_rows(audio + rng.normal(size=audio.shape) * variance**0.5)
    sample = measure_gap(audio, text, n=400, draws=1).sample
    assert sample.mean_cosine == pytest.approx(0.6, abs=0.01)
    assert sample.cosine_variance == pytest.approx(variance, rel=0.03)


def test_cosine_variance_is_none_unless_the_cosine_is_positive() -> None:
    audio = np.eye(4)
    assert measure_gap(audio, -audio, n=4, draws=1).sample.cosine_variance is None
    assert measure_gap(audio, audio, n=4, draws=1).sample.cosine_variance == 0.0


@given(scales=st.lists(st.floats(1e-3, 1e3), min_size=10, max_size=10), seed=st.integers(0, 3))
def test_lengths_of_embeddings_do_not_matter(scales: list[float], seed: int) -> None:
    audio, text = embeddings(10)
    plain = measure_gap(audio, text, n=5, draws=3, seed=seed)
    scaled = measure_gap(audio * np.array(scales)[:, None], text, n=5, draws=3, seed=seed)
    assert scaled.sample.mean_infinity_norm == pytest.approx(plain.sample.mean_infinity_norm, rel=1e-9)
    assert scaled.spread["mean_cosine"].mean == pytest.approx(plain.spread["mean_cosine"].mean, rel=1e-9)


@given(n_available=st.integers(1, 50), seed=st.integers(0, 2**63 - 1), draw=st.integers(0, 20))
def test_draw_has_distinct_sorted_indices_and_is_repeatable(n_available: int, seed: int, draw: int) -> None:
    chosen = draw_pairs(n_available, (n_available + 1) // 2, seed, draw)
    assert len(set(chosen.tolist())) == (n_available + 1) // 2
    assert chosen.tolist() == sorted(chosen.tolist())
    assert 0 <= chosen.min() and chosen.max() < n_available
    assert chosen.tolist() == draw_pairs(n_available, (n_available + 1) // 2, seed, draw).tolist()


def test_too_few_pairs_and_invalid_settings_are_refused() -> None:
    audio, text = embeddings(29)
    with pytest.raises(InputError, match="measuring the gap needs 30 pairs, but got 29"):
        measure_gap(audio, text)
    with pytest.raises(InputError, match="draws is 0"):
        measure_gap(audio, text, n=2, draws=0)
    with pytest.raises(InputError, match="n is 0"):
        measure_gap(audio, text, n=0)
    with pytest.raises(ValueError, match=r"audio \(29, 16\) and text \(28, 16\) differ in shape"):
        measure_gap(audio, text[1:])


# Retrieval.


def test_recall_counts_captions_that_are_nearer() -> None:
    audio = np.eye(12)
    text = np.eye(12)
    text[[0, 1]] = text[[1, 0]]  # two captions exchanged
    found = measure_retrieval(audio, text)
    assert found.cosine == pytest.approx(10 / 12)
    assert found.recall_at_1 == pytest.approx(10 / 12)
    # The two exchanged captions have cosine 0, like ten others: only the caption with cosine 1 is nearer.
    assert found.recall_at_10 == 1.0


def test_recall_equals_a_direct_ranking() -> None:
    audio, text = embeddings(150, width=8)
    a, t = unit_rows(audio), unit_rows(text)
    ranks = [sorted(range(150), key=lambda j: -(a[i] @ t[j])).index(i) for i in range(150)]
    found = measure_retrieval(audio, text)
    assert found.recall_at_1 == pytest.approx(np.mean([rank < 1 for rank in ranks]))
    assert found.recall_at_10 == pytest.approx(np.mean([rank < 10 for rank in ranks]))
    assert found.cosine == pytest.approx(np.mean([a[i] @ t[i] for i in range(150)]))


def test_identical_captions_do_not_count_as_nearer() -> None:
    audio, text = embeddings(20)
    found = measure_retrieval(np.tile(audio[:1], (20, 1)), np.tile(text[:1], (20, 1)))
    assert found.recall_at_1 == 1.0


def test_retrieval_of_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"audio \(0, 3\) and text \(0, 3\) differ in shape or are empty"):
        measure_retrieval(np.empty((0, 3)), np.empty((0, 3)))
