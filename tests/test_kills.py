"""A killed process leaves only what `LEFTOVERS` allows, and doing the same again ends with the same bytes.

It is killed before and after the first event of each kind, which is an operation on a kind of file, and in the slow
tests before and after every event; see `kills`. The slow tests also kill the commands train and demo.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kills
from fake_hub import FakeHub
from kills import LEFTOVERS, REPOSITORY, REPOSITORY_FILES, content_of, in_fork, kill_everywhere, without_leftovers
from test_model_folder import CONFIG, METRICS, SIZES
from textcap.errors import InputError
from textcap.files import MODEL_FOLDER, check_folder_place
from textcap.model_folder import load_model, save_model
from textcap.models.mapper import Mapper
from textcap.training.state import TrainingProgress, WorkFolder, load_state
from textcap.weights.repository import INDEX, find_repository
from tiny_random import tiny_captions, write_tiny_backbone
from work_folders import open_work

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")

SETTINGS = {"captions": "ab" * 32}


def mapper(seed: int) -> Mapper:
    generator = torch.Generator().manual_seed(seed)
    made = Mapper(SIZES)
    made.load_state_dict({name: torch.randn(t.shape, generator=generator) for name, t in made.state_dict().items()})
    return made


def train(root: Path, *, force: bool = False, seed: int = 1) -> None:
    """Write and remove the files of a run as `textcap.training.run_task` does; two steps, with a state after each."""
    output = root / "model"
    check_folder_place(output, kind=MODEL_FOLDER, force=force or WorkFolder.done_run(output) is not None)
    work = open_work(output, {**SETTINGS, "seed": seed}, force=force)
    try:
        if not work.is_done:
            state = load_state(work.path)
            for step in range(state[0].step if state else 0, 2):
                progress = TrainingProgress(step=step + 1, metrics=tuple(METRICS))
                work.save(progress, mapper(seed + step).state_dict())
            config = replace(CONFIG, run=work.run)
            save_model(output, config, mapper(seed + 1), METRICS, force=force, within=work.path)
        work.remove()
    finally:
        work.close()


def train_unless_there(root: Path) -> None:
    """Train, unless the run is over: its work folder is gone, and its model is there."""
    if WorkFolder.path_of(root / "model").exists() or not (root / "model").exists():
        train(root)


# Checkpoints and model folders are written by safetensors.torch, so these forks are of this process, which has torch.
# They lose torch's threads, but compute nothing.
RUNS: dict[str, kills.Scenario] = {
    "run": (kills.nothing, train_unless_there),
    "run with --force": (
        lambda root: train(root, seed=5),
        lambda root: train(root, force=True),
    ),
}
ONCE_OR_ALWAYS = pytest.mark.parametrize(
    "which", [pytest.param("first", id="first of each kind"), pytest.param("every", marks=pytest.mark.slow)]
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with the files of clapcap, and a repository with a language model in two shards."""
    clapcap, gpt2 = ("microsoft/msclap", "clapcap_weights_2023.pth"), "openai-community/gpt2"
    small = {(gpt2, "vocab.json"): b'{"a": 0}', (gpt2, "merges.txt"): b"#version: 0.2\n"}
    names = sorted(REPOSITORY_FILES)
    small |= {(REPOSITORY, name): b'{"name": "%s"}' % name.encode() for name in names if name.endswith(".json")}
    shards = [(REPOSITORY, name) for name in names if name.endswith(".safetensors")]
    small[REPOSITORY, INDEX] = json.dumps({"weight_map": {name: name for _, name in shards}}).encode()
    large = {key: os.urandom(50_000) for key in (clapcap, *shards)}
    with FakeHub(large=large, small=small) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield fake


@ONCE_OR_ALWAYS
@pytest.mark.parametrize("name", kills.SCENARIOS)
def test_kill_before_and_after_events(name: str, which: str, tmp_path: Path, hub: FakeHub) -> None:
    command = [sys.executable, kills.__file__, name, str(tmp_path), which]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    seen = {pattern for pattern in LEFTOVERS for left in done.stdout.splitlines() if re.fullmatch(pattern, left)}
    if "store" in name:  # a batch was half written, too
        assert r".+\.sqlite-journal" in seen
    elif "fetch" in name:
        assert r".+\.textcap-partial" in seen
    else:
        assert next(iter(LEFTOVERS)) in seen


@ONCE_OR_ALWAYS
@pytest.mark.parametrize("name", RUNS)
def test_kill_before_and_after_events_of_a_run(name: str, which: str, tmp_path: Path) -> None:
    assert "model.partial" in kill_everywhere(RUNS[name], tmp_path, every=which == "every")


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
    assert WorkFolder.done_run(tmp_path / "model")
    shutil.copytree(tmp_path, tmp_path.with_name("other"))
    written = (tmp_path / "model" / "config.json").stat().st_mtime_ns
    train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "config.json").stat().st_mtime_ns == written
    with pytest.raises(InputError, match="model already exists .*--force"):
        train(tmp_path.with_name("other"), seed=9)
    assert [path.name for path in tmp_path.with_name("other").iterdir()] == ["model"]


def code_unless_killed(command: list[str], folder: Path, kill_when: Callable[[], bool]) -> int | None:
    """Run a command in a folder and return its exit code, or None if it was killed, with the commands that it runs."""
    folder.mkdir(exist_ok=True)
    with open(folder.with_suffix(".log"), "ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    while process.poll() is None:
        if kill_when():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
        time.sleep(0.001)
    return process.returncode


def never() -> bool:
    return False


# How far a fetch has come: what is then there, and after how many files the hub answers no more.
FETCHED = {
    "in the first shard": ("blobs/*.textcap-partial", 0),
    "between the shards": ("blobs/*[0-9a-f]", 1),
    "while files are put in place": ("snapshots/*/model-00001-of-00002.safetensors", None),
}


@pytest.mark.parametrize("place", FETCHED)
def test_fetch_command_that_is_killed_is_completed_by_the_next(
    place: str, tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "textcap", "fetch", REPOSITORY]
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / "killed"))
    pattern, n_answered = FETCHED[place]
    if n_answered:
        hub.stall_s = [*[0.0] * n_answered, 60.0]
    elif n_answered == 0:
        hub.chunk_bytes, hub.chunk_pause_s = 500, 0.05
    folder = tmp_path / "killed" / "hub" / "models--user--model"
    is_killed = code_unless_killed(command, tmp_path / "killed", lambda: is_there(folder, pattern)) is None
    assert is_killed or n_answered is None, (tmp_path / "killed.log").read_text()
    found = find_repository(REPOSITORY)
    if n_answered is None:  # it may have come to its end
        assert found is None or {path.name for path in found.iterdir()} >= REPOSITORY_FILES
    else:
        assert found is None and not is_there(folder, "snapshots/*/*")

    hub.stall_s, hub.chunk_pause_s, hub.requests = [], 0.0, []
    assert code_unless_killed(command, tmp_path / "killed", never) == 0, (tmp_path / "killed.log").read_text()
    found = find_repository(REPOSITORY)
    assert found is not None
    content = {path.name: path.read_bytes() for path in found.iterdir() if path.is_file()}
    assert content == {name: hub.content(REPOSITORY, name) for name in REPOSITORY_FILES}
    assert not list(folder.rglob("*.textcap-partial"))
    names = [request.path.rsplit("/", 1)[1] for request in hub.requests if request.method == "GET"]
    assert ("model-00001-of-00002.safetensors" in names) is (n_answered == 0)  # nothing is fetched twice


@pytest.mark.slow
def test_train_command_killed_twelve_times_ends_with_the_same_mapper(tmp_path: Path) -> None:
    """A run is killed at moments spread over the time of a whole one, and continues each time."""
    write_tiny_backbone(tmp_path / "backbone")
    (tmp_path / "captions.txt").write_text("\n".join(tiny_captions(120)), encoding="utf-8")
    command = [sys.executable, "-m", "textcap", "train", "../captions.txt", "--backbone", "../backbone"]
    command += ["--epochs", "40", "--batch-size", "8", "--learning-rate", "5e-3", "--device", "cpu", "-o", "model"]
    killed = tmp_path / "killed"

    def run_for(limit_s: float) -> int | None:
        end = time.monotonic() + limit_s
        return code_unless_killed(command, killed, lambda: time.monotonic() > end)

    started_s = time.monotonic()
    assert code_unless_killed(command, tmp_path / "whole", never) == 0
    whole_s = time.monotonic() - started_s
    for number in range(12):
        limit_s = whole_s * (number + 0.5) / 12
        run_for(limit_s)
        while (killed / "model").exists():  # done, or killed while it cleaned up: begin again, and stop it sooner
            for folder in killed.iterdir():
                shutil.rmtree(folder)
            limit_s /= 2
            run_for(limit_s)
        assert {path.name for path in killed.iterdir()} <= {"model.partial"}
    assert code_unless_killed(command, killed, never) == 0
    assert [path.name for path in killed.iterdir()] == ["model"]
    mappers = [(tmp_path / folder / "model" / "mapper.safetensors").read_bytes() for folder in ("whole", "killed")]
    assert mappers[0] == mappers[1]


# The command itself with fewer captions, sounds and epochs.
_DEMO = """
import textcap.cli.demo, textcap.demo.folder
textcap.cli.demo.N_CAPTIONS = 60
textcap.cli.demo._TRAIN = textcap.cli.demo._TRAIN.replace("epochs 10", "epochs 4")
textcap.demo.folder.N_SEEN, textcap.demo.folder.N_UNSEEN, textcap.demo.folder.N_PAIRS = 3, 1, 4
from textcap.cli.app import main
main()
"""


def demo_content(folder: Path) -> dict[str, bytes]:
    """Return the content of the files of a demo, without the speed of its training."""
    speed = re.compile(rb'"captions_per_s": [\d.e+-]+')
    content = content_of(folder)
    return {path: speed.sub(b"", data) if path.endswith("metrics.jsonl") else data for path, data in content.items()}


def is_there(folder: Path, pattern: str) -> bool:
    """Return whether a folder has a file of a pattern; folders in it may be deleted meanwhile."""
    try:
        return any(folder.glob(pattern))
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_demo_command_killed_four_times_ends_with_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed while it writes its mark and its sounds, trains, and puts the model in place."""
    command = [sys.executable, "-c", _DEMO, "demo", "demo", "--force"]
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / "cache of whole"))
    assert code_unless_killed(command, tmp_path / "whole", never) == 0, (tmp_path / "whole.log").read_text()
    whole = demo_content(tmp_path / "whole")
    assert {"demo/demo.json", "demo/sounds/004.wav", "demo/textcap-model/mapper.safetensors"} < whole.keys()
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / "cache"))
    killed = tmp_path / "killed"
    for place in (
        ".textcap-*.tmp/demo/demo.json",
        ".textcap-*.tmp/demo/sounds/002.wav",
        "demo/textcap-model.partial/state.safetensors",
        "demo/textcap-model*/**/mapper.safetensors",
    ):
        shutil.rmtree(killed / "demo", ignore_errors=True)
        assert code_unless_killed(command, killed, lambda place=place: is_there(killed, place)) is None, place
        left = without_leftovers(demo_content(killed))
        assert all(data == whole.get(path) for path, data in left.items()), place
        assert code_unless_killed(command, killed, never) == 0, (tmp_path / "killed.log").read_text()
        assert without_leftovers(demo_content(killed), after_rerun=True) == whole, place
        for path in killed.glob(".textcap-*.tmp"):  # they would look like those of the next run
            shutil.rmtree(path)


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
