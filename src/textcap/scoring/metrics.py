"""Score captions against references with every requested metric.

The metrics are independent: one that cannot be computed gets a reason, and the others are unaffected. METEOR and SPICE
run as Java processes beside the metrics in Python; none of them outlives the call.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from textcap.data.text import counted
from textcap.errors import InputError, TextcapError, UndefinedError
from textcap.scoring.cleaning import clean_all
from textcap.scoring.counts import Numbers, bleu_counts
from textcap.scoring.fense import fluency_errors, model_versions, sentence_similarities
from textcap.scoring.jars import JavaProgram, Program, find_jars
from textcap.scoring.java import find_java
from textcap.scoring.metric_names import BLEU, VOCAB, with_parts
from textcap.scoring.processes import Runs, default_heap
from textcap.scoring.programs import meteor_counts, tokenize
from textcap.scoring.results import MetricScore, Scores, Scoring, add_combined, score_of_clips, score_of_counts
from textcap.scoring.spice import spice
from textcap.scoring.words import cider_d, rouge_l, vocabulary, wording

Captions = list[str]
Progress = Callable[[str], None]
_Compute = Callable[[], list[Scores]]

_STOPPED = "the run was stopped before it was done"
_WITHOUT_LEAVE_ONE_OUT = {"spice", "spider", "spider_fl"}  # each round would parse for minutes


@dataclass(frozen=True)
class ScoreSettings:
    """How to score.

    Attributes:
        java: Path or name of the `java` program to run; None searches for one.
        java_heap_mb: Heap of METEOR and of SPICE in MB; None chooses by the memory that is available.
        spice_timeout_s: Seconds after which SPICE is stopped; None allows far more than it needs.
        cache_folder: Folder that keeps the captions SPICE has parsed, for later runs; None keeps nothing.
        device: Where the models of FENSE run, as torch names devices.
        fense_folder: Folder with the models of FENSE; None for those that `textcap fetch metrics --fense` has fetched.
    """

    java: str | None = None
    java_heap_mb: int | None = None
    spice_timeout_s: float | None = None
    cache_folder: Path | None = None
    device: str = "cpu"
    fense_folder: Path | None = None


def score_systems(
    references: list[Captions],
    systems: list[Captions],
    names: Sequence[str],
    settings: ScoreSettings | None = None,
    *,
    leave_one_out: bool = False,
    progress: Progress | None = None,
    when_stopped: Callable[[Scoring], None] | None = None,
) -> Scoring:
    """Score the predictions of one or more systems for the same clips.

    Args:
        references: One or more captions of each clip `[N]`.
        systems: For each system, a caption of each clip `[N]`.
        names: Names from `metric_names.METRICS`; the metrics that they are computed from are scored as well.
        settings: How to score.
        leave_one_out: Also score the references themselves, each against the others of its clip, with all metrics but
            SPICE; for that the systems are scored once more with one reference fewer.
        progress: Called with the name of each metric when it is done, and with how far SPICE is, from any thread.
        when_stopped: Called with the metrics that are done if the run is interrupted, before the exception goes on.

    Raises:
        InputError: References are to be scored, and a clip has only one.
        ValueError: There are no clips, a clip has no reference, or a system's number of captions is not N.
    """
    n_clips = len(references)
    if not n_clips or not all(references) or any(len(system) != n_clips for system in systems):
        raise ValueError("there must be at least one clip, each with a reference and one caption from each system")
    if leave_one_out and (alone := sum(len(several) == 1 for several in references)):
        message = f"to score references, each clip needs at least two, unlike {alone:,} of the {n_clips:,} clips"
        raise InputError(message, hint="leave out --human")
    with Runs() as runs:
        names = with_parts(names)
        result = Scoring([_failed(names, _STOPPED) for _ in systems], n_clips)
        run = _Run(result, settings or ScoreSettings(), runs, progress or (lambda name: None), names)
        try:
            run.score(references, systems, leave_one_out)
        except BaseException:  # including Ctrl-C: what is done is not lost
            if when_stopped is not None and any(score.problem != _STOPPED for score in result.all_scores):
                when_stopped(result)
            raise
    return result


@dataclass
class _Run:
    """The state of one call of `score_systems`, which fills the result."""

    result: Scoring
    settings: ScoreSettings
    runs: Runs
    progress: Progress
    names: list[str]
    programs: dict[str, Program] = field(default_factory=dict)

    def score(self, references: list[Captions], systems: list[Captions], leave_one_out: bool) -> None:
        result = self.result
        all_predictions, result.n_cleaned_predictions = clean_all(caption for system in systems for caption in system)
        all_references, result.n_cleaned_references = clean_all(one for several in references for one in several)
        try:
            result.java = find_java(self.settings.java)
            # One process for all captions: Java takes longer to start than to tokenise them.
            class_path = self._find_jars("ptb").class_path
            tokens = tokenize([*all_predictions, *all_references], result.java, class_path, runs=self.runs)
        except TextcapError as error:
            for scores in result.systems:
                scores |= _failed(list(scores), f"captions cannot be tokenised: {error}")
            return
        result.java_version = tokens.java_version
        tokenized = iter(tokens.captions)
        systems, references = ([[next(tokenized) for _ in some] for some in side] for side in (systems, references))
        result.wordings = [wording(system) for system in systems]
        self._score_tokens(systems, references, self.names, result.systems)
        if leave_one_out:
            result.leave_one_out = self._leave_one_out(systems, references)

    def _score_tokens(
        self, systems: list[Captions], references: list[Captions], names: Sequence[str], found: list[Scores]
    ) -> None:
        """Compute the metrics of tokenised captions, and put each into `found` as soon as it is done."""
        device, folder = self.settings.device, self.settings.fense_folder
        # Asked once: a program that runs takes memory, which the other must not take for a lack of it.
        heap_mb, both = default_heap()
        heap_mb = self.settings.java_heap_mb or heap_mb
        jobs: dict[tuple[str, ...], _Compute] = {
            BLEU: lambda: [_bleu(system, references) for system in systems],
            ("rouge_l",): lambda: _of_clips("rouge_l", rouge_l(systems, references)),
            ("cider_d",): lambda: _of_clips("cider_d", cider_d(systems, references)),
            VOCAB: lambda: [_vocabulary(system, references) for system in systems],
            ("sbert_sim",): lambda: _of_clips("sbert_sim", sentence_similarities(systems, references, device, folder)),
            ("fer",): lambda: _of_clips("fer", fluency_errors(systems, device, folder)),
            ("meteor",): lambda: self._meteor(systems, references, heap_mb),
            ("spice",): lambda: self._spice(systems, references, heap_mb),
        }
        pool = ThreadPoolExecutor(2 if both else 1, thread_name_prefix="textcap-score")
        try:
            jobs |= {job: pool.submit(jobs[job]).result for job in (("meteor",), ("spice",)) if job[0] in names}
            for job, compute in jobs.items():
                wanted = [name for name in job if name in names]
                if not wanted:
                    continue
                try:
                    computed = compute()
                    if found is self.result.systems:  # the rounds with one reference fewer use the same models
                        self.result.models |= model_versions(wanted, folder)
                except TextcapError as error:
                    undefined = isinstance(error, UndefinedError)
                    computed = [_failed(wanted, str(error), undefined=undefined) for _ in systems]
                for scores, new in zip(found, computed, strict=True):
                    scores |= {name: new[name] for name in wanted}
                for name in wanted:
                    self.progress(name)
        except BaseException:  # stop the processes instead of waiting for them
            self.runs.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        for scores in found:
            add_combined(scores, names)

    def _leave_one_out(self, systems: list[Captions], references: list[Captions]) -> list[Scores]:
        """Score in rounds, each of which takes one reference of every clip for a system."""
        names = [name for name in self.names if name not in _WITHOUT_LEAVE_ONE_OUT]
        rounds: list[list[Scores]] = []
        for number in range(max(map(len, references))):
            left_out = [number % len(several) for several in references]
            human = [several[i] for several, i in zip(references, left_out, strict=True)]
            others = [several[:i] + several[i + 1 :] for several, i in zip(references, left_out, strict=True)]
            rounds.append([_failed(names, _STOPPED) for _ in (human, *systems)])
            self._score_tokens([human, *systems], others, names, rounds[-1])
        return [_mean_of_rounds(several) for several in zip(*rounds, strict=True)]

    def _meteor(self, systems: list[Captions], references: list[Captions], heap_mb: int) -> list[Scores]:
        captions, paired = _one_after_another(systems, references)
        class_path = self._find_jars("meteor").class_path
        assert self.result.java is not None
        counts = meteor_counts(captions, paired, self.result.java, class_path, heap_mb=heap_mb, runs=self.runs)
        return [{"meteor": score_of_counts("meteor", part)} for part in np.split(counts, len(systems))]

    def _spice(self, systems: list[Captions], references: list[Captions], heap_mb: int) -> list[Scores]:
        assert self.result.java is not None
        result = spice(
            *_one_after_another(systems, references),
            self.result.java,
            self._find_jars("spice"),
            cache_folder=self.settings.cache_folder,
            heap_mb=heap_mb,
            timeout_s=self.settings.spice_timeout_s,
            runs=self.runs,
            progress=self.progress,
        )
        parts = (np.split(numbers, len(systems)) for numbers in (result.per_clip, result.n_too_long))
        return [{"spice": _spice_score(scores, too_long, result.note)} for scores, too_long in zip(*parts, strict=True)]

    def _find_jars(self, name: JavaProgram) -> Program:
        """Find and check a program's jars, and note them for the versions in the result."""
        if name not in self.programs:
            program = self.programs[name] = find_jars(name)
            self.result.jars |= program.hashes
            self.result.unknown_jars += program.unknown
        return self.programs[name]


def _one_after_another(systems: list[Captions], references: list[Captions]) -> tuple[Captions, list[Captions]]:
    """Return the captions of all systems, for one process, and the references of each."""
    return [caption for system in systems for caption in system], references * len(systems)


def _bleu(system: Captions, references: list[Captions]) -> Scores:
    counts = bleu_counts(system, references)
    return {name: score_of_counts(name, counts) for name in BLEU}


def _vocabulary(system: Captions, references: list[Captions]) -> Scores:
    values = vocabulary(system, references)
    scores = _failed(VOCAB, "undefined: predictions and references share no word", undefined=True)
    scores |= {name: MetricScore(name, value) for name, value in values.items()}
    n_words = np.array([float(len(set(caption.split()))) for caption in system])
    return scores | {VOCAB[0]: MetricScore(VOCAB[0], values[VOCAB[0]], n_words)}


def _spice_score(per_clip: Numbers, n_too_long: Numbers, note: str | None) -> MetricScore:
    notes: tuple[str, ...] = (note,) if note else ()
    if n_nan := int(np.isnan(per_clip).sum()):
        notes += (f"SPICE gave no value for {counted(n_nan, 'clip')}, counted as 0",)
    if n_long := int(n_too_long.sum()):
        notes += (f"skipped {counted(n_long, 'caption')} too long for SPICE",)
    return score_of_clips("spice", np.nan_to_num(per_clip, nan=0.0), notes)


def _of_clips(name: str, systems: list[Numbers]) -> list[Scores]:
    return [{name: score_of_clips(name, per_clip)} for per_clip in systems]


def _failed(names: Sequence[str], problem: str, *, undefined: bool = False) -> Scores:
    return {name: MetricScore(name, problem=problem, is_undefined=undefined) for name in names}


def _mean_of_rounds(rounds: Sequence[Scores]) -> Scores:
    """Return the mean values of one system; a metric that failed in a round has no value."""
    found = {}
    for name, first in rounds[0].items():
        values = [scores[name].value for scores in rounds]
        known = [value for value in values if value is not None]
        complete = len(known) == len(rounds)
        found[name] = MetricScore(name, float(np.mean(known))) if complete else replace(first, per_clip=None)
    return found
