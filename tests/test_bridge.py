"""The bridge: noise on text embeddings, and unit length on both sides."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textcap.config import BridgeConfig
from textcap.device import seeded_generator
from textcap.errors import InputError
from textcap.gap.bridge import Bridge


def _units(n: int, width: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, width, generator=seeded_generator(1)), dim=-1)


@given(variance=st.floats(0, 10), scale=st.floats(0.1, 50), seed=st.integers(0, 2**40))
def test_text_side_is_unit_length_for_any_input(variance: float, scale: float, seed: int) -> None:
    noisy = Bridge(BridgeConfig(variance)).text_side(_units(4, 16) * scale, seeded_generator(seed))
    torch.testing.assert_close(noisy.norm(dim=-1), torch.ones(4))


def test_noise_has_the_configured_variance() -> None:
    # In d dimensions, the cosine of a unit vector and itself plus noise is 1 / sqrt(1 + d * variance).
    units, variance = _units(2000, 1024), 0.015
    noisy = Bridge(BridgeConfig(variance)).text_side(units, seeded_generator(0))
    cosine = (units * noisy).sum(-1).mean()
    assert cosine.item() == pytest.approx((1 + 1024 * variance) ** -0.5, rel=0.01)
    assert BridgeConfig(variance).noise_std == pytest.approx(0.12247, abs=1e-5)


def test_zero_noise_only_normalises() -> None:
    units = _units(3, 8)
    torch.testing.assert_close(Bridge(BridgeConfig(0.0)).text_side(units * 5, seeded_generator(0)), units)


def test_noise_depends_only_on_the_generator() -> None:
    bridge, units = Bridge(BridgeConfig(0.1)), _units(3, 8)
    first = bridge.text_side(units, seeded_generator(3, 1))
    torch.manual_seed(99)
    assert torch.equal(first, bridge.text_side(units, seeded_generator(3, 1)))
    assert not torch.equal(first, bridge.text_side(units, seeded_generator(3, 2)))


def test_audio_side_only_normalises() -> None:
    units = _units(3, 8)
    torch.testing.assert_close(Bridge(BridgeConfig(0.5)).audio_side(units * 7), units)


@pytest.mark.parametrize("variance", [-0.1, float("inf"), float("nan")])
def test_invalid_variance_is_named(variance: float) -> None:
    with pytest.raises(InputError, match="noise_variance"):
        BridgeConfig(variance)
