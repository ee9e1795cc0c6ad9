"""A killed process leaves only what `LEFTOVERS` allows, and doing the same again ends with the same bytes.

The process is a fork of this one. A shim stands before and after each call that changes the disk, and ends the process
there at once, without any clean-up: before and after the first event of each kind, which is an operation on a kind of
file, and in the slow tests before and after every event.
"""

import builtins
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import textcap.models.loading
from test_model_folder import CONFIG, METRICS, SIZES
from textcap.errors import InputError
from textcap.files import (
    LEFTOVERS,
    MODEL_FOLDER,
    FolderKind,
    atomic_folder,
    atomic_write_bytes,
    atomic_write_with,
    check_folder_place,
    discard,
)
from textcap.model_folder import load_model, save_model
from textcap.models.mapper import Mapper
from textcap.training.state import TrainingProgress, WorkFolder, load_state
from tiny_random import tiny_captions, write_tiny_backbone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")

KILLED = 137
OURS = FolderKind("ours", "mark.json", r"mark\.json|content")
SETTINGS = {"captions": "ab" * 32}


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
        for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "chmod", "fsync", "open"):
            setattr(os, name, self.wrapped(name, getattr(os, name)))
        builtins.open = io.open = self.wrapped("open", io.open)  # type: ignore[assignment]
        textcap.models.loading.save_file = self.wrapped("save", textcap.models.loading.save_file)

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def event(*arguments: Any, **options: Any) -> Any:
            place = arguments[1] if name in ("save", "replace", "rename") else arguments[0]
            writes = name != "open" or self.opens_to_write(arguments[1:], options)
            role = self.role(place) if writes else None
            if role is None:
                return call(*arguments, **options)
            number = len(self.events)
            self.events.append(f"{name} {role}")
            self.end_if(number, "before")
            if name == "save" and self.kill == (number, "middle"):  # safetensors writes beside the file and renames
                (Path(place).parent / ".tmpAb12Cd").write_bytes(b"half")
                os._exit(KILLED)
            try:
                # A kill leaves what was written, flushed or not, and flushing takes most of the time of these tests.
                return None if name == "fsync" else call(*arguments, **options)
            finally:
                self.end_if(number, "after")

        return event

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
        return re.sub(r"\.textcap-[0-9a-f]{12}", ".textcap-*", relative)

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
    """Return the content of every file in a folder, by its relative path; folders have none."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in sorted(root.rglob("*"))
    }


def without_leftovers(content: dict[str, bytes], n_kinds: int = len(LEFTOVERS)) -> dict[str, bytes]:
    """Return what is not allowed to be left by a kill, or by the same again: then only temporary folders are."""
    allowed = [re.compile(name) for name in list(LEFTOVERS)[:n_kinds]]
    return {
        path: data
        for path, data in content.items()
        if not any(pattern.fullmatch(part) for pattern in allowed for part in path.split("/"))
    }


# What is killed: how the folder looks before, and what is done. Further stores and caches can be added here.


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


def mapper(seed: int) -> Mapper:
    generator = torch.Generator().manual_seed(seed)
    made = Mapper(SIZES)
    made.load_state_dict({name: torch.randn(t.shape, generator=generator) for name, t in made.state_dict().items()})
    return made


def train(root: Path, *, force: bool = False, seed: int = 1) -> None:
    """Write and remove the files of a run as `textcap.training.run_task` does; two steps, with a state after each."""
    output = root / "model"
    check_folder_place(output, kind=MODEL_FOLDER, force=force or WorkFolder.has_done(output))
    work = WorkFolder.open(output, {**SETTINGS, "seed": seed}, force=force)
    try:
        state = load_state(work.path)
        for step in range(state[0].step if state else 0, 2):
            progress = TrainingProgress(step=step + 1, metrics=tuple(METRICS))
            work.save(progress, mapper(seed + step).state_dict())
        if not work.is_done:
            config = replace(CONFIG, run=work.run)
            save_model(output, config, mapper(seed + 1), METRICS, force=force, within=work.path)
        work.remove()
    finally:
        work.close()


def train_unless_there(root: Path) -> None:
    """Train, unless the run is over: its work folder is gone in one step, and its model is there."""
    if WorkFolder.path_of(root / "model").exists() or not (root / "model").exists():
        train(root)


SCENARIOS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "file": (old_file, write_file),
    "file by a library": (old_file, write_with_library),
    "new folder": (nothing, write_folder_once),
    "folder in place of another": (
        lambda root: write_folder(root, content=b"old"),
        lambda root: write_folder(root, force=True),
    ),
    "folder that is discarded": (write_folder, discard_folder),
    "run": (nothing, train_unless_there),
    "run with --force": (
        lambda root: train(root, seed=5),
        lambda root: train(root, force=True),
    ),
}


def kill_everywhere(name: str, folder: Path, choose: Callable[[list[str]], set[int]]) -> None:
    """Kill a scenario at the chosen events, and check what is left and what doing the same again gives."""
    prepare, act = SCENARIOS[name]
    (folder / "prepared").mkdir()
    prepare(folder / "prepared")

    def fresh() -> Path:
        shutil.rmtree(folder / "root", ignore_errors=True)
        return Path(shutil.copytree(folder / "prepared", folder / "root"))

    before = content_of(folder / "prepared")
    events = in_fork(fresh(), act)
    after = content_of(folder / "root")
    assert after == without_leftovers(after), "an undisturbed process leaves nothing"
    # The end of an event and the beginning of the next one are the same moment.
    places = [(number, "before") for number in sorted(choose(events))] + [(len(events) - 1, "after")]
    places += [(number, "middle") for number, event in enumerate(events) if event.startswith("save ")]
    for number, when in places:
        root, place = fresh(), f"{when} {events[number]}"
        in_fork(root, act, (number, when))
        for path, data in without_leftovers(content_of(root)).items():
            assert data in (before.get(path), after.get(path)), f"{path} is half written {place}"
        in_fork(root, act)
        assert without_leftovers(content_of(root), 1) == after, f"killed {place}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_kill_before_and_after_each_kind_of_event(name: str, tmp_path: Path) -> None:
    def first_of_each_kind(events: list[str]) -> set[int]:
        firsts = {event: number for number, event in reversed(list(enumerate(events)))}.values()
        assert len(firsts) >= 5
        return {place for number in firsts for place in (number, number + 1) if place < len(events)}

    kill_everywhere(name, tmp_path, first_of_each_kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_kill_before_and_after_every_event(name: str, tmp_path: Path) -> None:
    kill_everywhere(name, tmp_path, lambda events: set(range(len(events))))


def test_killed_checkpoint_wedges_no_run(tmp_path: Path) -> None:
    """The library that writes tensors leaves a file of its own name in the work folder's temporary folder."""
    events = in_fork(tmp_path, train)
    number = next(i for i, event in enumerate(events) if event.startswith("save model.partial"))
    for force in (False, True):
        shutil.rmtree(tmp_path / "model")
        in_fork(tmp_path, train, (number, "middle"))
        assert list((tmp_path / "model.partial").glob(".textcap-*.tmp/.tmp*"))
        train(tmp_path, force=force)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_run_killed_before_its_clean_up_is_done_and_another_one_is_not(tmp_path: Path) -> None:
    events = in_fork(tmp_path, train)
    number = max(i for i, event in enumerate(events) if event == "replace model")
    shutil.rmtree(tmp_path / "model")
    in_fork(tmp_path, train, (number, "after"))
    assert load_model(tmp_path / "model") and (tmp_path / "model.partial" / "state.safetensors").exists()
    assert WorkFolder.has_done(tmp_path / "model")
    shutil.copytree(tmp_path, tmp_path.with_name("other"))
    written = (tmp_path / "model" / "config.json").stat().st_mtime_ns
    train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "config.json").stat().st_mtime_ns == written
    with pytest.raises(InputError, match="model already exists .*--force"):
        train(tmp_path.with_name("other"), seed=9)
    assert [path.name for path in tmp_path.with_name("other").iterdir()] == ["model"]


@pytest.mark.slow
def test_train_command_killed_twelve_times_ends_with_the_same_mapper(tmp_path: Path) -> None:
    """A run is killed at moments spread over the time of a whole one, and continues each time."""
    write_tiny_backbone(tmp_path / "backbone")
    (tmp_path / "captions.txt").write_text("\n".join(tiny_captions(120)), encoding="utf-8")
    command = [sys.executable, "-m", "textcap", "train", "../captions.txt", "--backbone", "../backbone"]
    command += ["--epochs", "40", "--batch-size", "8", "--learning-rate", "5e-3", "--device", "cpu", "-o", "model"]

    def run(folder: str, timeout_s: float | None = None) -> int | None:
        (tmp_path / folder).mkdir(exist_ok=True)
        try:  # kills the process when the time is over
            return subprocess.run(command, cwd=tmp_path / folder, capture_output=True, timeout=timeout_s).returncode
        except subprocess.TimeoutExpired:
            return None

    started_s = time.monotonic()
    assert run("whole") == 0
    whole_s = time.monotonic() - started_s
    for number in range(12):
        if run("killed", whole_s * (number + 0.5) / 12) == 0:  # done before its time was over: begin again
            shutil.rmtree(tmp_path / "killed" / "model")
            assert run("killed", whole_s / 2) is None
        assert {path.name for path in (tmp_path / "killed").iterdir()} <= {"model.partial"}
    assert run("killed") == 0
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["model"]
    mappers = [(tmp_path / folder / "model" / "mapper.safetensors").read_bytes() for folder in ("whole", "killed")]
    assert mappers[0] == mappers[1]


@pytest.mark.parametrize("name", ["metrics.jsonl", "lock", "settings.json", "state.safetensors", ".textcap-0.tmp"])
def test_planted_link_in_a_work_folder_lets_no_other_file_be_overwritten(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "thesis.doc"
    canary.write_text("years of work")
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / name).symlink_to(canary)
    for force in (False, True):
        with pytest.raises(InputError, match=f"contains {re.escape(name)}, which textcap did not write"):
            train(tmp_path, force=force)
    assert canary.read_text() == "years of work" and (tmp_path / "model.partial" / name).is_symlink()


def test_work_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "model.partial").symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="model.partial is needed as a work folder"):
        train(tmp_path)
    assert not any((tmp_path / "theirs").iterdir())
