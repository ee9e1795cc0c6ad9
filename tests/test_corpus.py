"""A corpus: its plan, runs that share it or are killed, damage, and what is exported."""

import base64
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from pyarrow import parquet  # noqa: E402

from corpora import (  # noqa: E402
    KILLER,
    SHORT,
    command,
    environment,
    export,
    exported,
    plan,
    rows,
    run,
    run_until_done,
    write_sound,
    write_sounds,
)
from kills import kill_everywhere  # noqa: E402
from test_captioner import save_model_folder  # noqa: E402
from textcap.audio.inputs import Input  # noqa: E402
from textcap.corpus.plan import Corpus  # noqa: E402
from textcap.embedding.search import collection_of_file  # noqa: E402
from textcap.errors import FileError, InputError  # noqa: E402

N_SOUNDS, N_BROKEN, N_LONG = 60, 2, 600
TWICE = "could not be read: textcap was killed twice doing so"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as the processes that results are compared with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, sounds, of which two are broken and one is silent, and a corpus that is captioned."""
    folder = tmp_path_factory.mktemp("corpus")
    save_model_folder(folder / "model", "tiny")
    write_sounds(folder / "sounds", N_SOUNDS, N_BROKEN)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    plan(folder / "whole", folder / "sounds")
    assert caption(folder, folder / "whole") == f"{folder / 'whole' / 'results'}\n"
    torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, bytes]:
    """What the captioned corpus exports."""
    return exported(place / "whole")


def caption(place: Path, work: Path, *words: object) -> str:
    """Caption a corpus, and return what is printed."""
    done = run("corpus", "run", work, "-m", place / "model", *SHORT, *words)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def copied(place: Path, folder: Path) -> Path:
    """Return a copy of the captioned corpus, of the same sounds."""
    return Path(shutil.copytree(place / "whole", folder / "copy"))


def refused(*words: object, code: int = 1) -> str:
    """Run a command that ends with a known error, and return its one line."""
    done = run(*words)
    assert (done.exit_code, done.stdout) == (code, "")
    return done.stderr.splitlines()[-1]


def planned(work: Path) -> list[dict[str, Any]]:
    """Return the rows of a plan, in its order."""
    tables = [parquet.read_table(path) for path in sorted((work / "plan").iterdir())]
    return [row for table in tables for row in table.to_pylist()]


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes of the files in a folder and the times when they were written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


# Plans


def written(folder: Path, names: Iterable[str]) -> Path:
    """Write files that are as long as their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_plan_lists_sounds_sorted_in_shards_with_ids_that_count_up(tmp_path: Path) -> None:
    sounds = written(tmp_path / "sounds", ["c.wav", "a/b.wav", "a.wav", "a/notes.txt", "b/.hidden.wav", "b/d.flac"])
    work = plan(tmp_path / "work", sounds, n_files=3)
    found = planned(work)
    assert [row["path"] for row in found] == [f"{sounds}/{name}" for name in ("a/b.wav", "a.wav", "b/d.flac", "c.wav")]
    assert [row["id"] for row in found] == [0, 1, 2, 3]
    assert [row["bytes"] for row in found] == [7, 5, 8, 5]
    assert found[0]["modified"].timestamp() == pytest.approx((sounds / "a/b.wav").stat().st_mtime, abs=1e-3)
    assert sorted(path.name for path in (work / "plan").iterdir()) == ["000000.parquet", "000001.parquet"]
    first_id, inputs = Corpus.open(work).inputs(1)
    assert (first_id, [one.name for one in inputs]) == (3, [f"{sounds}/c.wav"])


def test_shards_are_limited_by_bytes_too(tmp_path: Path) -> None:
    for name, size in (("a", 60), ("b", 50), ("c", 49), ("d", 500), ("e", 1)):
        (tmp_path / name).write_bytes(bytes(size))
    found = [(name, Input(str(tmp_path / name))) for name in "abcde"]
    corpus = Corpus(tmp_path / "work")
    assert corpus.extend(found, n_bytes=100).n_shards == 4
    assert [[Path(one.name).name for one in corpus.inputs(shard)[1]] for shard in range(4)] == [
        ["a"],
        ["b", "c"],
        ["d"],  # has more by itself
        ["e"],
    ]


def test_planning_again_adds_what_is_new_or_changed_and_touches_nothing_else(tmp_path: Path) -> None:
    sounds = written(tmp_path / "sounds", ["a.wav", "b.wav", "c.wav"])
    work = plan(tmp_path / "work", sounds, n_files=2)
    before = content(work / "plan")
    done = run("corpus", "plan", sounds, sounds / "a.wav", "-o", work)
    assert done.exit_code == 0 and "0 new sounds, 0 changed, 4 known; 0 shards added" in done.stderr
    assert content(work / "plan") == before
    (sounds / "b.wav").write_text("longer than before")
    os.utime(sounds / "c.wav", ns=(0, 1000))
    written(sounds, ["aa.wav"])
    done = run("corpus", "plan", sounds, "-o", work)
    assert "1 new sound, 2 changed, 1 known; 1 shard added" in done.stderr
    assert {name: one for name, one in content(work / "plan").items() if name in before} == before
    added = [(row["id"], Path(row["path"]).name, row["replaces"]) for row in planned(work)[3:]]
    assert added == [(3, "aa.wav", None), (4, "b.wav", 1), (5, "c.wav", 2)]
    (sounds / "b.wav").write_text("changed again")
    plan(work, sounds)
    assert (planned(work)[-1]["id"], planned(work)[-1]["replaces"]) == (6, 4)
    assert Corpus.open(work).replaced() == {1, 2, 4}


def test_names_that_lead_to_no_sound_are_told_and_left_out(tmp_path: Path) -> None:
    sounds = written(tmp_path / "sounds", ["a.wav"])
    done = run("corpus", "plan", tmp_path / "gone.wav", sounds, "-", "-o", tmp_path / "work", input="")
    assert (done.exit_code, done.stdout) == (3, f"{tmp_path / 'work'}\n")
    assert f"skipped: {tmp_path}/gone.wav does not exist" in done.stderr
    assert "skipped: - is not a file that can be read again (write the sound to a file)" in done.stderr
    assert [row["path"] for row in planned(tmp_path / "work")] == [f"{sounds}/a.wav"]
    done = run("corpus", "plan", tmp_path / "gone.wav", "-o", tmp_path / "other")
    assert (done.exit_code, done.stdout) == (1, "")
    assert refused("corpus", "status", tmp_path / "other").endswith("has no plan (make one with textcap corpus plan)")


def test_plan_takes_a_list_of_names_with_addresses(tmp_path: Path) -> None:
    sounds = written(tmp_path / "sounds", ["a.wav"])
    (tmp_path / "list.txt").write_text(f"{sounds}/a.wav\nhttps://host/b.wav?token=secret\n")
    work = plan(tmp_path / "work", "--files-from", tmp_path / "list.txt")
    assert [(row["path"], row["bytes"]) for row in planned(work)] == [
        (f"{sounds}/a.wav", 5),
        ("https://host/b.wav?token=secret", None),
    ]
    assert Corpus.open(work).inputs(0)[1][1].name == "https://host/b.wav?token=***"
    done = run("corpus", "plan", "--files-from", tmp_path / "list.txt", "-o", work)
    assert "0 new sounds, 0 changed, 2 known" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
def test_killed_plan_is_continued(tmp_path: Path) -> None:
    """Three sounds are planned in shards of two."""

    def extended(root: Path, names: str) -> None:
        found = [(name, Input(str(root / "sounds" / f"{name}.wav"))) for name in names]
        Corpus(root / "work").extend(found, n_files=2)
        (root / "work" / "corpus.lock").unlink(missing_ok=True)  # some versions of filelock leave it

    def prepare(root: Path) -> None:
        written(root / "sounds", [f"{name}.wav" for name in "abc"])
        for path in (root / "sounds").iterdir():
            os.utime(path, ns=(0, 0))

    kill_everywhere((prepare, lambda root: extended(root, "abc")), tmp_path, every=False)


_MEMORY = """
import re, sys
from pathlib import Path
from textcap.audio.inputs import Input
from textcap.corpus.plan import Corpus
n = int(sys.argv[2])
for times in range(2):
    found = ((name, Input(name, name)) for name in (f"https://host/folder/{number}.wav" for number in range(n)))
    planned = Corpus(Path(sys.argv[1])).extend(found)
    assert (planned.n_new, planned.n_known) == ((n, 0), (0, n))[times]
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3)
"""


def peak_mb(work: Path, n: int) -> float:
    """Return the memory at most of planning so many sounds twice."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(work), str(n)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_plan_of_a_hundred_thousand_sounds_takes_little_memory(tmp_path: Path) -> None:
    assert peak_mb(tmp_path / "large", 100_000) - peak_mb(tmp_path / "small", 1000) < 50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_plan_of_a_million_sounds_takes_less_than_300_mb(tmp_path: Path) -> None:
    assert peak_mb(tmp_path / "work", 1_000_000) < 300


# Runs


def test_every_sound_has_its_row_as_textcap_caption_gives_it(place: Path, whole: dict[str, bytes]) -> None:
    found = rows(whole["jsonl"].decode())
    paths = [f"{place}/sounds/{number:04}.wav" for number in range(N_SOUNDS)]
    assert [row["path"] for row in found] == paths
    assert sum("error" in row for row in found) == N_BROKEN and found[3]["silent"]
    assert len({row["caption"] for row in found if "caption" in row}) > 5
    done = run("caption", place / "sounds", "--json", "-m", place / "model", *SHORT)
    assert done.exit_code == 3 and whole["jsonl"].decode() == done.stdout
    results = parquet.read_table(place / "whole" / "results")
    assert results["id"].to_pylist() == list(range(N_SOUNDS)) and results["path"].to_pylist() == paths


def test_embeddings_are_those_of_textcap_embed(place: Path, tmp_path: Path) -> None:
    words = [place / "sounds", "-o", tmp_path / "embedded.safetensors", "--backbone", "tiny", "--device", "cpu"]
    assert run("embed", *words).exit_code == 3
    ours = collection_of_file(export(place / "whole", "embedded.parquet"))
    other = collection_of_file(tmp_path / "embedded.safetensors")
    assert len(ours.vectors) == N_SOUNDS - N_BROKEN - 1
    names = [[one.line(number)["path"] for number in range(len(one.vectors))] for one in (ours, other)]
    assert names[0] == names[1] and ours.facts["clap_hash"] == other.facts["clap_hash"]
    assert np.allclose(ours.vectors.astype(np.float32), other.vectors, atol=2**-11)


def test_three_parts_give_what_one_process_gives(place: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    for part, names in (("2/3", ["000001"]), ("3/3", ["000001", "000002"]), ("1/3", ["000000", "000001", "000002"])):
        caption(place, work, "--part", part)
        assert sorted(path.stem for path in (work / "results").iterdir()) == names
    assert exported(work) == whole
    for part in ("0/3", "4/3", "a/3", "3", "1/"):
        done = run("corpus", "run", work, "--part", part)
        assert done.exit_code == 2 and "must be K/N with K from 1 to N" in " ".join(done.stderr.split())


@pytest.mark.long
def test_two_threads_give_the_same_captions(place: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    words = command("corpus", "run", work, "-m", place / "model", *SHORT)
    run_until_done(words, {**environment(tmp_path), "OMP_NUM_THREADS": "2"})
    for one, other in zip(rows(whole["jsonl"].decode()), rows(exported(work)["jsonl"].decode()), strict=True):
        assert one.pop("score", None) == pytest.approx(other.pop("score", None), abs=1e-5)
        assert one == other


def test_corpus_neither_reads_nor_fills_the_store(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = plan(tmp_path / "work", place / "sounds" / "0000.wav")

    def refuse(*arguments: object, **options: object) -> None:
        pytest.fail("the store was used")

    monkeypatch.setattr("sqlite3.connect", refuse)
    caption(place, work)
    assert not (Path(os.environ["TEXTCAP_CACHE"]) / "embeddings").exists()


def test_pieces_of_time_lines_have_rows_and_embeddings_of_their_own(place: Path, tmp_path: Path) -> None:
    sounds = [place / "sounds" / f"{number:04}.wav" for number in (0, 1, 2, 3)]  # of which one is broken, one silent
    work = plan(tmp_path / "work", *sounds)
    caption(place, work, "--timeline", "--hop", "0.5")
    words = ["-m", place / "model", *SHORT, "--timeline", "--hop", "0.5"]
    printed = rows(run("caption", *sounds, *words, "--json").stdout)
    assert rows(export(work, "all.jsonl").read_text()) == printed
    assert export(work, "all.csv").read_text() == run("caption", *sounds, *words, "--format", "csv").stdout
    table = parquet.read_table(export(work, "all.parquet")).to_pylist()
    pieces = [(piece["start_s"], piece["end_s"]) for row in printed for piece in row.get("pieces", [])]
    assert [(row["start_s"], row["end_s"]) for row in table if row["start_s"] is not None] == pieces
    vectors = [np.array(row["embedding"], np.float64) for row in table if row["embedding"] is not None]
    assert len(vectors) == len(pieces) >= 2
    assert [np.linalg.norm(vector) for vector in vectors] == pytest.approx([1.0] * len(vectors), abs=1e-2)


def test_other_options_or_models_are_refused_with_what_differs(place: Path, tmp_path: Path) -> None:
    work = copied(place, tmp_path)
    words = ["corpus", "run", work, "-m", place / "model", *SHORT]
    line = refused(*words, "--beam-size", 3)
    assert line.startswith(f"textcap: {work}/corpus.json was begun with beam_size 2, not 3 (use the same options")
    assert "was begun with is_timeline False, not True" in refused(*words, "--timeline")
    assert "was begun with batch_size 4, not 8" in refused(*words, "--batch-size", 8)
    other = Path(shutil.copytree(place / "model", tmp_path / "other"))
    assert caption(place, work, "-m", other)  # the same one in another place
    from textcap.model_folder import load_model, save_model

    stored = load_model(other)
    with torch.no_grad():
        stored.mapper.constants += 1
    save_model(other, stored.config, stored.mapper, force=True)
    assert "was begun with model '" in refused(*words, "-m", other)


def test_another_version_of_textcap_continues(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = copied(place, tmp_path)
    (work / "results" / "000001.parquet").unlink()
    monkeypatch.setattr("textcap.data.parquet.version", lambda name: "99.0")
    caption(place, work)
    versions = [parquet.read_schema(path).metadata[b"textcap"] for path in sorted((work / "results").iterdir())]
    assert versions[1] == b"99.0" and versions[0] == versions[2] != b"99.0"


def test_names_that_are_not_utf_8_are_captioned(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    names = [os.fsencode(tmp_path / "sounds") + name for name in (b"/caf\xe9.wav", b"/caf\xea.wav")]
    try:
        shutil.copyfile(place / "sounds" / "0000.wav", names[0])
        Path(os.fsdecode(names[1])).write_text("no sound")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    work = plan(tmp_path / "work", tmp_path / "sounds")
    assert "0 new sounds, 0 changed, 2 known" in run("corpus", "plan", tmp_path / "sounds", "-o", work).stderr
    caption(place, work)
    heard, broken = rows(export(work, "all.jsonl").read_text())
    assert heard["path"].endswith("/caf\\xe9.wav") and heard["caption"]
    assert broken["path"].endswith("/caf\\xea.wav") and f"{broken['path']} " in broken["error"]
    found = run("corpus", "status", work)
    assert found.exit_code == 3 and "caf" not in found.stdout


def test_sounds_that_went_away_or_cannot_be_reached_have_rows_with_errors(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    gone = tmp_path / "gone.wav"
    gone.write_text("soon")
    address = "http://127.0.0.1:9/a.wav?token=secret"
    work = plan(tmp_path / "work", gone, address, place / "sounds" / "0000.wav")
    gone.unlink()
    caption(place, work)
    first, second, third = rows(export(work, "all.jsonl").read_text())
    assert "gone.wav does not exist" in first["error"] and "caption" in third
    assert second["path"] == "http://127.0.0.1:9/a.wav?token=***" and second["path"] in second["error"]
    assert "secret" not in export(work, "all.csv").read_text() + str(second)
    assert run("corpus", "status", work).exit_code == 3
    texts = export(work, "texts", "--format", "sidecar")
    assert [path.read_text() for path in texts.rglob("*.txt")] == [f"{third['caption']}\n"]


# Several processes, and processes that are killed

# A run that tells which shards it has captioned itself.
_TELLS = """
import sys
import textcap.corpus.run as module
caption_to = module.caption_to
def told(where, *arguments, **options):
    rows = list(caption_to(where, *arguments, **options))
    if rows:
        print("captioned", where.path.stem, file=sys.stderr)
    yield from rows
module.caption_to = told
from textcap.cli.app import main
main()
"""


def test_two_runs_at_once_caption_each_shard_once(place: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    words = [sys.executable, "-c", _TELLS, "corpus", "run", str(work), "-m", str(place / "model"), *SHORT]
    both = [
        subprocess.Popen(words, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    captioned = []
    for process in both:
        stdout, stderr = process.communicate(timeout=300)
        assert (process.returncode, stdout) == (0, f"{work / 'results'}\n"), stderr
        captioned += [line.split()[1] for line in stderr.splitlines() if line.startswith("captioned ")]
    assert sorted(captioned) == ["000000", "000001", "000002"]
    assert exported(work) == whole
    assert sorted(path.name for path in (work / "results").iterdir()) == [f"00000{n}.parquet" for n in range(3)]


def kill_in_a_shard(words: list[str], work: Path, env: dict[str, str], n_lines: int = 8) -> bool:
    """Run until a shard's journal has so many results, then kill -9; return whether it came to that."""
    process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        for journal in (work / "results").glob("*.textcap-journal"):
            try:
                if journal.read_bytes().count(b'{"key"') >= n_lines:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return True
            except FileNotFoundError:
                pass
        time.sleep(0.001)
    assert process.returncode == 0
    return False


def test_run_that_was_killed_in_a_shard_goes_on_in_it(
    place: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    words = command("corpus", "run", work, "-m", place / "model", *SHORT)
    assert kill_in_a_shard(words, work, environment(tmp_path))
    (journal,) = (work / "results").glob("*.textcap-journal")
    assert run("corpus", "status", work).exit_code == 1
    n_kept = journal.read_bytes().count(b'{"key"') // 4 * 4 + 20 * len(list((work / "results").glob("*.parquet")))
    from textcap.outputs import run as module

    n_captioned, caption_slice = 0, module._caption_slice

    def counted(captioner: Any, part: Any, *rest: Any) -> Any:
        nonlocal n_captioned
        n_captioned += len(part)
        return caption_slice(captioner, part, *rest)

    monkeypatch.setattr(module, "_caption_slice", counted)
    caption(place, work)
    # A slice with a broken sound is done anew.
    assert N_SOUNDS - n_kept <= n_captioned <= N_SOUNDS - n_kept + 4 < N_SOUNDS
    assert exported(work) == whole and not list((work / "results").glob("*.textcap*"))


def test_file_that_killed_two_runs_becomes_a_row_with_its_error(place: Path, tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", 8, with_killer=True)
    work = plan(tmp_path / "work", tmp_path / "sounds")
    assert run_until_done(command("corpus", "run", work, "-m", place / "model", *SHORT), environment(tmp_path)) == 2
    found = rows(export(work, "all.jsonl").read_text())
    assert [row["error"] for row in found if "error" in row] == [f"{tmp_path}/sounds/0005-{KILLER} {TWICE}"]
    assert len(found) == 8


# Damage, and a full disk


def test_cut_result_is_told_by_export_and_made_anew_by_a_run(
    place: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    work = copied(place, tmp_path)
    path = work / "results" / "000001.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for words in (["-o", tmp_path / "out.jsonl"], ["-o", tmp_path / "out.parquet"]):
        assert refused("corpus", "export", work, *words).startswith(f"textcap: {path} cannot be read: ")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["copy"]
    status = run("corpus", "status", work)
    assert status.exit_code == 1 and "shards\t2 of 3" in status.stdout
    before = content(work / "results")
    done = run("corpus", "run", work, "-m", place / "model", *SHORT)
    assert done.exit_code == 0 and f"{path} is made anew: it cannot be read: " in done.stderr
    assert {name for name, one in content(work / "results").items() if before[name] != one} == {path.name}
    assert exported(work) == whole


def test_flipped_bit_in_a_result_is_told_or_changes_nothing(
    place: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    work = copied(place, tmp_path)
    corpus, path = Corpus.open(work), work / "results" / "000000.parquet"
    healthy, table = path.read_bytes(), Corpus.open(work).result(0)
    rng = np.random.default_rng(0)
    told = []
    for place_of_bit in rng.integers(0, 8 * len(healthy), 300).tolist():
        damaged = bytearray(healthy)
        damaged[place_of_bit // 8] ^= 1 << place_of_bit % 8
        path.write_bytes(damaged)
        try:
            assert corpus.result(0).equals(table)
        except FileError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            told.append(bytes(damaged))
    assert len(told) > 150
    for damaged in (told[0], told[-1]):
        path.write_bytes(damaged)
        assert f"{path} " in refused("corpus", "export", work, "-o", tmp_path / "out.csv")
        caption(place, work)
        assert path.read_bytes() == healthy
    assert exported(work) == whole


def test_damaged_plan_is_told(place: Path, tmp_path: Path) -> None:
    work = copied(place, tmp_path)
    path = work / "plan" / "000001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    for words in (["status"], ["export", "-o", tmp_path / "out.csv"], ["run", "-m", place / "model", *SHORT]):
        assert refused("corpus", words[0], work, *words[1:]).startswith(f"textcap: {path} cannot be read: ")
    line = refused("corpus", "plan", place / "sounds", "-o", work)
    assert line.startswith(f"textcap: {path} cannot be read: ")


def test_result_of_other_sounds_is_told(place: Path, tmp_path: Path) -> None:
    work = copied(place, tmp_path)
    path = work / "results" / "000001.parquet"
    shutil.copyfile(work / "results" / "000002.parquet", path)
    assert f"{path} has other rows than its plan" in refused("corpus", "export", work, "-o", tmp_path / "out.csv")


def test_full_disk_stops_a_run_which_is_continued(
    place: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    words = ["corpus", "run", work, "-m", place / "model", *SHORT]
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, most))
    try:
        line = refused(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    journal = work / "results" / "000000.parquet.textcap-journal"
    assert line == f"textcap: {journal} cannot be written: File too large" and journal.exists()
    with monkeypatch.context() as patch:

        def full(*arguments: object, **options: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
        line = refused(*words)
    problem = "cannot be written: No space left on device (free some space, or write elsewhere)"
    assert line == f"textcap: {work}/results/000000.parquet {problem}"
    assert [path.name for path in (work / "results").iterdir()] == [journal.name]
    caption(place, work)
    assert exported(work) == whole


# A plan that grew


def test_run_captions_only_what_was_planned_since(place: Path, tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds", 5)
    work = plan(tmp_path / "work", sounds)
    caption(place, work)
    before, old = content(work / "results"), rows(export(work, "old.jsonl").read_text())
    write_sound(sounds / "0001.wav", 51)
    write_sound(sounds / "0009.wav", 59)
    plan(work, sounds)
    done = run("corpus", "export", work, "-o", tmp_path / "new.jsonl")
    assert done.exit_code == 1 and f"{work} lacks the results of 1 shard (run textcap corpus run" in done.stderr
    caption(place, work)
    assert {name: one for name, one in content(work / "results").items() if name in before} == before
    new = rows(export(work, "new.jsonl").read_text())
    assert [Path(row["path"]).name for row in new] == [f"000{number}.wav" for number in (0, 2, 3, 4, 1, 9)]
    assert new[:4] == [old[0], *old[2:]]
    assert parquet.read_table(export(work, "new.parquet"))["id"].to_pylist() == [0, 2, 3, 4, 5, 6]


# Status


def test_status_tells_what_is_done_and_what_is_wrong(place: Path, tmp_path: Path) -> None:
    work = copied(place, tmp_path)
    done = run("corpus", "status", work)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert (done.exit_code, lines[:2]) == (3, [["shards", "3 of 3"], ["sounds", "60 of 60"]])
    (error,) = [line for line in lines if line[0] == "error"]
    assert error[2] == "2" and "sounds/" not in error[1] and error[1]
    for number, name in enumerate(("000000", "000001", "000002")):
        os.utime(work / "results" / f"{name}.parquet", (1000 + 10 * number, 1000 + 10 * number))
    assert "speed\t2.0 files per second\n" in run("corpus", "status", work).stdout
    (work / "results" / "000001.parquet").unlink()
    done = run("corpus", "status", work)
    assert done.exit_code == 1 and done.stdout.startswith("shards\t2 of 3\nsounds\t40 of 60\n")
    assert "speed\t1.0 files per second\nleft\t0.0 hours\n" in done.stdout


def test_status_of_a_corpus_without_errors_is_success(place: Path, tmp_path: Path) -> None:
    work = plan(tmp_path / "work", place / "sounds" / "0000.wav")
    done = run("corpus", "status", work)
    assert (done.exit_code, done.stdout) == (1, "shards\t0 of 1\nsounds\t0 of 1\n")
    caption(place, work)
    done = run("corpus", "status", work)
    assert (done.exit_code, done.stdout) == (0, "shards\t1 of 1\nsounds\t1 of 1\n")


# Exports


@pytest.mark.parametrize(("name", "form"), [("x.txt", "text"), ("x.jsonl", "jsonl"), ("x.csv", "csv"), ("x", "csv")])
def test_export_is_what_textcap_caption_writes(place: Path, tmp_path: Path, name: str, form: str) -> None:
    sounds = [place / "sounds" / f"{number:04}.wav" for number in (4, 3, 2, 1)]
    work = plan(tmp_path / "work", *sounds, n_files=3)
    caption(place, work, "--num-captions", 2, "--similarity")
    words = ["--num-captions", 2, "--similarity", "-m", place / "model", *SHORT]
    printed = run("caption", *sounds, "--format", form, *words).stdout
    options = ["--format", form] if name == "x" else []
    done = run("corpus", "export", work, "-o", tmp_path / name, *options)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / name}\n"), done.stderr
    if form == "jsonl":  # the slices of a corpus are those of its shards
        found, expected = rows((tmp_path / name).read_text()), rows(printed)
        assert [list(row) for row in found] == [list(row) for row in expected]
        assert [row.get("caption") for row in found] == [row.get("caption") for row in expected]
    else:
        assert (tmp_path / name).read_text() == printed
    assert "already exists" in refused("corpus", "export", work, "-o", tmp_path / name, *options)


def test_sidecars_are_written_below_the_folder_of_the_sounds(place: Path, tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds", 3, 1)
    (sounds / "deep").mkdir()
    shutil.move(sounds / "0002.wav", sounds / "deep" / "0000.wav")
    work = plan(tmp_path / "work", sounds)
    caption(place, work)
    texts = {row["path"]: row.get("caption") for row in rows(export(work, "all.jsonl").read_text())}
    folder = export(work, "texts", "--format", "sidecar")
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.txt")}
    assert found == {
        "0000.txt": f"{texts[f'{sounds}/0000.wav']}\n",
        "deep/0000.txt": f"{texts[f'{sounds}/deep/0000.wav']}\n",
    }
    assert "srt cannot show these rows" in refused("corpus", "export", work, "-o", tmp_path / "s", "--format", "srt")


@pytest.mark.parametrize("form", ["srt", "vtt", "audacity"])
def test_time_lines_are_exported_as_tracks(place: Path, tmp_path: Path, form: str) -> None:
    sounds = [place / "sounds" / f"{number:04}.wav" for number in (0, 1, 3)]
    work = plan(tmp_path / "work", *sounds)
    caption(place, work, "--timeline")
    folder = export(work, "tracks", "--format", form)
    words = [*sounds, "-o", tmp_path / "expected", "--format", form, "-m", place / "model", *SHORT]
    assert run("caption", *words).exit_code == 3
    found, expected = (
        {path.name: path.read_text() for path in one.iterdir()} for one in (folder, tmp_path / "expected")
    )
    assert found == expected and len(found) == 2
    line = refused("corpus", "export", work, "-o", tmp_path / "s", "--format", "sidecar")
    assert "sidecar cannot show these rows" in line


def test_export_is_refused_while_rows_are_missing(place: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    work = copied(place, tmp_path)
    (work / "results" / "000001.parquet").unlink()
    line = refused("corpus", "export", work, "-o", tmp_path / "out.jsonl")
    assert line.startswith(
        f"textcap: {work} lacks the results of 1 shard (run textcap corpus run, or take what there is"
    )
    lines = whole["jsonl"].splitlines(keepends=True)
    assert export(work, "part.jsonl", "--partial").read_bytes() == b"".join(lines[:20] + lines[40:])
    table = parquet.read_table(export(work, "part.parquet", "--partial"))
    assert table["id"].to_pylist() == [*range(20), *range(40, 60)]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "sidecar"])
def test_partial_export_before_the_first_run_is_told(place: Path, tmp_path: Path, form: str) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    line = refused("corpus", "export", work, "-o", tmp_path / "out", "--format", form, "--partial")
    assert line.startswith(f"textcap: {work} ") and not (tmp_path / "out").exists()


def test_exported_table_is_that_of_textcap_caption(place: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    words = [place / "sounds", "-o", tmp_path / "captioned.parquet", "-m", place / "model", *SHORT]
    assert run("caption", *words).exit_code == 3
    ours, other = parquet.read_table(export(place / "whole", "table.parquet")), parquet.read_table(words[2])
    assert ours.equals(other, check_metadata=True) and ours.num_rows == N_SOUNDS


def test_rows_survive_values_that_are_unusual(tmp_path: Path) -> None:
    """A result that textcap has not written itself is exported as it is."""
    work = plan(tmp_path / "work", written(tmp_path / "sounds", ["a.wav"]))
    from textcap.outputs.parquet import write_rows

    vector = base64.b64encode(np.ones(4, "<f2").tobytes()).decode()
    row = {"path": f"{tmp_path}/sounds/a.wav", "caption": 'a "dog",\nbarks', "score": -1.5, "embedding": vector}
    write_rows(work / "results" / "000000.parquet", [row], {})
    (found,) = rows(export(work, "all.jsonl").read_text())
    assert found == {name: row[name] for name in ("path", "caption", "score")}
    assert json.loads(json.dumps(found)) == found


# At length


@pytest.mark.long
def test_long_corpus_is_the_same_by_one_process_and_by_three(place: Path, tmp_path: Path) -> None:
    """One of the sounds kills its reader, twelve are broken, and one of the runs is killed in a shard as well."""
    sounds = write_sounds(tmp_path / "sounds", N_LONG, 12, with_killer=True)
    env, n = environment(tmp_path), {"one": 0, "three": 0}
    one, three = plan(tmp_path / "one", sounds), plan(tmp_path / "three", sounds)
    n["one"] = run_until_done(command("corpus", "run", one, "-m", place / "model", *SHORT), env)
    for part in ("1/3", "2/3", "3/3"):
        words = command("corpus", "run", three, "-m", place / "model", *SHORT, "--part", part)
        if part == "2/3":
            assert kill_in_a_shard(words, three, env)
        n["three"] += run_until_done(words, env)
    assert n == {"one": 2, "three": 2}
    assert exported(one) == exported(three)
    found = rows(export(one, "all.jsonl").read_text())
    errors = [row["error"] for row in found if "error" in row]
    assert len(found) == N_LONG and len(errors) == 13 and sum(TWICE in error for error in errors) == 1


def test_settings_of_a_corpus_that_were_changed_are_told(place: Path, tmp_path: Path) -> None:
    work = copied(place, tmp_path)
    path = work / "corpus.json"
    path.write_text(path.read_text().replace('"beam_size": 2', '"beam_size": 3'))
    for words in (["run", "-m", place / "model", *SHORT], ["export", "-o", tmp_path / "out.csv"]):
        assert str(path) in refused("corpus", words[0], work, *words[1:])
    with pytest.raises(InputError):
        Corpus.open(work).settings()
