"""SPICE, on any Java from 8 on: one process for all captions of all predictions.

Knows SPICE's files and flags, and what it cannot take. Returns a score per clip, in the order of the clips.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from os import pathsep
from pathlib import Path

import numpy as np
import numpy.typing as npt

from textcap.scoring.cleaning import clean
from textcap.scoring.jars import Program
from textcap.scoring.java import Java, run_java, spice_flags
from textcap.scoring.java_errors import JavaError, no_temporary_files
from textcap.scoring.memory import heap_mb
from textcap.scoring.processes import Runs
from textcap.scoring.spice_cache import SpiceCache

# SPICE's parser takes time with the cube of a sentence's length and memory with its square: one of 240 words took
# over a minute, then all of 2 GB, and the run with it.
MAX_WORDS = 100

SPICE_HEAP_MB = (2048, 1200)  # what it wants, as more makes it no faster, and the least that it can do with
_MAIN = "edu.anu.spice.SpiceScorer"


@dataclass(frozen=True)
class SpiceScores:
    """What SPICE says of each clip.

    Attributes:
        per_clip: Scores `[N]`, 0 to 1; NaN where it gave none, or the prediction was too long to be parsed.
        n_too_long: How many of its captions have more than `MAX_WORDS` words and were left out, `[N]`.
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
    """Score predictions by the things, attributes and relations that they share with references (Anderson 2016).

    Args:
        predictions: Tokenised captions `[N]`.
        references: Tokenised references of each.
        java: The runtime.
        program: SPICE's jars.
        cache_folder: Where parsed captions are kept between runs; None keeps nothing.
        memory_mb: Its heap; by default what the machine has for it.
        timeout_s: After how long the process is stopped.
        runs: Processes to be stopped together with this one.

    Raises:
        JavaError: The process failed, or its result does not fit.
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
            hint = "give it longer with --spice-timeout, and look whether it does anything"
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
        for attempt in ("with what is kept", "from nothing"):
            folder = Path(name) / attempt.replace(" ", "-")
            parsed = folder / "parsed"
            parsed.mkdir(parents=True)
            was_kept = cache is not None and attempt == "with what is kept" and cache.copy_to(parsed)
            try:
                scores = _run_once(items, java, program, folder, parsed, memory_mb, timeout_s, runs)
            except JavaError as error:
                if cache is None or not was_kept or error.problem != "died":
                    raise
                cache.remove()  # its hash was right, and still it may be what SPICE died of
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
    asked, answered = folder / "in.json", folder / "out.json"
    asked.write_text(json.dumps(items), encoding="ascii")
    run_java(
        java,
        [
            *spice_flags(java),
            f"-Xmx{memory_mb or heap_mb(*SPICE_HEAP_MB)}M",
            *("-cp", _class_path(program), _MAIN),
            *(str(asked), "-cache", str(parsed), "-out", str(answered), "-subset", "-silent"),
        ],
        timeout_s=timeout_s,
        runs=runs,
    )
    try:
        results = json.loads(answered.read_text(encoding="utf-8"))
        scores = {item["image_id"]: _number(item["scores"]["All"]["f"]) for item in results}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unexpected(f"SPICE's result cannot be read: {error!r}") from error
    if len(results) != len(items) or set(scores) != {item["image_id"] for item in items}:
        raise _unexpected(f"SPICE gave {len(results)} results for {len(items)} clips, or for others")
    return scores


def _class_path(program: Program) -> str:
    # SPICE's jar names its libraries relative to where it really lies, which is elsewhere where it is a link.
    above = program.class_path[0].parent.parent
    libraries = [above / name for name in program.hashes if "/lib/" in name]
    return pathsep.join(map(str, [*program.class_path, *libraries]))


def _number(value: object) -> float:
    # What SPICE cannot score it writes as null, or as a word.
    return float(value) if isinstance(value, int | float) else math.nan


def _is_short(caption: str) -> bool:
    return len(caption.split()) <= MAX_WORDS


def _unexpected(message: str) -> JavaError:
    return JavaError(message, problem="died", hint="is this a real Java, and are the jars the right ones?")
