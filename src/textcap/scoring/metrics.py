"""Score captions against references with every requested metric.

The metrics are independent: one that cannot be computed gets a reason, and the others are unaffected. METEOR and SPICE
run as Java processes beside the metrics in Python; none of them outlives the call.
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
from textcap.scoring.metric_names import BLEU, VOCAB, need_aac_metrics, with_parts
from textcap.scoring.processes import Runs, default_heap
from textcap.scoring.programs import meteor_counts, tokenize
from textcap.scoring.results import (
    MetricScore,
    Scoring,
    SystemScores,
    add_combined,
    score_of_clips,
    scores_of_outcome,
    why_undefined,
)
from textcap.scoring.spice import SpiceScores, spice


@dataclass(frozen=True)
class ScoreSettings:
    """How to score.

    Attributes:
        java: Path or name of the `java` program to run; None searches for one.
        spice_timeout_s: Seconds after which SPICE is stopped; None sets no limit.
        cache_folder: Folder that keeps the captions SPICE has parsed, for later runs; None keeps nothing.
        device: Where the models of FENSE run, as torch names devices.
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
    """Score the predictions of one or more systems for the same clips.

    Args:
        references: One or more captions of each clip `[N]`.
        systems: For each system, a caption of each clip `[N]`.
        names: Names from `metric_names.METRICS`; the metrics that they are computed from are scored as well.
        settings: How to score.
        progress: Called on this thread with the name of each metric when it is done.

    Raises:
        DependencyError: aac-metrics is not installed, and no requested metric can be computed without it.
        ValueError: There are no clips, a clip has no reference, or a system's number of captions is not N.
    """
    n_clips = len(references)
    if not n_clips or not all(references) or any(len(system) != n_clips for system in systems):
        raise ValueError("there must be at least one clip, each with a reference and one caption from each system")
    if need_aac_metrics(names):
        aac.check_installed("this metric" if len(names) == 1 else "these metrics")
    with Runs() as runs:
        scoring = _Run(settings or ScoreSettings(), progress or (lambda name: None), runs, names)
        return scoring.score(references, systems)


class _Run:
    """The state of one call of `score_systems`."""

    def __init__(self, settings: ScoreSettings, progress: Progress, runs: Runs, names: Sequence[str]) -> None:
        self.settings, self.progress, self.runs = settings, progress, runs
        self.names = with_parts(names)
        self.programs: list[Program] = []
        self.java: Java | None = None

    def score(self, references: list[list[str]], systems: list[list[str]]) -> Scoring:
        all_predictions, n_cleaned_predictions = clean_all(caption for system in systems for caption in system)
        all_references, n_cleaned_references = clean_all(caption for several in references for caption in several)
        result = Scoring([], len(references), n_cleaned_predictions, n_cleaned_references)
        try:
            self.java = find_java(self.settings.java)
            # One process for all captions: Java takes longer to start than to tokenise them.
            class_path = self._find_jars("ptb").class_path
            tokens = tokenize([*all_predictions, *all_references], self.java, class_path, runs=self.runs)
        except TextcapError as error:
            reason = f"captions cannot be tokenised: {error}"
            failed = {name: MetricScore(name, problem=reason) for name in self.names}
            return self._with_versions(replace(result, systems=[SystemScores(failed, {}) for _ in systems]))
        tokenized = iter(tokens.captions)
        predictions = [[next(tokenized) for _ in system] for system in systems]
        tokenized_references = [[next(tokenized) for _ in several] for several in references]
        scored = self._score_tokens(predictions, tokenized_references, self.java)
        return self._with_versions(replace(result, systems=scored, java_version=tokens.java_version))

    def _with_versions(self, result: Scoring) -> Scoring:
        """Add the versions of everything that was used and can change a score."""
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
        captions = [caption for system in predictions for caption in system]  # the systems one after another
        paired = references * len(predictions)  # the references of each of these captions
        heap_mb, is_ample = default_heap()
        pool = ThreadPoolExecutor(2 if is_ample else 1, thread_name_prefix="textcap-score")
        try:
            meteor = pool.submit(self._meteor, captions, paired, java, heap_mb) if "meteor" in self.names else None
            spice_scores = pool.submit(self._spice, captions, paired, java, heap_mb) if "spice" in self.names else None
            self._score_in_python(predictions, references, found)
            if set(self.names) & set(BLEU):
                for one, system in zip(counts, predictions, strict=True):
                    one["bleu"] = bleu_counts(system, references)
            if meteor is not None:
                self._collect_meteor(meteor, found, counts)
            if spice_scores is not None:
                self._collect_spice(spice_scores, found)
        except BaseException:  # including Ctrl-C: stop the processes instead of waiting for them
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
            self._report_progress(wanted)
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
            self._report_progress([name])

    def _meteor(self, predictions: list[str], references: list[list[str]], java: Java, heap_mb: int) -> Numbers:
        class_path = self._find_jars("meteor").class_path
        return meteor_counts(predictions, references, java, class_path, heap_mb=heap_mb, runs=self.runs)

    def _collect_meteor(
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
        self._report_progress(["meteor"])

    def _spice(self, predictions: list[str], references: list[list[str]], java: Java, heap_mb: int) -> SpiceScores:
        return spice(
            predictions,
            references,
            java,
            self._find_jars("spice"),
            cache_folder=self.settings.cache_folder,
            heap_mb=heap_mb,
            timeout_s=self.settings.spice_timeout_s,
            runs=self.runs,
        )

    def _collect_spice(self, spice_scores: Future[SpiceScores], found: list[dict[str, MetricScore]]) -> None:
        try:
            result = spice_scores.result()
        except TextcapError as error:
            for scores in found:
                scores["spice"] = MetricScore("spice", problem=str(error))
        else:
            parts = (np.split(numbers, len(found)) for numbers in (result.per_clip, result.n_too_long))
            for scores, part, too_long in zip(found, *parts, strict=True):
                score = score_of_clips("spice", np.nan_to_num(part, nan=0.0))
                scores["spice"] = replace(score, n_nan=int(np.isnan(part).sum()), n_too_long=int(too_long.sum()))
        self._report_progress(["spice"])

    def _find_jars(self, name: JavaProgram) -> Program:
        """Find and check a program's jars, and note them for the versions in the result."""
        program = find_jars(name)
        self.programs.append(program)
        return program

    def _report_progress(self, names: Iterable[str]) -> None:
        for name in names:
            self.progress(name)


def _or_none(version: Callable[[], str]) -> str | None:
    try:
        return version()
    except TextcapError:
        return None
