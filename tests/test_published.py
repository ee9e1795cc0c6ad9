"""The published rows: complete, consistent, and each with its source."""

import pytest

from textcap.errors import InputError
from textcap.scoring.metric_names import GROUPS
from textcap.scoring.published import TEST_SETS, published_rows


@pytest.mark.parametrize("test_set", TEST_SETS)
def test_rows_are_the_papers_four_and_four_supervised_systems(test_set: str) -> None:
    rows = published_rows(test_set)
    assert [len(row.scores) for row in rows] == [9] * 4 + [1] * 4
    assert len({row.system for row in rows}) == 8
    assert all(row.source.startswith("arXiv 2309.07372") for row in rows)
    assert all(set(row.scores) == set(GROUPS["default"]) for row in rows[:4])
    assert all(set(row.scores) == {"spider"} for row in rows[4:])


@pytest.mark.parametrize("test_set", TEST_SETS)
def test_published_scores_are_consistent(test_set: str) -> None:
    for row in published_rows(test_set)[:4]:
        scores = row.scores
        # The paper rounds each score to three decimal places.
        assert scores["spider"] == pytest.approx((scores["cider_d"] + scores["spice"]) / 2, abs=0.00101)
        assert scores["bleu_1"] > scores["bleu_2"] > scores["bleu_3"] > scores["bleu_4"] > 0.1
        assert all(0 < value < 1 for value in scores.values())


def test_some_scores_equal_those_in_the_paper() -> None:
    audiocaps, clotho = ({row.system: row.scores for row in published_rows(name)} for name in ("audiocaps", "clotho"))
    assert audiocaps["text-only, noise"]["spider"] == 0.437
    assert audiocaps["audio-text pairs"]["meteor"] == 0.223
    assert clotho["text-only, linear adapter"]["bleu_1"] == 0.568
    assert clotho["text-only, noise, with LLM text"]["rouge_l"] == 0.367
    assert clotho["Gontier et al."]["spider"] == 0.167


def test_unknown_test_set_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        published_rows("coco")
    assert str(caught.value) == "there are no published scores for 'coco' (use audiocaps or clotho)"
