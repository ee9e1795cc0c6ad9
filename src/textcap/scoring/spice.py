"""Run SPICE on Java 8 or later: one process for all captions of all systems.

The process first parses each distinct caption, chunk by chunk, into a database that `spice_cache` keeps for later runs.
Then it scores the clips, for which it finds all captions in the database.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textcap.data.text import counted
from textcap.scoring.cleaning import clean
from textcap.scoring.jars import Program
from textcap.scoring.java import Java, JavaError, spice_flags, unexpected_output
from textcap.scoring.processes import HEAP_MB, Runs, run_java, scratch_folder
from textcap.scoring.spice_cache import SpiceCache

# The time of SPICE's parser grows with the cube of a sentence's length, its memory with the square: a sentence of 240
# words took over a minute, then used up a heap of 2 GB, and the run failed.
MAX_WORDS = 100
CHUNK_CAPTIONS = 2000  # parsed between two times at which the database is kept
# The default time limit, far above what SPICE needs.
PATIENCE_S, PATIENCE_PER_CAPTION_S = 600.0, 1.0

_Request = list[dict[str, Any]]


@dataclass
class SpiceScores:
    """SPICE's result for each clip.

    Attributes:
        per_clip: Scores `[N]`, 0 to 1; NaN if SPICE gave none or the prediction was too long to be parsed.
        n_too_long: Number of captions of the clip that were skipped for having more than `MAX_WORDS` words `[N]`.
        note: What the user should know about the run; None if there is nothing.
    """

    per_clip: npt.NDArray[np.float64]
    n_too_long: npt.NDArray[np.int64]
    note: str | None = None


def spice(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    java: Java,
    program: Program,
    *,
    cache_folder: Path | None = None,
    heap_mb: int = HEAP_MB,
    timeout_s: float | None = None,
    runs: Runs | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> SpiceScores:
    """Score predictions by the objects, attributes and relations that they share with references (Anderson 2016).

    If SPICE fails with its database, whose native libraries do not load everywhere, it is run once more without.

    Args:
        predictions: Tokenised captions `[N]`.
        references: Tokenised references of each clip.
        java: The runtime.
        program: SPICE's jars.
        cache_folder: Folder that keeps parsed captions between runs; None keeps nothing.
        heap_mb: Heap of the process in MB.
        timeout_s: Seconds after which the process is stopped; by default far more than it needs.
        runs: Processes that are stopped together with this one.
        progress: Called on this thread with how many captions are parsed, at the start and after each chunk.

    Raises:
        JavaError: The process failed, or its result is not one score for each clip.
    """
    items: _Request = []
    n_too_long = np.zeros(len(predictions), dtype=np.int64)
    for i, (prediction, several) in enumerate(zip(predictions, references, strict=True)):
        short = [reference for reference in several if _is_short(reference)]
        n_too_long[i] = len(several) - len(short) + (not _is_short(prediction))
        if _is_short(prediction):
            items.append({"image_id": i, "test": clean(prediction), "refs": [clean(one) for one in short] or [""]})
    found = SpiceScores(np.full(len(predictions), math.nan), n_too_long)
    if not items:
        return found
    captions = list(dict.fromkeys(caption for item in items for caption in (item["test"], *item["refs"])))
    chunks = [captions[i : i + CHUNK_CAPTIONS] for i in range(0, len(captions), CHUNK_CAPTIONS)]
    # These parse each caption once, as SPICE finds the prediction in the database; their scores are of no use.
    requests: list[_Request] = [[{"image_id": -1, "test": one, "refs": [one]} for one in chunk] for chunk in chunks]
    timeout_s = timeout_s or PATIENCE_S + PATIENCE_PER_CAPTION_S * len(captions)
    with scratch_folder() as database:
        key = [str(java.major), *sorted(map(str, program.hashes.items()))]
        cache = SpiceCache(cache_folder or database, key)
        cache.copy_to(database)

        def before_next(n_done: int) -> None:
            cache.keep(database)
            n_parsed = sum(map(len, chunks[:n_done]))
            progress(f"SPICE: {n_parsed:,} of {counted(len(captions), 'caption')}")

        run = partial(_run, java, program.class_path, heap_mb, timeout_s, runs)
        try:
            scores = run([*requests, items], ["-cache", str(database)], before_next)
        except JavaError as error:
            if error.problem != "died":
                raise
            scores = run([items])
            found.note = f"SPICE ran without its database of parsed captions, which takes longer, as {error.message}"
    found.per_clip[list(scores)] = list(scores.values())
    return found


def _run(
    java: Java,
    class_path: Sequence[Path],
    heap_mb: int,
    timeout_s: float,
    runs: Runs | None,
    requests: list[_Request],
    options: Sequence[str] = (),
    before_next: Callable[[int], None] = lambda n_done: None,
) -> dict[int, float]:
    """Run SPICE on several requests in one process, and return the scores of the last one by number of the clip."""
    with scratch_folder() as folder:
        request, result = folder / "in.json", folder / "out.json"

        def ask_next(n_done: int) -> None:
            before_next(n_done)
            request.write_text(json.dumps(requests[n_done]), encoding="ascii")

        ask_next(0)
        run_java(
            java,
            class_path,
            ["edu.anu.spice.SpiceScorer", str(request), *options, "-out", str(result), "-subset", "-silent"],
            options=[*spice_flags(java), f"-Xmx{heap_mb}M"],
            timeout_s=timeout_s,
            timeout_hint="raise --spice-timeout, and check that SPICE is using the CPU",
            runs=runs,
            n_times=len(requests),
            between=ask_next,
        )
        try:
            results = json.loads(result.read_text(encoding="utf-8"))
            scores = {item["image_id"]: _number(item["scores"]["All"]["f"]) for item in results}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise unexpected_output(f"SPICE's result cannot be read: {error!r}") from error
    items = requests[-1]
    if len(results) != len(items) or set(scores) != {item["image_id"] for item in items}:
        n_results, n_clips = counted(len(results), "result"), counted(len(items), "clip")
        raise unexpected_output(f"SPICE returned {n_results} for {n_clips}, or results for other clips")
    return scores


def _number(value: object) -> float:
    # If SPICE cannot score a clip, it writes null or a word.
    return float(value) if isinstance(value, int | float) else math.nan


def _is_short(caption: str) -> bool:
    return len(caption.split()) <= MAX_WORDS
