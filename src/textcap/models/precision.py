"""Prepare frozen modules for inference: weights packed for oneDNN, or in a precision below float32.

Nothing here is saved, and no gradient passes through what it prepares.
"""

import platform
import warnings
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from textcap.config import require
from textcap.device import computes_bfloat16
from textcap.errors import DeviceError
from textcap.models.gpt2_transformer import Conv1D

PRECISIONS = ("float32", "int8", "bf16", "float16")

_HALF = {"bf16": torch.bfloat16, "float16": torch.float16}
_LARGEST_INT8 = 127

# Takes a weight [out, in] and a bias [out] or None; returns the product with [..., in].
_Pack = Callable[[Tensor, Tensor | None], Callable[[Tensor], Tensor]]
_Module = TypeVar("_Module", bound=nn.Module)


def check_precision(precision: str, device: torch.device) -> None:
    """Check that a device can compute in a precision.

    Raises:
        SettingError: No such precision exists.
        DeviceError: The device cannot, with the reason.
    """
    require(precision in PRECISIONS, "precision", precision, f"one of {', '.join(PRECISIONS)}")
    if problem := _problem(precision, device):
        raise DeviceError(f"precision {precision} cannot be used on {device}: {problem}", hint="leave out --precision")


def half_precision(precision: str) -> torch.dtype:
    """Return the type in which the audio tower computes: 8-bit products are for the decoder only."""
    return _HALF.get(precision, torch.float32)


def prepare(module: _Module, precision: str = "float32") -> _Module:
    """Prepare the linear layers of a frozen module in place, for inference in a precision; return the module.

    Args:
        precision: One that `check_precision` accepts for the module's device.
    """
    if precision in _HALF:
        for parameter in module.parameters():  # not buffers: the frequencies of positions would lose theirs
            parameter.data = parameter.to(_HALF[precision])
        return module
    pack = _pack_int8 if precision == "int8" else _pack_float32
    on_cpu = next(module.parameters()).device.type == "cpu"
    if on_cpu and (precision == "int8" or _works(_pack_float32)):
        _replace_layers(module, pack)
    return module


class _Packed(nn.Module):
    """A linear layer without parameters: only the packed weight is kept."""

    def __init__(self, product: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._product = product

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


def _replace_layers(module: nn.Module, pack: _Pack) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear | Conv1D):
            weight = child.weight.detach()
            bias = None if child.bias is None else child.bias.detach()
            product = pack(weight.T.contiguous() if isinstance(child, Conv1D) else weight, bias)
            module.add_module(name, _Packed(product))
        else:
            _replace_layers(child, pack)


def _pack_float32(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)

    def product(x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        return result

    return product


def _pack_int8(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Quantise each output of a layer by its largest weight, and each row of the input by its largest value.

    So a row's result depends on nothing else in the batch.
    """
    scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / _LARGEST_INT8
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        # torch will remove it one day, which `check_precision` will notice.
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor, torch.quantize_per_channel", UserWarning)
        quantised = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantised, None)
    # To 7 bits: sums of two products would overflow on processors without VNNI. The engine for ARM needs no such thing.
    reduces_range = torch.backends.quantized.engine != "qnnpack"

    def product(x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        largest = rows.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        # torch quantises by the range of the whole input; two more rows fix it.
        limits = torch.tensor([[1.0], [-1.0]]).expand(-1, rows.shape[1])
        scaled = torch.cat((rows / largest, limits))
        result: Tensor = torch.ops.quantized.linear_dynamic(scaled, packed, reduces_range)[:-2] * largest
        return (result if bias is None else result + bias).view(*x.shape[:-1], -1)

    return product


@cache
def _works(pack: _Pack) -> bool:
    try:
        weight = torch.eye(2)
        return torch.equal(pack(weight, None)(weight).round(), weight)
    except (AttributeError, RuntimeError, NotImplementedError):  # another version of torch, or another processor
        return False


def _problem(precision: str, device: torch.device) -> str | None:
    """Return why a device cannot compute in a precision, or would be slower; None if it can."""
    if precision == "int8":
        if device.type != "cpu":
            return "torch has 8-bit products for the CPU only"
        return None if _works(_pack_int8) else "this build of torch has no 8-bit products"
    if device.type == "cuda" and precision == "bf16" and not computes_bfloat16(device):
        return "the GPU computes bfloat16 only by emulation"
    if precision == "float32" or device.type != "cpu":
        return None
    can = _cpu_has("_is_mkldnn_fp16_supported" if precision == "float16" else "_is_mkldnn_bf16_supported")
    if precision == "bf16" and platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN also says so of processors on which it emulates them.
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        can = can and any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return None if can else f"the processor has no instructions for {precision}, so it would be slower"


def _cpu_has(operator: str) -> bool:
    try:
        return bool(getattr(torch.ops.mkldnn, operator)())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False
