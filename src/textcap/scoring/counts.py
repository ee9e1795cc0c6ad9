"""Counts per clip from which BLEU and METEOR are computed.

Their corpus scores are not means over clips but functions of summed counts, so the bootstrap resamples these counts.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

# Length, length of the closest reference, n-grams of 1 to 4 words, and those of them found in the references.
N_BLEU_COUNTS = 10
N_METEOR_COUNTS = 23

ORDERS = range(1, 5)  # lengths of the n-grams of BLEU and CIDEr-D
# METEOR 1.5's settings for English, "rank" (Denkowski & Lavie 2014).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of exact, stem, synonym and paraphrase matches


def bleu_counts(predictions: list[str], references: list[list[str]]) -> Numbers:
    """Return the counts of each clip that BLEU is computed from (Papineni et al. 2002).

    Args:
        predictions: Tokenised captions `[N]`.
        references: One or more tokenised references of each clip.

    Returns:
        Counts `[N, 10]`.
    """
    counts = np.zeros((len(predictions), N_BLEU_COUNTS))
    for row, prediction, several in zip(counts, predictions, references, strict=True):
        words = prediction.split()
        others = [reference.split() for reference in several]
        row[0] = len(words)
        row[1] = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        in_references = [ngrams(other) for other in others]
        for n, found in zip(ORDERS, ngrams(words), strict=True):
            row[1 + n] = max(0, len(words) + 1 - n)
            most = [max(one[n - 1].get(ngram, 0) for one in in_references) for ngram in found]
            row[5 + n] = sum(map(min, found.values(), most))
    return counts


def bleu_of_counts(counts: Numbers, n: int) -> Numbers:
    """Return BLEU-n of clips from their counts, or of a corpus from its summed counts.

    Args:
        counts: Counts `[..., 10]`.
        n: Longest n-gram, 1 to 4.

    Returns:
        Scores `[...]`, 0 to 1.
    """
    length, closest = counts[..., 0], counts[..., 1]
    guessed, found = counts[..., 2 : 2 + n], counts[..., 6 : 6 + n]
    # The two small numbers, those of the reference implementation, prevent 0 / 0.
    precision: Numbers = np.prod((found + 1e-15) / (guessed + 1e-9), axis=-1) ** (1 / n)
    ratio = (length + 1e-15) / (closest + 1e-9)
    with np.errstate(divide="ignore", over="ignore"):
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    scores: Numbers = precision * penalty
    return scores


def meteor_of_counts(counts: Numbers) -> Numbers:
    """Return METEOR of clips from their statistics, or of a corpus from its summed statistics.

    Args:
        counts: Statistics `[..., 23]` from `summable_meteor_counts`: the words of prediction and reference, then their
            function words; for each of the four matching stages, the matched content words of prediction and reference,
            then the matched function words; the number of chunks; the matched words of prediction and reference.

    Returns:
        Scores `[...]`, 0 to 1.
    """
    lengths, stages, chunks = counts[..., :4], counts[..., 4:20], counts[..., 20]
    matched = stages.reshape(*counts.shape[:-1], 4, 4)  # [..., stage, content then function words of both sides]
    sides = []
    for side in (0, 1):
        content = lengths[..., side] - lengths[..., 2 + side]
        weighted = _DELTA * matched[..., side] + (1 - _DELTA) * matched[..., 2 + side]
        total = _DELTA * content + (1 - _DELTA) * lengths[..., 2 + side]
        sides.append(_ratio(weighted @ _STAGE_WEIGHTS, total))
    precision, recall = sides
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = _ratio(chunks, (counts[..., 21] + counts[..., 22]) / 2)
    scores: Numbers = mean * (1 - _GAMMA * fragmentation**_BETA)
    return scores


def summable_meteor_counts(counts: Numbers) -> Numbers:
    """Return METEOR's statistics in the form in which they can be summed over clips.

    If all words of prediction and reference match in a single chunk, METEOR applies no fragmentation penalty, and does
    not count that chunk in the corpus score. So the chunk count of such clips is set to 0.

    Args:
        counts: The statistics of each clip `[N, 23]`, as METEOR prints them.
    """
    matched = counts[:, 4:20].reshape(-1, 4, 4).sum(axis=1)
    is_whole = counts[:, 20] == 1
    for side in (0, 1):
        is_whole &= matched[:, side] + matched[:, 2 + side] == counts[:, side]
    summable = counts.copy()
    summable[is_whole, 20] = 0
    return summable


def ngrams(words: list[str]) -> "list[Counter[tuple[str, ...]]]":
    """Return how often a caption has each n-gram, for each of the four orders."""
    return [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in ORDERS]


def _ratio(numerator: Numbers, denominator: Numbers) -> Numbers:
    """Divide, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
