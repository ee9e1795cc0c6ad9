"""Comparisons of systems: which pairs, by which metric they are ranked, and corpus scores recomputed for each draw."""

import numpy as np
import pytest

from textcap.scoring.comparison import MOST_SYSTEMS, compare_systems
from textcap.scoring.counts import bleu_counts
from textcap.scoring.results import MetricScore, Scores, score_of_clips, score_of_counts

N_CLIPS = 40


def system(**levels: float | None) -> Scores:
    """Scores of clips around a level, or a metric that failed."""
    noise = np.random.default_rng(len(levels)).normal(0, 0.01, N_CLIPS)
    return {
        name: MetricScore(name, problem="no jars") if level is None else score_of_clips(name, level + noise)
        for name, level in levels.items()
    }


def test_bleu_is_recomputed_and_not_averaged_over_clips() -> None:
    references = [["a dog barks in the yard and then runs away"], ["rain"]]
    first = ["a dog barks in the yard and then runs away", "wind"]
    second = ["a cat meows on the mat and then runs off", "rain"]
    sides = [{"bleu_1": score_of_counts("bleu_1", bleu_counts(said, references))} for said in (first, second)]
    ranked_by, (found,) = compare_systems(sides)
    assert ranked_by == "bleu_1" and (found.first, found.second) == (0, 1)
    assert found.difference == pytest.approx(10 / 11 - 6 / 11, abs=1e-6)
    means = [side["bleu_1"].per_clip for side in sides]
    assert means[0] is not None and means[1] is not None
    assert means[0].mean() < means[1].mean()  # the mean over clips ranks them the other way round
    assert found.low == pytest.approx(-1, abs=1e-6)  # the resample with the second clip twice
    assert found.high == pytest.approx(1 / 2, abs=1e-6)  # the resample with the first clip twice
    assert found.p_value is None and found.verdict is None  # too few clips


def test_metrics_that_one_side_lacks_are_not_compared() -> None:
    first, second = system(spice=None, rouge_l=0.2, cider_d=0.1), system(spice=0.3, rouge_l=0.1)
    _, found = compare_systems([first, {**second, "cider_d": MetricScore("cider_d", problem="x")}])
    assert [one.metric for one in found] == ["rouge_l"]


@pytest.mark.parametrize(
    ("systems", "ranked_by", "best"),
    [
        ([{"rouge_l": 0.9, "spider": 0.1}, {"rouge_l": 0.1, "spider": 0.3}], "spider", 1),
        ([{"rouge_l": 0.9, "spider": None}, {"rouge_l": 0.1, "spider": 0.3}], "rouge_l", 0),
        ([{"fer": 0.3}, {"fer": 0.1}], "fer", 1),  # fewer errors are better
    ],
)
def test_systems_are_ranked_by_the_decisive_metric_that_all_have(
    systems: list[dict[str, float | None]], ranked_by: str, best: int
) -> None:
    found_by, found = compare_systems([system(**levels) for levels in systems])
    assert found_by == ranked_by
    (decisive,) = (one for one in found if one.metric == ranked_by)
    assert decisive.first == best and decisive.verdict == "better"


def test_nothing_is_compared_without_a_pair_or_a_shared_metric() -> None:
    assert compare_systems([system(spider=0.1)]) == (None, [])
    assert compare_systems([system(spice=None)] * 2) == (None, [])
    many = [system(spider=i / 10) for i in range(MOST_SYSTEMS + 1)]
    assert compare_systems(many) == (None, [])
    assert len(compare_systems(many[:-1])[1]) == MOST_SYSTEMS * (MOST_SYSTEMS - 1) // 2
    _, against_one = compare_systems(many, baseline=2)
    assert {one.second for one in against_one} == {2} and len(against_one) == MOST_SYSTEMS
    assert [one.verdict for one in against_one] == ["better"] * 3 + ["worse"] * 2


def test_p_values_are_corrected_for_the_pairs_of_a_metric() -> None:
    _, found = compare_systems([system(spider=level) for level in (0.1, 0.2, 0.3)])
    smallest = min(one.p_value or 1.0 for one in found)
    assert [one.p_corrected for one in found] == pytest.approx([3 * smallest] * 3)
    _, again = compare_systems([system(spider=0.1)] * 3)
    assert [one.p_corrected for one in again] == [1, 1, 1]
    assert {one.verdict for one in again} == {"not significantly different"}
