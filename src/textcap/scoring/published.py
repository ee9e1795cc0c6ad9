"""Published scores from the paper that textcap follows, to print beside one's own."""

from dataclasses import dataclass

from textcap.errors import InputError

PAPER = "arXiv 2309.07372"

_COLUMNS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider_d", "spice", "spider")


@dataclass(frozen=True)
class PublishedRow:
    """Published scores of one system on one test set.

    Attributes:
        system: Name of the system, with its training data if the paper has several versions.
        source: The paper, and the table if known.
        scores: Fractions by metric, under the names of aac-metrics; "CIDEr" in audio captioning is `cider_d`.
    """

    system: str
    source: str
    scores: dict[str, float]


# The columns of each row: BLEU-1..4, METEOR, ROUGE-L, CIDEr, SPICE, SPIDEr.
_FULL_ROWS: dict[str, tuple[tuple[str, tuple[float, ...]], ...]] = {
    "audiocaps": (
        ("text-only, noise", (0.645, 0.481, 0.338, 0.227, 0.220, 0.458, 0.697, 0.178, 0.437)),
        ("text-only, noise, with LLM text", (0.653, 0.484, 0.342, 0.232, 0.226, 0.459, 0.697, 0.179, 0.438)),
        ("text-only, linear adapter", (0.609, 0.423, 0.286, 0.181, 0.204, 0.429, 0.602, 0.174, 0.388)),
        ("audio-text pairs", (0.647, 0.480, 0.337, 0.223, 0.223, 0.462, 0.729, 0.181, 0.455)),
    ),
    "clotho": (
        ("text-only, noise", (0.524, 0.339, 0.222, 0.136, 0.173, 0.371, 0.379, 0.132, 0.256)),
        ("text-only, noise, with LLM text", (0.530, 0.342, 0.224, 0.143, 0.164, 0.367, 0.377, 0.117, 0.247)),
        ("text-only, linear adapter", (0.568, 0.375, 0.251, 0.158, 0.172, 0.378, 0.394, 0.127, 0.261)),
        ("audio-text pairs", (0.574, 0.375, 0.250, 0.155, 0.173, 0.381, 0.398, 0.123, 0.261)),
    ),
}
# Supervised systems, for which the paper gives only SPIDEr.
_SUPERVISED = {
    "audiocaps": {"Chen et al.": 0.179, "Gontier et al.": 0.383, "Mei et al.": 0.434, "Kim et al.": 0.438},
    "clotho": {"Chen et al.": 0.208, "Gontier et al.": 0.167, "Mei et al.": 0.209, "Kim et al.": 0.215},
}
TEST_SETS = tuple(_FULL_ROWS)
# The fewest and the most clips: some of AudioCaps' videos are no longer available everywhere.
N_CLIPS = {"audiocaps": (957, 975), "clotho": (1045, 1045)}


def published_rows(test_set: str) -> list[PublishedRow]:
    """Return the paper's own rows for a test set, then those of the supervised systems that it cites.

    Args:
        test_set: One of `TEST_SETS`.

    Raises:
        InputError: The test set has no published rows.
    """
    if test_set not in _FULL_ROWS:
        raise InputError(f"there are no published scores for {test_set!r}", hint=f"use {' or '.join(TEST_SETS)}")
    own = [
        PublishedRow(system, PAPER, dict(zip(_COLUMNS, values, strict=True))) for system, values in _FULL_ROWS[test_set]
    ]
    others = [
        PublishedRow(system, f"{PAPER}, Table 1", {"spider": value}) for system, value in _SUPERVISED[test_set].items()
    ]
    return own + others
