"""BLEU, ROUGE-L, CIDEr-D and vocabulary: equal to aac-metrics for any captions, and to values worked out by hand."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from math import exp, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textcap.scoring.counts import bleu_counts, bleu_of_counts
from textcap.scoring.words import cider_d, rouge_l, vocabulary, wording

# Few words, so that captions share n-grams; odd ones, among them a letter that is two characters when decomposed.
WORDS = ["a", "dog", "barks", "the", "caf\u00e9", "cafe\u0301", "\u72d7\u53eb", "\U0001f600", "-lrb-", "3.5"]
CAPTION = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
CLIPS = st.lists(st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=7)), min_size=2, max_size=8)
EXACT = {"rel": 0, "abs": 1e-12}


@pytest.fixture(scope="module")
def aac() -> Callable[[str], Any]:
    """A function that returns one of aac-metrics' own functions."""
    if importlib.util.find_spec("aac_metrics") is None or importlib.util.find_spec("torch") is None:
        pytest.skip("needs aac-metrics")
    from textcap.verify import import_msclap

    import_msclap()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functional = importlib.import_module("aac_metrics.functional")
    return lambda name: getattr(functional, name)


def split(clips: list[tuple[str, list[str]]]) -> tuple[list[str], list[list[str]]]:
    return [clip[0] for clip in clips], [clip[1] for clip in clips]


@settings(max_examples=100)
@given(CLIPS)
def test_bleu_equals_that_of_aac_metrics(aac: Callable[[str], Any], clips: list[tuple[str, list[str]]]) -> None:
    predictions, references = split(clips)
    corpus, per_clip = aac("bleu")(predictions, references, n=4, return_1_to_n=True)
    counts = bleu_counts(predictions, references)
    for n in range(1, 5):
        assert bleu_of_counts(counts.sum(axis=0), n) == pytest.approx(float(corpus["bleu_1_to_4"][n - 1]), **EXACT)
        assert bleu_of_counts(counts, n) == pytest.approx(per_clip["bleu_1_to_4"][n - 1].numpy(), **EXACT)


@settings(max_examples=100)
@given(CLIPS)
def test_rouge_l_equals_that_of_aac_metrics(aac: Callable[[str], Any], clips: list[tuple[str, list[str]]]) -> None:
    # aac-metrics divides by zero for an empty reference.
    clips = [(said, [one for one in several if one] or ["the"]) for said, several in clips]
    predictions, references = split(clips)
    corpus, per_clip = aac("rouge_l")(predictions, references)
    (found,) = rouge_l([predictions], references)
    assert found == pytest.approx(per_clip["rouge_l"].numpy(), **EXACT)
    assert found.mean() == pytest.approx(float(corpus["rouge_l"]), **EXACT)


@settings(max_examples=100)
@given(CLIPS)
def test_cider_d_equals_that_of_aac_metrics(aac: Callable[[str], Any], clips: list[tuple[str, list[str]]]) -> None:
    clips = [*clips, ("a dog", ["the dog barks"])]  # at least one word is in the references
    predictions, references = split(clips)
    corpus, per_clip = aac("cider_d")(predictions, references)
    found, again = cider_d([predictions, predictions], references)
    assert found == pytest.approx(per_clip["cider_d"].numpy(), **EXACT)
    assert found.mean() == pytest.approx(float(corpus["cider_d"]), **EXACT)
    assert again.tolist() == found.tolist()


@settings(max_examples=60)
@given(CLIPS)
def test_vocabulary_equals_that_of_aac_metrics(aac: Callable[[str], Any], clips: list[tuple[str, list[str]]]) -> None:
    clips = [*clips, ("a dog", ["the dog barks", "a cat"])]  # a word that both sides use
    predictions, references = split(clips)
    corpus, _ = aac("vocab")(predictions, references)
    assert vocabulary(predictions, references) == pytest.approx({k: float(v) for k, v in corpus.items()}, **EXACT)


def test_rouge_l_by_hand() -> None:
    # The longest common subsequences are "a dog" and "dog barks": precision 2/3, and recall 2/2 with the second.
    (found,) = rouge_l([["a dog barks", "", "rain"]], [["a big dog", "dog barks"], ["wind"], ["", "rain"]])
    precision, recall = 2 / 3, 1.0
    by_hand = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert found.tolist() == pytest.approx([by_hand, 0, 1])


def test_cider_d_by_hand() -> None:
    # "dog" is in the references of one clip of three, "a" in those of two: it weighs log(3 / 2).
    references = [["a dog"], ["a cat"], ["rain"]]
    (found,) = cider_d([["a dog", "a a", "wind"]], references)
    rare, common = log(3), log(3 / 2)
    of_words = common * common / (2 * common * (rare**2 + common**2) ** 0.5)  # "a a" against "a cat", clipped
    assert found.tolist() == pytest.approx([10 * 2 / 4, 10 * of_words / 4, 0])
    (longer,) = cider_d([["a dog a dog", "x", "y"]], references)
    cosine = 1.0 / 2  # clipped at one occurrence of each word, where the caption has two
    assert longer[0] < 10 / 4 * (cosine + 1) * exp(-(2**2) / 72)


def test_vocabulary_without_a_shared_word_has_only_the_number_of_words() -> None:
    assert vocabulary(["a dog"], [["rain"]]) == {"vocab.cands": 2.0}
    assert vocabulary([""], [[""]]) == {"vocab.cands": 0.0}


def test_wording_counts_words_repeats_and_captions_without_spaces() -> None:
    found = wording(["a dog", "a dog", "rain", "\u4e00\u53ea\u72d7\u5728\u53eb\u7740"])
    assert (found.words_per_caption, found.n_words, found.repeated, found.n_unspaced) == (1.5, 4, 0.5, 1)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_common_subsequence_is_that_of_the_usual_recursion(left: list[str], right: list[str]) -> None:
    lengths = np.zeros((len(left) + 1, len(right) + 1), dtype=int)
    for i, one in enumerate(left, 1):
        for j, other in enumerate(right, 1):
            same = lengths[i - 1, j - 1] + 1
            lengths[i, j] = same if one == other else max(lengths[i - 1, j], lengths[i, j - 1])
    (found,) = rouge_l([[" ".join(left)]], [[" ".join(right)]])
    length = int(lengths[-1, -1])
    if not length:
        assert found[0] == 0
    else:
        precision, recall = length / len(left), length / len(right)
        assert found[0] == pytest.approx((1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision))
