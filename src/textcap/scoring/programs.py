"""Run the two smaller Java programs: the tokenizer that all metrics share, and METEOR.

Each runs once for all captions of all systems, and its output is checked to have one result per caption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textcap.data.text import counted
from textcap.scoring.cleaning import clean
from textcap.scoring.counts import N_METEOR_COUNTS, Numbers, summable_meteor_counts
from textcap.scoring.java import Java, unexpected_output
from textcap.scoring.processes import HEAP_MB, Runs, run_java

# Tokens that captioning metrics remove. With -lowerCase the tokenizer writes brackets as -lrb-, so those are kept.
_PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())
# Time limits, far above what the programs need, so that a Java that hangs does not block the other metrics.
PATIENCE_S, PATIENCE_PER_CAPTION_S = 300.0, 0.05
_TOKENIZER = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
_METEOR, _PARAPHRASES = ("-", "-", "-stdio", "-l", "en", "-norm"), Path("data", "paraphrase-en.gz")
_METEOR_OPTIONS = ("-Duser.language=en", "-Duser.country=US")  # it writes decimal numbers in the format of the locale


@dataclass(frozen=True)
class Tokens:
    """Tokenised captions.

    Attributes:
        captions: Words separated by single spaces `[N]`; a caption without words is empty.
        java_version: Version of the Java that ran the tokenizer; None if all captions are empty and it did not run.
    """

    captions: list[str]
    java_version: str | None


def tokenize(captions: Sequence[str], java: Java, class_path: Sequence[Path], *, runs: Runs | None = None) -> Tokens:
    """Tokenise captions in the style of the Penn Treebank, in lower case and without punctuation, in one process.

    Args:
        captions: Any text; characters that the tokenizer would treat as line ends become spaces.
        java: The runtime.
        class_path: Jars of CoreNLP 3.4.1, and our own.
        runs: Processes that are stopped together with this one.

    Raises:
        JavaError: The process failed, or its output is not one line per caption.
    """
    lines = {i: line for i, caption in enumerate(captions) if (line := clean(caption).strip())}
    tokens = [""] * len(captions)
    if not lines:
        return Tokens(tokens, None)
    timeout_s = PATIENCE_S + PATIENCE_PER_CAPTION_S * len(lines)
    stdin = "".join(f"{line}\n" for line in lines.values()).encode()
    printed = run_java(java, class_path, _TOKENIZER, options=["-Xmx512M"], stdin=stdin, timeout_s=timeout_s, runs=runs)
    found = _lines(printed, "the tokenizer")
    if len(found) != len(lines):
        n_lines, n_captions = counted(len(found), "line"), counted(len(lines), "caption")
        raise unexpected_output(f"the tokenizer returned {n_lines} for {n_captions}")
    for i, line in zip(lines, found, strict=True):
        tokens[i] = " ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATION)
    return Tokens(tokens, java.version)


def meteor_counts(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    java: Java,
    class_path: Sequence[Path],
    *,
    heap_mb: int = HEAP_MB,
    runs: Runs | None = None,
) -> Numbers:
    """Match predictions with references by METEOR 1.5, and return its statistics of each clip.

    Args:
        predictions: Tokenised captions `[N]`.
        references: Tokenised references of each clip; METEOR uses the one that matches best.
        java: The runtime.
        class_path: METEOR's jar, which is beside the folder of its paraphrase table, and our own.
        heap_mb: Heap of the process in MB.
        runs: Processes that are stopped together with this one.

    Returns:
        Statistics `[N, 23]`, from which `counts.meteor_of_counts` computes the scores of clips and of the corpus.

    Raises:
        JavaError: The process failed, or its output is not METEOR's statistics of each clip.
    """
    if not predictions:
        return np.zeros((0, N_METEOR_COUNTS))
    requests = [
        " ||| ".join(["SCORE", *map(clean, several), clean(prediction).replace("  ", " ")])
        for prediction, several in zip(predictions, references, strict=True)
    ]
    timeout_s = PATIENCE_S + PATIENCE_PER_CAPTION_S * sum(map(len, references))
    options, stdin = [*_METEOR_OPTIONS, f"-Xmx{heap_mb}M"], "".join(f"{line}\n" for line in requests).encode()
    words = ("textcap.Meteor", str(class_path[0].parent / _PARAPHRASES), *_METEOR)
    printed = run_java(java, class_path, words, options=options, stdin=stdin, timeout_s=timeout_s, runs=runs)
    rows = _lines(printed, "METEOR")
    try:
        counts = np.array([[float(number) for number in row.split()] for row in rows])
    except ValueError as error:
        raise unexpected_output(f"METEOR printed something other than numbers: {error}") from error
    if counts.shape != (len(predictions), N_METEOR_COUNTS) or not np.isfinite(counts).all():
        n_lines, n_captions = counted(len(rows), "line"), counted(len(predictions), "caption")
        raise unexpected_output(f"METEOR returned {n_lines} for {n_captions}, or lines that are not its statistics")
    return summable_meteor_counts(counts)


def _lines(output: bytes, program: str) -> list[str]:
    try:
        text = output.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unexpected_output(f"{program} printed text that is not UTF-8") from error
    # Not splitlines, which also splits at characters that the programs do not treat as line ends.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
