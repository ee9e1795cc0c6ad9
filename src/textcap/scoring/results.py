"""What scoring gives: a value or a reason for each metric, and the metrics that follow from others.

Knows no program and no file. Returns dataclasses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from textcap.scoring.counts import Numbers
from textcap.scoring.java import Java
from textcap.scoring.metric_names import PARTS, TITLES, VOCAB

FER_WEIGHT = 0.9  # how much of a score an error takes off, in FENSE and SPIDEr-FL (Zhou et al. 2022)


@dataclass(frozen=True)
class MetricScore:
    """One metric of one set of predictions.

    Attributes:
        name: As in aac-metrics; `vocab` comes as several, like `vocab.cands`.
        value: Of all clips; None where there is none.
        per_clip: Values `[N]`; None where there are none.
        problem: Why there is no value, and what to do about it.
        is_undefined: Whether these clips have no such value, and nothing is to be mended.
        n_nan: Clips without a value from SPICE; they count as 0.
        n_too_long: Captions that SPICE was not given for their length.
    """

    name: str
    value: float | None = None
    per_clip: Numbers | None = None
    problem: str | None = None
    is_undefined: bool = False
    n_nan: int = 0
    n_too_long: int = 0


@dataclass(frozen=True)
class SystemScores:
    """The metrics of one set of predictions.

    Attributes:
        scores: By name, in the order of tables.
        counts: What corpus scores that are no means are made of: `bleu` and `meteor`, `[N, K]`.
    """

    scores: dict[str, MetricScore]
    counts: dict[str, Numbers]


@dataclass(frozen=True)
class Scoring:
    """The scores of all predictions, and everything that can change them.

    Attributes:
        systems: In the order given.
        n_clips: How many clips each was scored on.
        n_cleaned_predictions: Predictions with a line end, a control character or `|||` in them.
        n_cleaned_references: The same for references.
        java: The Java that was used, where it was found, and its version; None where none was.
        java_version: Its version.
        jars: SHA-256 of every file that a Java program ran or read, by its path in the cache.
        unknown_jars: Those among them that are not the known ones; the user gave them.
        aac_version: Of aac-metrics; None where it is missing.
        models: Commit or SHA-256 of each model that a metric needed, by its name.
    """

    systems: list[SystemScores]
    n_clips: int
    n_cleaned_predictions: int = 0
    n_cleaned_references: int = 0
    java: Java | None = None
    java_version: str | None = None
    jars: dict[str, str] = field(default_factory=dict)
    unknown_jars: list[str] = field(default_factory=list)
    aac_version: str | None = None
    models: dict[str, str] = field(default_factory=dict)


def score_of_clips(name: str, per_clip: Numbers) -> MetricScore:
    """Return a metric that is a mean over clips."""
    return MetricScore(name, float(per_clip.mean()), per_clip)


def scores_of_outcome(
    names: Sequence[str], outcome: tuple[dict[str, float], dict[str, Numbers]]
) -> dict[str, MetricScore]:
    """Return the metrics that were asked for of those that were computed together; `vocab` gives all of `VOCAB`."""
    values, per_clip = outcome
    scores = {}
    for name in VOCAB if "vocab" in names else names:
        if name in values:
            scores[name] = MetricScore(name, values[name], per_clip.get(name))
        else:
            reason = "undefined: predictions and references share no word"
            scores[name] = MetricScore(name, problem=reason, is_undefined=True)
    return scores


def why_undefined(name: str, references: list[list[str]]) -> str | None:
    """Return why these clips have no value of a metric, or None where they have one."""
    if name != "cider_d":
        return None
    if len(references) < 2:
        return "undefined for a single clip: it weighs words by the number of clips whose references hold them"
    if not any(one.split() for several in references for one in several):
        return "undefined: no reference has a word"
    return None


def add_combined(scores: dict[str, MetricScore], names: Sequence[str]) -> None:
    """Add the metrics that follow from others, clip by clip, to those others."""
    for name, parts in PARTS.items():
        if name not in names:
            continue
        lacking = [scores[part] for part in parts if scores[part].per_clip is None]
        if lacking:
            # Why is said once, by the part itself.
            reasons = " and ".join(f"{TITLES[one.name]}, {_state(one)}" for one in lacking)
            is_undefined = all(one.is_undefined for one in lacking)
            scores[name] = MetricScore(name, problem=f"follows from {reasons}", is_undefined=is_undefined)
            continue
        first, second = (_per_clip(scores[part]) for part in parts)
        per_clip = (first + second) / 2 if name == "spider" else first * (1 - FER_WEIGHT * second)
        scores[name] = score_of_clips(name, per_clip)


def _state(score: MetricScore) -> str:
    return "which is undefined" if score.is_undefined else "which failed"


def _per_clip(score: MetricScore) -> Numbers:
    if score.per_clip is None:
        raise ValueError(f"{score.name} has no values per clip")
    return score.per_clip
