"""Measure the store of embeddings: how long it takes to fill, and to open when everything is there.

    python benchmarks/store.py [--keys 1000000] [--width 256] [--folder FOLDER]

Fills a store with random vectors, then opens it as `[N, E]` in new processes, with the keys in the order in which they
were written and in a random order, and prints the time and the growth of the peak memory. The folder needs about three
times the space of the vectors, and nothing stays in it.
"""

import argparse
import hashlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from textcap.store import BATCH_ROWS, Store

ORDERS = ("as written", "random")


def main() -> None:
    """Fill a store and open it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000, help="number of vectors")
    parser.add_argument("--width", type=int, default=256, help="length of a vector")
    parser.add_argument("--folder", help="folder of the temporary store (default: that of temporary files)")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--order", choices=ORDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        open_store(options.open, options.keys, options.width, options.order)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "store.sqlite"
        fill(path, options.keys, options.width)
        sizes = ["--keys", str(options.keys), "--width", str(options.width)]
        for order in ORDERS:
            subprocess.run([sys.executable, __file__, *sizes, "--open", str(path), "--order", order], check=True)


def fill(path: Path, n_keys: int, width: int) -> None:
    """Fill a store with random vectors and print how long it takes."""
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    Store(path, width).vectors(make_keys(n_keys), lambda indices: rng.normal(size=(len(indices), width)))
    seconds = time.perf_counter() - started
    size_mb = os.path.getsize(path) / 1e6
    print(f"filled with {n_keys:,} vectors of {width} in batches of {BATCH_ROWS:,}: {seconds:.1f} s, {size_mb:,.0f} MB")


def open_store(path: Path, n_keys: int, width: int, order: str) -> None:
    """Open a full store and print how long it takes and how much more memory."""
    keys = make_keys(n_keys)
    if order == "random":
        random.Random(0).shuffle(keys)
    before_mb, started = peak_mb(), time.perf_counter()
    vectors = Store(path, width).vectors(keys, refuse)
    seconds, more_mb = time.perf_counter() - started, peak_mb() - before_mb
    assert vectors.shape == (n_keys, width) and isinstance(vectors, np.memmap)
    print(f"opened with the keys in the order {order}: {seconds:.1f} s, {more_mb:.0f} MB more than {before_mb:.0f} MB")


def make_keys(n_keys: int) -> list[bytes]:
    """Return distinct keys."""
    return [hashlib.sha256(str(i).encode()).digest() for i in range(n_keys)]


def refuse(indices: list[int]) -> np.ndarray:
    """Fail, because nothing should be missing."""
    raise AssertionError(f"{len(indices)} vectors are missing")


def peak_mb() -> float:
    """Return the highest memory use of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
