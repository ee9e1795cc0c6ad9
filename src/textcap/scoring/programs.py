"""The two small Java programs: the tokenizer that all metrics share, and METEOR.

Knows their command lines and what they print. Each runs once for all captions of all predictions, however many.
Returns as many results as it was given captions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os import pathsep
from pathlib import Path

import numpy as np

from textcap.scoring.cleaning import clean
from textcap.scoring.counts import N_METEOR_COUNTS, Numbers, summable_meteor_counts
from textcap.scoring.java import Java, run_java
from textcap.scoring.java_errors import JavaError
from textcap.scoring.memory import heap_mb
from textcap.scoring.processes import Runs

# What the metrics of this field drop. The tokenizer writes brackets in lower case here, so that those stay.
_PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())
# Far more than they take: a Java that hangs must not hang the other metrics.
PATIENCE_S, PATIENCE_PER_CAPTION_S = 300.0, 0.05
_TOKENIZER_HEAP_MB = (512, 128)
METEOR_HEAP_MB = (2048, 700)  # what it wants, and the least that it can do with
# METEOR reads and writes decimals as the locale does.
_ENGLISH = ("-Duser.language=en", "-Duser.country=US")
# It spends most of its time on reading its paraphrases, and a sixth less with this collector.
_COLLECTOR = ("-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UseParallelGC")


@dataclass(frozen=True)
class Tokens:
    """What the tokenizer made of captions.

    Attributes:
        captions: Words with single spaces between them `[N]`; a caption without a word is empty.
        java_version: Of the Java that it ran on; None where there was nothing to run.
    """

    captions: list[str]
    java_version: str | None


def tokenize(
    captions: Sequence[str],
    java: Java,
    class_path: Sequence[Path],
    *,
    timeout_s: float | None = None,
    runs: Runs | None = None,
) -> Tokens:
    """Tokenise captions in one process as the Penn Treebank does, in lower case and without punctuation.

    Args:
        captions: Any text; what the tokenizer would take for a line end becomes a space.
        java: The runtime.
        class_path: Jars of CoreNLP 3.4.1.
        timeout_s: After how long the process is stopped; by default long after it should be done.
        runs: Processes to be stopped together with this one.

    Raises:
        JavaError: The process failed, or its output does not fit.
    """
    lines = {i: line for i, caption in enumerate(captions) if (line := clean(caption).strip())}
    tokens = [""] * len(captions)
    if not lines:
        return Tokens(tokens, None)
    output = run_java(
        java,
        [
            f"-Xmx{heap_mb(*_TOKENIZER_HEAP_MB)}M",
            *("-cp", pathsep.join(map(str, class_path))),
            *("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"),
        ],
        stdin="".join(f"{line}\n" for line in lines.values()).encode(),
        timeout_s=_patience_s(timeout_s, len(lines)),
        runs=runs,
    )
    found = _lines(output.stdout, "the tokenizer")
    if len(found) != len(lines):
        raise _unexpected(f"the tokenizer gave {len(found)} lines for {len(lines)} captions")
    for i, line in zip(lines, found, strict=True):
        tokens[i] = " ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATION)
    return Tokens(tokens, output.version)


def meteor_counts(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    java: Java,
    class_path: Sequence[Path],
    *,
    memory_mb: int | None = None,
    timeout_s: float | None = None,
    runs: Runs | None = None,
) -> Numbers:
    """Have METEOR 1.5 match predictions with references, and return its statistics of each clip.

    Args:
        predictions: Tokenised captions `[N]`.
        references: Tokenised references of each; the one that fits best counts.
        java: The runtime.
        class_path: METEOR's jar, beside the folder of its paraphrases.
        memory_mb: Its heap; by default what the machine has for it.
        timeout_s: After how long the process is stopped; by default long after it should be done.
        runs: Processes to be stopped together with this one.

    Returns:
        Statistics `[N, 23]` that `counts.meteor_of_counts` turns into scores, of a clip or of a sum over clips.

    Raises:
        JavaError: The process failed, or its output does not fit.
    """
    if not predictions:
        return np.zeros((0, N_METEOR_COUNTS))
    questions = [
        " ||| ".join(["SCORE", *map(clean, several), clean(prediction).replace("  ", " ")])
        for prediction, several in zip(predictions, references, strict=True)
    ]
    output = run_java(
        java,
        [
            *_ENGLISH,
            *_COLLECTOR,
            f"-Xmx{memory_mb or heap_mb(*METEOR_HEAP_MB)}M",
            *("-cp", pathsep.join(map(str, class_path)), "Meteor"),
            *("-", "-", "-stdio", "-l", "en", "-norm"),
        ],
        stdin="".join(f"{line}\n" for line in questions).encode(),
        timeout_s=_patience_s(timeout_s, sum(map(len, references))),
        runs=runs,
    )
    rows = _lines(output.stdout, "METEOR")
    try:
        counts = np.array([[float(number) for number in row.split()] for row in rows])
    except ValueError as error:
        raise _unexpected(f"METEOR printed something else than numbers: {error}") from error
    if counts.shape != (len(predictions), N_METEOR_COUNTS) or not np.isfinite(counts).all():
        raise _unexpected(f"METEOR gave {len(rows)} lines for {len(predictions)} captions, or not its statistics")
    return summable_meteor_counts(counts)


def _patience_s(timeout_s: float | None, n_captions: int) -> float:
    return PATIENCE_S + PATIENCE_PER_CAPTION_S * n_captions if timeout_s is None else timeout_s


def _lines(output: bytes, program: str) -> list[str]:
    try:
        text = output.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unexpected(f"{program} printed what is not UTF-8") from error
    # Not splitlines: it takes more for a line end than the programs do.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _unexpected(message: str) -> JavaError:
    return JavaError(message, problem="died", hint="is this a real Java, and are the jars the right ones?")
