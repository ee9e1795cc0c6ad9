"""Counts per clip whose sums over clips give a corpus score: what BLEU and METEOR are made of.

Neither is a mean over clips, so that resampling clips means adding up counts again. Knows tokenised captions
and the statistics that METEOR prints. Returns arrays.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

N_BLEU_COUNTS = 10  # length, length of the closest reference, n-grams of 1 to 4 words, and those found in references
N_METEOR_COUNTS = 23

_ORDERS = range(1, 5)
# METEOR 1.5's settings for English, "rank" (Denkowski & Lavie 2014).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase


def bleu_counts(predictions: list[str], references: list[list[str]]) -> Numbers:
    """Count what BLEU needs of each clip (Papineni et al. 2002).

    Args:
        predictions: Tokenised captions `[N]`.
        references: Tokenised references of each clip, one or more.

    Returns:
        Counts `[N, 10]`.
    """
    counts = np.zeros((len(predictions), N_BLEU_COUNTS))
    for row, prediction, several in zip(counts, predictions, references, strict=True):
        words = prediction.split()
        others = [reference.split() for reference in several]
        row[0] = len(words)
        row[1] = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in _ORDERS:
            most: Counter[tuple[str, ...]] = Counter()
            for other in others:
                most |= _ngrams(other, n)
            found = _ngrams(words, n)
            row[1 + n] = found.total()
            row[5 + n] = (found & most).total()
    return counts


def bleu_of_counts(counts: Numbers, n: int) -> Numbers:
    """Return BLEU-n of counts or sums of counts.

    Args:
        counts: Counts `[..., 10]`.
        n: Longest n-gram, 1 to 4.

    Returns:
        Scores `[...]`, 0 to 1.
    """
    length, closest = counts[..., 0], counts[..., 1]
    guessed, found = counts[..., 2 : 2 + n], counts[..., 6 : 6 + n]
    # The two small numbers keep 0 of 0 from being undefined; they are those of the reference implementation.
    precision: Numbers = np.prod((found + 1e-15) / (guessed + 1e-9), axis=-1) ** (1 / n)
    ratio = (length + 1e-15) / (closest + 1e-9)
    with np.errstate(divide="ignore", over="ignore"):
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    scores: Numbers = precision * penalty
    return scores


def meteor_of_counts(counts: Numbers) -> Numbers:
    """Return METEOR of statistics of a clip, or of sums of them.

    Args:
        counts: `[..., 23]`: words and function words of prediction and reference; for each of four ways to match,
            content words and function words of either side; chunks, and matched words of either side. They come
            from `summable_meteor_counts`.

    Returns:
        Scores `[...]`, 0 to 1.
    """
    lengths, stages, chunks = counts[..., :4], counts[..., 4:20], counts[..., 20]
    matched = stages.reshape(*counts.shape[:-1], 4, 4)  # stage, then content of either side and function of either side
    sides = []
    for side in (0, 1):
        content = lengths[..., side] - lengths[..., 2 + side]
        weighed = _DELTA * matched[..., side] + (1 - _DELTA) * matched[..., 2 + side]
        whole = _DELTA * content + (1 - _DELTA) * lengths[..., 2 + side]
        sides.append(_ratio(weighed @ _STAGE_WEIGHTS, whole))
    precision, recall = sides
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = _ratio(chunks, (counts[..., 21] + counts[..., 22]) / 2)
    scores: Numbers = mean * (1 - _GAMMA * fragmentation**_BETA)
    return scores


def summable_meteor_counts(counts: Numbers) -> Numbers:
    """Return METEOR's statistics as they may be added up.

    Where every word of prediction and reference is matched in one go, METEOR takes nothing off for order, and does
    not add the one chunk to those of the corpus: the chunk is left out here.

    Args:
        counts: As METEOR prints them for each clip `[N, 23]`.
    """
    matched = counts[:, 4:20].reshape(-1, 4, 4).sum(axis=1)
    is_whole = counts[:, 20] == 1
    for side in (0, 1):
        is_whole &= matched[:, side] + matched[:, 2 + side] == counts[:, side]
    summable = counts.copy()
    summable[is_whole, 20] = 0
    return summable


def _ngrams(words: list[str], n: int) -> "Counter[tuple[str, ...]]":
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _ratio(above: Numbers, below: Numbers) -> Numbers:
    """Divide, where nothing of nothing is nothing."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
