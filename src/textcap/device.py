"""Choose a device and make random generators.

Knows nothing of models. A device that was asked for by name is proved by allocating on it, so that
`--device cuda` never runs on the CPU in silence.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from textcap.errors import DeviceError

_NAMES = re.compile(r"cpu|mps|cuda(:[0-9]{1,2})?")

_logger = logging.getLogger("textcap")


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device to compute on, after computing on it.

    Args:
        name: "auto" takes CUDA, then Apple's MPS, then the CPU, and says in the log why it passed one over that
            is there; or "cpu", "mps", "cuda", or "cuda:1" and the like.

    Raises:
        DeviceError: The name is no device, or the device does not work on this machine.
    """
    if name == "auto":
        return _first_that_works()
    if not _NAMES.fullmatch(name):
        raise DeviceError(f"no device is called {name!r}", hint="use auto, cpu, cuda, cuda:1 or mps")
    device = torch.device(name)
    try:
        torch.zeros(1, device=device) + 1
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        hint = "use --device auto or --device cpu"
        raise DeviceError(f"device {name} cannot be used here: {_first_sentence(error)}", hint=hint) from error
    return device


def _first_that_works() -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for name in (name for name, is_there in there.items() if is_there):
        try:
            return resolve_device(name)
        except DeviceError as error:
            _logger.warning("%s; going on without it", error.message)
    return torch.device("cpu")


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__


@contextmanager
def memory_errors(message: str, *, hint: str) -> Iterator[None]:
    """Turn what torch raises for want of memory within the block into a DeviceError.

    Args:
        message: What could not be done, to follow "out of memory".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # torch has a class for devices; the CPU's allocator raises a RuntimeError like any other.
        no_room = "can't allocate memory" in str(error) or "not enough memory" in str(error)
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or no_room:
            raise DeviceError(f"out of memory {message}", hint=hint) from error
        raise


def seeded_generator(seed: int, *stream: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for one stream of random numbers.

    Args:
        stream: Numbers that name the stream (say epoch and batch), so that each draw can be repeated alone.
    """
    mixed = seed % 2**63
    for part in stream:
        # SplitMix64's odd constant keeps neighbouring streams apart; manual_seed wants 64 bits.
        mixed = (mixed * 0x9E3779B97F4A7C15 + part + 1) % 2**63
    return torch.Generator(device=device).manual_seed(mixed)
