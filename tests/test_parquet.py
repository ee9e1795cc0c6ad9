"""Rows as Parquet: what is written is read again, by others too, and what is damaged is told."""

import base64
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")

from pyarrow import parquet  # noqa: E402

from textcap.data.parquet import matrix_of, read_table, write_embeddings  # noqa: E402
from textcap.data.text import printable  # noqa: E402
from textcap.errors import FileError, InputError  # noqa: E402
from textcap.outputs.parquet import SCHEMA, rows_of, write_rows  # noqa: E402
from textcap.outputs.rows import error_row, row_of  # noqa: E402
from textcap.results import Candidate, CaptionResult, Piece  # noqa: E402

Row = dict[str, Any]

WIDTH = 8
FACTS = {"clap": "tiny", "clap_hash": "ab" * 32}

_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
_numbers = st.floats(-20, 0, allow_nan=False)
_seconds = st.floats(0, 1e5, allow_nan=False)
_notes = st.lists(_texts, min_size=1, max_size=3)
_vectors = st.lists(st.floats(-1, 1, width=16), min_size=WIDTH, max_size=WIDTH).map(lambda v: np.array(v, "<f2"))
_candidates = st.builds(Candidate, _texts, _numbers, st.none() | st.floats(-1, 1))
_errors = st.builds(lambda path, problem: CaptionResult(path, error=FileError(path, problem)), _texts, _texts)


def _results(*, is_timeline: bool) -> st.SearchStrategy[CaptionResult]:
    """Return results as `Captioner` gives them, of sounds, of silence and of what cannot be read."""
    facts: dict[str, Any] = {"duration_s": _seconds, "notes": st.just(()) | _notes.map(tuple)}
    pieces = st.builds(Piece, _seconds, _seconds, _texts, _numbers, _vectors)
    if is_timeline:
        several = st.lists(pieces, max_size=3).map(tuple)
        return _errors | st.builds(
            lambda path, pieces, **facts: CaptionResult(path, pieces=pieces, is_silent=not pieces, **facts),
            _texts,
            several,
            **facts,
        )
    heard = st.builds(CaptionResult, _texts, st.lists(_candidates, min_size=1, max_size=3).map(tuple), **facts)
    silent = st.builds(CaptionResult, _texts, is_silent=st.just(True), **facts)
    with_vector = st.builds(
        lambda result, vector: CaptionResult(**{**vars(result), "embedding": vector}), heard, _vectors
    )
    return _errors | silent | with_vector


def written(folder: Path, rows: list[Row], first_id: int = 0) -> Path:
    path = folder / "rows.parquet"
    write_rows(path, rows, FACTS, first_id)
    return path


def without_embeddings(row: Row) -> Row:
    rest = {name: value for name, value in row.items() if name != "embedding"}
    rest |= {name: printable(row[name]) for name in ("path", "error") if name in row}
    return rest | ({"pieces": [without_embeddings(one) for one in rest["pieces"]]} if "pieces" in rest else {})


def embeddings_in(row: Row) -> list[bytes]:
    """Return the embeddings of a row or of its pieces, as bytes."""
    packed = [one["embedding"] for one in (row, *row.get("pieces", [])) if "embedding" in one]
    return [base64.b64decode(text) for text in packed]


@settings(max_examples=60)
@given(
    results=st.booleans().flatmap(
        lambda is_timeline: st.tuples(st.just(is_timeline), st.lists(_results(is_timeline=is_timeline), max_size=6))
    ),
    n_captions=st.integers(1, 3),
    first_id=st.integers(0, 1 << 60),
)
def test_rows_are_the_same_after_they_were_written_and_read(
    tmp_path_factory: pytest.TempPathFactory,
    results: tuple[bool, list[CaptionResult]],
    n_captions: int,
    first_id: int,
) -> None:
    is_timeline, several = results
    rows = [row_of(one, n_captions, embeddings=True) for one in several]
    table = read_table(written(tmp_path_factory.mktemp("rows"), rows, first_id))
    found, given = list(rows_of(table, is_timeline=is_timeline)), [without_embeddings(row) for row in rows]
    assert found == given and list(map(list, found)) == list(map(list, given))  # fields in their usual order
    assert table["id"].unique().to_pylist() == list(range(first_id, first_id + len(rows)))
    vectors, lines = matrix_of(table)
    assert [vector.tobytes() for vector in vectors] == [one for row in rows for one in embeddings_in(row)]
    assert len(lines) == len(vectors) and all(table["embedding"][int(line)].is_valid for line in lines)


def some_rows(n: int = 20) -> list[Row]:
    """Return rows of sounds with embeddings, every seventh of which cannot be read."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    results = [
        CaptionResult(f"/sounds/{i:03}.wav", error=InputError(f"/sounds/{i:03}.wav is empty"))
        if i % 7 == 3
        else CaptionResult(
            f"/sounds/{i:03}.wav", (Candidate(f"caption {i}", -i / 3),), duration_s=2.0, embedding=vector
        )
        for i, vector in enumerate(vectors)
    ]
    return [row_of(one, embeddings=True) for one in results]


def test_file_says_what_it_was_made_with(tmp_path: Path) -> None:
    metadata = read_table(written(tmp_path, some_rows())).schema.metadata
    assert {name.decode() for name in metadata} >= {"clap", "clap_hash", "textcap"}
    assert metadata[b"clap_hash"].decode() == FACTS["clap_hash"]


def test_file_is_read_by_pyarrow_and_pandas(tmp_path: Path) -> None:
    rows = some_rows()
    path = written(tmp_path, rows, first_id=40)
    assert parquet.read_table(path).schema.names == SCHEMA.names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas's own
        pandas = pytest.importorskip("pandas")
        frame = pandas.read_parquet(path)
    assert list(frame["id"]) == list(range(40, 40 + len(rows)))
    assert list(frame["path"]) == [row["path"] for row in rows]
    assert [error is not None for error in frame["error"]] == ["error" in row for row in rows]
    first = frame["embedding"][0]
    assert (first.dtype, first.tobytes()) == (np.float16, base64.b64decode(rows[0]["embedding"]))


def test_files_of_one_folder_are_one_data_set(tmp_path: Path) -> None:
    for name, first_id in (("a", 0), ("b", 20)):
        write_rows(tmp_path / f"{name}.parquet", some_rows(), FACTS, first_id)
    assert parquet.read_table(tmp_path)["id"].to_pylist() == list(range(40))


def test_name_that_is_not_utf_8_is_shown_with_escapes(tmp_path: Path) -> None:
    error = FileError("/a/caf\udce9.wav", "is empty")
    table = read_table(written(tmp_path, [error_row("/a/caf\udce9.wav", error)]))
    assert table.select(["path", "error"]).to_pylist() == [
        {"path": "/a/caf\\xe9.wav", "error": "/a/caf\\xe9.wav is empty"}
    ]


def test_embeddings_of_sounds_and_captions_are_kept_in_float16(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    write_embeddings(tmp_path / "e.parquet", ["a.wav", "b\udce9", "a dog"], ["audio", "audio", "text"], vectors, FACTS)
    table = read_table(tmp_path / "e.parquet")
    assert table["path"].to_pylist() == ["a.wav", "b\\xe9", "a dog"]
    assert table["kind"].to_pylist() == ["audio", "audio", "text"]
    assert np.array_equal(matrix_of(table)[0], vectors.astype(np.float16))


def test_existing_file_survives_rows_that_fail(tmp_path: Path) -> None:
    path = written(tmp_path, some_rows())
    before = path.read_bytes()

    def failing() -> Any:
        yield from some_rows(2)
        raise InputError("no more rows")

    with pytest.raises(InputError, match="no more rows"):
        write_rows(path, failing(), FACTS)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["rows.parquet"]


def test_cut_file_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, some_rows())
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="rows.parquet cannot be read: "):
            read_table(path)
    path.unlink()
    with pytest.raises(FileError, match="rows.parquet cannot be read: No such file"):
        read_table(path)


def flipped(whole: bytes, place: int, bit: int) -> bytes:
    """Return content with one bit of a byte changed."""
    return whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]


def test_flipped_bits_never_change_a_row(tmp_path: Path) -> None:
    path = written(tmp_path, some_rows())
    whole, table = path.read_bytes(), read_table(path)
    rng = random.Random(0)
    n_told = 0
    for _ in range(400):
        path.write_bytes(flipped(whole, rng.randrange(len(whole)), rng.randrange(8)))
        try:
            found = read_table(path, schema=SCHEMA)
        except FileError as error:
            assert "\n" not in str(error)
            n_told += 1
        else:
            assert found.equals(table)
    assert n_told > 200


def test_missing_pyarrow_is_one_line() -> None:
    program = "import sys; sys.modules['pyarrow'] = None; from textcap.cli.app import main; main()"
    for words in (["caption", "a.wav", "-o", "a.parquet"], ["corpus", "status", "work"], ["corpus", "plan", "a.wav"]):
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "textcap: Parquet needs pyarrow (pip install 'textcap[corpus]')\n"
