"""The metrics: equal to published values and to aac-metrics, independent of each other, with a score for every clip."""

import importlib.util
import json
import os
import shutil
import tempfile
import threading
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fake_java import count_starts, silent_java
from textcap.errors import DependencyError, InputError
from textcap.scoring import metrics, programs
from textcap.scoring.cleaning import clean, clean_all
from textcap.scoring.counts import meteor_of_counts
from textcap.scoring.jars import find_jars
from textcap.scoring.java import find_java
from textcap.scoring.metric_names import (
    GROUPS,
    METRICS,
    TITLES,
    VOCAB,
    parse_metrics,
    with_parts,
)
from textcap.scoring.metrics import ScoreSettings, Scoring, score_systems
from textcap.scoring.programs import meteor_counts, tokenize
from textcap.scoring.readers import read_references
from textcap.scoring.results import MetricScore, add_combined, score_of_clips

CLIPS = json.loads((Path(__file__).parent / "scored_clips.json").read_text(encoding="utf-8"))
PREDICTIONS = [clip["prediction"] for clip in CLIPS["clips"]]
REFERENCES = [clip["references"] for clip in CLIPS["clips"]]
WITHOUT_SPICE = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider_d"]

ANY_TEXT = st.text(st.characters(), max_size=60)  # including lone surrogates, which st.text() alone does not draw


@pytest.fixture
def jars(metric_jars: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The jars of the tokenizer and METEOR, in the cache that scoring uses."""
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(metric_jars))
    return metric_jars


@pytest.fixture
def aac_metrics(jars: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The whole of aac-metrics, made to accept any version of Java."""
    if importlib.util.find_spec("aac_metrics") is None:
        pytest.skip("needs aac-metrics")
    from textcap.verify import import_msclap

    import_msclap()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module("aac_metrics")
    checks = importlib.import_module("aac_metrics.utils.checks")
    monkeypatch.setattr(checks, "MAX_JAVA_MAJOR_VERSION", 99)
    return package


def assert_scores(scoring: Scoring, recorded: dict[str, Any], system: int = 0) -> None:
    for name, score in scoring.systems[system].items():
        assert score.problem is None, score.problem
        assert score.per_clip is not None
        assert score.value == pytest.approx(recorded[name]["value"], abs=1e-9), name
        assert score.per_clip.tolist() == pytest.approx(recorded[name]["per_clip"], abs=1e-9), name


# Names


def test_names_and_groups_are_parsed() -> None:
    assert parse_metrics("meteor,bleu") == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor"]
    assert parse_metrics(" SPIDEr , cider-d,cider_d,") == ["cider_d", "spider"]
    assert parse_metrics("all") == list(METRICS)
    assert set(GROUPS["dcase"]) >= {"meteor", "spider_fl", "fense", "vocab"}
    assert with_parts(["spider_fl"]) == ["cider_d", "spice", "spider", "spider_fl", "fer"]
    assert set(TITLES) == {*METRICS, *VOCAB}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bleu,metoer", "unknown metric 'metoer' (did you mean meteor?)"),
        ("spyder", "unknown metric 'spyder' (did you mean spider?)"),
        ("qqq", "unknown metric 'qqq' (use some of bleu_1, "),
        (" , ", "no metric is given (use some of bleu_1, "),
    ],
)
def test_unknown_name_is_rejected_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_metrics(text)
    assert str(caught.value).startswith(message)


# Cleaning


def test_cleaned_captions_are_one_line_without_separators() -> None:
    dirty = [
        "a\nb",
        "a\r\nb",
        "a\u2028b",
        "a\x85b",
        "a\x1cb",
        "a ||| b",
        "a||||b",
        "a\x00b",
        "a\ud800b",
        "a b\n",
        "a\tb",
    ]
    cleaned, n_changed = clean_all(dirty)
    assert cleaned[:8] == ["a b", "a b", "a b", "a b", "a b", "a   b", "a b", "a b"]
    assert cleaned[8:] == ["a\ufffdb", "a b ", "a\tb"]
    assert n_changed == 9  # all but the caption that only ends in a line end, and the one with a tab


@given(st.text())
def test_cleaned_text_is_one_line_of_utf8_and_cleaning_again_changes_nothing(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned.splitlines()) <= 1
    assert "|||" not in cleaned
    assert clean(cleaned) == cleaned
    cleaned.encode("utf-8")


# Counts


def test_meteor_of_zero_counts_is_zero() -> None:
    assert meteor_of_counts(np.zeros((3, 23))).tolist() == [0, 0, 0]


# The Java programs, compared with the way in which aac-metrics runs them

ODD = [
    "A dog (large) barks, doesn't it?",
    "It's 3.5 m away; the U.S. fig. ...",
    "",
    "caf\u00e9 na\u00efve \u201cquoted\u201d \u2014 dash",
    "\u3053\u3093\u306b\u3061\u306f \U0001f600",
    "call 1 800-555-1234 - now",
    "...",
    "-- [x] {y} <z> & a/b 50% $5",
    "A   lot  of    space \u00a0 here\t.",
    "the end.",
]


@pytest.mark.java
def test_tokenizer_equals_that_of_aac_metrics(aac_metrics: ModuleType) -> None:
    own = importlib.import_module("aac_metrics.utils.tokenization").preprocess_mono_sents
    java = find_java()
    tokens = tokenize([*ODD, *PREDICTIONS], java, find_jars("ptb").class_path)
    assert tokens.captions == own([*ODD, *PREDICTIONS])
    assert tokens.captions[-len(PREDICTIONS) :] == CLIPS["tokens"]
    assert tokens.java_version == java.version


@pytest.mark.java
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # aac-metrics never closes its pipes
def test_meteor_equals_that_of_aac_metrics(aac_metrics: ModuleType) -> None:
    own = importlib.import_module("aac_metrics.functional").meteor
    predictions = [*CLIPS["tokens"], "a dog barks", "", "the", "x 3.5 times"]
    references = [[r.lower() for r in rs] for rs in REFERENCES]
    references += [["a dog barks", "the cat"], ["a dog"], ["the"], ["3.5 times", "a b c d", "x"]]
    corpus, clips = own(predictions, references)
    counts = meteor_counts(predictions, references, find_java(), find_jars("meteor").class_path)
    assert meteor_of_counts(counts).tolist() == pytest.approx(clips["meteor"].tolist(), abs=1e-12)
    assert float(meteor_of_counts(counts.sum(axis=0))) == pytest.approx(float(corpus["meteor"]), abs=1e-12)


@pytest.mark.java
def test_tokens_stay_with_their_captions_if_some_are_empty(jars: Path) -> None:
    java, class_path = find_java(), find_jars("ptb").class_path
    captions = ["", "A dog.\nA cat.", "\u2028", "a|||b", "!", "Rain", "", "\n"]
    assert tokenize(captions, java, class_path).captions == ["", "a dog a cat", "", "a b", "", "rain", "", ""]
    assert tokenize(["", " "], java, class_path).captions == ["", ""]
    assert tokenize([], java, class_path).captions == []


@pytest.mark.java
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(max_size=60), max_size=60))
def test_any_unicode_is_tokenised(jars: Path, captions: list[str]) -> None:
    assert len(tokenize(captions, find_java(), find_jars("ptb").class_path).captions) == len(captions)


@pytest.mark.long
@pytest.mark.java
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(ANY_TEXT, st.lists(ANY_TEXT, min_size=1, max_size=3)), min_size=40, max_size=80))
def test_any_unicode_gets_one_score_per_clip(jars: Path, clips: list[tuple[str, list[str]]]) -> None:
    clips = [*clips, ("a \ud800 dog", ["\udfff", "\ud83d barks"])]
    predictions, references = [clip[0] for clip in clips], [clip[1] for clip in clips]
    for name, score in score_systems(references, [predictions], [*WITHOUT_SPICE, "vocab"]).systems[0].items():
        if score.problem is not None:
            assert score.is_undefined and name in ("cider_d", *VOCAB), score.problem
        elif name == "vocab.cands" or name not in VOCAB:
            assert score.per_clip is not None
            assert score.per_clip.shape == (len(clips),)
            assert np.isfinite(score.per_clip).all()


# Scores


@pytest.mark.java
def test_own_clips_score_as_recorded_together_with_other_systems(jars: Path) -> None:
    other = [references[1] for references in REFERENCES]
    other[3] = "crickets |||\nchirp"
    done: list[str] = []
    scoring = score_systems(REFERENCES, [other, PREDICTIONS], WITHOUT_SPICE, progress=done.append)
    assert_scores(scoring, CLIPS["scores"], system=1)
    assert sorted(done) == sorted(WITHOUT_SPICE)
    assert [list(one) for one in scoring.systems] == [WITHOUT_SPICE] * 2
    assert (scoring.systems[0]["meteor"].value or 0) > 0.9
    assert scoring.n_clips == 10
    assert (scoring.n_cleaned_predictions, scoring.n_cleaned_references) == (1, 0)
    assert scoring.java_version is not None
    assert {"stanford_nlp/stanford-corenlp-3.4.1.jar", "meteor/meteor-1.5.jar"} <= set(scoring.jars)
    assert scoring.unknown_jars == []
    alone = score_systems(REFERENCES, [other], ["bleu_4", "rouge_l", "cider_d"]).systems[0]
    assert {name: score.value for name, score in alone.items()} == {
        name: scoring.systems[0][name].value for name in alone
    }


@pytest.mark.java
@pytest.mark.parametrize("name", ["conette_audiocaps_test", "timkonr_clapcap_audiocaps_inference"])
def test_published_values_are_reproduced(jars: Path, test_data: Path, name: str) -> None:
    oracle = json.loads((test_data / "oracle" / f"{name}.json").read_text(encoding="utf-8"))
    items, published = oracle["items"], oracle["published"]
    references, predictions = [item["references"] for item in items], [item["candidate"] for item in items]
    scores = score_systems(references, [predictions], WITHOUT_SPICE).systems[0]
    compared = [metric for metric in WITHOUT_SPICE if metric in published]
    assert {"meteor", "cider_d"} <= set(compared)
    for metric in compared:
        tolerance = 5e-5 if metric == "cider_d" else 1e-6
        assert scores[metric].value == pytest.approx(published[metric], abs=tolerance), metric
        per_clip = scores[metric].per_clip
        assert per_clip is not None and len(per_clip) == len(items)
        if "scores" in items[0] and metric != "cider_d":  # its word weights were rounded before publication
            assert per_clip.tolist() == pytest.approx([item["scores"][metric] for item in items], abs=1e-9), metric


@pytest.mark.java
def test_cider_d_of_a_single_clip_is_undefined(jars: Path) -> None:
    scores = score_systems([["a dog barks"]], [["a dog"]], ["rouge_l", "cider_d"]).systems[0]
    assert scores["rouge_l"].value is not None
    assert scores["cider_d"].value is None and scores["cider_d"].per_clip is None
    assert scores["cider_d"].is_undefined
    assert "undefined for a single clip" in (scores["cider_d"].problem or "")


def test_combined_metrics_are_computed_from_their_parts_clip_by_clip() -> None:
    cider_d, spice, fer, sbert = (np.array(v) for v in ([0.5, 1.5], [0.25, 0.0], [0.0, 1.0], [0.5, 0.25]))
    parts = {"cider_d": cider_d, "spice": spice, "fer": fer, "sbert_sim": sbert}
    scores = {name: score_of_clips(name, values) for name, values in parts.items()}
    add_combined(scores, ["spider", "spider_fl", "fense"])
    found = {name: score.per_clip.tolist() for name, score in scores.items() if score.per_clip is not None}
    assert found["spider"] == [0.375, 0.75]
    assert found["spider_fl"] == pytest.approx([0.375, 0.075])
    assert found["fense"] == pytest.approx([0.5, 0.025])
    assert scores["spider_fl"].value == pytest.approx(0.225)


@pytest.mark.parametrize("spice_too", [False, True])
def test_combined_metric_names_the_parts_that_it_lacks(spice_too: bool) -> None:
    scores = {"cider_d": MetricScore("cider_d", problem="undefined for x", is_undefined=True)}
    scores["spice"] = MetricScore("spice", problem="no jar") if spice_too else score_of_clips("spice", np.ones(1))
    add_combined(scores, ["spider"])
    missing = "CIDEr-D, which is undefined" + (", and SPICE, which failed" if spice_too else "")
    assert scores["spider"].problem == f"needs {missing}"
    assert scores["spider"].is_undefined is not spice_too


@pytest.mark.java
def test_clips_without_words_are_scored_or_reported_as_undefined(jars: Path) -> None:
    scores = score_systems([["..."], [""]], [["a dog", ""]], [*WITHOUT_SPICE, "vocab"]).systems[0]
    for name in ("bleu_1", "meteor", "rouge_l"):
        assert scores[name].per_clip is not None and scores[name].per_clip.tolist() == pytest.approx([0, 0], abs=1e-9)
    assert scores["cider_d"].problem == "undefined: no reference contains a word"
    assert scores["vocab.cands"].value == 2
    assert scores["vocab.f1"].is_undefined


@pytest.mark.parametrize(
    ("references", "systems"), [([], [[]]), ([["a"], []], [["a", "b"]]), ([["a"], ["b"]], [["a"]])]
)
def test_clips_without_a_caption_or_reference_are_rejected(
    references: list[list[str]], systems: list[list[str]]
) -> None:
    with pytest.raises(ValueError, match="at least one clip, each with a reference"):
        score_systems(references, systems, ["rouge_l"])


# Independent metrics


@pytest.mark.java
def test_versions_are_reported_even_if_the_tokenizer_failed(jars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise DependencyError("Java did not answer")

    monkeypatch.setattr(metrics, "tokenize", fail)
    found = score_systems(REFERENCES, [PREDICTIONS], ["rouge_l"])
    assert "captions cannot be tokenised" in (found.systems[0]["rouge_l"].problem or "")
    assert found.java is not None
    assert any(name.endswith("stanford-corenlp-3.4.1.jar") for name in found.jars)


def test_without_java_every_metric_reports_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings_ = ScoreSettings(java=str(tmp_path / "no-java"))
    scores = score_systems(REFERENCES, [PREDICTIONS], ["meteor", "spider"], settings_).systems[0]
    assert list(scores) == ["meteor", "cider_d", "spice", "spider"]
    for score in scores.values():
        assert score.value is None
        assert (score.problem or "").startswith("captions cannot be tokenised: --java is")
        assert "pip install" in (score.problem or "")


@pytest.mark.java
def test_missing_jars_affect_only_their_own_metrics(
    jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(jars / "aac-metrics" / "stanford_nlp", tmp_path / "aac-metrics" / "stanford_nlp", symlinks=True)
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path))
    names = [*WITHOUT_SPICE, "spice", "spider"]
    scores = score_systems(REFERENCES, [PREDICTIONS], names).systems[0]
    assert {name for name, score in scores.items() if score.problem} == {"meteor", "spice", "spider"}
    assert "textcap fetch metrics" in (scores["meteor"].problem or "")
    assert scores["spider"].problem == "needs SPICE, which failed"
    assert scores["rouge_l"].value == pytest.approx(CLIPS["scores"]["rouge_l"]["value"], abs=1e-9)


@pytest.mark.java
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no such thing')", "failed (exit code 1): no such thing"),
        ("print('a b c')", "METEOR printed something other than numbers"),
        ("print('1.0 2.0')", "METEOR returned 1 line for 10 captions"),
        ("print('nan ' * 23 + '\\n', end='')", "METEOR returned 1 line for 10 captions"),
        ("sys.stdout.buffer.write(b'\\xff')", "METEOR printed text that is not UTF-8"),
        ("os.kill(os.getpid(), 11)", "failed (signal SIGSEGV)"),
    ],
)
def test_other_metrics_survive_a_meteor_that_fails(
    jars: Path, tmp_path: Path, body: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    java = silent_java(tmp_path / "java", f"run_real() if program == 'PTBTokenizer' else {body}")
    scores = score_systems(REFERENCES, [PREDICTIONS], WITHOUT_SPICE, ScoreSettings(java=str(java))).systems[0]
    assert {name for name, score in scores.items() if score.problem} == {"meteor"}
    assert message in (scores["meteor"].problem or "")
    assert len((scores["meteor"].problem or "").splitlines()) == 1
    assert not list(scratch.iterdir())


@pytest.mark.long
@pytest.mark.java
def test_other_metrics_survive_a_meteor_that_hangs(jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PATIENCE_S", 20.0)
    body = "run_real() if program == 'PTBTokenizer' else time.sleep(600)"
    settings = ScoreSettings(java=str(silent_java(tmp_path / "java", body)))
    scores = score_systems(REFERENCES, [PREDICTIONS], ["rouge_l", "meteor"], settings).systems[0]
    assert "did not finish within" in (scores["meteor"].problem or "")
    assert scores["rouge_l"].value == pytest.approx(CLIPS["scores"]["rouge_l"]["value"], abs=1e-9)


def test_tokenizer_that_hangs_is_stopped(jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PATIENCE_S", 1.0)
    java = silent_java(tmp_path / "java", "time.sleep(600)")
    scores = score_systems(REFERENCES, [PREDICTIONS], WITHOUT_SPICE, ScoreSettings(java=str(java))).systems[0]
    assert all("did not finish within" in (score.problem or "") for score in scores.values())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('a single line')", "the tokenizer returned 1 line for 40 captions"),
        ("sys.stdout.buffer.write(b'\\xff\\n' * 40)", "the tokenizer printed text that is not UTF-8"),
    ],
)
def test_all_metrics_fail_if_the_tokenizer_returns_unexpected_output(
    jars: Path, tmp_path: Path, body: str, message: str
) -> None:
    java = silent_java(tmp_path / "java", body)
    scores = score_systems(REFERENCES, [PREDICTIONS], WITHOUT_SPICE, ScoreSettings(java=str(java))).systems[0]
    assert all(message in (score.problem or "") for score in scores.values())


@pytest.mark.parametrize(("heap_mb", "both"), [(2048, True), (1200, False)])
@pytest.mark.parametrize("wanted_mb", [None, 900])
def test_meteor_and_spice_run_at_once_or_take_turns(
    jars: Path, tmp_path: Path, heap_mb: int, both: bool, wanted_mb: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "default_heap", lambda: (heap_mb, both))
    given_mb: dict[str, int] = {}
    at_once, most = 0, 0
    lock = threading.Lock()

    def stand_in(name: str) -> Any:
        def run(*_: Any, heap_mb: int, **__: Any) -> None:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            given_mb[name] = heap_mb
            time.sleep(1.0)
            with lock:
                at_once -= 1
            raise DependencyError("not run here")

        return run

    monkeypatch.setattr(metrics, "meteor_counts", stand_in("meteor"))
    monkeypatch.setattr(metrics, "spice", stand_in("spice"))
    monkeypatch.setattr(metrics._Run, "_find_jars", lambda self, name: find_jars("meteor"))
    java = silent_java(tmp_path / "j", "sys.stdout.write(sys.stdin.read())")
    settings = ScoreSettings(java=str(java), java_heap_mb=wanted_mb)
    score_systems(REFERENCES, [PREDICTIONS], ["meteor", "spice"], settings)
    assert given_mb == dict.fromkeys(("meteor", "spice"), wanted_mb or heap_mb)
    assert most == (2 if both else 1)


# Tables


def test_repeated_column_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("file_name,caption_1,caption_1\na.wav,a dog,a cat\n")
    with pytest.raises(InputError, match=r"table.csv, line 1: two columns are named .*caption_1"):
        read_references(path)
    path.write_text("file_name,caption_1,,\na.wav,a dog,,\n")
    assert read_references(path).captions == {"a.wav": ["a dog"]}


@pytest.mark.parametrize("quote", ["", '"'])
def test_hint_for_a_cell_that_is_too_long_does_not_mention_doubled_quotes(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"file_name,caption_1\na.wav,a dog\nb.wav,{quote}{'x' * 140_000}\n")
    with pytest.raises(InputError, match="line 3: not a valid table row: field larger .*the cell is too long") as error:
        read_references(path)
    assert "double every quote" not in str(error.value)


# Processes


@pytest.mark.java
def test_bleu_rouge_and_cider_start_java_once(jars: Path, tmp_path: Path) -> None:
    java = silent_java(tmp_path / "java", "run_real()")
    names = parse_metrics("bleu,rouge_l,cider_d")
    systems = [PREDICTIONS, [references[0] for references in REFERENCES]]
    scoring = score_systems(REFERENCES, systems, names, ScoreSettings(java=str(java)))
    assert_scores(scoring, CLIPS["scores"])
    assert count_starts(java) == 1


@pytest.mark.java
def test_ctrl_c_stops_running_processes(jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    pid_file = tmp_path / "pid"
    hang = f"[open({str(pid_file)!r}, 'w').write(str(os.getpid())), time.sleep(600)]"
    java = silent_java(tmp_path / "java", f"run_real() if program == 'PTBTokenizer' else {hang}")

    def interrupt(name: str) -> None:
        until = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        raise KeyboardInterrupt

    partial: list[Scoring] = []
    before, start = threading.active_count(), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        score_systems(
            REFERENCES,
            [PREDICTIONS],
            WITHOUT_SPICE,
            ScoreSettings(java=str(java)),
            progress=interrupt,
            when_stopped=partial.append,
        )
    assert time.monotonic() - start < 120
    assert threading.active_count() == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert not list(scratch.iterdir())
    # What was done is not lost, and the rest says why it has no value.
    ((scores,),) = (scoring.systems for scoring in partial)
    assert scores["bleu_1"].value == pytest.approx(CLIPS["scores"]["bleu_1"]["value"], abs=1e-9)
    assert scores["meteor"].problem == "the run was stopped before it was done"
