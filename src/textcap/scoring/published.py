"""Published scores from the paper that textcap follows, to print beside one's own.

`published.csv` has the paper's own systems first, then the supervised ones, for which the paper gives only SPIDEr.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

from textcap.errors import InputError

# The fewest and the most clips: some of AudioCaps' videos are no longer available everywhere.
N_CLIPS = {"audiocaps": (957, 975), "clotho": (1045, 1045)}
TEST_SETS = tuple(N_CLIPS)


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


def published_rows(test_set: str) -> list[PublishedRow]:
    """Return the paper's own rows for a test set, then those of the supervised systems that it cites.

    Args:
        test_set: One of `TEST_SETS`.

    Raises:
        InputError: The test set has no published rows.
    """
    if test_set not in N_CLIPS:
        raise InputError(f"there are no published scores for {test_set!r}", hint=f"use {' or '.join(TEST_SETS)}")
    with files("textcap.scoring").joinpath("published.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("test_set") == test_set]
    return [
        PublishedRow(row.pop("system"), row.pop("source"), {name: float(value) for name, value in row.items() if value})
        for row in rows
    ]
