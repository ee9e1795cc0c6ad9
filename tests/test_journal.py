"""The journal of a run: what it keeps, what it refuses, and what a kill or damage costs."""

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from textcap.errors import InputError
from textcap.outputs.journal import Journal, journal_of, open_journal

SETTINGS = {"model": "abc", "beam_size": 5, "sizes": (1, 2)}


def rows_of(*names: str) -> list[dict[str, object]]:
    return [{"path": name, "caption": f"caption of {name}", "score": -0.5} for name in names]


def opened(
    folder: Path, *, resume: bool = False, force: bool = False, **changed: object
) -> AbstractContextManager[Journal]:
    return open_journal(folder / "out.jsonl", {**SETTINGS, **changed}, resume=resume, force=force)


def killed(work: Callable[[], object]) -> None:
    """Run something in a process that ends at once afterwards, as if it were killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(9)
    os.waitpid(pid, 0)


def test_results_are_kept_and_failures_are_tried_again(tmp_path: Path) -> None:
    rows = [*rows_of("a", "b\udce9"), {"path": "c", "error": "c is empty"}]
    with opened(tmp_path) as journal:
        assert not journal.has("a", "1")
        journal.add([str(row["path"]) for row in rows], rows, ["1", "2", "3"])
        assert list(journal.rows(["c", "a", "b\udce9"])) == [rows[2], rows[0], rows[1]]
    with opened(tmp_path, resume=True) as journal:
        assert [journal.has(*which) for which in (("a", "1"), ("b\udce9", "2"), ("c", "3"))] == [True, True, False]
        assert not journal.has("a", "changed") and not journal.has("d", "4") and not journal.has("a", None)
        assert list(journal.rows(["a", "c"])) == [rows[0], rows[2]]
        changed = [{"path": "a", "caption": "another"}]
        journal.add(["a"], changed, ["changed"])
        assert list(journal.rows(["a"])) == changed


def test_input_without_an_identity_is_always_tried_again(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.add(["-"], rows_of("-"), [None])
        assert not journal.has("-", None)
        assert list(journal.rows(["-"])) == rows_of("-")


def test_deleted_journal_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("")
    with opened(tmp_path) as journal:
        journal.add(["a"], rows_of("a"), ["1"])
        assert journal_of(tmp_path / "out.jsonl").exists()
        journal.delete()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_unfinished_run_is_neither_lost_nor_mixed_with_another(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.add(["a"], rows_of("a"), ["1"])
    with pytest.raises(InputError, match="out.jsonl.textcap-journal is that of an unfinished run .use --resume"):
        opened(tmp_path).__enter__()
    with pytest.raises(InputError, match="was begun with beam_size 5, not 8 .use the same options"):
        opened(tmp_path, resume=True, beam_size=8).__enter__()
    with pytest.raises(InputError, match="was begun with rerank None, not 0.5"):
        opened(tmp_path, resume=True, rerank=0.5).__enter__()
    with opened(tmp_path, force=True) as journal:
        assert not journal.has("a", "1")


def test_two_processes_cannot_write_the_same_output(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(InputError, match="another process is writing .*out.jsonl"):
        opened(tmp_path, resume=True).__enter__()


def test_input_that_was_being_read_at_two_crashes_in_a_row_has_failed(tmp_path: Path) -> None:
    def crash(*reading: str | None, resume: bool = True) -> None:
        def work() -> None:
            manager = opened(tmp_path, resume=resume)
            journal = manager.__enter__()
            for name in reading:
                journal.reading(name)
            os._exit(9)  # before the manager can end the session

        killed(work)

    crash("a", "b", resume=False)
    crash("a", "b", None)  # it was killed while nothing was being read
    crash("b")
    with opened(tmp_path, resume=True) as journal:
        assert not journal.crashed("b")
        journal.reading("b")  # ends by an error, which is no crash
    crash("b")
    crash("b")
    with opened(tmp_path, resume=True) as journal:
        assert journal.crashed("b") and not journal.crashed("a")


def test_a_torn_line_costs_its_result_and_no_other(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.add(["a"], rows_of("a"), ["1"])
        size = journal.path.stat().st_size
        journal.add(["b"], rows_of("b"), ["2"])
        path = journal.path
    whole = path.read_bytes()
    for length in range(1, whole.index(b"\n")):  # not even the first line is whole
        path.write_bytes(whole[:length])
        with opened(tmp_path, resume=True) as journal:
            assert not journal.has("a", "1")
    for length in range(size + 1, len(whole.rstrip(b"\n").rpartition(b"\n")[0])):
        path.write_bytes(whole[:length])
        with opened(tmp_path, resume=True) as journal:
            assert journal.has("a", "1") and not journal.has("b", "2")
            journal.add(["c"], rows_of("c"), ["3"])
        with opened(tmp_path, resume=True) as journal:
            assert list(journal.rows(["a", "c"])) == rows_of("a", "c")


def test_flipped_bits_never_change_a_result(tmp_path: Path) -> None:
    rows = rows_of("a", "b", "c")
    with opened(tmp_path) as journal:
        journal.add([str(row["path"]) for row in rows], rows, ["1", "2", "3"])
        path = journal.path
    whole = path.read_bytes()
    rng = random.Random(0)
    n_lost = 0
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            with opened(tmp_path, resume=True) as journal:
                kept = [row for row, key in zip(rows, "123", strict=True) if journal.has(str(row["path"]), key)]
                assert list(journal.rows([str(row["path"]) for row in kept])) == kept
                n_lost += len(rows) - len(kept)
        except InputError as error:
            assert "not a journal" in str(error)
    assert n_lost
