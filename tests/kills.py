"""Kill a process before and after each call that changes the disk, look at what is left, and do the same again.

A shim stands around each such call, and ends the process there at once, without any clean-up. The process is a fork of
this one. Run as a program, this module kills one of its `SCENARIOS`, so that the forks are of a process without torch.
"""

import builtins
import io
import json
import os
import re
import shutil
import sqlite3
import ssl
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from textcap import store
from textcap.files import FolderKind, atomic_folder, atomic_write_bytes, atomic_write_with, discard
from textcap.weights import Hub, fetch
from textcap.weights.repository import find_repository

KILLED = 137
REPOSITORY = "user/model"
REPOSITORY_FILES = {"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
REPOSITORY_FILES |= {"model.safetensors.index.json", "tokenizer.json"}
OURS = FolderKind("ours", "mark.json", r"mark\.json|content")
DISK_CALLS = ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "chmod", "symlink", "link", "fsync", "open")
SECOND_IS_PLACE = ("save", "replace", "rename", "symlink", "link")
# Everything that a kill at any moment may leave, besides complete files and folders under their own names: a regular
# expression of its name, and what it is, who deletes it or puts it back, and when; docs/security.md has the same table.
LEFTOVERS = {
    r"\.textcap-[0-9a-f]{12}\.tmp": "what was being written or deleted: deleted by the next write beside it after a"
    " day, and in a work folder by the next run",
    r"\.textcap-[0-9a-f]{12}\.old": "the older version of a folder while a new one takes its place: put back by the"
    " next command that writes that folder, or deleted by it if the new one is in place",
    r".+\.partial": "the work folder of an unfinished training run: continued by the same command, and deleted when the"
    " run is done; discarded by --force if the settings differ",
    r".+\.textcap-partial": "the first bytes of a download: continued by the next textcap fetch",
    r".+\.sqlite-journal": "a batch of the store that was not complete: undone by the next use of the store",
    r".+\.lock": "a lock that nobody holds: used again, and deleted by textcap cache together with a store",
}


class Shim:
    """Counts the events of a process, and ends the process before or after one of them.

    Args:
        root: Only events on paths in this folder count.
        kill: The number of the event and "before", "middle" or "after"; None to count only.
    """

    def __init__(self, root: Path, kill: tuple[int, str] | None = None) -> None:
        self.root, self.kill = root, kill
        self.events: list[str] = []

    def install(self) -> None:
        for name in DISK_CALLS:
            setattr(os, name, self.wrapped(name, getattr(os, name)))
        builtins.open = io.open = self.wrapped("open", io.open)  # type: ignore[assignment]
        sqlite3.connect = self.connecting(sqlite3.connect)
        if loading := sys.modules.get("textcap.models.loading"):  # which needs torch
            loading.save_file = self.wrapped("save", loading.save_file)  # type: ignore[attr-defined]

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def event(*arguments: Any, **options: Any) -> Any:
            place = arguments[name in SECOND_IS_PLACE]
            writes = name != "open" or self.opens_to_write(arguments[1:], options)
            # A kill leaves what was written, flushed or not, and flushing takes most of the time of these tests.
            act = (lambda: None) if name == "fsync" else lambda: call(*arguments, **options)
            return self.around(name, place if writes else None, act)

        return event

    def connecting(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        """SQLite writes by itself: its events are the statements that change a database."""
        shim = self

        def connected(path: Any, **options: Any) -> Any:
            class Connection(sqlite3.Connection):
                def execute(self, sql: str, *arguments: Any) -> Any:
                    return shim.statement(sql, path, lambda: sqlite3.Connection.execute(self, sql, *arguments))

                def executemany(self, sql: str, *arguments: Any) -> Any:
                    return shim.statement(sql, path, lambda: sqlite3.Connection.executemany(self, sql, *arguments))

            connection = connect(path, factory=Connection, **options)
            # So that pages are written, and their older content to the journal, before the transaction ends.
            sqlite3.Connection.execute(connection, "PRAGMA cache_size = 1")
            return connection

        return connected

    def statement(self, sql: str, path: Any, call: Callable[[], Any]) -> Any:
        word = sql.split()[0]
        return self.around(word, path if word in ("BEGIN", "CREATE", "INSERT", "COMMIT") else None, call)

    def around(self, name: str, place: Any, call: Callable[[], Any]) -> Any:
        """Call, as an event if it concerns a file of interest."""
        role = self.role(place) if place is not None else None
        if role is None:
            return call()
        number = len(self.events)
        self.events.append(f"{name} {role}")
        self.end_if(number, "before")
        if name == "save" and self.kill == (number, "middle"):  # safetensors writes beside the file and renames
            (Path(place).parent / ".tmpAb12Cd").write_bytes(b"half")
            os._exit(KILLED)
        try:
            return call()
        finally:
            self.end_if(number, "after")

    @staticmethod
    def opens_to_write(arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
        mode = options.get("mode", arguments[0] if arguments else "r")
        return bool(mode & (os.O_WRONLY | os.O_RDWR)) if isinstance(mode, int) else not mode.startswith("r")

    def role(self, place: Any) -> str | None:
        """Return what kind of file an event concerns, or None if it lies elsewhere."""
        path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.path.abspath(os.fsdecode(place))
        relative = os.path.relpath(path, self.root)
        if relative.startswith(".."):
            # shutil.rmtree gives names relative to an open folder.
            return None if os.path.isabs(os.fsdecode(place) if not isinstance(place, int) else "/") else "inner"
        # Repositories, and the files of a snapshot, differ in their names only; blobs in their hashes.
        named = re.sub(r"(snapshots/[0-9a-f]{40})/(.+/)?[\w.]+$", r"\1/\2*", relative)
        return re.sub(r"models--[\w-]+|[0-9a-f]{40,64}|\.textcap-[0-9a-f]{12}|#\d+ \(deleted\)", "*", named)

    def end_if(self, number: int, when: str) -> None:
        if self.kill == (number, when):
            os._exit(KILLED)


def in_fork(root: Path, act: Callable[[Path], object], kill: tuple[int, str] | None = None) -> list[str]:
    """Do something in a fork of this process, with the shim, and return the events up to its end."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking a process that has threads
        child = os.fork()
    if child == 0:
        shim, code = Shim(root, kill), 1
        try:
            shim.install()
            act(root)
            code = 0
        except BaseException:
            traceback.print_exc()
        os.write(writing, json.dumps(shim.events).encode())
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        events = json.loads(pipe.read() or b"[]")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (0 if kill is None else KILLED), f"ended with {code}"
    return events


def content_of(root: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder, by its relative path; folders have none.

    A database counts as its rows. Locks of Hugging Face's cache do not count: they stay.
    """
    content = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.suffix == ".sqlite" and (rows := rows_of(path)) is not None:
            content |= {f"{name}/{table} {row[0].hex()}": repr(row).encode() for table, row in rows}
        elif ".locks" not in path.parts:
            content[name] = path.read_bytes() if path.is_file() else b""
    return content


def rows_of(path: Path) -> list[tuple[str, tuple[bytes, ...]]] | None:
    """Return the rows of a database as its next reader will find them, or None if it is not a database."""
    with tempfile.TemporaryDirectory() as folder:  # because reading applies the journal that a kill has left
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copyfile(file, Path(folder) / file.name)
        connection = sqlite3.connect(Path(folder) / path.name)
        try:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return [(table, row) for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
        except sqlite3.DatabaseError:
            return None
        finally:
            connection.close()


def without_leftovers(content: dict[str, bytes], *, after_rerun: bool = False) -> dict[str, bytes]:
    """Return what is not allowed to be left by a kill, or by the same again: then only temporary folders and locks."""
    allowed = [re.compile(name) for name in LEFTOVERS if not after_rerun or name.endswith((r"\.tmp", r"\.lock"))]
    return {
        path: data
        for path, data in content.items()
        if not any(pattern.fullmatch(part) for pattern in allowed for part in path.split("/"))
    }


# What is killed: how the folder looks before, and what is done.


def nothing(root: Path) -> None:
    del root


def old_file(root: Path) -> None:
    (root / "a.bin").write_bytes(b"old")


def write_file(root: Path) -> None:
    atomic_write_bytes(root / "deep" / "b.bin", b"b")
    atomic_write_bytes(root / "a.bin", b"new")


def write_with_library(root: Path) -> None:
    def write(path: Path) -> None:
        path.with_name(".tmpXY").write_bytes(b"half")
        path.write_bytes(b"new")

    atomic_write_with(root / "a.bin", write)


def write_folder(root: Path, *, force: bool = False, content: bytes = b"new") -> None:
    with atomic_folder(root / "folder", kind=OURS, force=force) as new:
        (new / "mark.json").write_text('{"kind": "ours"}')
        (new / "content").write_bytes(content)


def write_folder_once(root: Path) -> None:
    """Write a folder as a command without --force does, which a complete folder stops."""
    if not (root / "folder").exists():
        write_folder(root)


def discard_folder(root: Path) -> None:
    if (root / "folder").exists():
        discard(root / "folder")


def items(n_items: int) -> list[bytes]:
    return [i.to_bytes(32, "big") for i in range(n_items)]


def fill_store(root: Path, n_items: int = 20) -> None:
    """Embed items in batches; a value follows from the index of its item."""
    store.BATCH_ROWS = 8
    vectors = store.Store(root / "embeddings" / "text.sqlite", 1024).vectors(
        items(n_items), lambda indices: np.stack([np.full(1024, i, np.float32) for i in indices])
    )
    assert [int(vector[0]) for vector in vectors] == list(range(n_items))


def damaged_store(root: Path) -> None:
    fill_store(root, 5)
    (root / "embeddings" / "text.sqlite").write_bytes(b"no database at all" * 300)


def fetch_weights(root: Path, name: str = "clapcap") -> None:
    """Fetch from the hub that the environment names; it must not be in this process."""
    os.environ["TEXTCAP_CACHE"] = str(root)
    fetch([name], hub=Hub(os.environ["HF_ENDPOINT"], timeout_s=30.0, retries=0))


def fetch_repository(root: Path) -> None:
    """Fetch a language model; what a kill has left is found only if it is complete."""
    os.environ["TEXTCAP_CACHE"] = str(root)
    found = find_repository(REPOSITORY)
    assert found is None or {path.name for path in found.iterdir()} >= REPOSITORY_FILES
    fetch_weights(root, REPOSITORY)
    found = find_repository(REPOSITORY)
    assert found is not None and {path.name for path in found.iterdir()} >= REPOSITORY_FILES


def warmed_up(root: Path) -> None:
    """Fetch elsewhere, so that the forks need not import what downloads import late."""
    fetch_weights(root.with_name("elsewhere"))


def warmed_up_for_repository(root: Path) -> None:
    """Fetch the repository elsewhere, likewise."""
    fetch_repository(root.with_name("elsewhere"))


def damaged_weights(root: Path) -> None:
    fetch_weights(root)
    for blob in root.glob("hub/*/blobs/*"):
        blob.write_bytes(b"damaged")


Scenario = tuple[Callable[[Path], object], Callable[[Path], object]]

SCENARIOS: dict[str, Scenario] = {
    "file": (old_file, write_file),
    "file by a library": (old_file, write_with_library),
    "new folder": (nothing, write_folder_once),
    "folder in place of another": (
        lambda root: write_folder(root, content=b"old"),
        lambda root: write_folder(root, force=True),
    ),
    "folder that is discarded": (write_folder, discard_folder),
    "new store": (nothing, fill_store),
    "store with some rows": (lambda root: fill_store(root, 5), fill_store),
    "damaged store": (damaged_store, fill_store),
    "fetch": (warmed_up, fetch_weights),
    "fetch of damaged files": (damaged_weights, fetch_weights),
    "fetch of a repository": (warmed_up_for_repository, fetch_repository),
}


def kill_everywhere(scenario: Scenario, folder: Path, *, every: bool) -> set[str]:
    """Kill a scenario, check what is left and what doing the same again gives, and return all names that were left.

    Args:
        folder: An empty folder.
        every: Kill before and after every event, not only the first of each kind.
    """
    prepare, act = scenario
    (folder / "prepared").mkdir()
    prepare(folder / "prepared")

    def fresh() -> Path:
        shutil.rmtree(folder / "root", ignore_errors=True)
        return Path(shutil.copytree(folder / "prepared", folder / "root", symlinks=True))

    before = content_of(folder / "prepared")
    events = in_fork(fresh(), act)
    after = content_of(folder / "root")
    assert after == without_leftovers(after), "an undisturbed process leaves nothing"
    names: set[str] = set()
    for number, when in places(events, every=every):
        root, place = fresh(), f"{when} {events[number]}"
        in_fork(root, act, (number, when))
        names |= {path.name for path in root.rglob("*")}
        for path, data in without_leftovers(content_of(root)).items():
            assert data in (before.get(path), after.get(path)), f"{path} is half written {place}"
        in_fork(root, act)
        again = without_leftovers(content_of(root), after_rerun=True)
        different = [path for path in again.keys() | after.keys() if again.get(path) != after.get(path)]
        assert not different, f"{different} differ if killed {place}"
    return names


def places(events: list[str], *, every: bool) -> Iterator[tuple[int, str]]:
    """Yield where to kill: the number of an event, and when."""
    chosen = set(range(len(events)))
    if not every:
        firsts = {event: number for number, event in reversed(list(enumerate(events)))}.values()
        assert len(firsts) >= 5
        chosen &= {place for number in firsts for place in (number, number + 1)}
    # The end of an event and the beginning of the next one are the same moment.
    yield from ((number, "before") for number in sorted(chosen))
    yield len(events) - 1, "after"
    yield from ((number, "middle") for number, event in enumerate(events) if event.startswith("save "))


if __name__ == "__main__":
    assert "torch" not in sys.modules
    # Loading certificates takes most of the time of a download, and the tests' hub has none.
    ssl.create_default_context = lambda **options: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # type: ignore[assignment]
    print(*kill_everywhere(SCENARIOS[sys.argv[1]], Path(sys.argv[2]), every=sys.argv[3] == "every"), sep="\n")
