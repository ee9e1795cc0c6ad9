"""The order of candidates, and where a text encoder for it comes from."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textcap.errors import CheckpointError, DownloadError
from textcap.models import similarity
from textcap.models.backbone import Backbone
from textcap.models.similarity import rank, with_text_encoder

SCORES = st.floats(-20, 0, allow_subnormal=False)
SIMILARITIES = st.floats(-1, 1, allow_subnormal=False)


def standardised(values: list[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / spread if spread else 0.0 for value in values]


@given(st.lists(st.tuples(SCORES, SIMILARITIES), min_size=1, max_size=8), st.floats(0, 1))
def test_order_follows_the_weighted_sum_of_standardised_values(pairs: list[tuple[float, float]], weight: float) -> None:
    scores, similarities = [list(values) for values in zip(*pairs, strict=True)]
    order = rank(scores, similarities, weight)
    assert sorted(order) == list(range(len(pairs)))
    spreads = [max(values) - min(values) for values in (scores, similarities)]
    if all(spread == 0 or spread > 1e-6 for spread in spreads):
        parts = zip(standardised(similarities), standardised(scores), strict=True)
        expected = [weight * first + (1 - weight) * second for first, second in parts]
        found = [expected[index] for index in order]
        assert all(earlier >= later - 1e-6 for earlier, later in zip(found, found[1:], strict=False))


def test_weights_of_0_and_1_use_one_value_only() -> None:
    scores, similarities = [-1.0, -3.0, -2.0], [0.1, 0.2, 0.9]
    assert rank(scores, similarities, 0.0) == [0, 2, 1]
    assert rank(scores, similarities, 1.0) == [2, 1, 0]


def test_equal_values_count_as_nothing_and_keep_the_order() -> None:
    assert rank([-1.1] * 3, [0.3, 0.3, 0.4], 0.5) == [2, 0, 1]
    assert rank([-0.1] * 7, [0.7] * 7, 0.5) == list(range(7))


def test_backbone_with_a_text_encoder_is_its_own() -> None:
    tiny = Backbone.load("tiny")
    assert with_text_encoder(tiny) is tiny


def as_clapcap() -> Backbone:
    """Return the tiny backbone as one without a text encoder."""
    backbone = Backbone.load("tiny")
    backbone.clap.has_text = False
    return backbone


def test_text_encoder_of_the_same_audio_encoder_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, other = as_clapcap(), Backbone.load("tiny")
    monkeypatch.setattr(similarity.Backbone, "load", lambda name, offline: other)
    assert with_text_encoder(backbone) is other


def test_other_audio_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, other = as_clapcap(), Backbone.load("tiny")
    encoder = other.audio_encoder()
    with torch.no_grad():
        next(encoder.parameters()).flatten()[0] += 1e-6
    monkeypatch.setattr(other, "audio_encoder", lambda: encoder)
    monkeypatch.setattr(similarity.Backbone, "load", lambda name, offline: other)
    with pytest.raises(CheckpointError, match="audio encoder of tiny is not that of msclap-2023"):
        with_text_encoder(backbone)


def test_missing_text_encoder_says_what_to_fetch() -> None:
    with pytest.raises(DownloadError, match="tiny has no text encoder .*textcap fetch msclap-2023"):
        with_text_encoder(as_clapcap())
