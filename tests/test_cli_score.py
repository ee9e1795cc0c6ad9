"""`textcap score` on the command line: its output, the files that it writes, and its exit codes."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fake_java import fake_java, gone_within, wait_for_pid
from textcap.cli import score_view
from textcap.cli.app import app

CLIPS = json.loads((Path(__file__).parent / "scored_clips.json").read_text(encoding="utf-8"))
NAMES = [f"{i:02d}.wav" for i in range(len(CLIPS["clips"]))]
REFERENCES = {name: clip["references"] for name, clip in zip(NAMES, CLIPS["clips"], strict=True)}
PREDICTIONS = {name: clip["prediction"] for name, clip in zip(NAMES, CLIPS["clips"], strict=True)}


@pytest.fixture
def files(tmp_path: Path, metric_jars: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with references and three files of predictions, and jars in the cache."""
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(metric_jars))
    monkeypatch.chdir(tmp_path)
    others = list(PREDICTIONS.values())
    write("refs.json", REFERENCES)
    write("a.json", PREDICTIONS)
    write("b.json", {name: references[0] for name, references in REFERENCES.items()})
    write("c.json", dict(zip(NAMES, others[1:] + others[:1], strict=True)))
    return tmp_path


def write(name: str, values: object) -> None:
    Path(name).write_text(json.dumps(values), encoding="utf-8")


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def run_json(*arguments: object, code: int = 0) -> dict[str, Any]:
    found, out, err = run(*arguments, "--json")
    assert found == code, err
    assert len(out.splitlines()) == 1
    values = json.loads(out)
    assert isinstance(values, dict)
    return values


@pytest.mark.java
def test_scores_are_tab_separated_lines(files: Path) -> None:
    code, out, err = run("refs.json", "a.json", "--metrics", "bleu,cider-d")
    assert code == 0
    wording, signature = err.splitlines()
    assert re.fullmatch(r"a.json: \d+\.\d words per caption, \d+ different words, 0% of .* more than once", wording)
    assert re.fullmatch(r"signature: textcap:\S+\|clips:10\|refs:3\|tok:ptb\S+\|java:\S+\|jars:[0-9a-f]{12}", signature)
    values = {name: score["value"] for name, score in CLIPS["scores"].items()}
    names = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider_d")
    assert out.splitlines() == [f"{name}\t{values[name]:.3f}" for name in names]


@pytest.mark.java
def test_json_contains_everything_that_changes_a_score(files: Path) -> None:
    report = run_json("refs.json", "a.json", "--metrics", "meteor,rouge_l")
    assert report["n_clips"] == report["n_reference_clips"] == len(NAMES)
    (system,) = report["systems"]
    assert system["predictions"] == "a.json"
    for name in ("meteor", "rouge_l"):
        assert system["scores"][name] == pytest.approx(CLIPS["scores"][name]["value"], abs=1e-9)
    assert report["comparison"]["differences"] == [] and report["published"] == [] and system["problems"] == {}
    versions = report["versions"]
    assert re.match(r"\d", versions["java"]["version"])
    assert {"meteor/meteor-1.5.jar", "stanford_nlp/stanford-corenlp-3.4.1.jar"} <= set(versions["sha256"])
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in versions["sha256"].values())


@pytest.mark.java
def test_scores_of_clips_are_written_sorted_with_the_worst_first(files: Path) -> None:
    code, _, err = run("refs.json", "a.json", "--metrics", "rouge_l,cider_d", "-o", "scores.csv", "--sort", "CIDEr-D")
    assert code == 0, err
    with open("scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    n_references = max(map(len, REFERENCES.values()))
    texts = ["caption", *(f"reference_{number}" for number in range(1, n_references + 1))]
    assert list(rows[0]) == ["id", *texts, "rouge_l", "cider_d"]
    for row in rows:
        assert row["caption"] == PREDICTIONS[row["id"]] and row["reference_1"] == REFERENCES[row["id"]][0]
    found = {row["id"]: float(row["cider_d"]) for row in rows}
    assert [found[name] for name in NAMES] == pytest.approx(CLIPS["scores"]["cider_d"]["per_clip"], abs=1e-9)
    assert list(found.values()) == sorted(found.values())


@pytest.fixture
def thirty(files: Path) -> Path:
    """References for thirty clips, and three systems: a good one, one with a word too many, a bad one."""
    names = [f"{i:02d}-{copy}.wav" for copy in range(3) for i in range(len(NAMES))]
    references = [REFERENCES[NAMES[int(name[:2])]] for name in names]
    write("refs.json", dict(zip(names, references, strict=True)))
    write("good.json", {name: several[0] for name, several in zip(names, references, strict=True)})
    close = {name: several[0] for name, several in zip(names, references, strict=True)}
    write("close.json", {**close, names[0]: f"{references[0][0]} somewhere"})
    write("bad.json", dict.fromkeys(names, "a cow moos"))
    return files


@pytest.mark.java
def test_up_to_five_files_are_compared_pair_by_pair(thirty: Path) -> None:
    arguments = ("refs.json", "bad.json", "good.json", "close.json", "--metrics", "bleu_1,cider_d", "-o", "scores.csv")
    report = run_json(*arguments)
    compared = report["comparison"]
    assert compared["ranked_by"] == "cider_d" and compared["seed"] == 0 and "Holm" in compared["method"]
    found = {(one["metric"], one["first"], one["second"]): one for one in compared["differences"]}
    pairs = {(first, second) for _, first, second in found}
    assert pairs == {("good.json", "close.json"), ("good.json", "bad.json"), ("close.json", "bad.json")}
    one = found["cider_d", "good.json", "bad.json"]
    good, bad = (report["systems"][place]["scores"]["cider_d"] for place in (1, 0))
    assert one["difference"] == pytest.approx(good - bad)
    assert one["low"] <= one["difference"] <= one["high"]
    assert one["p_value"] <= one["p_corrected"] < 0.05 and one["verdict"] == "better"
    close = found["cider_d", "good.json", "close.json"]
    assert close["p_corrected"] > 0.05 and close["verdict"] == "not significantly different"
    arguments = (*arguments, "--force")
    assert run_json(*arguments)["comparison"] == compared
    assert run_json(*arguments, "--seed", 1)["comparison"] != compared
    with open("scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["id", "predictions", "caption"]
    assert len(rows) == 3 * 30
    code, out, err = run(*arguments)
    assert code == 0
    assert out.splitlines()[0] == "metric\tbad.json\tgood.json\tclose.json"
    assert re.search(
        r"^good.json is better than bad.json in CIDEr-D: \+\d\.\d{3} \[.*\], p .*Holm.*3 pairs, 30 clips$", err, re.M
    )
    assert re.search(r"^good.json does not differ reliably from close.json in CIDEr-D", err, re.M)
    assert "CIDEr-D weights words by the full set of references in every draw" in err


@pytest.mark.java
def test_baseline_is_compared_with_each_other_file(thirty: Path) -> None:
    report = run_json("refs.json", "good.json", "close.json", "--metrics", "rouge_l", "--baseline", "bad.json")
    assert [one["predictions"] for one in report["systems"]] == ["good.json", "close.json", "bad.json"]
    assert {one["second"] for one in report["comparison"]["differences"]} == {"bad.json"}
    report = run_json("refs.json", "bad.json", "good.json", "--metrics", "rouge_l", "--baseline", "./good.json")
    (one,) = report["comparison"]["differences"]
    assert (one["first"], one["second"], one["verdict"]) == ("bad.json", "good.json", "worse")


@pytest.mark.java
def test_few_clips_get_no_verdict(files: Path) -> None:
    code, out, err = run("refs.json", "a.json", "b.json", "--metrics", "rouge_l")
    assert code == 0
    assert "b.json and a.json: no verdict below 30 clips" in err
    assert "better" not in out + err
    report = run_json("refs.json", "a.json", "b.json", "--metrics", "rouge_l")
    (one,) = report["comparison"]["differences"]
    assert one["p_value"] is None and one["verdict"] is None and one["low"] <= one["difference"] <= one["high"]


@pytest.mark.java
def test_scores_have_intervals_and_people_are_scored(files: Path) -> None:
    code, out, err = run("refs.json", "a.json", "--metrics", "bleu_1,cider_d", "--intervals", "--human")
    assert code == 0, err
    header, *lines = [line.split("\t") for line in out.splitlines()]
    assert header == ["metric", "a.json", "people, one reference fewer", "a.json, one reference fewer"]
    for name, value, human, fewer in lines:
        score, low, high = map(float, re.sub(r"[\[\],]", "", value).split())
        assert low < score < high, name
        assert 0 < float(human) and 0 < float(fewer)
    # By hand: each reference in turn is a caption, and the others are its references.
    rounds = []
    for left_out in range(3):
        write("others.json", {n: [r for i, r in enumerate(rs) if i != left_out] for n, rs in REFERENCES.items()})
        write("human.json", {name: references[left_out] for name, references in REFERENCES.items()})
        report = run_json("others.json", "human.json", "a.json", "--metrics", "bleu_1,cider_d")
        rounds.append([one["scores"] for one in report["systems"]])
    report = run_json("refs.json", "a.json", "--metrics", "bleu_1,cider_d", "--human")
    for index, found in enumerate([report["leave_one_out"]["human"], *report["leave_one_out"]["systems"]]):
        for name, value in found.items():
            assert value == pytest.approx(sum(one[index][name] for one in rounds) / 3, abs=1e-12)


@pytest.mark.java
def test_people_cannot_be_scored_with_a_single_reference(files: Path) -> None:
    write("refs.json", {**REFERENCES, NAMES[0]: REFERENCES[NAMES[0]][:1]})
    code, out, err = run("refs.json", "a.json", "--metrics", "bleu_1", "--human")
    assert (code, out) == (1, "") and "--human" in err
    assert "each clip needs at least two, unlike 1 of the 10 clips" in err


@pytest.mark.java
def test_tables_for_papers_escape_what_they_show(files: Path) -> None:
    os.rename("a.json", "a_|&.json")
    arguments = ("refs.json", "a_|&.json", "b.json", "--metrics", "rouge_l", "--format")
    _, out, _ = run(*arguments, "markdown")
    value = f"{CLIPS['scores']['rouge_l']['value']:.3f}"
    assert out.splitlines()[:2] == ["| metric | a\\_\\|&.json | b.json |", "| --- | ---: | ---: |"]
    assert out.splitlines()[2].startswith(f"| ROUGE-L | {value} |")
    _, out, _ = run(*arguments, "latex")
    assert r"metric & a\_|\&.json & b.json \\ \hline" in out and rf"ROUGE-L & {value} &" in out
    _, out, _ = run(*arguments, "csv")
    assert next(csv.reader(out.splitlines())) == ["metric", "a_|&.json", "b.json"]
    _, out, _ = run(*arguments, "table")
    assert "│ ROUGE-L │" in out


@pytest.mark.java
def test_published_scores_warn_of_another_number_of_clips(files: Path) -> None:
    _, out, err = run("refs.json", "a.json", "--metrics", "rouge_l", "--compare", "audiocaps")
    assert "published: text-only, noise\trouge_l 0.458\tarXiv" in out
    assert "the published scores are for 957 to 975 clips, these for 10" in err


def test_captions_without_spaces_are_named(thirty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("refs.json", {f"{i}": ["\u4e00\u53ea\u72d7\u5728\u53eb\u7740"] for i in range(3)})
    write("said.json", {f"{i}": "\u4e00\u53ea\u732b\u5728\u53eb\u7740" for i in range(3)})
    _, _, err = run("refs.json", "said.json", "--metrics", "rouge_l")
    assert "said.json: 3 captions without spaces count as one word each" in err


def test_scoring_does_not_load_torch(files: Path) -> None:
    code = "import sys\nfrom textcap.cli.app import app\ntry:\n    app()\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "score", "refs.json", "a.json", "--metrics", "bleu,rouge_l,cider_d,meteor,vocab"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "failed" not in done.stdout


@pytest.mark.java
def test_tables_are_printed_on_a_terminal(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, width=160, record=True, highlight=False)
    monkeypatch.setattr(score_view, "out", terminal)
    os.rename("b.json", "b[red].json")
    code, _, _ = run("refs.json", "a.json", "b[red].json", "--metrics", "default", "--compare", "audiocaps")
    shown = terminal.export_text()
    assert code in (0, 3)
    assert "b[red].json" in shown and "METEOR" in shown and "too few clips" in shown
    assert "text-only, noise" in shown and "0.437" in shown and "published: arXiv 2309.07372" in shown


@pytest.mark.java
def test_other_metrics_survive_one_that_fails(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    for folder in ("stanford_nlp", "meteor"):
        (bare / "aac-metrics").mkdir(parents=True, exist_ok=True)
        (bare / "aac-metrics" / folder).symlink_to(Path(os.environ["AAC_METRICS_CACHE_PATH"]) / "aac-metrics" / folder)
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(bare))
    code, out, err = run("refs.json", "a.json", "--metrics", "meteor,cider_d,spice,spider")
    lines = dict(line.split("\t", 1) for line in out.splitlines())
    assert code == 3
    assert lines["meteor"] == f"{CLIPS['scores']['meteor']['value']:.3f}"
    assert lines["spice"] == lines["spider"] == "failed"
    assert re.search(r"^no SPICE: SPICE is missing .* \(run textcap fetch metrics\)$", err, re.M)
    assert "no SPIDEr: needs SPICE, which failed\n" in err
    report = run_json("refs.json", "a.json", "--metrics", "spice", code=1)  # no metric has a value
    assert report["systems"][0]["scores"] == {"spice": None}
    assert "textcap fetch metrics" in report["systems"][0]["problems"]["spice"]


@pytest.mark.java
def test_file_that_cannot_be_read_does_not_stop_the_others(files: Path) -> None:
    (files / "folder.json").mkdir()
    report = run_json("refs.json", "gone.json", "a.json", "folder.json", "b.json", "--metrics", "rouge_l", code=3)
    assert [system["predictions"] for system in report["systems"]] == ["a.json", "b.json"]
    assert [error.split(" (")[0] for error in report["not_read"]] == [
        "gone.json does not exist",
        "folder.json is a folder",
    ]
    code, out, err = run("refs.json", "gone.json", "a.json", "b.json", "--metrics", "rouge_l", "--baseline", "b.json")
    assert code == 3 and "skipped: gone.json does not exist" in err and "b.json" in out
    for arguments in (["gone.json"], ["gone.json", "none.json"], ["a.json", "b.json", "--baseline", "gone.json"]):
        code, out, err = run("refs.json", *arguments, "--metrics", "rouge_l")
        assert (code, out) == (1, "") and "gone.json does not exist" in err


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="permissions are POSIX, and root may read everything"
)
def test_file_without_permission_is_no_misuse(files: Path) -> None:
    os.chmod("b.json", 0)
    code, _, err = run("refs.json", "a.json", "b.json", "--metrics", "rouge_l")
    assert code == 3 and "skipped: b.json cannot be read: Permission denied" in err


@pytest.mark.java
def test_undefined_metric_of_a_single_clip_is_not_a_failure(files: Path) -> None:
    write("one.json", {NAMES[0]: REFERENCES[NAMES[0]]})
    write("said.json", {NAMES[0]: "a dog barks"})
    code, out, err = run("one.json", "said.json", "--metrics", "bleu_1,cider_d")
    lines = dict(line.split("\t", 1) for line in out.splitlines())
    assert code == 0
    assert lines["cider_d"] == "undefined" and "no CIDEr-D: undefined for a single clip" in err


@pytest.mark.java
def test_some_of_the_clips_are_scored_only_if_allowed(files: Path) -> None:
    write("part.json", {f"clips/{name}": caption for name, caption in list(PREDICTIONS.items())[:-1]})
    code, out, err = run("refs.json", "part.json", "--metrics", "bleu_1")
    assert (code, out) == (1, "") and len(err.splitlines()) == 1
    assert f"1 of {len(NAMES)} clips" in err and "--allow-missing" in err
    code, out, err = run("refs.json", "part.json", "--metrics", "bleu_1", "--allow-missing")
    assert code == 0 and out.startswith("bleu_1\t")
    assert f"scoring {len(NAMES) - 1} of {len(NAMES)} clips" in err and "only by base name" in err


@pytest.mark.java
def test_empty_predictions_are_scored_only_if_allowed(files: Path) -> None:
    write("silent.json", {**PREDICTIONS, NAMES[0]: ""})
    code, out, err = run("refs.json", "silent.json", "--metrics", "bleu_1", "--allow-missing")
    assert (code, out) == (1, "") and "--allow-empty" in err and "--allow-missing" not in err
    report = run_json("refs.json", "silent.json", "--metrics", "bleu_1", "--allow-empty")
    assert report["n_clips"] == len(NAMES) and report["systems"][0]["matched_by"] == {"exact name": len(NAMES)}
    assert report["does_not_fit"] == [f"silent.json has empty captions in 1 of {len(NAMES)} predictions: '{NAMES[0]}'"]


@pytest.mark.java
def test_captions_with_line_ends_are_counted(files: Path) -> None:
    write("lines.json", {**PREDICTIONS, NAMES[0]: "a dog\nbarks\u2028loudly ||| twice"})
    code, _, err = run("refs.json", "lines.json", "--metrics", "meteor")
    assert code == 0
    assert "replaced line ends, control characters and ||| by spaces in 1 prediction\n" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["refs.json", "nothing.json"], "nothing.json does not exist"),
        (["a.json", "refs.json"], "give references first"),
        (["-", "-"], "standard input was given twice"),
        (["refs.json", "a.json", "--java", "no-such-java"], "--java is no-such-java"),
    ],
)
def test_bad_input_is_a_one_line_error(files: Path, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 1
    assert message in err and err.count(message) == 1  # not once for each metric
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--metrics", "blue"], "unknown metric 'blue' (did you mean bleu?)"),
        (["--metrics", ","], "no metric is given"),
        (["--compare", "esc50"], "'esc50' is not one of 'audiocaps', 'clotho'"),
        (["--references-format", "xml"], "'xml' is not one of 'plain', 'coco', 'jsonl'"),
        (["--predictions-format", "clotho"], "'clotho' is not one of 'plain', 'coco', 'jsonl'"),
        (["--metrics", "bleu_1", "-o", "scores.csv", "--sort", "spice"], "spice is not among the metrics"),
        (["--spice-timeout", "0"], "--spice-timeout"),
        (["--java-heap", "1"], "--java-heap"),
        (["--format", "html"], "'html' is not one of 'table', 'markdown', 'latex', 'csv'"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_unknown_names_are_misuse(files: Path, flags: list[str], message: str) -> None:
    code, out, err = run(
        "refs.json", "nothing.json", *flags, "--java", "no-such-java"
    )  # rejected before any file is read
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert not Path("scores.csv").exists()


@pytest.mark.java
def test_existing_output_is_overwritten_only_with_force(files: Path) -> None:
    Path("scores.csv").write_text("mine", encoding="utf-8")
    arguments = ("refs.json", "a.json", "--metrics", "bleu_1", "-o", "scores.csv")
    code, out, err = run(*arguments)
    assert (code, out) == (1, "") and "scores.csv already exists" in err and "--force" in err
    assert Path("scores.csv").read_text(encoding="utf-8") == "mine"
    assert run(*arguments, "--force")[0] == 0
    assert Path("scores.csv").read_text(encoding="utf-8").startswith("id,caption,")


@pytest.mark.parametrize("name", ["refs.json", "a.json", "./a.json"])
def test_output_never_overwrites_an_input(files: Path, name: str) -> None:
    before = Path(name).read_bytes()
    code, out, err = run("refs.json", "a.json", "-o", name)
    assert (code, out) == (1, "") and "is the input" in err
    assert Path(name).read_bytes() == before


def test_output_that_cannot_be_written_is_refused_before_any_work(files: Path) -> None:
    Path("file").write_text("")
    code, out, err = run("refs.json", "a.json", "-o", "file/scores.csv", "--java", "no-such-java")
    assert (code, out) == (1, "") and "file/scores.csv cannot be written" in err and "no-such-java" not in err


def test_same_predictions_given_twice_are_rejected(files: Path) -> None:
    code, out, err = run("refs.json", "a.json", "./a.json")
    assert (code, out) == (1, "") and "was given twice" in err


@pytest.mark.java
def test_names_with_surrogates_are_written(files: Path) -> None:
    write("odd-refs.json", {"\ud800x": ["a dog barks"], "b": ["rain falls"]})
    write("odd.json", {"\ud800x": "a dog", "b": "rain"})
    code, _, err = run("odd-refs.json", "odd.json", "--metrics", "bleu_1", "-o", "scores.csv")
    assert code == 0, err
    assert [line.split(",")[0] for line in Path("scores.csv").read_text().splitlines()] == ["id", "\\ud800x", "b"]


def test_sort_requires_output(files: Path) -> None:
    code, _, err = run("refs.json", "a.json", "--sort", "spice")
    assert code == 2 and "--output" in err


@pytest.mark.java
def test_scores_are_printed_and_written_even_if_the_metric_to_sort_by_failed(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare" / "aac-metrics"
    bare.mkdir(parents=True)
    jars = Path(os.environ["AAC_METRICS_CACHE_PATH"]) / "aac-metrics"
    (bare / "stanford_nlp").symlink_to(jars / "stanford_nlp")
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(bare.parent))
    arguments = ("--metrics", "rouge_l,spice", "-o", "scores.csv", "--sort", "spice")
    code, out, _ = run("refs.json", "a.json", *arguments)
    assert code == 3 and out.startswith("rouge_l\t")
    assert len(Path("scores.csv").read_text().splitlines()) == 1 + len(NAMES)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_command_leaves_no_process_and_no_file(
    files: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    pid = tmp_path / "pid"
    body = f"open({str(pid)!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"
    java = fake_java(tmp_path / "jdk", body, release="17.0.15")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # Background jobs of a shell ignore Ctrl-C, and their child processes inherit that.
    program = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from textcap.cli.app import main\nmain()"
    command = [sys.executable, "-c", program, "score", "refs.json", "a.json", "--java", str(java)]
    started = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.PIPE)
    java_pid = wait_for_pid(pid, timeout_s=120)
    started.send_signal(number)
    started.communicate(timeout=60)
    assert started.returncode == code
    assert gone_within(java_pid)
    for _ in range(50):
        if not list(temporary.iterdir()):
            break
        time.sleep(0.1)
    assert list(temporary.iterdir()) == []


@pytest.mark.java
@pytest.mark.long
@pytest.mark.parametrize("name", ["conette_audiocaps_test", "timkonr_clapcap_audiocaps_inference"])
def test_published_scores_are_reproduced(files: Path, test_data: Path, name: str) -> None:
    oracle = json.loads((test_data / "oracle" / f"{name}.json").read_text(encoding="utf-8"))
    write("published-refs.json", {item["id"]: item["references"] for item in oracle["items"]})
    write("published.json", {item["id"]: item["candidate"] for item in oracle["items"]})
    metrics = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor", "cider_d")
    flags = ("--metrics", ",".join(metrics), "-o", "scores.csv")
    report = run_json("published-refs.json", "published.json", *flags)
    published = {metric: oracle["published"][metric] for metric in metrics if metric in oracle["published"]}
    assert {"cider_d", "meteor"} <= set(published)
    for metric, value in published.items():
        tolerance = 5e-5 if metric == "cider_d" else 1e-6
        assert report["systems"][0]["scores"][metric] == pytest.approx(value, abs=tolerance), metric
    with open("scores.csv", encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == [item["id"] for item in oracle["items"]]
    for item in oracle["items"]:  # only the first oracle has published scores of the clips
        for metric, value in item.get("scores", {}).items():
            if metric in metrics and metric != "cider_d":  # its word weights were rounded before publication
                assert float(rows[item["id"]][metric]) == pytest.approx(value, abs=1e-9), (item["id"], metric)
