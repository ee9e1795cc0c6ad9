"""Choose the device to compute on, and create seeded random generators.

Every device is tested by computing on it, so that `--device cuda` never silently runs on the CPU.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from textcap.errors import DeviceError, first_line

_NAMES = re.compile(r"(cpu|mps)(:0)?|cuda(:[0-9]{1,2})?")

_logger = logging.getLogger("textcap")


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device to compute on, after testing that it works.

    Args:
        name: "cpu", "mps", "cuda", or "cuda:1" and so on; or "auto" for the first that works of CUDA, Apple's MPS and
            the CPU, with a warning in the log for each that is available but does not work. A torch device works, too.

    Raises:
        DeviceError: The name is not that of a device, or the device does not work on this machine.
    """
    name = str(name)
    if name == "auto":
        return _first_that_works()
    if not _NAMES.fullmatch(name):
        raise DeviceError(f"device {name!r} does not exist", hint="use auto, cpu, cuda, cuda:1 or mps")
    device = torch.device(name)
    try:
        torch.zeros(1, device=device) + 1
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        sentence = first_line(error).split(". ")[0].rstrip(".")
        hint = "use --device auto or --device cpu"
        raise DeviceError(f"device {name} cannot be used here: {sentence}", hint=hint) from error
    return device


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a CUDA device computes in bfloat16 itself, without emulating it; False for other devices."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _first_that_works() -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for name in (name for name, is_available in available.items() if is_available):
        try:
            return resolve_device(name)
        except DeviceError as error:
            _logger.warning("%s; continuing without it", error.message)
    return torch.device("cpu")


@contextmanager
def memory_errors(message: str, *, hint: str) -> Iterator[None]:
    """Turn an out-of-memory error within the block into a DeviceError.

    Args:
        message: Where or when it happened, worded to follow "out of memory", such as "on cuda while embedding".
        hint: What to do next.

    Raises:
        DeviceError: Memory ran out within the block; all other errors pass unchanged.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise DeviceError(f"out of memory {message}", hint=hint) from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    # torch has an exception class for CUDA only; other allocators raise a plain RuntimeError.
    said = ("can't allocate memory", "not enough memory", "MPS backend out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in said)


def seeded_generator(seed: int, *stream: int) -> torch.Generator:
    """Return a random generator for one stream of random numbers, on the CPU.

    Args:
        seed: The seed of the whole run.
        stream: Numbers that identify the stream, such as epoch and batch, so that each draw can be repeated alone.
    """
    mixed = seed % 2**63
    for part in stream:
        # SplitMix64's odd constant separates neighbouring streams; manual_seed takes 64 bits.
        mixed = (mixed * 0x9E3779B97F4A7C15 + part + 1) % 2**63
    return torch.Generator(device="cpu").manual_seed(mixed)
