"""The machine that a benchmark ran on: what it is, how fast it can be, and how to count the arithmetic of some work."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

PACKAGES = ("textcap", "torch", "transformers", "tokenizers", "numpy", "soundfile", "soxr", "av", "msclap", "librosa")
_GEMM_SIZE = 2048
_BANDWIDTH_BYTES = 2**28


@dataclass(frozen=True)
class Machine:
    """What a benchmark ran on, and the speed that it could reach at most.

    Attributes:
        load: Mean number of waiting processes in the minute before, which says how far to trust the times.
        gemm_gflops: Speed of a large float32 matrix product.
        memory_gb_per_s: Speed at which a large array is read.
    """

    system: str
    cpu: str
    gpu: str
    n_cores: int
    n_threads: int
    memory_gb: float
    load: float
    gemm_gflops: float
    memory_gb_per_s: float
    versions: dict[str, str]


def inspect_machine() -> Machine:
    """Return this machine, and measure its speed."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        n_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        n_threads=torch.get_num_threads(),
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        load=os.getloadavg()[0],
        gemm_gflops=gemm_gflops(),
        memory_gb_per_s=_memory_gb_per_s(),
        versions={"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    )


def gemm_gflops(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Return the speed of a large matrix product, the best of several."""
    a, b = (torch.randn(_GEMM_SIZE, _GEMM_SIZE, device=device, dtype=dtype) for _ in range(2))
    return 2 * _GEMM_SIZE**3 / best_s(lambda: a @ b, device) / 1e9


def best_s(work: Callable[[], object], device: str = "cpu", n: int = 5) -> float:
    """Return the shortest time of several calls, after one to warm up."""
    times = []
    for _ in range(n + 1):
        started = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def count_gflop(work: Callable[[], object]) -> float:
    """Return the operations of the matrix products in a call, in units of 10^9."""
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        work()
    return float(counter.get_total_flops()) / 1e9


def _memory_gb_per_s() -> float:
    numbers = torch.ones(_BANDWIDTH_BYTES // 4)
    return _BANDWIDTH_BYTES / best_s(numbers.sum) / 1e9


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    *batch, n_queries, width = query
    return 2 * prod(batch) * n_queries * key[-2] * (width + value[-1])


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    # The product with the keys again, and two products for each of the two that it differentiates.
    return _attention(query, key, value) * 5 // 2


def _packed_linear(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return 2 * prod(x) * out_shape[-1]


# What torch's counter does not know: attention on the CPU, and products with weights packed for oneDNN.
_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten.mkldnn_linear: _packed_linear,
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _FORMULAS[torch.ops.mkldnn._linear_pointwise] = _packed_linear
