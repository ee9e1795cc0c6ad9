"""Results of scoring: a value for each metric, or the reason why there is none, and the metrics that combine others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from textcap.scoring.counts import Numbers
from textcap.scoring.java import Java
from textcap.scoring.metric_names import PARTS, TITLES, VOCAB

FER_WEIGHT = 0.9  # fraction of a clip's score that a fluency error takes off in FENSE and SPIDEr-FL (Zhou et al. 2022)


@dataclass(frozen=True)
class MetricScore:
    """One metric of one system.

    Attributes:
        name: The name in aac-metrics; `vocab` stands for several metrics such as `vocab.cands`.
        value: The corpus score; None if it could not be computed.
        per_clip: Scores of the clips `[N]`; None if the metric has none.
        problem: Why there is no value, and what to do about it.
        is_undefined: Whether the metric is undefined for these clips, so that nothing needs fixing.
        n_nan: Clips to which SPICE gave no value; they count as 0.
        n_too_long: Captions that were too long for SPICE and were skipped.
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
    """The metrics of one system.

    Attributes:
        scores: The metrics by name, in the order of tables.
        counts: Counts per clip `[N, K]` of the metrics whose corpus score is not a mean over clips: `bleu`, `meteor`.
    """

    scores: dict[str, MetricScore]
    counts: dict[str, Numbers]


@dataclass(frozen=True)
class Scoring:
    """The scores of all systems, and the versions of everything that can change them.

    Attributes:
        systems: The systems, in the order given.
        n_clips: Number of clips that each system was scored on.
        n_cleaned_predictions: Predictions that contained a line end, a control character or `|||`.
        n_cleaned_references: References that contained one of these.
        java: The Java runtime that was used; None if none was found.
        java_version: The version of that runtime; None if Java did not run.
        jars: SHA-256 of every file that a Java program ran or read, by its path in the cache.
        unknown_jars: Those of `jars` that are not the known files; the user gave them.
        aac_version: Version of aac-metrics; None if it is not installed.
        models: Commit or SHA-256 of each model that a metric needed, by the model's name.
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
    """Return a metric whose corpus score is the mean over clips `[N]`."""
    return MetricScore(name, float(per_clip.mean()), per_clip)


def scores_of_outcome(
    names: Sequence[str], outcome: tuple[dict[str, float], dict[str, Numbers]]
) -> dict[str, MetricScore]:
    """Return the requested metrics from those that were computed together.

    Args:
        names: The requested metrics; `vocab` stands for all of `VOCAB`.
        outcome: Corpus scores by metric, and scores of the clips `[N]` by metric.
    """
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
    """Return why a metric is undefined for these clips, or None if it is defined.

    Args:
        name: The metric.
        references: Tokenised references of each clip.
    """
    if name != "cider_d":
        return None
    if len(references) < 2:
        return "undefined for a single clip: words are weighted by the number of clips whose references contain them"
    if not any(one.split() for several in references for one in several):
        return "undefined: no reference contains a word"
    return None


def add_combined(scores: dict[str, MetricScore], names: Sequence[str]) -> None:
    """Add the requested metrics that combine two others clip by clip.

    Args:
        scores: Metrics by name, with the parts of each requested metric; changed in place.
        names: The requested metrics.
    """
    for name, parts in PARTS.items():
        if name not in names:
            continue
        missing = [scores[part] for part in parts if scores[part].per_clip is None]
        if missing:
            # The reason itself stands only in the row of the part.
            reasons = ", and ".join(f"{TITLES[one.name]}, {_state(one)}" for one in missing)
            is_undefined = all(one.is_undefined for one in missing)
            scores[name] = MetricScore(name, problem=f"needs {reasons}", is_undefined=is_undefined)
            continue
        first, second = (_per_clip(scores[part]) for part in parts)
        per_clip = (first + second) / 2 if name == "spider" else first * (1 - FER_WEIGHT * second)
        scores[name] = score_of_clips(name, per_clip)


def _state(score: MetricScore) -> str:
    return "which is undefined" if score.is_undefined else "which failed"


def _per_clip(score: MetricScore) -> Numbers:
    if score.per_clip is None:
        raise ValueError(f"{score.name} has no scores per clip")
    return score.per_clip
