import pytest
import torch

from textcap.device import resolve_device, seeded_generator
from textcap.errors import DeviceError


def test_auto_takes_a_device_that_works() -> None:
    assert torch.ones(1, device=resolve_device("auto")).item() == 1
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_device_that_is_absent_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device {name} cannot be used here"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x"])
def test_name_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="no device is called"):
        resolve_device(name)


def test_streams_of_a_seed_differ_and_repeat() -> None:
    def draw(*stream: int) -> list[float]:
        return torch.rand(3, generator=seeded_generator(5, *stream)).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(a, b)) for a in range(20) for b in range(20)}) == 400
