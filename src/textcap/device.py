"""Choose a device and make random generators.

Knows nothing of models. A device that was asked for by name is proved by allocating on it, so that
`--device cuda` never runs on the CPU in silence.
"""

import torch

from textcap.errors import DeviceError


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device to compute on.

    Args:
        name: "auto" takes CUDA, then Apple's MPS, then the CPU; anything else is a torch device name.

    Raises:
        DeviceError: The name is no device, or the device does not work on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no device is called {name!r}", hint="use auto, cpu, cuda, cuda:1 or mps") from error
    try:
        torch.zeros(1, device=device) + 1
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "use --device auto or --device cpu"
        raise DeviceError(f"device {name} cannot be used here: {reason}", hint=hint) from error
    return device


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
