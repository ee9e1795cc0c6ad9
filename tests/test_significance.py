"""Significance: exact p-values, intervals that cover, few false alarms, and corpus scores recomputed for each draw."""

from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from textcap.scoring import significance
from textcap.scoring.counts import Numbers, bleu_counts, bleu_of_counts
from textcap.scoring.significance import LEVEL, MIN_CLIPS, compare, holm, interval

WORDS = "a dog barks in the yard while rain falls on roof and then it runs".split()


def bleu_of_sums(sums: Numbers, n_clips: int, n: int) -> Numbers:
    return bleu_of_counts(sums, n)


@pytest.fixture
def any_number_of_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "MIN_CLIPS", 1)


def make_captions(n_clips: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """The captions of two systems, and two references of each clip, of random words."""
    rng = np.random.default_rng(seed)

    def caption() -> str:
        return " ".join(rng.choice(WORDS, size=rng.integers(3, 9)))

    return [[caption() for _ in range(n_clips)] for _ in "ab"], [[caption(), caption()] for _ in range(n_clips)]


def written_out_bleu_1(predictions: list[str], references: list[list[str]]) -> float:
    """BLEU-1 of a corpus by its definition, from words rather than counts."""
    length = closest = n_found = 0
    for prediction, several in zip(predictions, references, strict=True):
        words = prediction.split()
        length += len(words)
        closest += min((len(one.split()) for one in several), key=lambda other: (abs(other - len(words)), other))
        most = {word: max(one.split().count(word) for one in several) for word in words}
        n_found += sum(min(count, most[word]) for word, count in Counter(words).items())
    return n_found / length * min(1.0, float(np.exp(1 - closest / length)))


@pytest.mark.parametrize("seed", range(3))
def test_p_value_of_a_mean_is_that_of_all_exchanges(seed: int, any_number_of_clips: None) -> None:
    rng = np.random.default_rng(seed)
    # Scores with one decimal, so that many exchanges give exactly the observed difference.
    first, second = rng.integers(0, 11, size=(2, 12)) / 10 + [[0.2 * seed], [0.0]]
    gaps = np.rint((first - second) * 10)
    sums = np.array([abs(signs @ gaps) for signs in product([-1, 1], repeat=12)])
    exact = (sums >= abs(gaps.sum())).mean()
    found = compare(first, second, n_draws=20_000, seed=seed).p_value
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1 / 20_000)


def test_p_value_of_bleu_is_that_of_all_exchanges_of_captions(any_number_of_clips: None) -> None:
    (first, second), references = make_captions(8, seed=3)
    differences = []
    for exchanged in product([False, True], repeat=8):
        ours = [b if swap else a for a, b, swap in zip(first, second, exchanged, strict=True)]
        others = [a if swap else b for a, b, swap in zip(first, second, exchanged, strict=True)]
        differences.append(written_out_bleu_1(ours, references) - written_out_bleu_1(others, references))
    exact = (np.abs(differences) >= abs(differences[0]) - 1e-12).mean()
    counts = [bleu_counts(predictions, references) for predictions in (first, second)]
    found = compare(*counts, score_of_sums=partial(bleu_of_sums, n=1), n_draws=20_000)
    assert found.difference == pytest.approx(differences[0], abs=1e-9)
    assert found.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))


def test_fewer_than_30_clips_give_no_p_value_and_no_verdict() -> None:
    better = np.random.default_rng(0).uniform(size=MIN_CLIPS)
    few = compare(better[1:] + 1, better[1:])
    assert few.difference == pytest.approx(1) and few.low == pytest.approx(1)  # the interval alone would say yes
    assert few.p_value is None
    enough = compare(better + 1, better)
    assert enough.p_value is not None and enough.p_value < LEVEL


def test_constant_difference_has_an_interval_of_no_width_and_the_least_p_value() -> None:
    second = np.random.default_rng(0).uniform(size=40)
    found = compare(second + 0.25, second, n_draws=999)
    assert (found.difference, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.p_value == 1 / 1000


@pytest.mark.parametrize("shuffled", [False, True])
def test_equal_scores_do_not_differ(shuffled: bool) -> None:
    """In another order, the sums of the two sides differ by rounding; that is no difference."""
    values = np.random.default_rng(0).uniform(size=40)
    found = compare(values, values[::-1] if shuffled else values)
    assert (found.difference, found.p_value) == pytest.approx((0, 1), abs=1e-12)
    assert found.low <= 0 <= found.high


def test_verdict_goes_by_the_p_value_and_not_by_the_interval() -> None:
    """Of a hundred clips five differ. One exchange in 16 leaves all five on one side, so that may be noise."""
    second = np.zeros(100)
    first = second.copy()
    first[:5] = 0.1
    found = compare(first, second)
    assert found.low > 0
    assert found.p_value == pytest.approx(1 / 16, abs=0.01)
    assert found.p_value is not None and found.p_value >= LEVEL


def test_interval_for_many_clips_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.3, 0.2, 400), rng.normal(0.25, 0.2, 400)
    found = compare(first, second, seed=3)
    for low, high, values in ((found.low, found.high, first - second), (*interval(first, seed=3), first)):
        half = 1.96 * values.std() / np.sqrt(400)
        assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_interval_of_bleu_is_that_of_resampled_captions() -> None:
    (predictions, _), references = make_captions(40, seed=5)
    rng = np.random.default_rng(6)
    values = []
    for _ in range(2000):
        drawn = rng.integers(40, size=40)
        values.append(written_out_bleu_1([predictions[i] for i in drawn], [references[i] for i in drawn]))
    low, high = np.percentile(values, [2.5, 97.5])
    found = interval(bleu_counts(predictions, references), score_of_sums=partial(bleu_of_sums, n=1))
    assert found == pytest.approx((low, high), abs=0.08 * (high - low))


def test_sides_are_paired_clip_by_clip() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 1, 200)  # the difficulty of each clip, which is the same for both
    found = compare(hard + 0.05 + rng.normal(0, 0.01, 200), hard)
    assert found.p_value is not None and found.p_value < LEVEL
    assert found.high - found.low < 0.01


@pytest.mark.parametrize("metric", ["mean", "bleu_2"])
def test_p_values_of_null_data_are_uniform(metric: str) -> None:
    """At the fewest clips that get a verdict, for a skewed score like CIDEr-D's and a corpus score."""
    rng = np.random.default_rng(4)
    both = rng.exponential(size=(2, 200)) ** 2
    whole = significance.mean_of_sums
    if metric == "bleu_2":
        several, references = make_captions(200, seed=8)
        both = np.stack([bleu_counts(predictions, references) for predictions in several])
        whole = partial(bleu_of_sums, n=2)
    found = []
    for seed in range(1000):
        clips, side = rng.integers(200, size=MIN_CLIPS), rng.integers(2, size=MIN_CLIPS)
        found.append(compare(both[side, clips], both[1 - side, clips], score_of_sums=whole, n_draws=199, seed=seed))
    for level in (0.05, 0.25, 0.5, 0.75):
        share = np.mean([one.p_value is not None and one.p_value <= level for one in found])
        assert share == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 1000))


def test_same_seed_gives_the_same_draws_for_every_score() -> None:
    sides = np.random.default_rng(5).uniform(size=(2, 30))
    assert compare(*sides, seed=7) == compare(*sides, seed=7) != compare(*sides, seed=8)
    assert interval(sides[0], seed=7) == interval(sides[0], seed=7) != interval(sides[0], seed=8)
    # The same score in two columns, one of which is not used.
    in_two = [np.column_stack([side, side[::-1]]) for side in sides]
    assert compare(*in_two, seed=7).p_value == compare(*sides, seed=7).p_value
    assert interval(in_two[0], seed=7) == pytest.approx(interval(sides[0], seed=7))


@given(
    # Sixty-fourths, so that ties stay ties after the shift.
    sides=arrays(np.int64, (2, 31), elements=st.integers(-640, 640)),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    shift=st.integers(-5, 5),
    order=st.permutations(range(31)),
)
def test_p_value_does_not_depend_on_sides_scale_or_zero(
    sides: Numbers, scale: float, shift: int, order: list[int]
) -> None:
    sides = sides / 64
    found = compare(*sides, n_draws=99)
    assert found.p_value is not None and 1 / 100 <= found.p_value <= 1
    swapped = compare(*sides[::-1], n_draws=99)
    assert (swapped.difference, swapped.low, swapped.high) == pytest.approx(
        (-found.difference, -found.high, -found.low), abs=1e-12
    )
    assert swapped.p_value == found.p_value
    moved = compare(*((sides + shift) * scale), n_draws=99)
    assert moved.difference == pytest.approx(found.difference * scale, abs=1e-12 * scale)
    assert moved.p_value == found.p_value
    assert compare(*sides[:, order], n_draws=99).difference == pytest.approx(found.difference, abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "n_draws", "message"),
    [
        (np.ones(30), np.ones(31), 10, r"cannot pair shape \(30, 1\) with shape \(31, 1\)"),
        (np.ones((30, 2)), np.ones(30), 10, r"cannot pair shape \(30, 2\) with shape \(30, 1\)"),
        (np.ones(0), np.ones(0), 10, "with at least one clip"),
        (np.ones((5, 2, 2)), np.ones((5, 2, 2)), 10, r"shape \(5, 2, 2\) is not \[N\] or \[N, K\]"),
        (np.full(30, np.nan), np.ones(30), 10, "NaN or infinite"),
        (np.ones(30), np.full(30, np.inf), 10, "NaN or infinite"),
        (np.ones(30), np.ones(30), 0, "n_draws is 0, but must be at least 1"),
    ],
)
def test_input_that_cannot_be_compared_is_rejected(first: Numbers, second: Numbers, n_draws: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(first, second, n_draws=n_draws)


@pytest.mark.parametrize(("values", "message"), [([], "at least one clip"), ([1.0, np.nan], "NaN or infinite")])
def test_scores_without_an_interval_are_rejected(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval(np.array(values))


def test_holm_equals_an_example_by_hand() -> None:
    # Holm's step-down by hand: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 is lifted to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([]) == []


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12), level=st.floats(0.001, 0.999))
def test_holm_rejects_what_the_procedure_rejects(p_values: list[float], level: float) -> None:
    """The procedure itself: from the smallest p on, reject while p is at most level / (number of those left)."""
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    assert {index for index, value in enumerate(holm(p_values)) if value <= level} == rejected


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_holm_rejects_numbers_that_are_no_probabilities(wrong: float) -> None:
    with pytest.raises(ValueError, match="a p-value is NaN or outside 0 to 1"):
        holm([0.5, wrong])
