"""A corpus: Ray against the plain loop, the export of many rows, and the search in many vectors.

Ray has two workers of one processor each, and the plain loop two threads; what Ray takes to start is shown apart. The
rows of the export and the vectors of the search are made up. The work folder needs 5 GB.
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import numpy as np

from benchmarks.growth import private_memory_mb
from benchmarks.harness import Bench, Contender, Timing
from benchmarks.options import option
from benchmarks.processes import DEFAULTS, Measured, made, run_function, run_process, textcap
from benchmarks.short_files import differing_lines
from benchmarks.sounds import tiny_model, world_sounds

_SHARD_ROWS = 1000


@dataclass(frozen=True)
class Sizes:
    """How much to caption, to export and to search."""

    files: int = option(3000, "files of 1 s to caption")
    rows: int = option(1_000_000, "rows to export")
    vectors: int = option(1_000_000, "vectors to search")
    width: int = option(1024, "length of a vector")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure each, and what was promised of it."""
    caption(bench, sizes)
    export(bench, sizes)
    search(bench, sizes)


def caption(bench: Bench, sizes: Sizes) -> None:
    """Compare files per second, without what it takes to caption a single shard of one file."""
    sounds, model = world_sounds(bench.work, sizes.files, 1.0), tiny_model(bench.work)
    one = world_sounds(bench.work, 1, 1.0)
    ways = {"plain loop": (), "Ray, two workers": ("--ray", "local", "--workers", "2")}
    starts = {}
    for name, more in ways.items():
        starts[name] = caption_folder(bench, one, model, more).wall_s
        bench.record(Timing("one file", name, [starts[name]], [0.0]))
    what = f"{sizes.files:,} files in shards of 100"
    contenders = [
        Contender(name, lambda more=more: caption_folder(bench, sounds, model, more), warms_up=False)
        for name, more in ways.items()
    ]
    plain, ray = (timing.median_s for timing in bench.compare(what, contenders, differing_lines).values())
    speed = (plain - starts["plain loop"]) / (ray - starts["Ray, two workers"])
    bench.bar(what, "the plain loop", speed, 0.9)


def caption_folder(bench: Bench, sounds: Path, model: Path, more: tuple[str, ...]) -> Measured:
    """Plan and caption a folder; the output is its captions."""
    work, output = bench.work / f"corpus-{os.getpid()}", bench.work / f"corpus-{os.getpid()}.csv"
    run_process(textcap("corpus", "plan", sounds, "-o", work, "--shard-files", "100", "--quiet"), bench.work, DEFAULTS)
    taken = run_process(textcap("corpus", "run", work, "-m", model, "--quiet", *more), bench.work, DEFAULTS)
    run_process(textcap("corpus", "export", work, "-o", output, "--quiet"), bench.work, DEFAULTS)
    captions = output.read_text(encoding="utf-8")
    output.unlink()
    shutil.rmtree(work)
    return Measured(captions, taken.wall_s, taken.cpu_s, taken.peak_mb)


def export(bench: Bench, sizes: Sizes) -> None:
    """Measure time and memory of the export in two forms."""
    name = f"corpus-of-{sizes.rows}-{sizes.width}"
    folder = made(bench.work / name, lambda new: write_corpus(new, sizes.rows, sizes.width))
    for ending in ("csv", "parquet"):
        output = bench.work / f"export.{ending}"
        taken = run_process(textcap("corpus", "export", folder, "-o", output, "--force"), bench.work, DEFAULTS)
        output.unlink()
        what = f"export of {sizes.rows:,} rows, {ending}"
        bench.record(Timing(what, "textcap", [taken.wall_s], [taken.cpu_s], peak_mb=taken.peak_mb))
        bench.bar(what, "the bar", taken.peak_mb or 0.0, 500.0, unit="MB", is_most=True)


def write_corpus(folder: Path, n_rows: int, width: int) -> None:
    """Write a corpus of made-up rows with random embeddings, as if it had been captioned."""
    from textcap.audio.inputs import Input
    from textcap.corpus.plan import Corpus
    from textcap.outputs.parquet import write_rows
    from textcap.outputs.rows import row_of
    from textcap.results import Candidate, CaptionResult

    corpus, rng = Corpus(folder), np.random.default_rng(0)
    addresses = (f"https://archive.invalid/{number:07}.wav" for number in range(n_rows))
    corpus.extend(((address, Input(address, address)) for address in addresses), n_files=_SHARD_ROWS)
    corpus.begin({"n_captions": 1, "is_timeline": False}, {"clap": "tiny", "clap_hash": "none"})
    for shard in range(corpus.n_shards):
        first_id, inputs = corpus.inputs(shard)
        vectors = rng.standard_normal((len(inputs), width), np.float32) / np.float32(width**0.5)
        results = (
            CaptionResult(
                one.name, (Candidate(f"a dog barks {one.name[-9:-4]} times", -0.5),), None, 1.0, embedding=row
            )
            for one, row in zip(inputs, vectors, strict=True)
        )
        rows = (row_of(result, embeddings=True) for result in results)
        write_rows(corpus.result_path(shard), rows, {"clap": "tiny", "clap_hash": "none"}, first_id)


def search(bench: Bench, sizes: Sizes) -> None:
    """Measure the second search, whose pages are in memory, and the memory beside them."""
    path = made(bench.work / f"vectors-{sizes.vectors}-{sizes.width}.f16", lambda new: write_vectors(new, sizes))
    arguments = (str(path), str(sizes.width))
    seconds, more_mb = map(float, run_function("corpus.search_file", bench.work, *arguments).output.split())
    what = f"search in {sizes.vectors:,} vectors of {sizes.width}"
    bench.record(Timing(what, "textcap", [seconds], [0.0]))
    bench.bar(what, "the bar", seconds, 2.0, unit="s", is_most=True)
    bench.bar(f"{what}, memory beside its pages", "the bar", more_mb, 300.0, unit="MB", is_most=True)


def write_vectors(path: Path, sizes: Sizes) -> None:
    """Write random unit vectors in float16."""
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        for start in range(0, sizes.vectors, 1 << 14):
            n = min(1 << 14, sizes.vectors - start)
            vectors = rng.standard_normal((n, sizes.width), np.float32)
            file.write((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f2").tobytes())


def search_file(path: str, width: str) -> None:
    """Search twice; print the seconds of the second time, and by how much the private memory grew at most, in MB."""
    from textcap.embedding.search import Collection

    vectors = np.memmap(path, "<f2", "r").reshape(-1, int(width))
    found = Collection(vectors, lambda number: {}, {})
    query = vectors[len(vectors) // 2 :][:1].astype(np.float32)
    seen, done = [private_memory_mb()], Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(private_memory_mb())

    found.best(query, 20)  # brings the file into memory
    watcher = Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    (nearest,) = found.best(query, 20)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    assert nearest[0][1] == len(vectors) // 2 and len(nearest) == min(20, len(vectors))
    print(seconds, max(seen) - seen[0])
