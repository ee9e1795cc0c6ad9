"""Score captions against references, with every metric on its own: what one lacks costs the others nothing.

Knows which metrics there are and where each is computed. Starts METEOR and SPICE side by side with the rest, and
leaves no process behind. Returns a value or a reason for each.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import textcap.scoring.aac as aac
from textcap.errors import TextcapError
from textcap.scoring.cleaning import clean_all
from textcap.scoring.counts import Numbers, bleu_counts, meteor_of_counts
from textcap.scoring.fluency import fluency_errors, model_versions, sentence_similarities
from textcap.scoring.jar_catalogue import JavaProgram
from textcap.scoring.jars import Program, find_jars
from textcap.scoring.java import Java, find_java
from textcap.scoring.memory import heaps_mb
from textcap.scoring.metric_names import BLEU, VOCAB, with_parts
from textcap.scoring.processes import Runs
from textcap.scoring.programs import METEOR_HEAP_MB, meteor_counts, tokenize
from textcap.scoring.results import (
    MetricScore,
    Scoring,
    SystemScores,
    add_combined,
    score_of_clips,
    scores_of_outcome,
    why_undefined,
)
from textcap.scoring.spice import SPICE_HEAP_MB, SpiceScores, spice


@dataclass(frozen=True)
class ScoreSettings:
    """How to score.

    Attributes:
        java: The program `java` to use; None looks for one.
        spice_timeout_s: After how long SPICE is stopped; None waits for it.
        cache_folder: Where captions that SPICE has parsed are kept; None keeps none.
        device: Where the models of FENSE run, in torch's words.
    """

    java: str | None = None
    spice_timeout_s: float | None = None
    cache_folder: Path | None = None
    device: str = "cpu"


Progress = Callable[[str], None]


def score_systems(
    references: list[list[str]],
    systems: list[list[str]],
    names: Sequence[str],
    settings: ScoreSettings | None = None,
    progress: Progress | None = None,
) -> Scoring:
    """Score sets of predictions for the same clips.

    Args:
        references: One or more captions of each clip `[N]`.
        systems: For each set, a caption of each clip `[N]`.
        names: From `metric_names.METRICS`; what they are made of is scored as well.
        settings: How to score.
        progress: Called with the name of each metric that is done, on this thread.

    Raises:
        ValueError: There is no clip, or the numbers of captions do not fit.
    """
    n_clips = len(references)
    if not n_clips or not all(references) or any(len(system) != n_clips for system in systems):
        raise ValueError("each of one or more clips needs a reference, and a caption from each system")
    with Runs() as runs:
        scoring = _Run(settings or ScoreSettings(), progress or (lambda name: None), runs, names)
        return scoring.score(references, systems)


class _Run:
    """One call of `score_systems`."""

    def __init__(self, settings: ScoreSettings, progress: Progress, runs: Runs, names: Sequence[str]) -> None:
        self.settings, self.progress, self.runs = settings, progress, runs
        self.names = with_parts(names)
        self.programs: list[Program] = []
        self.java: Java | None = None

    def score(self, references: list[list[str]], systems: list[list[str]]) -> Scoring:
        said, n_said = clean_all(caption for system in systems for caption in system)
        known, n_known = clean_all(caption for several in references for caption in several)
        result = Scoring([], len(references), n_said, n_known)
        try:
            self.java = find_java(self.settings.java)
            # One process for everything: starting one takes longer than all its work.
            tokens = tokenize([*said, *known], self.java, self._jars("ptb").class_path, runs=self.runs)
        except TextcapError as error:
            reason = f"captions cannot be tokenised: {error}"
            failed = {name: MetricScore(name, problem=reason) for name in self.names}
            return self._with_versions(replace(result, systems=[SystemScores(failed, {}) for _ in systems]))
        rest = iter(tokens.captions)
        predictions = [[next(rest) for _ in system] for system in systems]
        spoken = [[next(rest) for _ in several] for several in references]
        scored = self._score_tokens(predictions, spoken, self.java)
        return self._with_versions(replace(result, systems=scored, java_version=tokens.java_version))

    def _with_versions(self, result: Scoring) -> Scoring:
        """Add what can change a score, as far as it came into play."""
        computed = {name for one in result.systems for name, score in one.scores.items() if score.value is not None}
        return replace(
            result,
            java=self.java,
            jars={name: sha256 for program in self.programs for name, sha256 in program.hashes.items()},
            unknown_jars=[name for program in self.programs for name in program.unknown],
            aac_version=_or_none(aac.aac_version),
            models=model_versions(computed),
        )

    def _score_tokens(
        self, predictions: list[list[str]], references: list[list[str]], java: Java
    ) -> list[SystemScores]:
        found: list[dict[str, MetricScore]] = [{} for _ in predictions]
        counts: list[dict[str, Numbers]] = [{} for _ in predictions]
        every = [caption for system in predictions for caption in system]
        theirs = references * len(predictions)
        heaps: Sequence[int | None] = (None, None)
        n_at_once = 1
        if "meteor" in self.names and "spice" in self.names:
            # Decided before either starts: each would take most of the same memory. One waits where both do not fit.
            together = heaps_mb(METEOR_HEAP_MB, SPICE_HEAP_MB)
            if together is not None:
                heaps, n_at_once = together, 2
        pool = ThreadPoolExecutor(n_at_once, thread_name_prefix="textcap-score")
        try:
            meteor = pool.submit(self._meteor, every, theirs, java, heaps[0]) if "meteor" in self.names else None
            spiced = pool.submit(self._spice, every, theirs, java, heaps[1]) if "spice" in self.names else None
            self._score_in_python(predictions, references, found)
            if set(self.names) & set(BLEU):
                for one, system in zip(counts, predictions, strict=True):
                    one["bleu"] = bleu_counts(system, references)
            if meteor is not None:
                self._take_meteor(meteor, found, counts)
            if spiced is not None:
                self._take_spice(spiced, found)
        except BaseException:  # Ctrl-C among them: nobody waits for what still runs
            self.runs.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        for scores in found:
            add_combined(scores, self.names)
        order = [name for metric in self.names for name in ((metric, *VOCAB) if metric == "vocab" else (metric,))]
        return [
            SystemScores({name: scores[name] for name in order if name in scores}, one)
            for scores, one in zip(found, counts, strict=True)
        ]

    def _score_in_python(
        self, predictions: list[list[str]], references: list[list[str]], found: list[dict[str, MetricScore]]
    ) -> None:
        computed: tuple[tuple[tuple[str, ...], Callable[[list[str], list[list[str]]], aac.Outcome]], ...] = (
            (BLEU, aac.compute_bleu),
            (("rouge_l",), aac.compute_rouge_l),
            (("cider_d",), aac.compute_cider_d),
            (("vocab",), aac.compute_vocab),
        )
        for names, compute in computed:
            wanted = [name for name in names if name in self.names]
            if not wanted:
                continue
            for scores, system in zip(found, predictions, strict=True):
                undefined = why_undefined(wanted[0], references)
                if undefined is not None:
                    scores[wanted[0]] = MetricScore(wanted[0], problem=undefined, is_undefined=True)
                    continue
                try:
                    scores.update(scores_of_outcome(wanted, compute(system, references)))
                except TextcapError as error:
                    scores.update({name: MetricScore(name, problem=str(error)) for name in wanted})
            self._tell(wanted)
        self._score_with_models(predictions, references, found)

    def _score_with_models(
        self, predictions: list[list[str]], references: list[list[str]], found: list[dict[str, MetricScore]]
    ) -> None:
        device = self.settings.device
        computed: tuple[tuple[str, Callable[[], list[Numbers]]], ...] = (
            ("sbert_sim", lambda: sentence_similarities(predictions, references, device)),
            ("fer", lambda: fluency_errors(predictions, device)),
        )
        for name, compute in computed:
            if name not in self.names:
                continue
            try:
                for scores, per_clip in zip(found, compute(), strict=True):
                    scores[name] = score_of_clips(name, per_clip)
            except TextcapError as error:
                for scores in found:
                    scores[name] = MetricScore(name, problem=str(error))
            self._tell([name])

    def _meteor(
        self, predictions: list[str], references: list[list[str]], java: Java, memory_mb: int | None
    ) -> Numbers:
        class_path = self._jars("meteor").class_path
        return meteor_counts(predictions, references, java, class_path, memory_mb=memory_mb, runs=self.runs)

    def _take_meteor(
        self, meteor: Future[Numbers], found: list[dict[str, MetricScore]], counts: list[dict[str, Numbers]]
    ) -> None:
        try:
            parts = np.split(meteor.result(), len(found))
        except TextcapError as error:
            for scores in found:
                scores["meteor"] = MetricScore("meteor", problem=str(error))
        else:
            for scores, one, part in zip(found, counts, parts, strict=True):
                one["meteor"] = part
                scores["meteor"] = MetricScore("meteor", float(meteor_of_counts(part.sum(0))), meteor_of_counts(part))
        self._tell(["meteor"])

    def _spice(
        self, predictions: list[str], references: list[list[str]], java: Java, memory_mb: int | None
    ) -> SpiceScores:
        return spice(
            predictions,
            references,
            java,
            self._jars("spice"),
            cache_folder=self.settings.cache_folder,
            memory_mb=memory_mb,
            timeout_s=self.settings.spice_timeout_s,
            runs=self.runs,
        )

    def _take_spice(self, spiced: Future[SpiceScores], found: list[dict[str, MetricScore]]) -> None:
        try:
            result = spiced.result()
        except TextcapError as error:
            for scores in found:
                scores["spice"] = MetricScore("spice", problem=str(error))
        else:
            parts = (np.split(numbers, len(found)) for numbers in (result.per_clip, result.n_too_long))
            for scores, part, too_long in zip(found, *parts, strict=True):
                score = score_of_clips("spice", np.nan_to_num(part, nan=0.0))
                scores["spice"] = replace(score, n_nan=int(np.isnan(part).sum()), n_too_long=int(too_long.sum()))
        self._tell(["spice"])

    def _jars(self, name: JavaProgram) -> Program:
        program = find_jars(name)
        self.programs.append(program)
        return program

    def _tell(self, names: Iterable[str]) -> None:
        for name in names:
            self.progress(name)


def _or_none(version: Callable[[], str]) -> str | None:
    try:
        return version()
    except TextcapError:
        return None
