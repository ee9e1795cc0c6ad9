"""`textcap caption` as a command: where its output goes, what it refuses, and what a kill costs."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from light import run_without, run_without_torch
from test_captioner import save_model_folder
from textcap.cli.app import app

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_folder(tmp_path_factory.mktemp("models") / "model", "tiny")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with five sounds, one of them silent and one in a subfolder."""
    folder = tmp_path_factory.mktemp("recordings") / "sounds"
    (folder / "rain").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, name in enumerate(("a.wav", "b.flac", "c.wav", "rain/a.wav")):
        tone = np.sin(np.arange(RATE_HZ) * (0.05 + 0.1 * i)) * 0.3
        soundfile.write(folder / name, tone + rng.normal(0, 0.02, RATE_HZ), RATE_HZ)
    soundfile.write(folder / "silence.wav", np.zeros(RATE_HZ), RATE_HZ)
    return folder


def caption(model: Path, *arguments: object, stdin: bytes | None = None) -> Result:
    words = ["caption", *map(str, arguments), "-m", str(model), "--max-length", "12"]
    return CliRunner().invoke(app, words, input=stdin, catch_exceptions=False)


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# Inputs


def test_folder_is_captioned_in_the_order_of_its_names(model: Path, sounds: Path) -> None:
    done = caption(model, sounds, "--json")
    assert done.exit_code == 0
    assert [row["path"] for row in rows(done.stdout)] == [
        f"{sounds}/{n}" for n in ("a.wav", "b.flac", "c.wav", "silence.wav")
    ]
    done = caption(model, sounds, "--recursive", "--json")
    assert [row["path"] for row in rows(done.stdout)][3] == f"{sounds}/rain/a.wav"


def test_names_are_printed_as_given(model: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sounds)
    done = caption(model, "./a.wav", "rain//a.wav", "b.*")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["./a.wav", "rain//a.wav", "b.flac"]


def test_sound_on_standard_input_equals_the_file(model: Path, sounds: Path) -> None:
    path = sounds / "b.flac"
    (piped,) = rows(caption(model, "-", "--json", stdin=path.read_bytes()).stdout)
    (named,) = rows(caption(model, path, "--json").stdout)
    assert piped == named | {"path": "-"}


def test_inputs_that_cannot_be_read_have_their_place_in_json_only(model: Path, sounds: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    names = [sounds / "a.wav", tmp_path / "gone.wav", bad, sounds / "c.wav"]
    done = caption(model, *names, "--json")
    assert done.exit_code == 3
    found = rows(done.stdout)
    assert [row["path"] for row in found] == [str(name) for name in names]
    assert ["error" in row for row in found] == [False, True, True, False]
    assert f"skipped: {tmp_path}/gone.wav does not exist" in done.stderr
    assert "2 of 4 inputs could not be captioned" in done.stderr
    assert len(caption(model, *names).stdout.splitlines()) == 2
    assert len(caption(model, *names, "--format", "csv").stdout.splitlines()) == 3


def test_inputs_are_looked_at_before_torch_is_loaded(tmp_path: Path) -> None:
    done = run_without_torch("caption", "missing.wav", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "missing.wav does not exist" in done.stderr


# The second run is that of another user, to whom neither Python nor the models need belong: the first has loaded both.
AS_ANOTHER_USER = """
import os, sys
from typer.testing import CliRunner
from textcap.captioner import Captioner
from textcap.cli.app import app
words = ["caption", sys.argv[1], "-m", sys.argv[2], "--json", "--max-length", "4"]
captioner = Captioner.load(sys.argv[2])
Captioner.load = lambda *_args, **_settings: captioner
assert CliRunner().invoke(app, words).exit_code == 0
os.chmod(sys.argv[1] + "/b.flac", 0)
os.setgid(65534)
os.setuid(65534)
done = CliRunner().invoke(app, words)
print(done.stdout)
print(done.stderr, file=sys.stderr)
sys.exit(done.exit_code)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs another user to be")
def test_file_without_permission_does_not_stop_the_others(model: Path, sounds: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        place = shutil.copytree(sounds, Path(folder, "shared"))
        command = [sys.executable, "-c", AS_ANOTHER_USER, str(place), str(model)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert ["error" in row for row in rows(done.stdout.strip())] == [False, True, False, False]
    assert "b.flac cannot be read: Permission denied" in done.stderr


# Silence


def test_silence_has_an_empty_caption(model: Path, sounds: Path) -> None:
    done = caption(model, sounds / "silence.wav", sounds / "a.wav")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == f"{sounds}/silence.wav\t"
    assert "1 of 2 sounds silent, with an empty caption" in done.stderr
    (row,) = rows(caption(model, sounds / "silence.wav", "--json").stdout)
    assert (row["silent"], row["caption"], row["score"]) == (True, "", None)
    (row,) = rows(caption(model, sounds / "silence.wav", "--json", "--caption-silence").stdout)
    assert row["silent"] is False and row["caption"]


# Outputs


@pytest.mark.parametrize(("name", "form"), [("x.txt", "text"), ("x.jsonl", "jsonl"), ("x.csv", "csv"), ("x", "jsonl")])
def test_output_is_what_is_printed_otherwise(model: Path, sounds: Path, tmp_path: Path, name: str, form: str) -> None:
    output = tmp_path / name
    options = ["--format", form] if name == "x" else []
    done = caption(model, sounds, "-o", output, *options)
    assert (done.exit_code, done.stdout) == (0, f"{output}\n")
    assert output.read_text(encoding="utf-8") == caption(model, sounds, "--format", form).stdout
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = caption(model, sounds, "-o", output, *options)
    assert again.exit_code == 1 and f"{output} already exists" in again.stderr
    assert caption(model, sounds, "-o", output, *options, "--force").exit_code == 0


def test_sidecars_lie_beside_the_sounds_or_in_a_folder(model: Path, sounds: Path, tmp_path: Path) -> None:
    place = tmp_path / "sounds"
    shutil.copytree(sounds, place)
    (place / "rain" / "b.wav").write_text("no sound")
    printed = dict(line.split("\t") for line in caption(model, place, "--recursive").stdout.splitlines())
    done = caption(model, place, "--recursive", "--format", "sidecar")
    assert (done.exit_code, done.stdout) == (3, "")
    for name, text in printed.items():
        assert Path(name).with_suffix(".txt").read_text() == f"{text}\n"
    assert not (place / "rain" / "b.txt").exists()
    again = caption(model, place, "--format", "sidecar")
    assert again.exit_code == 1 and "a.txt already exists" in again.stderr
    assert caption(model, place, "--recursive", "--format", "sidecar", "-o", tmp_path / "texts").exit_code == 3
    names = sorted(str(path.relative_to(tmp_path / "texts")) for path in (tmp_path / "texts").rglob("*.txt"))
    assert names == ["a.txt", "b.txt", "c.txt", "rain/a.txt", "silence.txt"]
    clash = caption(model, place / "a.wav", place / "rain" / "a.wav", "--format", "sidecar", "-o", tmp_path / "other")
    assert clash.exit_code == 1 and "would both be written to" in clash.stderr


def test_time_line_of_a_film_of_two_sounds(model: Path, sounds: Path, tmp_path: Path) -> None:
    (row,) = rows(caption(model, sounds / "a.wav", "--timeline", "--json").stdout)
    (piece,) = row["pieces"]
    assert (piece["start_s"], piece["end_s"]) == (0.0, 1.0)
    assert (
        caption(model, sounds / "a.wav", "--timeline").stdout == f"{sounds}/a.wav\t0.000\t1.000\t{piece['caption']}\n"
    )
    printed = caption(model, sounds / "a.wav", "--format", "srt")
    assert printed.stdout.startswith("1\n00:00:00,000 --> 00:00:01,000\n")
    assert caption(model, sounds, "-o", tmp_path / "subtitles", "--format", "vtt").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "subtitles").iterdir()) == [
        "a.vtt",
        "b.vtt",
        "c.vtt",
        "silence.vtt",
    ]
    for options in (["--format", "srt"], ["-o", tmp_path / "all.srt"]):
        several = caption(model, sounds, *options)
        assert several.exit_code == 1 and "need several files (name a folder with -o)" in several.stderr


def test_captions_are_merged_into_subtitles(model: Path, sounds: Path, tmp_path: Path) -> None:
    existing = "1\n00:00:05,000 --> 00:00:06,000\nHello!\n"
    (tmp_path / "film.srt").write_text(existing)
    done = caption(model, sounds / "a.wav", "--merge", tmp_path / "film.srt", "-o", tmp_path / "out.srt", "--brackets")
    assert done.exit_code == 0
    text = (tmp_path / "out.srt").read_text()
    assert text.startswith("1\n00:00:00,000 --> 00:00:01,000\n[") and "2\n00:00:05,000 --> 00:00:06,000\nHello!" in text
    assert (tmp_path / "film.srt").read_text() == existing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume needs -o"),
        (["--format", "mp3"], "is 'mp3', but must be one of text, jsonl"),
        (["--json", "--format", "csv"], "give --json or --format csv, not both"),
        (["-o", "x.srt", "--num-captions", "2"], "a time line has one caption for each piece"),
        (["--timeline", "--format", "sidecar"], "sidecar files hold one caption"),
        (["--num-captions", "9", "--beam-size", "8"], "is 9, but must be between 1 and the beam size"),
        (["--merge", __file__], "--merge takes srt or vtt, and needs -o"),
        (["--hop", "1"], "--hop needs a time line"),
        (["--timeline", "--hop", "100"], "is 100.0, but must be"),
        (["--brackets"], "--brackets needs subtitles"),
        (["--over-speech"], "--over-speech needs --merge"),
        (["--min-length", "12"], "is 12, but must be below the maximum number of tokens"),
    ],
)
def test_misuse_is_explained(model: Path, sounds: Path, options: list[str], message: str) -> None:
    done = caption(model, sounds / "a.wav", *options)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


# Several captions


def test_several_captions_are_distinct_and_best_first(model: Path, sounds: Path) -> None:
    for row in rows(caption(model, sounds, "--json", "--num-captions", "4").stdout)[:3]:
        texts = [one["caption"] for one in row["candidates"]]
        scores = [one["score"] for one in row["candidates"]]
        assert len(set(texts)) == len(texts) > 1
        assert scores == sorted(scores, reverse=True)
        assert (row["caption"], row["score"]) == (texts[0], scores[0])
        assert "similarity" not in row
    line = caption(model, sounds / "a.wav", "--num-captions", "3").stdout
    assert len(line.split("\t")) == 4
    table = caption(model, sounds, "--num-captions", "3", "--format", "csv").stdout
    header, *lines = csv.reader(table.splitlines())
    assert header == ["file_name", "caption_predicted", "caption_2", "caption_3"]
    assert {len(line) for line in lines} == {4}


def test_reranked_captions_follow_the_similarity(model: Path, sounds: Path) -> None:
    path = sounds / "a.wav"
    (free,) = rows(caption(model, path, "--json", "--num-captions", "8", "--similarity").stdout)
    (by_similarity,) = rows(caption(model, path, "--json", "--rerank", "--rerank-weight", "1").stdout)
    (by_score,) = rows(caption(model, path, "--json", "--rerank", "--rerank-weight", "0").stdout)
    best = max(free["candidates"], key=lambda one: one["similarity"])
    assert by_similarity["caption"] == best["caption"]
    assert by_similarity["similarity"] == pytest.approx(best["similarity"], abs=1e-6)
    assert by_score["caption"] == free["caption"]
    assert "candidates" not in by_similarity


# Runs that are stopped


def test_resume_tries_failures_again_and_does_nothing_when_done(model: Path, sounds: Path, tmp_path: Path) -> None:
    place, output = tmp_path / "sounds", tmp_path / "out.jsonl"
    shutil.copytree(sounds, place)
    whole = caption(model, place, "--json", "--batch-size", "2").stdout
    content = (place / "b.flac").read_bytes()
    (place / "b.flac").write_text("no sound")
    words = [place, "-o", output, "--batch-size", "2"]
    assert caption(model, *words, "--resume").exit_code == 3
    assert ["error" in row for row in rows(output.read_text())] == [False, True, False, False]
    assert (tmp_path / "out.jsonl.textcap-journal").exists()
    refused = caption(model, *words, "--force", "--beam-size", "2", "--resume")
    assert refused.exit_code == 1 and "was begun with beam_size 5, not 2" in refused.stderr
    (place / "b.flac").write_bytes(content)
    assert caption(model, *words, "--resume").exit_code == 0
    assert output.read_text() == whole
    assert not (tmp_path / "out.jsonl.textcap-journal").exists()
    again = caption(model, *words, "--resume")
    assert again.exit_code == 0 and "is complete: there is nothing to resume" in again.stderr


def test_captioning_loads_only_what_it_uses(model: Path, sounds: Path) -> None:
    heavy = {
        "transformers",
        "accelerate",
        "scipy",
        "pandas",
        "sklearn",
        "sympy",
        "torch._dynamo",
        "fsspec",
        "matplotlib",
    }
    done = run_without(
        heavy, "caption", str(sounds / "a.wav"), "-m", str(model), "--max-length", "12", "--device", "cpu"
    )
    assert done.returncode == 0 and done.stdout.startswith(f"{sounds / 'a.wav'}\t")


def test_precision_is_named_and_no_run_continues_in_another(model: Path, sounds: Path, tmp_path: Path) -> None:
    sound, out = sounds / "a.wav", tmp_path / "out.jsonl"
    exact, rounded = caption(model, sound), caption(model, sound, "--precision", "int8")
    assert "on cpu, float32" in exact.stderr and "on cpu, int8" in rounded.stderr
    assert rounded.exit_code == 0 and rounded.stdout.startswith(f"{sound}\t")
    wrong = caption(model, sound, "--precision", "int4")
    assert wrong.exit_code == 2 and "'int4', but must be one of float32, int8, bf16" in " ".join(wrong.stderr.split())

    assert caption(model, sound, tmp_path / "missing.wav", "-o", out).exit_code == 3  # leaves a journal
    refused = caption(model, sound, tmp_path / "missing.wav", "-o", out, "--resume", "--precision", "int8")
    assert refused.exit_code == 1 and "precision" in refused.stderr


def test_resume_overwrites_nothing_that_it_did_not_write(model: Path, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    mine = tmp_path / "texts" / "b.txt"
    mine.write_text("my own notes")
    words = [sounds, "-o", tmp_path / "texts", "--format", "sidecar", "--resume"]
    refused = caption(model, *words)
    assert refused.exit_code == 1 and f"{mine} already exists" in refused.stderr
    assert mine.read_text() == "my own notes" and [path.name for path in mine.parent.iterdir()] == ["b.txt"]
    mine.unlink()
    assert caption(model, *words).exit_code == 0
    assert len(list(mine.parent.iterdir())) == 4
    assert "is complete" in caption(model, *words).stderr


def test_failed_sound_leaves_existing_subtitles_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    film = tmp_path / "film.srt"
    film.write_text("1\n00:00:05,000 --> 00:00:06,000\nHello!\n")
    before = film.read_bytes()
    assert caption(model, tmp_path / "bad.wav", "--merge", film, "-o", film, "--force").exit_code == 1
    assert film.read_bytes() == before
    assert caption(model, tmp_path / "bad.wav", "-o", tmp_path / "bad.srt").exit_code == 1
    assert not (tmp_path / "bad.srt").exists()


def test_addresses_that_look_alike_without_their_secrets_keep_their_captions(
    model: Path, sounds: Path, tmp_path: Path
) -> None:
    addresses = []
    for name in ("a.wav", "c.wav"):
        addresses.append(f"memory://sound?key={name}")
        with fsspec.open(addresses[-1], "wb") as file:
            file.write((sounds / name).read_bytes())
    expected = [row["caption"] for row in rows(caption(model, sounds / "a.wav", sounds / "c.wav", "--json").stdout)]
    assert expected[0] != expected[1]
    assert caption(model, *addresses, "-o", tmp_path / "out.jsonl").exit_code == 0
    found = rows((tmp_path / "out.jsonl").read_text())
    assert [row["caption"] for row in found] == expected
    assert {row["path"] for row in found} == {"memory://sound?key=***"}


def test_output_folder_may_be_the_current_one(
    model: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts").mkdir()
    monkeypatch.chdir(tmp_path / "texts")
    assert caption(model, sounds / "a.wav", "--format", "sidecar", "-o", ".").exit_code == 0
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["texts", "texts/a.txt"]


def test_no_input_is_overwritten_by_a_sidecar(model: Path, sounds: Path, tmp_path: Path) -> None:
    for name in ("dog", "dog.txt"):
        shutil.copyfile(sounds / "a.wav", tmp_path / name)
    done = caption(model, tmp_path / "dog", tmp_path / "dog.txt", "--format", "sidecar", "--force")
    assert done.exit_code == 1 and f"{tmp_path}/dog.txt is an input file" in done.stderr


def test_missing_inputs_are_no_finished_run(model: Path, tmp_path: Path) -> None:
    words = [tmp_path / "gone.wav", tmp_path / "lost.wav"]
    assert caption(model, *words, "-o", tmp_path / "out", "--format", "srt", "--resume").exit_code == 1
    assert caption(model, *words, "-o", tmp_path / "out.jsonl").exit_code == 1
    assert ["error" in row for row in rows((tmp_path / "out.jsonl").read_text())] == [True, True]


@pytest.mark.long
def test_kill_while_captioning_is_blamed_on_no_sound(model: Path, sounds: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys; from textcap.captioner import Captioner; from textcap.cli.app import app\n"
        "Captioner.candidates = lambda *arguments: os._exit(9)\napp()"
    )
    words = [str(sounds / "a.wav"), "-m", str(model), "-o", str(tmp_path / "out.txt"), "--timeline", "--resume"]
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script, "caption", *words], capture_output=True).returncode == 9
    assert CliRunner().invoke(app, ["caption", *words]).exit_code == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_or_closed_standard_output_is_one_line(model: Path, sounds: Path) -> None:
    command = f"{sys.executable} -m textcap caption {sounds}/a.wav -q -m {model} --max-length 4"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
    assert (full.returncode, full.stderr) == (
        1,
        "textcap: standard output cannot be written: No space left on device\n",
    )
    closed = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")


def kill_and_resume(model: Path, folder: Path, n_kills: int, seed: int) -> None:
    """Kill a run of 300 files at random moments until it has been killed often enough, and compare with a whole run."""
    rng = np.random.default_rng(seed)
    (folder / "sounds").mkdir()
    for i in range(300):
        tone = np.sin(np.arange(4000 + 40 * i) * rng.uniform(0.01, 1)) * 0.4
        soundfile.write(folder / "sounds" / f"{i:03}.wav", tone + rng.normal(0, 0.01, len(tone)), RATE_HZ)
    command = [sys.executable, "-m", "textcap", "caption", str(folder / "sounds"), "-m", str(model)]
    command += ["--max-length", "8", "--beam-size", "2"]

    def environment(name: str) -> dict[str, str]:
        return {**os.environ, "TEXTCAP_CACHE": str(folder / name)}

    whole, stopped = folder / "whole.jsonl", folder / "stopped.jsonl"
    started = time.monotonic()
    subprocess.run([*command, "-o", str(whole)], check=True, env=environment("cache-1"), capture_output=True)
    took_s = time.monotonic() - started
    moments, n_killed = random.Random(seed), 0
    while n_killed < n_kills:
        resuming = subprocess.Popen(
            [*command, "-o", str(stopped), "--resume"],
            env=environment("cache-2"),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            resuming.wait(moments.uniform(0.2, 1.0) * took_s * (0.6 if n_kills < 5 else 0.3))
            break  # it was faster
        except subprocess.TimeoutExpired:
            resuming.send_signal(signal.SIGKILL)
            resuming.wait()
            n_killed += 1
    if not stopped.exists():
        subprocess.run(
            [*command, "-o", str(stopped), "--resume"], check=True, env=environment("cache-2"), capture_output=True
        )
    assert stopped.read_bytes() == whole.read_bytes()
    left = {path.name for path in folder.iterdir()}
    assert left == {"sounds", "cache-1", "cache-2", "whole.jsonl", "stopped.jsonl"}
    assert n_killed


@pytest.mark.long
def test_killed_runs_continue_to_the_same_output(model: Path, tmp_path: Path) -> None:
    kill_and_resume(model, tmp_path, 3, seed=1)


@pytest.mark.slow
def test_run_killed_twenty_times_continues_to_the_same_output(model: Path, tmp_path: Path) -> None:
    kill_and_resume(model, tmp_path, 20, seed=2)
