"""ROUGE-L, CIDEr-D and the vocabulary metrics, from the words of tokenised captions.

The values are those of aac-metrics and of the COCO captioning tools. BLEU and METEOR are in `counts`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np

from textcap.errors import UndefinedError
from textcap.scoring.counts import ORDERS, Numbers, ngrams

_ROUGE_BETA = 1.2  # weight of recall against precision (Lin 2004)
_CIDER_SIGMA = 6.0  # words; width of the penalty for a difference in length (Vedantam et al. 2015)
_CIDER_SCALE = 10.0
_VOCABULARY_SEED = 1234  # aac-metrics draws the references for `vocab.mrefs_avg` with torch and this seed


def rouge_l(systems: list[list[str]], references: list[list[str]]) -> list[Numbers]:
    """Return ROUGE-L of each clip (Lin 2004): the F-score of the longest common subsequence of words.

    Precision and recall are each the best over a clip's references, as in the COCO tools. References without a word are
    skipped; a clip that has no other reference scores 0.

    Args:
        systems: For each system, a tokenised caption of each clip `[N]`.
        references: One or more tokenised references of each clip.

    Returns:
        For each system scores `[N]`, 0 to 1.
    """
    scores = [np.zeros(len(references)) for _ in systems]
    for clip, several in enumerate(references):
        others = [words for reference in several if (words := reference.split())]
        for system, row in zip(systems, scores, strict=True):
            words = system[clip].split()
            lengths = [_common_length(words, other) for other in others]
            if any(lengths):
                precision = max(lengths) / len(words)
                recall = max(length / len(other) for length, other in zip(lengths, others, strict=True))
                weighted = recall + _ROUGE_BETA**2 * precision
                row[clip] = (1 + _ROUGE_BETA**2) * precision * recall / weighted
    return scores


def cider_d(systems: list[list[str]], references: list[list[str]]) -> list[Numbers]:
    """Return CIDEr-D of each clip (Vedantam et al. 2015): the similarity of n-grams, of which rare ones weigh more.

    The weights come from the number of clips whose references contain an n-gram.

    Args:
        systems: For each system, a tokenised caption of each clip `[N]`.
        references: One or more tokenised references of each clip.

    Returns:
        For each system scores `[N]`, 0 to 10.

    Raises:
        UndefinedError: There is only one clip, or no reference contains a word.
    """
    if len(references) < 2:
        weighting = "words are weighted by the number of clips whose references contain them"
        raise UndefinedError(f"undefined for a single clip: {weighting}")
    n_clips_with: Counter[tuple[str, ...]] = Counter()
    for several in references:
        n_clips_with.update(set().union(*(order for one in several for order in ngrams(one.split()))))
    if not n_clips_with:
        raise UndefinedError("undefined: no reference contains a word")
    log_clips = log(len(references))
    # An n-gram of no clip weighs as much as one of a single clip, so those need not be kept.
    weights = {ngram: log_clips - log(n) for ngram, n in n_clips_with.items() if n > 1}
    del n_clips_with
    scores = [np.zeros(len(references)) for _ in systems]
    for clip, several in enumerate(references):
        others = [_Weighted(one, weights, log_clips) for one in several]
        for system, row in zip(systems, scores, strict=True):
            caption = _Weighted(system[clip], weights, log_clips)
            total = sum(caption.similarity(other) for other in others)
            row[clip] = _CIDER_SCALE * total / len(ORDERS) / len(others)
    return scores


def vocabulary(system: list[str], references: list[list[str]]) -> dict[str, float]:
    """Return how many different words a system uses, and how they compare with those of the references.

    Args:
        system: A tokenised caption of each clip `[N]`.
        references: One or more tokenised references of each clip.

    Returns:
        The metrics `vocab.*` of aac-metrics: counts of words, or fractions. Only `vocab.cands` if the system and the
        references share no word, as the others are then undefined.
    """
    said = _words_of(system)
    known = _words_of(one for several in references for one in several)
    shared = said & known
    found = {"vocab.cands": float(len(said))}
    if not shared:
        return found
    # The stream of torch.randint, without torch: the same generator, and the remainder of each number.
    generator = np.random.RandomState(_VOCABULARY_SEED)
    n_references = np.array([len(several) for several in references])
    sizes = []
    for _ in range(n_references.max()):
        drawn = generator.randint(0, 2**32, len(references), dtype=np.uint32) % n_references
        sizes.append(len(_words_of(several[i] for several, i in zip(references, drawn, strict=True))))
    average = float(np.mean(sizes))
    precision, recall = len(shared) / len(said), len(shared) / len(known)
    return {
        **found,
        "vocab.mrefs_full": float(len(known)),
        "vocab.ratio_full": len(said) / len(known),
        "vocab.mrefs_avg": average,
        "vocab.ratio_avg": len(said) / average,
        "vocab.precision": precision,
        "vocab.recall": recall,
        "vocab.f1": 2 * precision * recall / (precision + recall),
        "vocab.jaccard": len(shared) / len(said | known),
    }


@dataclass(frozen=True)
class Wording:
    """How a system words its captions.

    Attributes:
        words_per_caption: Mean number of words.
        n_words: Number of different words.
        repeated: Fraction of the captions that equal another one.
        n_unspaced: Captions that are one long word, because their language puts no spaces between words.
    """

    words_per_caption: float
    n_words: int
    repeated: float
    n_unspaced: int


def wording(system: list[str]) -> Wording:
    """Describe the tokenised captions of a system `[N]`."""
    captions = [caption.split() for caption in system]
    times = Counter(system)
    unspaced = [words for words in captions if len(words) == 1 and len(words[0]) > 5 and not words[0].isascii()]
    return Wording(
        words_per_caption=sum(map(len, captions)) / len(system),
        n_words=len(_words_of(system)),
        repeated=sum(n for n in times.values() if n > 1) / len(system),
        n_unspaced=len(unspaced),
    )


class _Weighted:
    """The n-grams of a caption with their weights, and the length of each order's vector of them."""

    def __init__(self, caption: str, weights: dict[tuple[str, ...], float], unknown: float) -> None:
        words = caption.split()
        self.n_words = len(words)
        self.orders = []  # each order's n-grams, and the length of their vector
        for order in ngrams(words):
            weighted = {ngram: count * weights.get(ngram, unknown) for ngram, count in order.items()}
            self.orders.append((weighted, sqrt(sum(weight * weight for weight in weighted.values()))))

    def similarity(self, reference: "_Weighted") -> float:
        """Return the sum over orders of the clipped cosine similarity, with a penalty for the difference in length."""
        total = 0.0
        for (own, norm), (other, other_norm) in zip(self.orders, reference.orders, strict=True):
            if norm and other_norm:
                product = sum(min(own[ngram], other[ngram]) * other[ngram] for ngram in own.keys() & other.keys())
                total += product / (norm * other_norm)
        # The reference implementation counts a caption's pairs of words.
        difference = max(0, self.n_words - 1) - max(0, reference.n_words - 1)
        return total * exp(-(difference**2) / (2 * _CIDER_SIGMA**2))


def _common_length(words: list[str], other: list[str]) -> int:
    """Return the length of the longest common subsequence, by arithmetic on bits (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << i
    open_bits = mask = (1 << len(words)) - 1
    for word in other:
        matching = open_bits & places.get(word, 0)
        open_bits = (open_bits + matching | open_bits - matching) & mask
    return len(words) - bin(open_bits).count("1")


def _words_of(captions: Iterable[str]) -> set[str]:
    return {word for caption in captions for word in caption.split()}
