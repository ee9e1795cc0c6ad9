"""Search and tag: products equal to numpy's, from every kind of source, and the index of a corpus."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

pytest.importorskip("pyarrow")

from corpora import SHORT, export, plan, rows, run, write_sound, write_sounds  # noqa: E402
from test_captioner import save_model_folder  # noqa: E402
from textcap.corpus.index import collection_of  # noqa: E402
from textcap.corpus.plan import Corpus  # noqa: E402
from textcap.demo.folder import RATE_HZ, held_out_clips  # noqa: E402
from textcap.demo.render import render_scene  # noqa: E402
from textcap.embedding import search as searching  # noqa: E402
from textcap.embedding.captions import embed_captions  # noqa: E402
from textcap.embedding.search import Collection, collection_of_file  # noqa: E402
from textcap.gap.retrieval import measure_retrieval, unit_rows  # noqa: E402
from textcap.models.backbone import Backbone  # noqa: E402
from textcap.outputs.parquet import write_rows  # noqa: E402

QUERY = "a dog is barking"
LABELS = ("a dog barking", "rain", "a siren", "a bell ringing")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 14 sounds, of which one is silent, and what commands make of them."""
    folder = tmp_path_factory.mktemp("search")
    save_model_folder(folder / "model", "tiny")
    write_sounds(folder / "sounds", 14)
    plan(folder / "work", folder / "sounds", n_files=5)
    assert run("corpus", "run", folder / "work", "-m", folder / "model", *SHORT).exit_code == 0
    for form in ("safetensors", "parquet"):
        output = folder / f"embedded.{form}"
        done = run("embed", folder / "sounds", "--text", "a dog barks", "-o", output, "--backbone", "tiny")
        assert done.exit_code == 0, done.stderr
    words = [folder / "sounds", "-o", folder / "captioned.parquet", "-m", folder / "model", *SHORT]
    assert run("caption", *words).exit_code == 0
    (folder / "labels.txt").write_text("\n".join(LABELS))
    return folder


SOURCES = ("sounds", "work", "embedded.safetensors", "embedded.parquet", "captioned.parquet")


def text_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    return embed_captions(texts, Backbone.load("tiny"), torch.device("cpu"))


def rounded(place: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Return the paths of the sounds that are not silent, and their embeddings as rounded to float16."""
    found = collection_of_file(place / "captioned.parquet")
    return [found.line(i)["path"] for i in range(len(found.vectors))], found.vectors.astype(np.float64)


def assert_nearest(
    found: Sequence[tuple[float, int]], products: NDArray[np.float64], k: int, hidden: Sequence[int] = ()
) -> None:
    """Check that these are the largest of the exact products, ties apart, and largest first."""
    visible = np.delete(products, list(hidden))
    best = np.sort(visible)[::-1][:k]
    assert [similarity for similarity, _ in found] == pytest.approx(best.tolist(), abs=1e-5)
    assert [products[number] for _, number in found] == pytest.approx(best.tolist(), abs=1e-5)
    numbers = [number for _, number in found]
    assert len(set(numbers)) == len(numbers) and not set(numbers) & set(hidden)


# Products


@st.composite
def _cases(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[np.float32], list[int], int, int]:
    """Return embeddings, queries, numbers that are hidden, k, and how many rows are multiplied at once."""
    n, width, n_queries = draw(st.integers(1, 40)), draw(st.integers(1, 8)), draw(st.integers(1, 3))
    values = st.floats(-1, 1, width=16)
    vectors = draw(arrays(draw(st.sampled_from([np.float16, np.float32])), (n, width), elements=values))
    queries = draw(arrays(np.float32, (n_queries, width), elements=values))
    hidden = sorted(draw(st.sets(st.integers(0, n - 1))))
    return vectors, queries, hidden, draw(st.integers(1, 45)), draw(st.integers(1, 20))


@settings(max_examples=150)
@given(_cases())
def test_products_equal_those_of_numpy(case: tuple[NDArray[Any], NDArray[np.float32], list[int], int, int]) -> None:
    vectors, queries, hidden, k, block = case
    exact = queries.astype(np.float64) @ vectors.astype(np.float64).T
    found = Collection(vectors, lambda number: {}, {}, np.array(hidden, np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "_BLOCK", block)
        for several, products in zip(found.best(queries, k), exact, strict=True):
            assert_nearest(several, products, k, hidden)
        tagged = dict(found.labels(queries, k))
    assert list(tagged) == [number for number in range(len(vectors)) if number not in hidden]
    for number, several in tagged.items():
        assert_nearest(several, exact[:, number], k)


def test_equal_similarities_are_in_the_order_of_the_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_BLOCK", 3)
    found = Collection(np.ones((8, 2), np.float16), lambda number: {}, {})
    (several,) = found.best(np.ones((1, 2), np.float32), 8)
    assert [number for _, number in several] == list(range(8))


def test_search_takes_little_memory_beside_the_file(tmp_path: Path) -> None:
    """The pages of a file that is mapped are not counted."""
    np.random.default_rng(0).standard_normal((200_000, 64), np.float32).astype("<f2").tofile(tmp_path / "vectors")
    program = """
import re, sys, threading, time
import numpy as np
from textcap.embedding.search import Collection
def anonymous_mb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3
vectors = np.memmap(sys.argv[1], "<f2", "r", shape=(200_000, 64))
queries = np.ones((1, 64), np.float32)
Collection(vectors[:20_000], lambda number: {}, {}).best(queries, 20)
before, peaks = anonymous_mb(), []
thread = threading.Thread(target=lambda: Collection(vectors, lambda number: {}, {}).best(queries, 20))
thread.start()
while thread.is_alive():
    peaks.append(anonymous_mb())
    time.sleep(0.001)
print(max(peaks, default=0) - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    command = [sys.executable, "-c", program, str(tmp_path / "vectors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 30  # all vectors are 51 MB in float32


# Sources


@pytest.mark.parametrize("source", SOURCES)
def test_search_finds_the_nearest_in_every_kind_of_source(place: Path, source: str) -> None:
    paths, vectors = rounded(place)
    assert len(paths) == 13 and str(place / "sounds" / "0003.wav") not in paths
    options = ["--backbone", "tiny"] if source == "sounds" else []
    done = run("search", QUERY, place / source, "-k", 6, "--json", *options)
    assert done.exit_code == 0, done.stderr
    found = rows(done.stdout)
    products = vectors @ text_vectors([QUERY])[0].astype(np.float64)
    pairs = [(row["similarity"], paths.index(row["path"])) for row in found]
    near = 1e-5 if source in ("work", "embedded.parquet", "captioned.parquet") else 1e-3  # the others are not rounded
    assert [one for one, _ in pairs] == pytest.approx(np.sort(products)[::-1][:6].tolist(), abs=near)
    assert [products[number] for _, number in pairs] == pytest.approx([one for one, _ in pairs], abs=near)
    assert all(("caption" in row) == (source in ("work", "captioned.parquet")) for row in found)


@pytest.mark.parametrize("source", SOURCES)
def test_search_by_a_sound_finds_it_first(place: Path, source: str) -> None:
    sound = place / "sounds" / "0007.wav"
    options = ["--backbone", "tiny"] if source == "sounds" else []
    done = run("search", "--like", sound, place / source, "-k", 2, *options)
    first, second = (line.split("\t") for line in done.stdout.splitlines())
    assert first[:2] == ["1.000", str(sound)] and float(second[0]) < 1
    assert len(first) == (3 if source in ("work", "captioned.parquet") else 2)


def test_second_search_of_sounds_reads_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["search", QUERY, place / "sounds", "--backbone", "tiny"]
    first = run(*words)
    monkeypatch.setattr("textcap.embedding.recordings.read_windows", None)
    assert run(*words).stdout == first.stdout != ""


def test_search_tells_sounds_that_it_could_not_read(place: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no sound")
    done = run("search", QUERY, tmp_path / "broken.wav", place / "sounds" / "0000.wav", "--backbone", "tiny")
    assert done.exit_code == 3 and len(done.stdout.splitlines()) == 1
    assert f"skipped: {tmp_path}/broken.wav " in done.stderr
    done = run("search", QUERY, tmp_path / "broken.wav", "--backbone", "tiny")
    assert (done.exit_code, done.stdout) == (1, "")


def test_pieces_are_found_with_their_times(place: Path, tmp_path: Path) -> None:
    plan(tmp_path / "work", place / "sounds" / "0000.wav", place / "sounds" / "0003.wav")
    assert run("corpus", "run", tmp_path / "work", "-m", place / "model", "--timeline", *SHORT).exit_code == 0
    piece = run("search", QUERY, tmp_path / "work").stdout.splitlines()[0].split("\t")
    assert piece[1:4] == [str(place / "sounds" / "0000.wav"), "0.000", "2.000"] and len(piece) == 5


def test_query_sound_must_be_one_that_is_heard(place: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no sound")
    for sound in (place / "sounds" / "0003.wav", tmp_path / "broken.wav", tmp_path / "gone.wav"):
        done = run("search", "--like", sound, place / "embedded.parquet")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith(f"textcap: {sound} ")


def test_file_of_something_else_is_told(place: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet
    from safetensors.numpy import save_file

    parquet.write_table(pa.table({"path": ["a.wav"]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"path": ["a.wav"], "embedding": ["long"]}), tmp_path / "b.parquet")
    vectors = [[1.0, 0.0], [1.0]]
    parquet.write_table(pa.table({"path": ["a.wav", "b.wav"], "embedding": vectors}), tmp_path / "c.parquet")
    save_file({"weights": np.zeros(3, np.float32)}, tmp_path / "d.safetensors")
    (tmp_path / "e.parquet").write_text("no table")
    for name in ("a.parquet", "b.parquet", "c.parquet", "d.safetensors", "e.parquet", "gone.parquet"):
        done = run("search", QUERY, tmp_path / name, "--backbone", "tiny")
        assert (done.exit_code, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"textcap: {tmp_path / name} ")


# Which CLAP


def test_embeddings_of_another_clap_are_refused_by_name(place: Path, backbone_folder: Path) -> None:
    for source in SOURCES[1:]:
        done = run("search", QUERY, place / source, "--backbone", backbone_folder)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "the sounds were embedded with another CLAP (tiny) than tiny-random (name it with" in done.stderr


@pytest.fixture
def _without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the text encoder from the tiny backbone, as clapcap has none."""
    load = Backbone.load.__func__

    def loaded(cls: type[Backbone], name: Any, **options: Any) -> Backbone:
        backbone: Backbone = load(cls, name, **options)
        backbone.clap.has_text = False
        return backbone

    monkeypatch.setattr(Backbone, "load", classmethod(loaded))


@pytest.mark.usefixtures("_without_text")
def test_clap_without_a_text_encoder_is_searched_by_sounds_only(place: Path, tmp_path: Path) -> None:
    sound = place / "sounds" / "0007.wav"
    for words in (["search", QUERY, place / "work"], ["tag", place / "work", "--labels", place / "labels.txt"]):
        done = run(*words, "--offline")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "tiny has no text encoder" in done.stderr and "textcap fetch msclap-2023" in done.stderr
    assert run("search", "--like", sound, place / "work", "-k", 1).stdout.startswith(f"1.000\t{sound}\t")
    plan(tmp_path / "work", sound)
    done = run("corpus", "run", tmp_path / "work", "-m", place / "model", *SHORT)
    assert done.exit_code == 0 and "has no text encoder: textcap search finds its sounds by --like only" in done.stderr


# Tags


@pytest.mark.parametrize("source", SOURCES)
def test_tags_are_the_labels_nearest_to_each_sound(place: Path, source: str) -> None:
    options = ["--backbone", "tiny"] if source == "sounds" else []
    done = run("tag", place / source, "--labels", place / "labels.txt", "--top", 2, *options)
    assert done.exit_code == 0, done.stderr
    paths, vectors = rounded(place)
    products = vectors @ text_vectors([f"This is a sound of {label}" for label in LABELS]).astype(np.float64).T
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == paths
    for line, row in zip(lines, products, strict=True):
        found = [(float(cell.rpartition(" ")[2]), LABELS.index(cell.rpartition(" ")[0])) for cell in line[1:]]
        assert [one for one, _ in found] == pytest.approx(np.sort(row)[::-1][:2].tolist(), abs=1.1e-3)
        assert [row[number] for _, number in found] == pytest.approx([one for one, _ in found], abs=1.1e-3)


def test_template_is_the_sentence_that_is_compared(place: Path) -> None:
    words = ["tag", place / "captioned.parquet", "--labels", place / "labels.txt", "--top", 1]
    assert run(*words).stdout != run(*words, "--template", "a loud {} at night").stdout
    done = run(*words, "--template", "a sound")
    assert done.exit_code == 2 and "has no {} for the label" in done.stderr


# The index of a corpus


@pytest.fixture
def work(place: Path, tmp_path: Path) -> Path:
    """A captioned corpus of four sounds in two shards."""
    write_sounds(tmp_path / "sounds", 3)
    write_sound(tmp_path / "sounds" / "0004.wav", 40)
    plan(tmp_path / "work", tmp_path / "sounds", n_files=2)
    caption(place, tmp_path / "work")
    return tmp_path / "work"


def caption(place: Path, work: Path) -> None:
    done = run("corpus", "run", work, "-m", place / "model", *SHORT)
    assert done.exit_code == 0, done.stderr


def found_in(work: Path) -> dict[str, bytes]:
    """Return the embeddings that a search finds in a corpus, by the names of the sounds."""
    found = collection_of(Corpus.open(work))
    numbers = [number for number in range(len(found.vectors)) if number not in found.hidden]
    vectors = {Path(found.line(number)["path"]).name: found.vectors[number].tobytes() for number in numbers}
    assert len(vectors) == len(numbers)
    return vectors


def index_files() -> dict[str, Path]:
    """Return the files of the only index in the cache folder, by their endings."""
    return {path.suffix: path for path in (Path(os.environ["TEXTCAP_CACHE"]) / "search").iterdir()}


def embedded(work: Path) -> dict[str, bytes]:
    """Return the embeddings in the export of a corpus, by the names of the sounds."""
    found = collection_of_file(export(work, "all.parquet"))
    return {Path(found.line(n)["path"]).name: vector.tobytes() for n, vector in enumerate(found.vectors)}


def test_index_holds_what_the_results_hold(work: Path) -> None:
    assert found_in(work) == embedded(work) and len(embedded(work)) == 4


def test_index_is_extended_by_new_results(place: Path, work: Path) -> None:
    before = found_in(work)
    vectors = index_files()[".f16"]
    content, inode = vectors.read_bytes(), vectors.stat().st_ino
    write_sound(work.parent / "sounds" / "0009.wav", 90)
    plan(work, work.parent / "sounds")
    assert found_in(work) == before  # planned, but without a result
    caption(place, work)
    assert found_in(work) == embedded(work) and set(found_in(work)) - set(before) == {"0009.wav"}
    assert vectors.read_bytes().startswith(content) and vectors.stat().st_ino == inode


def test_search_that_was_killed_while_it_added_results_costs_nothing(work: Path) -> None:
    expected = found_in(work)
    for ending in (".f16", ".rows"):
        with open(index_files()[ending], "ab") as file:
            file.write(b"half a row")
        assert found_in(work) == expected
    index_files()[".json"].unlink()
    assert found_in(work) == expected


@pytest.mark.parametrize("ending", [".f16", ".rows", ".json"])
def test_index_of_which_a_file_is_lost_or_cut_is_made_anew(work: Path, ending: str) -> None:
    expected = found_in(work)
    index_files()[ending].unlink()
    assert found_in(work) == expected
    content = index_files()[ending].read_bytes()
    index_files()[ending].write_bytes(content[: len(content) // 2])
    assert found_in(work) == expected


def test_index_is_made_anew_when_a_result_was(place: Path, work: Path) -> None:
    found_in(work)
    write_sound(work.parent / "sounds" / "0001.wav", 17)  # changed after it was planned
    (work / "results" / "000000.parquet").unlink()
    assert set(found_in(work)) == {"0002.wav", "0004.wav"}
    caption(place, work)
    assert found_in(work) == embedded(work) and len(embedded(work)) == 4


def test_sound_that_was_planned_again_is_found_once(place: Path, work: Path) -> None:
    before = found_in(work)
    write_sound(work.parent / "sounds" / "0001.wav", 17)
    plan(work, work.parent / "sounds")
    assert set(found_in(work)) == set(before) - {"0001.wav"}
    caption(place, work)
    after = found_in(work)
    assert set(after) == set(before) and after["0001.wav"] != before["0001.wav"]
    assert after == embedded(work)


def test_corpus_without_results_or_embeddings_has_nothing_to_find(place: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    plan(tmp_path / "work", tmp_path / "silence.wav")
    done = run("search", QUERY, tmp_path / "work")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"textcap: {tmp_path / 'work'} has no results yet (run textcap corpus run ")
    caption(place, tmp_path / "work")
    done = run("search", QUERY, tmp_path / "work")
    assert (done.exit_code, done.stdout) == (0, "")


def test_damaged_result_is_told(work: Path) -> None:
    path = work / "results" / "000001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    done = run("search", QUERY, work)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"textcap: {path} cannot be read: ")


def test_rows_without_a_caption_or_times_show_only_what_they_have(place: Path, tmp_path: Path) -> None:
    import base64

    vector = base64.b64encode(rounded(place)[1][0].astype("<f2").tobytes()).decode()
    facts = {"clap": "tiny", "clap_hash": Backbone.load("tiny").clap.content_hash}
    write_rows(tmp_path / "a.parquet", [{"path": "a\tb.wav", "caption": "", "embedding": vector}], facts)
    (row,) = map(json.loads, run("search", QUERY, tmp_path / "a.parquet", "--json").stdout.splitlines())
    assert row["path"] == "a\\x09b.wav" and "start_s" not in row and "score" not in row
    assert len(run("search", QUERY, tmp_path / "a.parquet").stdout.split("\t")) == 2


# Beside others


def test_index_of_faiss_in_the_page_on_search_finds_what_search_finds(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    page = (Path(__file__).parent.parent / "docs" / "search.md").read_text(encoding="utf-8")
    (block,) = [one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import faiss" in one]
    (tmp_path / "work").symlink_to(place / "work")
    assert run("embed", "--text", QUERY, "-o", tmp_path / "query.parquet", "--backbone", "tiny").exit_code == 0
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = run("search", QUERY, place / "work", "-k", "3").stdout.splitlines()
    assert [line.split()[1] for line in done.stdout.splitlines()] == [line.split("\t")[1] for line in ours]


@pytest.mark.long
def test_recall_equals_that_of_the_gap(tmp_path: Path) -> None:
    """On the clips of `benchmarks.sound_world`."""
    clips = held_out_clips(200, 100, 1000)
    encoder = Backbone.load("tiny").audio_encoder()
    sounds = [render_scene(clip.scene, clip.sound_seed, RATE_HZ) for clip in clips]
    with torch.inference_mode():
        audio = torch.cat([encoder(torch.from_numpy(np.stack(sounds[i : i + 50]))) for i in range(0, 300, 50)])
    captions = [clip.captions[0] for clip in clips]
    text = text_vectors(captions)
    audio_units, text_units = (unit_rows(one.astype(np.float16)).astype(np.float32) for one in (audio.numpy(), text))
    found = Collection(text_units, lambda number: {}, {}).best(audio_units, 10)
    nearest = [{captions[number] for _, number in several} for several in found]
    recall = np.mean([own in several for own, several in zip(captions, nearest, strict=True)])
    assert recall == pytest.approx(measure_retrieval(audio_units, text_units).recall_at_10, abs=1e-9)
