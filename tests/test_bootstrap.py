"""The paired bootstrap: correct intervals, few false alarms, and corpus scores recomputed for each resample."""

import numpy as np
import pytest

from textcap.scoring.bootstrap import paired_bootstrap
from textcap.scoring.comparison import best_two, compare_systems
from textcap.scoring.counts import bleu_counts, bleu_of_counts
from textcap.scoring.results import MetricScore, SystemScores, score_of_clips


def system(**scores: MetricScore) -> SystemScores:
    return SystemScores(scores, {})


def test_constant_difference_has_an_interval_of_no_width() -> None:
    second = np.random.default_rng(0).uniform(size=40)
    found = paired_bootstrap(second + 0.25, second)
    assert found.difference == pytest.approx(0.25)
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))
    assert found.is_more_than_noise
    assert found.p_value == pytest.approx(2 / 1001)


def test_equal_predictions_do_not_differ() -> None:
    values = np.random.default_rng(0).uniform(size=40)
    found = paired_bootstrap(values, values)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert not found.is_more_than_noise


def test_interval_for_many_clips_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.3, 0.2, 400), rng.normal(0.25, 0.2, 400)
    found = paired_bootstrap(first, second, n_resamples=4000, seed=3)
    gap = first - second
    half = 1.96 * gap.std() / np.sqrt(len(gap))
    assert found.difference == pytest.approx(gap.mean())
    assert (found.low, found.high) == pytest.approx((gap.mean() - half, gap.mean() + half), abs=0.1 * half)
    assert found.is_more_than_noise == (found.low > 0)


def test_sides_are_paired_clip_by_clip() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 1, 200)  # the difficulty of each clip, which is the same for both
    found = paired_bootstrap(hard + 0.05 + rng.normal(0, 0.01, 200), hard)
    assert found.is_more_than_noise
    assert found.high - found.low < 0.01


def test_false_alarms_are_about_one_in_twenty() -> None:
    rng = np.random.default_rng(4)
    alarms = [
        paired_bootstrap(*rng.uniform(size=(2, 60)), n_resamples=200, seed=i).is_more_than_noise for i in range(300)
    ]
    assert 0.01 < np.mean(alarms) < 0.11


def test_same_seed_gives_the_same_interval() -> None:
    sides = np.random.default_rng(5).uniform(size=(2, 30))
    assert paired_bootstrap(*sides, seed=7) == paired_bootstrap(*sides, seed=7)
    assert paired_bootstrap(*sides, seed=7).low != paired_bootstrap(*sides, seed=8).low


@pytest.mark.parametrize(
    ("first", "second", "n_resamples"),
    [([1.0], [1.0, 2.0], 10), ([], [], 10), ([1.0, np.nan], [1.0, 2.0], 10), ([1.0], [1.0], 0)],
)
def test_input_that_cannot_be_compared_is_rejected(first: list[float], second: list[float], n_resamples: int) -> None:
    with pytest.raises(ValueError, match="cannot pair shape|NaN or infinite|n_resamples is 0, but must be at least 1"):
        paired_bootstrap(np.array(first), np.array(second), n_resamples=n_resamples)


def test_bleu_is_recomputed_and_not_averaged_over_clips() -> None:
    references = [["a dog barks in the yard and then runs away"], ["rain"]]
    first = ["a dog barks in the yard and then runs away", "wind"]
    second = ["a cat meows on the mat and then runs off", "rain"]
    sides = []
    for predictions in (first, second):
        counts = bleu_counts(predictions, references)
        per_clip = bleu_of_counts(counts, 1)
        value = float(bleu_of_counts(counts.sum(axis=0), 1))
        sides.append(SystemScores({"bleu_1": MetricScore("bleu_1", value, per_clip)}, {"bleu": counts}))
    found = compare_systems(*sides)["bleu_1"]
    assert found.difference == pytest.approx(10 / 11 - 6 / 11, abs=1e-6)
    means = [side.scores["bleu_1"].per_clip for side in sides]
    assert means[0] is not None and means[1] is not None
    assert means[0].mean() < means[1].mean()  # the mean over clips ranks them the other way round
    assert found.low == pytest.approx(-1, abs=1e-6)  # the resample with the second clip twice
    assert found.high == pytest.approx(1 / 2, abs=1e-6)  # the resample with the first clip twice


def test_metrics_that_one_side_lacks_are_not_compared() -> None:
    values = np.arange(5.0)
    first = system(
        spice=MetricScore("spice", problem="no jars"),
        rouge_l=score_of_clips("rouge_l", values),
        cider_d=score_of_clips("cider_d", values),
    )
    second = system(spice=score_of_clips("spice", values), rouge_l=score_of_clips("rouge_l", values[::-1]))
    assert set(compare_systems(first, second)) == {"rouge_l"}


def test_best_two_are_chosen_by_spider_if_all_systems_have_it() -> None:
    def make(spider: float | None, rouge_l: float) -> SystemScores:
        return system(rouge_l=MetricScore("rouge_l", rouge_l), spider=MetricScore("spider", spider))

    assert best_two([make(0.1, 0.9), make(0.3, 0.1), make(0.2, 0.5)]) == (1, 2)
    assert best_two([make(None, 0.9), make(0.3, 0.1), make(0.2, 0.5)]) == (0, 2)
    assert best_two([make(0.1, 0.9)]) is None
    assert best_two([system(spice=MetricScore("spice", problem="no jars"))] * 2) is None
    assert best_two([system(fer=MetricScore("fer", value)) for value in (0.3, 0.1, 0.2)]) == (1, 2)
