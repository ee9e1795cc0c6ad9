"""Blind votes: which of two captions stands left is drawn for each clip, and votes are counted with the sides known."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from itertools import accumulate, combinations
from pathlib import Path
from typing import Any

from textcap.errors import FileError, InputError
from textcap.files import read_json, sha256_of_json
from textcap.page.sources import Clip, Source, find_clips, sampled
from textcap.scoring.readers import check_given_once
from textcap.scoring.significance import MIN_CLIPS, verdict_of

FIRST, TIE, SECOND = 1, 0, -1  # a vote: for the first system, for neither, for the second
_SIDES = {"left": FIRST, "tie": TIE, "right": SECOND}  # where the first system stands left


@dataclass(frozen=True)
class Ballot:
    """The rows of a blind page.

    Attributes:
        facts: The page's id, and the seed and the sample that it was drawn with.
        clips: The rows, with the caption that stands left first, without scores and references.
        left: By clip, which system stands left: `FIRST` or `SECOND`.
        notes: What was left out, one line each.
    """

    facts: dict[str, Any]
    clips: list[Clip]
    left: dict[str, int]
    notes: list[str]


@dataclass(frozen=True)
class Tally:
    """The votes of one rater, or of the majority of all: clips for each of the two systems, and for neither."""

    rater: str
    first: int
    second: int
    ties: int

    @property
    def n_judged(self) -> int:
        """Number of clips with a vote."""
        return self.first + self.second + self.ties

    @property
    def p_value(self) -> float:
        """Probability of so uneven a split, ties apart, if neither system were better: two-sided sign test."""
        n, fewer = self.first + self.second, min(self.first, self.second)
        ways = accumulate(range(fewer), lambda before, k: before * (n - k) // (k + 1), initial=1)  # to choose k of n
        return min(1.0, float(Fraction(2 * sum(ways), 2**n)))

    @property
    def verdict(self) -> str | None:
        """Whether the first system is "better", "worse" or "not significantly different"; None with too few votes."""
        return verdict_of(None if self.n_judged < MIN_CLIPS else self.p_value, self.first > self.second)


@dataclass(frozen=True)
class Count:
    """All votes on a page.

    Attributes:
        tallies: That of each rater and, of several, that of the majority: what most raters of a clip chose, or a tie.
        n_shared: Clips with votes of several raters.
        agreement: How often two raters of a clip agree; None without such clips.
        alpha: Krippendorff's alpha (2011), which is 1 for full agreement and 0 for that of chance; None if undefined.
    """

    tallies: list[Tally]
    n_shared: int
    agreement: float | None
    alpha: float | None


def draw_ballot(sources: Sequence[Source], *, sample: int | None = None, seed: int = 0) -> Ballot:
    """Draw which caption stands left, from the seed and all that the files hold, most of which a page does not show.

    Raises:
        InputError: There are not two systems, or they do not differ anywhere.
    """
    if len(sources) != 2:
        raise InputError(f"a blind page compares two systems, found {len(sources)}", hint="name two files")
    found = find_clips(sources)
    both = [clip for clip in found if all(take and (take["caption"] or take["pieces"]) for take in clip.takes)]
    clips = [clip for clip in both if _said(clip)[0] != _said(clip)[1]]
    if not clips:
        raise InputError("no clip has two captions that differ", hint="a blind page needs some")
    left_out = {"with two equal captions": len(both) - len(clips), "without two captions": len(found) - len(both)}
    key = sha256_of_json([seed, [[clip.id, clip.takes, clip.references] for clip in found]])
    rng = random.Random(key)
    left = {clip.id: rng.choice((FIRST, SECOND)) for clip in clips}
    clips = sampled(clips, sample, rng)
    hidden = {clip.id: [take and {**take, "scores": {}, "said": ""} for take in clip.takes] for clip in clips}
    sided = [replace(clip, takes=hidden[clip.id][:: left[clip.id]], references=[]) for clip in clips]
    page = sha256_of_json([key, [clip.id for clip in clips]])[:16]
    notes = [f"left out {n:,} of {len(found):,} clips, {why}" for why, n in left_out.items() if n]
    return Ballot({"page": page, "seed": seed, "sample": sample}, sided, left, notes)


def count_votes(sources: Sequence[Source], files: Sequence[Path]) -> Count:
    """Count the votes of raters on the blind page that two sources make.

    Raises:
        InputError: A file is not one of votes, is of another page, or is given twice.
    """
    check_given_once(list(map(str, files)))
    draw = cache(partial(draw_ballot, sources))  # for all raters of a page at once
    raters = {str(path): _read_votes(draw, path) for path in files}
    by_clip: dict[str, list[int]] = {}
    for votes in raters.values():
        for clip, vote in votes.items():
            by_clip.setdefault(clip, []).append(vote)
    tallies = [_tally(rater, votes.values()) for rater, votes in raters.items()]
    if len(raters) > 1:
        ranked = [[*Counter(several).most_common(), (TIE, 0)] for several in by_clip.values()]
        tallies.append(_tally("majority", (TIE if top[0][1] == top[1][1] else top[0][0] for top in ranked)))
    shared = [several for several in by_clip.values() if len(several) > 1]
    return Count(tallies, len(shared), *_agreement(shared))


def _read_votes(draw: Callable[..., Ballot], path: Path) -> dict[str, int]:
    """Return the votes in a file by clip, as systems; `draw` is `draw_ballot` of the sources."""
    content = read_json(path)
    try:
        ballot = draw(sample=content["sample"], seed=content["seed"])
        if content["page"] == ballot.facts["page"]:
            votes = {clip: one["vote"] for clip, one in content["votes"].items() if one["vote"] is not None}
            return {clip: _SIDES[vote] * ballot.left[clip] for clip, vote in votes.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(path, "is not a file of votes", hint="export it from a blind page") from error
    hint = "name the files that the page was made of, in the same order"
    raise FileError(path, "has votes of another page", hint=hint)


def _tally(rater: str, votes: Iterable[int]) -> Tally:
    counts = Counter(votes)
    return Tally(rater, counts[FIRST], counts[SECOND], counts[TIE])


def _agreement(shared: Sequence[Sequence[int]]) -> tuple[float | None, float | None]:
    """Return how often two raters of a clip agree, and alpha, of the votes on each clip that has several."""
    if not shared:
        return None, None
    pairs = [(a != b, 2 / (len(several) - 1)) for several in shared for a, b in combinations(several, 2)]
    counts = Counter(vote for several in shared for vote in several)
    n_votes = counts.total()
    observed = sum(weight for differs, weight in pairs if differs)
    expected = sum(n * (n_votes - n) for n in counts.values()) / (n_votes - 1)
    agreement = 1 - sum(differs for differs, _ in pairs) / len(pairs)
    return agreement, 1 - observed / expected if expected else None


def _said(clip: Clip) -> list[list[Any]]:
    return [[take["caption"], take["pieces"]] for take in clip.takes if take]
