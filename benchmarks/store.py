"""The store of embeddings: how long it takes to fill, and to open when everything is there.

Fills a store with random vectors, then opens it as `[N, E]` in new processes, with the keys in the order in which they
were written and in a random order. The work folder needs about three times the space of the vectors, and nothing stays
in it.
"""

import hashlib
import random
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Bench, Timing
from benchmarks.options import option
from benchmarks.processes import run_function
from textcap.store import BATCH_ROWS, Store

ORDERS = ("as written", "random")


@dataclass(frozen=True)
class Sizes:
    """How much to store."""

    keys: int = option(1_000_000, "vectors")
    width: int = option(256, "length of a vector")


def run(bench: Bench, sizes: Sizes) -> None:
    """Fill a store and open it."""
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        path, rng = Path(folder) / "store.sqlite", np.random.default_rng(0)
        keys, started = make_keys(sizes.keys), (time.perf_counter(), time.process_time())
        Store(path, sizes.width).vectors(keys, lambda indices: rng.normal(size=(len(indices), sizes.width)))
        wall_s, cpu_s = time.perf_counter() - started[0], time.process_time() - started[1]
        bench.record(Timing(f"fill in batches of {BATCH_ROWS:,}", "textcap", [wall_s], [cpu_s]))
        bench.note(f"{sizes.keys:,} vectors of {sizes.width}, {path.stat().st_size / 1e6:,.0f} MB on disk")
        for order in ORDERS:
            arguments = (str(path), str(sizes.keys), str(sizes.width), order)
            wall_s, cpu_s, more_mb = map(float, run_function("store.open_store", bench.work, *arguments).output.split())
            bench.record(Timing(f"open, keys {order}", "textcap", [wall_s], [cpu_s], peak_mb=more_mb))
        bench.note("peak memory: what opening adds to that of the process before")


def open_store(path: str, n_keys: str, width: str, order: str) -> None:
    """Open a full store, and print the seconds of wall and CPU time and the growth of the peak memory in MB."""
    keys = make_keys(int(n_keys))
    if order == "random":
        random.Random(0).shuffle(keys)
    before_mb, wall, cpu = peak_mb(), time.perf_counter(), time.process_time()
    vectors = Store(Path(path), int(width)).vectors(keys, refuse)
    print(time.perf_counter() - wall, time.process_time() - cpu, peak_mb() - before_mb)
    assert vectors.shape == (int(n_keys), int(width)) and isinstance(vectors, np.memmap)


def make_keys(n_keys: int) -> list[bytes]:
    """Return distinct keys."""
    return [hashlib.sha256(str(i).encode()).digest() for i in range(n_keys)]


def refuse(indices: list[int]) -> np.ndarray:
    """Fail, because nothing should be missing."""
    raise AssertionError(f"{len(indices)} vectors are missing")


def peak_mb() -> float:
    """Return the highest memory use of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
