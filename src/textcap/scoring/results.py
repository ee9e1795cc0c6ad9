"""Results of scoring: a value for each metric, or the reason why there is none, and the metrics that combine others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from textcap.scoring.counts import Numbers, bleu_of_counts, meteor_of_counts
from textcap.scoring.java import Java
from textcap.scoring.metric_names import BLEU, PARTS, TITLES
from textcap.scoring.significance import ScoreOfSums, mean_of_sums
from textcap.scoring.words import Wording

FER_WEIGHT = 0.9  # fraction of a clip's score that a fluency error takes off in FENSE and SPIDEr-FL (Zhou et al. 2022)


@dataclass(frozen=True)
class MetricScore:
    """One metric of one system.

    Attributes:
        name: The name, as aac-metrics has it.
        value: The corpus score; None if it could not be computed.
        per_clip: Scores of the clips `[N]`; None if the metric has none.
        counts: What the corpus score is computed from, for each clip `[N, K]`; None if it is the mean over clips.
        interval: Both ends of the 95 % interval of the value, if it was requested.
        problem: Why there is no value, and what to do about it.
        is_undefined: Whether the metric is undefined for these clips, so that nothing needs fixing.
        notes: What a reader of the score must know, such as how many clips SPICE gave no value to.
    """

    name: str
    value: float | None = None
    per_clip: Numbers | None = None
    counts: Numbers | None = None
    interval: tuple[float, float] | None = None
    problem: str | None = None
    is_undefined: bool = False
    notes: tuple[str, ...] = ()

    @property
    def draws(self) -> Numbers | None:
        """What intervals and tests draw from: the counts, else the scores of the clips; None if there are none."""
        return self.per_clip if self.counts is None else self.counts


Scores = dict[str, MetricScore]
"""The metrics of one system by name, in the order of tables."""


@dataclass
class Scoring:
    """The scores of all systems, and the versions of everything that can change them; filled while they are computed.

    Attributes:
        systems: The scores of each system, in the order given.
        n_clips: Number of clips that each system was scored on.
        wordings: How each system words its captions; empty if they could not be tokenised.
        leave_one_out: Scores with one reference fewer, so that a reference can be scored as if a system had written
            it: those of the references, each against the others of its clip and the mean over all of them, then those
            of each system against the same sets of references; empty if they were not requested.
        n_cleaned_predictions: Predictions that contained a line end, a control character or `|||`.
        n_cleaned_references: References that contained one of these.
        java: The Java runtime that was used; None if none was found.
        java_version: The version of that runtime; None if Java did not run.
        jars: SHA-256 of every file that a Java program ran or read, by its path in the cache.
        unknown_jars: Those of `jars` that are not the known files; the user gave them.
        models: Commit or SHA-256 of each model that a metric needed, by the model's name.
    """

    systems: list[Scores]
    n_clips: int
    wordings: list[Wording] = field(default_factory=list)
    leave_one_out: list[Scores] = field(default_factory=list)
    n_cleaned_predictions: int = 0
    n_cleaned_references: int = 0
    java: Java | None = None
    java_version: str | None = None
    jars: dict[str, str] = field(default_factory=dict)
    unknown_jars: list[str] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)

    @property
    def all_scores(self) -> list[MetricScore]:
        """The scores of all systems, with and without values."""
        return [score for one in self.systems for score in one.values()]


def score_of_clips(name: str, per_clip: Numbers, notes: tuple[str, ...] = ()) -> MetricScore:
    """Return a metric whose corpus score is the mean over clips `[N]`."""
    return MetricScore(name, float(per_clip.mean()), per_clip, notes=notes)


def score_of_counts(name: str, counts: Numbers) -> MetricScore:
    """Return BLEU or METEOR, whose corpus score is computed from the counts `[N, K]` summed over clips."""
    of_sums = score_of_sums(name)
    return MetricScore(name, float(of_sums(counts.sum(0, keepdims=True), 1)[0]), of_sums(counts, 1), counts)


def score_of_sums(name: str) -> ScoreOfSums:
    """Return the function from sums over clips `[R, K]` and the number of clips to corpus scores `[R]` of a metric.

    The sums are those of `MetricScore.counts`, or of `per_clip` as `[N, 1]` if a metric has no counts.
    """
    if name in BLEU:
        return lambda sums, n_clips: bleu_of_counts(sums, int(name[-1]))
    if name == "meteor":
        return lambda sums, n_clips: meteor_of_counts(sums)
    return mean_of_sums


def add_combined(scores: Scores, names: Sequence[str]) -> None:
    """Add the requested metrics that combine two others clip by clip.

    Args:
        scores: Metrics by name, with the parts of each requested metric; changed in place.
        names: The requested metrics.
    """
    for name in (name for name in PARTS if name in names):
        parts = [scores[part] for part in PARTS[name]]
        first, second = (part.per_clip for part in parts)
        if first is None or second is None:
            missing = [part for part in parts if part.per_clip is None]
            # The reason itself stands only in the row of the part.
            states = {True: "which is undefined", False: "which failed"}
            reasons = ", and ".join(f"{TITLES[one.name]}, {states[one.is_undefined]}" for one in missing)
            is_undefined = all(one.is_undefined for one in missing)
            scores[name] = MetricScore(name, problem=f"needs {reasons}", is_undefined=is_undefined)
        else:
            per_clip = (first + second) / 2 if name == "spider" else first * (1 - FER_WEIGHT * second)
            scores[name] = score_of_clips(name, per_clip)
