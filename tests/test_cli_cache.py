"""`textcap cache`: what it lists, checks and deletes."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from textcap.cli.app import app
from textcap.store import Store


def run(*arguments: object) -> tuple[int, list[list[str]]]:
    """Run `textcap cache` and return the exit code and the cells of each line of its output."""
    result = CliRunner().invoke(app, ["cache", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, [line.split("\t") for line in result.stdout.splitlines()]


def fill(kind: str) -> Path:
    """Keep two vectors in a store of the cache folder."""
    store = Store.of(kind, "tiny", "0" * 64, 4)
    store.vectors([b"a" * 32, b"b" * 32], lambda indices: np.ones((len(indices), 4), np.float32))
    return store.path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path))
    return tmp_path


def test_empty_cache_lists_nothing() -> None:
    assert run() == (0, [])


def test_every_store_and_folder_is_listed_with_its_size(cache: Path) -> None:
    paths = [fill("audio"), fill("text")]
    (cache / "hub" / "blobs").mkdir(parents=True)
    (cache / "hub" / "blobs" / "weights").write_bytes(bytes(3000))
    (cache / "hub" / "link").symlink_to(cache / "hub" / "blobs" / "weights")
    (cache / "hashes.sqlite").write_text("{}", encoding="utf-8")
    code, lines = run("--check")
    assert code == 0
    for path, line in zip(paths, lines, strict=False):
        assert line == [f"embeddings/{path.name}", "2 vectors", "81.9 kB", "used 0 days ago"]
    # The link's own bytes count, not those of the file that it names.
    assert lines[2:] == [["hashes.sqlite", "1 file", "2 bytes"], ["hub", "2 files", "3.1 kB"]]


def test_damage_is_named_and_nothing_is_changed() -> None:
    intact, damaged = fill("audio"), fill("text")
    raw = damaged.read_bytes()
    place = raw.index(np.ones(4, "<f4").tobytes())
    damaged.write_bytes(raw[:place] + b"x" + raw[place + 1 :])
    assert run()[0] == 0
    code, lines = run("--check")
    assert (code, [line[4:] for line in lines]) == (1, [[], ["1 damaged row"]])
    damaged.write_bytes(b"no database at all" * 300)
    code, lines = run("--check")
    assert (code, lines[1][1], lines[1][4]) == (1, "0 vectors", "file is not a database")
    assert intact.exists() and damaged.read_bytes().startswith(b"no database")


def test_prune_deletes_only_stores_that_were_not_used_for_so_long(cache: Path) -> None:
    old, new = fill("audio"), fill("text")
    long_ago = time.time() - 31 * 86400
    os.utime(old, (long_ago, long_ago))
    (cache / "hub").mkdir()
    (cache / "hub" / "weights").touch()
    os.utime(cache / "hub" / "weights", (long_ago, long_ago))
    assert [line[3:] for line in run("--prune", 32)[1][:2]] == [["used 31 days ago"], ["used 0 days ago"]]
    assert [line[3:] for line in run("--prune", 30)[1][:2]] == [["used 31 days ago", "deleted"], ["used 0 days ago"]]
    assert not old.exists() and new.exists() and (cache / "hub" / "weights").exists()
    assert run("--prune", 0)[0] == 2
