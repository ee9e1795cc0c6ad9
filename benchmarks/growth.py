"""How cost grows: training up to its first step by the number of captions, and captioning by the number of files.

Both with the tiny backbone. The store holds random vectors in place of the embeddings of the captions, because a
million would take hours to compute; reading them costs the same. Each training run is killed after its second step and
continued, and its memory is what belongs to the process alone, without what it maps. Writes two plots beside the
results.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from benchmarks.harness import Bench, Timing
from benchmarks.options import option
from benchmarks.processes import DEFAULTS, Measured, made, run_function, run_process, textcap
from benchmarks.sounds import tiny_model, world_sounds
from textcap.models.backbone import EMBEDDED, Backbone
from textcap.store import Store
from textcap.training import loop, train
from textcap.training.events import Stepped

# Seconds to start and to continue, and private memory in MB above that of 10,000 captions.
_LIMITS = {1_000_000: (45.0, 30.0, 300.0), 10_000_000: (180.0, 60.0, 1000.0)}


@dataclass(frozen=True)
class Sizes:
    """How far to go."""

    captions: tuple[int, ...] = option((1_000, 10_000, 100_000, 1_000_000), "numbers of captions to train on")
    repeats: tuple[int, ...] = option(
        (10,), "how often the last number of captions stands in the file, for further runs"
    )
    files: tuple[int, ...] = option((100, 1_000, 10_000), "numbers of files of 1 s to caption")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure each size once, and draw the plots."""
    bench.note("the embeddings of the captions are random vectors, put into the store before")
    starts, resumed, private_mb = {}, {}, {}
    for n, repeats in [*((n, 1) for n in sizes.captions), *((sizes.captions[-1], more) for more in sizes.repeats)]:
        starts[n * repeats], resumed[n * repeats], private_mb[n * repeats] = start_up(bench, n, repeats)
    runs = {n: caption_files(bench, n) for n in sizes.files}
    for n, least in _LIMITS.items():
        if n in starts and 10_000 in starts:
            grown_mb = private_mb[n] - private_mb[10_000]
            measured = {"start": starts[n].wall_s, "resume": resumed[n].wall_s, "memory above 10,000": grown_mb}
            for (what, value), limit, unit in zip(measured.items(), least, ("s", "s", "MB"), strict=True):
                bench.bar(f"{what}, {n:,} captions", "the bar", value, limit, unit=unit, is_most=True)
    found_by_name = {"train, up to the first step": starts, "continue, up to the next step": resumed, "caption": runs}
    for what, found in found_by_name.items():
        for n, used in found.items():
            bench.record(Timing(f"{what}, {n:,}", "textcap", [used.wall_s], [used.cpu_s], peak_mb=used.peak_mb))
    bench.results.mkdir(parents=True, exist_ok=True)
    memory = ("resident set at its peak, MB", lambda n, used: used.peak_mb)
    time_s = ("seconds to the first step", lambda n, used: used.wall_s)
    files_per_s = ("files a second, with loading", lambda n, used: n / used.wall_s)
    bench.note(draw(bench.results / "growth-captions.png", "captions", starts, (time_s, memory)))
    bench.note(draw(bench.results / "growth-files.png", "files of 1 s", runs, (files_per_s, memory)))


def start_up(bench: Bench, n: int, repeats: int) -> tuple[Measured, Measured, float]:
    """Return what it takes to start training and to continue, up to a step, and the private memory in MB.

    The embeddings of the captions are in the store.
    """
    captions = made(bench.work / f"distinct-{n}.txt", lambda path: write_distinct(path, n))
    fill_store(captions.read_text(encoding="utf-8").splitlines())
    if repeats > 1:
        text = captions.read_text(encoding="utf-8")
        captions = made(bench.work / f"distinct-{n}-{repeats}.txt", lambda path: path.write_text(text * repeats))
    output = bench.work / f"growth-{os.getpid()}"
    found = []
    for _ in ("start", "continue"):
        used = run_function("growth.train_two_steps", bench.work, str(captions), str(output), env=DEFAULTS)
        seconds, private_mb = used.output.split()
        # Without what follows the first step: leaving the process frees its memory, which is not part of starting.
        found.append((Measured("", float(seconds), used.cpu_s, used.peak_mb), float(private_mb)))
    for left in bench.work.glob(f"{output.name}*"):
        shutil.rmtree(left)
    bench.empty_stores()
    return found[0][0], found[1][0], found[0][1]


def train_two_steps(captions: str, output: str) -> None:
    """Train until the state after a step is saved; print the seconds up to that step, and the private memory in MB."""
    loop.SAVE_EVERY_S = 0.0
    n_steps = 0

    def report(event: object) -> None:
        nonlocal n_steps
        if isinstance(event, Stepped):
            n_steps += 1
            if n_steps == 2:
                os._exit(0)
            print(time.time() - started_at(), private_memory_mb(), flush=True)

    train(Path(captions), output, backbone=EMBEDDED, device="cpu", report=report)


def private_memory_mb() -> float:
    """Return the memory of this process that is not mapped from files; NaN where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon"))


def started_at() -> float:
    """Return the time at which this process started, in seconds since 1970; now, where the system does not tell."""
    try:
        ticks = float(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        up_s = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except OSError:
        return time.time() - time.process_time()
    return time.time() - (up_s - ticks / os.sysconf("SC_CLK_TCK"))


def caption_files(bench: Bench, n: int) -> Measured:
    """Return what it takes to caption a folder of short files."""
    sounds, model = world_sounds(bench.work, n, 1.0), tiny_model(bench.work)
    bench.empty_stores()
    return run_process(textcap("caption", "-m", model, "--quiet", sounds), bench.work, DEFAULTS)


def write_distinct(path: Path, n: int) -> None:
    """Write captions of the sound world's length, all of them different."""
    words = ("dog", "rain", "bell", "engine", "crowd", "wind", "siren", "piano", "door", "water")
    with path.open("w", encoding="utf-8") as file:
        for index in range(n):
            first, second, third = (words[index // 10**place % 10] for place in range(3))
            file.write(f"a {first} is heard while a {second} and a {third} sound {index // 1000} times\n")


def fill_store(captions: Sequence[str]) -> None:
    """Put random unit vectors into the store of the tiny backbone, in place of the captions' embeddings."""
    backbone, rng = Backbone.load(EMBEDDED), np.random.default_rng(0)
    width = backbone.config.clap.embedding_width

    def draw_vectors(indices: list[int]) -> np.ndarray:
        vectors = rng.standard_normal((len(indices), width), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    store = Store.of("text", backbone.clap.name, backbone.clap.content_hash, width)
    store.vectors([sha256(caption.encode()).digest() for caption in captions], draw_vectors)


def draw(
    path: Path,
    label: str,
    found: dict[int, Measured],
    panels: Sequence[tuple[str, Callable[[int, Measured], float | None]]],
) -> str:
    """Draw figures against sizes; return a line that names the file, or says why there is none."""
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is not installed (run pip install 'textcap[plot]')"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(8.0, 3.2), layout="constrained")
    for axis, (title, value) in zip(axes, panels, strict=True):
        axis.plot(list(found), [value(n, used) for n, used in found.items()], "o-", color="#0072B2", markersize=4)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_xlabel(label)
        axis.set_ylabel(title)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return f"drew {path.name}"
