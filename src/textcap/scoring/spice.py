"""Run SPICE on Java 8 or later: one process for all captions of all systems.

Captions that are too long for SPICE are skipped, and parsed captions are kept for later runs by `spice_cache`.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from textcap.data.text import counted
from textcap.scoring.cleaning import clean
from textcap.scoring.jars import Program
from textcap.scoring.java import Java, run_java, spice_flags
from textcap.scoring.java_errors import UNEXPECTED_HINT, JavaError, no_temporary_files
from textcap.scoring.memory import heap_mb
from textcap.scoring.processes import Runs
from textcap.scoring.spice_cache import SpiceCache

# The time of SPICE's parser grows with the cube of a sentence's length, its memory with the square: a sentence of 240
# words took over a minute, then used up a heap of 2 GB, and the run failed.
MAX_WORDS = 100

SPICE_HEAP_MB = (2048, 1200)  # the largest heap, as more makes it no faster, and the least with which it works
_MAIN = "edu.anu.spice.SpiceScorer"


@dataclass(frozen=True)
class SpiceScores:
    """SPICE's result for each clip.

    Attributes:
        per_clip: Scores `[N]`, 0 to 1; NaN if SPICE gave none or the prediction was too long to be parsed.
        n_too_long: Number of captions of the clip that were skipped for having more than `MAX_WORDS` words `[N]`.
    """

    per_clip: npt.NDArray[np.float64]
    n_too_long: npt.NDArray[np.int64]


def spice(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    java: Java,
    program: Program,
    *,
    cache_folder: Path | None = None,
    memory_mb: int | None = None,
    timeout_s: float | None = None,
    runs: Runs | None = None,
) -> SpiceScores:
    """Score predictions by the objects, attributes and relations that they share with references (Anderson 2016).

    Args:
        predictions: Tokenised captions `[N]`.
        references: Tokenised references of each clip.
        java: The runtime.
        program: SPICE's jars.
        cache_folder: Folder that keeps parsed captions between runs; None keeps nothing.
        memory_mb: Heap of the process in MB; by default what is available, up to the most that SPICE can use.
        timeout_s: Seconds after which the process is stopped; None sets no limit.
        runs: Processes that are stopped together with this one.

    Raises:
        JavaError: The process failed, or its result is not one score for each clip.
    """
    items = []
    n_too_long = np.zeros(len(predictions), dtype=np.int64)
    for i, (prediction, several) in enumerate(zip(predictions, references, strict=True)):
        short = [reference for reference in several if _is_short(reference)]
        n_too_long[i] = len(several) - len(short) + (not _is_short(prediction))
        if _is_short(prediction):
            items.append({"image_id": i, "test": clean(prediction), "refs": [clean(one) for one in short] or [""]})
    per_clip = np.full(len(predictions), math.nan)
    if items:
        cache = None
        if cache_folder is not None:
            cache = SpiceCache(cache_folder, [str(java.major), *sorted(map(str, program.hashes.items()))])
        try:
            scores = _run(items, java, program, cache, memory_mb, timeout_s, runs)
        except OSError as error:
            raise no_temporary_files(error) from error
        except JavaError as error:
            if error.problem != "timed out":
                raise
            hint = "raise --spice-timeout, and check that SPICE is using the CPU"
            raise JavaError(error.message, problem=error.problem, hint=hint) from error
        for i, score in scores.items():
            per_clip[i] = score
    return SpiceScores(per_clip, n_too_long)


def _run(
    items: list[dict[str, object]],
    java: Java,
    program: Program,
    cache: SpiceCache | None,
    memory_mb: int | None,
    timeout_s: float | None,
    runs: Runs | None,
) -> dict[int, float]:
    with tempfile.TemporaryDirectory(prefix="textcap-spice-", ignore_cleanup_errors=True) as name:
        for attempt in ("with cache", "without cache"):
            folder = Path(name) / attempt.replace(" ", "-")
            parsed = folder / "parsed"
            parsed.mkdir(parents=True)
            is_cached = cache is not None and attempt == "with cache" and cache.copy_to(parsed)
            try:
                scores = _run_once(items, java, program, folder, parsed, memory_mb, timeout_s, runs)
            except JavaError as error:
                if cache is None or not is_cached or error.problem != "died":
                    raise
                cache.remove()  # even with the right hash it may be what made SPICE fail
                continue
            if cache is not None:
                cache.keep(parsed)
            return scores
    raise AssertionError("the second attempt returns or raises")


def _run_once(
    items: list[dict[str, object]],
    java: Java,
    program: Program,
    folder: Path,
    parsed: Path,
    memory_mb: int | None,
    timeout_s: float | None,
    runs: Runs | None,
) -> dict[int, float]:
    request, result = folder / "in.json", folder / "out.json"
    request.write_text(json.dumps(items), encoding="ascii")
    run_java(
        java,
        [
            *spice_flags(java),
            f"-Xmx{memory_mb or heap_mb(*SPICE_HEAP_MB)}M",
            *("-cp", program.class_path_argument, _MAIN),
            *(str(request), "-cache", str(parsed), "-out", str(result), "-subset", "-silent"),
        ],
        timeout_s=timeout_s,
        runs=runs,
    )
    try:
        results = json.loads(result.read_text(encoding="utf-8"))
        scores = {item["image_id"]: _number(item["scores"]["All"]["f"]) for item in results}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unexpected(f"SPICE's result cannot be read: {error!r}") from error
    if len(results) != len(items) or set(scores) != {item["image_id"] for item in items}:
        n_results, n_clips = counted(len(results), "result"), counted(len(items), "clip")
        raise _unexpected(f"SPICE returned {n_results} for {n_clips}, or results for other clips")
    return scores


def _number(value: object) -> float:
    # If SPICE cannot score a clip, it writes null or a word.
    return float(value) if isinstance(value, int | float) else math.nan


def _is_short(caption: str) -> bool:
    return len(caption.split()) <= MAX_WORDS


def _unexpected(message: str) -> JavaError:
    return JavaError(message, problem="died", hint=UNEXPECTED_HINT)
