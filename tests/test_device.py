"""Choosing a device, out-of-memory errors and seeded generators."""

import pytest
import torch

from textcap.device import memory_errors, resolve_device, seeded_generator
from textcap.errors import DeviceError


def test_auto_returns_a_device_that_works() -> None:
    assert torch.ones(1, device=resolve_device("auto")).item() == 1
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_device_that_does_not_work_is_an_error(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device {name} cannot be used here"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:999", "cuda:-1", "meta", "cpu:1", "xpu", "CPU"])
def test_unknown_device_name_is_an_error(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{name}' does not exist"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_auto_skips_cuda_with_a_warning_if_it_does_not_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    (record,) = caplog.records
    assert record.name == "textcap" and record.message.startswith("device cuda cannot be used here: ")
    assert record.message.endswith("; continuing without it")


def test_reason_is_the_first_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Found no driver 1.5 here. Please visit a page.\nAnd more.")

    monkeypatch.setattr(torch, "zeros", fail)
    with pytest.raises(DeviceError) as caught:
        resolve_device("cuda:1")
    assert caught.value.message == "device cuda:1 cannot be used here: Found no driver 1.5 here"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("tried to allocate"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_is_a_device_error(error: Exception) -> None:
    with pytest.raises(DeviceError, match=r"out of memory while testing \(less\)"):
        with memory_errors("while testing", hint="less"):
            raise error


def test_out_of_memory_on_the_cpu_is_recognised() -> None:
    with pytest.raises(DeviceError), memory_errors("here", hint="less"):
        torch.empty(2**55)


def test_other_errors_are_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("here", hint="less"):
        raise RuntimeError("shapes do not match")


def test_streams_of_a_seed_differ_and_are_repeatable() -> None:
    def draw(*stream: int) -> list[float]:
        return torch.rand(3, generator=seeded_generator(5, *stream)).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(a, b)) for a in range(20) for b in range(20)}) == 400
