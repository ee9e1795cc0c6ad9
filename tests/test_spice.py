"""SPICE: equal to published values, scores in the order of the clips, and a cache that is checked before use."""

import csv
import errno
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fake_java import count_starts, gone_within, hanging, silent_java, wait_for_pid
from textcap.cli.app import app
from textcap.scoring.cleaning import clean_all
from textcap.scoring.jars import Program, find_jars
from textcap.scoring.java import Java, JavaError, find_java
from textcap.scoring.metrics import ScoreSettings, score_systems
from textcap.scoring.processes import Runs
from textcap.scoring.spice import MAX_WORDS, spice
from textcap.scoring.spice_cache import SpiceCache

CLIPS = json.loads((Path(__file__).parent / "scored_clips.json").read_text(encoding="utf-8"))
PREDICTIONS = [clip["prediction"] for clip in CLIPS["clips"]]
REFERENCES = [clip["references"] for clip in CLIPS["clips"]]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, which must be empty after a run."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Jars that do not exist, for a fake Java."""
    return Program("spice", (tmp_path / "spice" / "spice-1.0.jar",), {"spice/spice-1.0.jar": "0" * 64}, [])


def run_stand_in(folder: Path, body: str, program: Program, n_clips: int = 3, **how: Any) -> Any:
    java = Java(str(silent_java(folder, body)), "a test")
    return spice(["a dog"] * n_clips, [["a cat"]] * n_clips, java, program, **how)


def test_results_are_returned_in_the_order_of_the_clips(tmp_path: Path, program: Program, scratch: Path) -> None:
    found = run_stand_in(tmp_path / "java", "answer([(2, 0.3), (0, 0.1), (1, None)])", program)
    assert found.per_clip[[0, 2]].tolist() == [0.1, 0.3]
    assert math.isnan(found.per_clip[1])
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("answer([(0, 0.1), (1, 0.1)])", "SPICE returned 2 results for 3 clips"),
        ("answer([(0, 0.1), (1, 0.1), (1, 0.1)])", "SPICE returned 3 results for 3 clips, or results for other clips"),
        ("answer([(0, 0.1), (1, 0.1), (7, 0.1)])", "SPICE returned 3 results for 3 clips, or results for other clips"),
        ("open(arguments[arguments.index('-out') + 1], 'wb').write(b'\\xff[[')", "SPICE's result cannot be read"),
        ("open(arguments[arguments.index('-out') + 1], 'w')", "SPICE's result cannot be read"),
        ("pass", "SPICE's result cannot be read"),
        ("print('x', file=sys.stderr); sys.exit(3)", r"failed \(exit code 3\): x"),
        ("time.sleep(600)", "did not finish within 1 s"),
    ],
)
def test_unexpected_result_is_a_one_line_error(
    tmp_path: Path, program: Program, scratch: Path, body: str, message: str
) -> None:
    with pytest.raises(JavaError, match=message) as caught:
        run_stand_in(tmp_path / "java", body, program, timeout_s=1 if "sleep" in body else 60)
    assert ("--spice-timeout" in str(caught.value)) is ("sleep" in body)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(scratch.iterdir())


def test_missing_temporary_folder_is_a_one_line_error(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    java = Java(str(silent_java(tmp_path / "java", "answer([(0, 0.5)])")), "test")
    with pytest.raises(JavaError, match=r"nowhere cannot be written: .*TMPDIR"):
        spice(["a dog"], [["a dog"]], java, program)


@pytest.mark.parametrize("what", ["write_bytes", "write_text"])
def test_full_disk_is_a_one_line_error_and_leaves_the_cache_unchanged(
    tmp_path: Path, program: Program, scratch: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    java, kept = keeping_java(tmp_path / "java"), tmp_path / "kept"
    spice(["a"], [["b"]], java, program, cache_folder=kept)
    whole = {path: path.read_bytes() for path in kept.iterdir()}
    real = getattr(Path, what)

    def fail(path: Path, *rest: Any, **named: Any) -> Any:
        if path.is_relative_to(scratch):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *rest, **named)

    monkeypatch.setattr(Path, what, fail)
    with pytest.raises(JavaError, match=f"^{scratch} cannot be written: No space left on device .*TMPDIR") as caught:
        spice(["a"], [["b"]], java, program, cache_folder=kept)
    assert caught.value.problem == "no room"
    assert {path: path.read_bytes() for path in kept.iterdir()} == whole
    assert not list(scratch.iterdir())


def test_captions_too_long_to_parse_are_skipped(tmp_path: Path, program: Program) -> None:
    body = "answer([(i['image_id'], len(i['refs'])) for i in asked()])"
    java = Java(str(silent_java(tmp_path / "java", body)), "a test")
    long, most = " ".join(["dog"] * (MAX_WORDS + 1)), " ".join(["dog"] * MAX_WORDS)
    references = [["a cat", long, "a dog"], ["a cat"], [long], [most]]
    found = spice(["a", long, "c", most], references, java, program)
    assert found.per_clip.tolist()[::2] == [2, 1]
    assert math.isnan(found.per_clip[1]) and found.per_clip[3] == 1
    assert found.n_too_long.tolist() == [1, 1, 1, 0]
    assert spice([long], [["a cat"]], java, program).n_too_long.tolist() == [1]
    assert count_starts(Path(java.path)) == 1  # Java is not started if all captions are too long


# Keeps an "x" for each chunk of captions in its database, and gives all clips the number of those that were known.
KEEPING = """
    database = parsed() if "-cache" in arguments else os.devnull
    known = open(database).read() if os.path.exists(database) else ""
    if known == "poison":
        sys.exit("poisoned")
    if asked()[0]["image_id"] < 0:
        open(database, "a").write("x")
    answer([(i["image_id"], float(len(known) - 1)) for i in asked()])
"""


def keeping_java(folder: Path, body: str = KEEPING) -> Java:
    return Java(str(silent_java(folder, body, only_scores=False)), "a test")


def test_parsed_captions_are_reused_by_the_next_run(tmp_path: Path, program: Program) -> None:
    java, kept = keeping_java(tmp_path / "java"), tmp_path / "kept"

    def run(program: Program = program) -> float:
        return float(spice(["a"], [["b"]], java, program, cache_folder=kept).per_clip[0])

    assert [run(), run()] == [0, 1]
    [file] = kept.iterdir()
    assert file.read_bytes().endswith(b"\nxx")
    other = Program("spice", program.class_path, {"spice/spice-1.0.jar": "1" * 64}, [])
    assert run(other) == 0  # captions parsed by another jar are not reused
    assert len(list(kept.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "half a header", "a folder"])
def test_damaged_cache_is_discarded(tmp_path: Path, program: Program, damage: str) -> None:
    java, kept = keeping_java(tmp_path / "java"), tmp_path / "kept"
    assert spice(["a"], [["b"]], java, program, cache_folder=kept).per_clip.tolist() == [0]
    [file] = kept.iterdir()
    whole = file.read_bytes()
    if damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        broken = {"cut": whole[:-1], "changed": whole[:-1] + b"y", "emptied": b"", "half a header": whole[:30]}
        file.write_bytes(broken[damage])
    assert spice(["a"], [["b"]], java, program, cache_folder=kept).per_clip.tolist() == [0]
    assert file.read_bytes() == whole
    assert count_starts(Path(java.path)) == 2


def test_folder_in_place_of_the_cache_is_renamed_and_kept(tmp_path: Path, program: Program) -> None:
    java, kept = keeping_java(tmp_path / "java"), tmp_path / "kept"
    spice(["a"], [["b"]], java, program, cache_folder=kept)
    [file] = kept.iterdir()
    file.unlink()
    file.mkdir()
    (file / "somebody's").write_text("work")
    assert [spice(["a"], [["b"]], java, program, cache_folder=kept).per_clip[0] for _ in range(2)] == [0, 1]
    [aside] = [path for path in kept.iterdir() if path != file]
    assert (aside / "somebody's").read_text() == "work"


def test_old_leftovers_of_killed_runs_are_removed(tmp_path: Path, program: Program) -> None:
    java, kept = keeping_java(tmp_path / "java"), tmp_path / "kept"
    kept.mkdir()
    names = (".textcap-000000000000.tmp", ".textcap-111111111111.tmp", "old.tmp")
    old, new, other = (kept / name for name in names)
    folder = kept / ".textcap-folder.tmp"
    folder.mkdir()
    for path in (old, new, other):
        path.write_text("half")
    for path in (old, other, folder):
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    spice(["a"], [["b"]], java, program, cache_folder=kept)
    assert not old.exists()
    assert new.exists() and other.exists() and folder.exists()
    assert len(list(kept.iterdir())) == 4


def test_run_that_fails_with_its_database_is_repeated_without_and_the_cache_kept(
    tmp_path: Path, program: Program, scratch: Path
) -> None:
    java, kept = keeping_java(tmp_path / "java"), tmp_path / "kept"
    spice(["a"], [["b"]], java, program, cache_folder=kept)
    [file] = kept.iterdir()
    (tmp_path / "data.mdb").write_text("poison")
    cache = SpiceCache(kept, [])
    cache.path = file
    cache.keep(tmp_path)  # with the right hash, but SPICE fails on it
    whole = file.read_bytes()
    found = spice(["a"], [["b"]], java, program, cache_folder=kept)
    assert found.per_clip.tolist() == [-1]
    assert found.note is not None and found.note.startswith("SPICE ran without its database of parsed captions")
    assert found.note.endswith("failed (exit code 1): poisoned")
    assert count_starts(Path(java.path)) == 3
    assert file.read_bytes() == whole
    assert not list(scratch.iterdir())


def test_captions_are_parsed_once_each_in_chunks_that_are_kept(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textcap.scoring.spice.CHUNK_CAPTIONS", 3)
    log, kept = tmp_path / "asked", tmp_path / "kept"
    body = KEEPING + f"    open({str(log)!r}, 'a').write(json.dumps(asked()) + '\\n')"
    seen = []

    def progress(text: str) -> None:
        seen.append((text, [path.read_bytes().count(b"x") for path in kept.glob("*")]))

    references = [["a cat", "a dog"], ["a cow", "a cat", ""], ["rain"]]
    java = keeping_java(tmp_path / "java", body)
    found = spice(["a dog", "wind", "a dog"], references, java, program, cache_folder=kept, progress=progress)
    assert found.per_clip.tolist() == [1] * 3 and found.note is None
    *chunks, items = map(json.loads, log.read_text().splitlines())
    assert [[item["test"] for item in chunk] for chunk in chunks] == [["a dog", "a cat", "wind"], ["a cow", "", "rain"]]
    assert all(item["refs"] == [item["test"]] for chunk in chunks for item in chunk)
    assert [item["image_id"] for item in items] == [0, 1, 2]
    texts = [f"SPICE: {n_done} of 6 captions" for n_done in (0, 3, 6)]
    assert seen == [(texts[0], []), (texts[1], [1]), (texts[2], [2])]
    assert next(kept.iterdir()).read_bytes().endswith(b"\nxx")
    assert count_starts(Path(java.path)) == 1


@pytest.mark.parametrize("end", ["stopped", "timed out", "died"])
def test_interrupted_run_keeps_the_chunks_that_it_has_parsed(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr("textcap.scoring.spice.CHUNK_CAPTIONS", 1)
    started, kept = tmp_path / "started", tmp_path / "kept"
    stop = "sys.exit(1)" if end == "died" else hanging(started).strip()
    java = keeping_java(
        tmp_path / "java", KEEPING + f"    if len(known) >= 1 or '-cache' not in arguments:\n        {stop}"
    )
    with ThreadPoolExecutor(1) as pool, Runs() as runs:
        how: dict[str, Any] = {"cache_folder": kept, "runs": runs, "timeout_s": 3 if end == "timed out" else 60}
        run = pool.submit(spice, ["a"], [["b", "c"]], java, program, **how)
        if end == "stopped":
            process = wait_for_pid(started)
            runs.stop()
            assert gone_within(process)
        error = run.exception(timeout=60)
    assert isinstance(error, JavaError) and error.problem == end
    [file] = kept.iterdir()
    assert file.read_bytes().endswith(b"\nx")
    whole = keeping_java(tmp_path / "again")
    assert spice(["a"], [["b", "c"]], whole, program, cache_folder=kept).per_clip.tolist() == [3]


def test_default_time_limit_depends_on_the_number_of_distinct_captions(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textcap.scoring.spice.PATIENCE_S", 0.5)
    monkeypatch.setattr("textcap.scoring.spice.PATIENCE_PER_CAPTION_S", 0.75)
    with pytest.raises(JavaError, match=r"did not finish within 2 s .*--spice-timeout"):
        run_stand_in(tmp_path / "java", "time.sleep(600)", program, n_clips=9)  # 2 distinct captions


def test_failed_run_is_not_cached(tmp_path: Path, program: Program) -> None:
    body = "open(parsed(), 'w').write('half'); sys.exit(1)"
    with pytest.raises(JavaError):
        run_stand_in(tmp_path / "java", body, program, cache_folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists() or not list((tmp_path / "kept").iterdir())


def test_cache_that_cannot_be_written_is_ignored(tmp_path: Path, program: Program) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    java = keeping_java(tmp_path / "java")
    assert spice(["a"], [["b"]], java, program, cache_folder=tmp_path / "kept").per_clip.tolist() == [0]


def test_simultaneous_runs_do_not_disturb_each_other(tmp_path: Path, program: Program) -> None:
    started, kept = tmp_path / "started", tmp_path / "kept"
    started.mkdir()
    meet = f"""
    open(os.path.join({str(started)!r}, str(os.getpid())), "w").close()
    while len(os.listdir({str(started)!r})) < 4:
        time.sleep(0.01)
    """
    java = keeping_java(tmp_path / "java", meet + KEEPING)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(spice, ["a"], [["b"]], java, program, cache_folder=kept) for _ in range(4)]
        assert [run.result().per_clip.tolist() for run in runs] == [[0]] * 4
    [file] = kept.iterdir()
    assert file.read_bytes().endswith(b"\nx")


@pytest.fixture(scope="module")
def scored(spice_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The ten own clips, scored by SPICE with an empty cache together with unusual captions."""
    if shutil.which("java") is None:
        pytest.skip("needs a Java runtime")
    kept = tmp_path_factory.mktemp("kept")
    odd = ["", "!?", "\u3053\u3093 \U0001f600", "dog " * 80, '"quoted" \\ back', "x\u00a0y \ufffe"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
        java, program = find_java(), find_jars("spice")
        references = [*REFERENCES, *([[one, "a dog"] for one in reversed(odd)])]
        predictions = [*CLIPS["tokens"], *odd]
        found = spice(predictions, [[r.lower() for r in rs] for rs in references], java, program, cache_folder=kept)
    return SimpleNamespace(java=java, program=program, kept=kept, odd=odd, found=found)


@pytest.mark.java
def test_unusual_captions_get_a_score_each(scored: SimpleNamespace) -> None:
    assert len(scored.found.per_clip) == 10 + len(scored.odd)
    assert np.isfinite(scored.found.per_clip).all()
    assert (scored.found.per_clip[:10] > 0).sum() >= 8


@pytest.mark.java
@pytest.mark.long
def test_spice_runs_without_its_native_library(scored: SimpleNamespace, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in scored.kept.iterdir()}
    shutil.copytree(scored.kept, tmp_path / "kept")
    own, *others = scored.program.class_path
    copied = tmp_path / own.name
    shutil.copyfile(own, copied)  # because it names its libraries relative to its real path
    native = ("lmdbjni-linux", "lmdbjni-osx", "lmdbjni-win")
    class_path = (copied, *(path for path in others if not path.name.startswith(native)))
    without = Program("spice", class_path, scored.program.hashes, [])
    references = [[r.lower() for r in rs] for rs in REFERENCES]
    found = spice(CLIPS["tokens"], references, scored.java, without, cache_folder=tmp_path / "kept")
    assert found.note is not None and "UnsatisfiedLinkError" in found.note
    assert found.per_clip.tolist() == scored.found.per_clip[: len(references)].tolist()
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before


@pytest.mark.java
def test_own_clips_score_as_recorded(
    scored: SimpleNamespace, spice_jars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
    before = {path.name: path.read_bytes() for path in scored.kept.iterdir()}
    assert len(before) == 1
    systems = [PREDICTIONS, [references[0] for references in REFERENCES]]
    result = score_systems(REFERENCES, systems, ["spice"], ScoreSettings(cache_folder=scored.kept))
    score = result.systems[0]["spice"]
    assert score.problem is None and score.per_clip is not None
    recorded = CLIPS["scores"]["spice"]
    assert score.per_clip.tolist() == pytest.approx(recorded["per_clip"], abs=1e-9)
    assert score.value == pytest.approx(recorded["value"], abs=1e-9)
    assert (result.systems[1]["spice"].value or 0) > recorded["value"]
    after = {path.name: path.read_bytes() for path in scored.kept.iterdir()}
    assert set(after) == set(before) and after != before  # the second run adds captions to the cache
    assert any(name.endswith("spice-1.0.jar") for name in result.jars)


def check_oracle(data: Path, folder: Path, *arguments: str) -> None:
    """Compare the scores that the command line gives to the clips of a published set with the published ones."""
    oracle = json.loads((data / "oracle" / "conette_audiocaps_test.json").read_text(encoding="utf-8"))
    items = oracle["items"]
    references, predictions, scores = (folder / name for name in ("refs.json", "said.json", "scores.csv"))
    references.write_text(json.dumps({item["id"]: item["references"] for item in items}), encoding="utf-8")
    predictions.write_text(json.dumps({item["id"]: item["candidate"] for item in items}), encoding="utf-8")
    command = ["score", str(references), str(predictions), "--metrics", "spider", "--json", "-o", str(scores)]
    done = CliRunner().invoke(app, [*command, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    with scores.open(encoding="utf-8", newline="") as file:
        per_clip = {row["id"]: float(row["spice"]) for row in csv.DictReader(file)}
    assert len(per_clip) == len(items)
    assert max(abs(per_clip[item["id"]] - item["scores"]["spice"]) for item in items) <= 1e-9
    found = json.loads(done.stdout)["systems"][0]["scores"]
    assert found["spice"] == pytest.approx(oracle["published"]["spice"], abs=1e-9)
    assert found["spider"] == pytest.approx(oracle["published"]["spider"], abs=5e-5)


@pytest.mark.java
@pytest.mark.full_size
def test_every_published_value_is_reproduced(
    spice_jars: Path, test_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
    check_oracle(test_data, tmp_path)


@pytest.mark.slow
def test_every_published_value_is_reproduced_on_the_newest_java(
    spice_jars: Path,
    test_data: Path,
    other_java: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
    check_oracle(test_data, tmp_path, "--java", str(other_java(25)))


@pytest.mark.java
@pytest.mark.slow
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(captions=st.lists(st.text(max_size=30), min_size=40, max_size=60))
def test_any_unicode_gets_one_score_per_caption(scored: SimpleNamespace, tmp_path: Path, captions: list[str]) -> None:
    """Clean the captions as `textcap score` does."""
    references = [[caption, "a dog barks"] for caption in reversed(captions)]
    cleaned, _ = clean_all([*captions, *(one for several in references for one in several)])
    predictions = cleaned[: len(captions)]
    spoken = [cleaned[len(captions) + 2 * i :][:2] for i in range(len(captions))]
    found = spice(predictions, spoken, scored.java, scored.program, cache_folder=scored.kept)
    assert found.per_clip.shape == (len(captions),)
    assert not np.isinf(found.per_clip).any()
