"""A corpus on Ray: the same rows as one process gives, through kills of workers and of the driver."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytest.importorskip("pyarrow")
psutil = pytest.importorskip("psutil")

from corpora import KILLER, SHORT, command, environment, export, exported, plan, rows, run, write_sounds  # noqa: E402
from corpora import run_until_done as run_alone  # noqa: E402
from test_captioner import save_model_folder  # noqa: E402

pytestmark = pytest.mark.long

N_SOUNDS, N_BROKEN = 120, 3
# One processor each, so that each computes with one thread.
N_WORKERS = max(2, os.cpu_count() or 1)
# What workers have to end in, and what Ray's own agents have: they look for their parent for a minute.
WORKERS_END_S, AGENTS_END_S = 30, 90


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, sounds, of which three are broken and one kills its reader, and a captioned corpus."""
    folder = tmp_path_factory.mktemp("ray")
    save_model_folder(folder / "model", "tiny")
    write_sounds(folder / "sounds", N_SOUNDS, N_BROKEN, with_killer=True)
    plan(folder / "whole", folder / "sounds")
    words = command("corpus", "run", folder / "whole", "-m", folder / "model", *SHORT)
    assert run_alone(words, environment(folder)) == 2
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, bytes]:
    """What the captioned corpus exports."""
    return exported(place / "whole")


class Driver:
    """A run on Ray in a process of its own, and all processes that it starts."""

    def __init__(self, place: Path, work: Path, folder: Path) -> None:
        words = command("corpus", "run", work, "-m", place / "model", *SHORT, "--ray", "local", "--workers", N_WORKERS)
        env = environment(folder)
        self._work, self._log = work, folder / "stderr.txt"
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        self._seen: dict[int, psutil.Process] = {}
        self._workers: dict[int, psutil.Process] = {}

    def _processes(self) -> list[psutil.Process]:
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._seen |= {one.pid: one for one in found}
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the processes that are captioning; Ray names them after what they do."""
        found = []
        for one in self._processes():
            try:
                if any("ShardCaptioner" in word for word in [one.name(), *one.cmdline()[:1]]):
                    found.append(one)
            except psutil.Error:
                pass
        self._workers |= {one.pid: one for one in found}
        return found

    def n_lines(self) -> int:
        """Return the number of results in the journals of shards that are in work."""
        n = 0
        for journal in (self._work / "results").glob("*.textcap-journal"):
            try:
                n += journal.read_bytes().count(b'{"key"')
            except FileNotFoundError:
                pass
        return n

    def wait_until(self, holds: Callable[[], bool]) -> bool:
        """Return whether something came to hold before the run was done."""
        while self.process.poll() is None:
            if holds():
                return True
            time.sleep(0.01)
        return False

    def end(self) -> int:
        """Wait until the run and its workers have ended, check what it printed, and return its code."""
        while self.process.poll() is None:
            self.workers()
            time.sleep(0.5)
        stdout, _ = self.process.communicate()
        assert stdout == ("" if self.process.returncode else f"{self._work / 'results'}\n")
        assert_end(self._workers, WORKERS_END_S)
        return self.process.returncode

    def leave_nothing(self) -> None:
        """Check that no process is left of those that it has started."""
        assert_end(self._seen, AGENTS_END_S)

    def succeed(self) -> None:
        assert self.end() == 0, self._log.read_text()
        self.leave_nothing()


def assert_end(processes: dict[int, psutil.Process], limit_s: float) -> None:
    _, left = psutil.wait_procs(list(processes.values()), timeout=limit_s)
    assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_workers_give_what_one_process_gives(place: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Also where a file kills its reader, which Ray starts again and again."""
    work = plan(tmp_path / "work", place / "sounds")
    Driver(place, work, tmp_path).succeed()
    assert exported(work) == whole
    errors = [row["error"] for row in rows(whole["jsonl"].decode()) if "error" in row]
    assert len(errors) == N_BROKEN + 1
    assert sum(f"{KILLER} could not be read: textcap was killed twice doing so" in error for error in errors) == 1
    assert sorted(path.suffix for path in (work / "results").iterdir()) == [".parquet"] * (N_SOUNDS // 20)
    Driver(place, work, tmp_path).succeed()  # nothing is left to do


def test_killed_worker_is_replaced(place: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    driver = Driver(place, work, tmp_path)
    assert driver.wait_until(lambda: driver.n_lines() >= 8 and bool(driver.workers()))
    for one in driver.workers()[:1]:
        one.send_signal(signal.SIGKILL)
    driver.succeed()
    assert exported(work) == whole


def test_killed_driver_leaves_no_process_and_is_continued(place: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    driver = Driver(place, work, tmp_path)
    assert driver.wait_until(lambda: driver.n_lines() >= 8 and bool(driver.workers()))
    driver.process.send_signal(signal.SIGKILL)
    assert driver.end() == -signal.SIGKILL
    assert run("corpus", "status", work).exit_code == 1
    Driver(place, work, tmp_path).succeed()
    assert exported(work) == whole
    driver.leave_nothing()


def test_terminated_driver_ends_its_workers(place: Path, tmp_path: Path) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    driver = Driver(place, work, tmp_path)
    assert driver.wait_until(lambda: bool(driver.workers()))
    driver.process.send_signal(signal.SIGTERM)
    assert driver.end() == 128 + signal.SIGTERM
    driver.leave_nothing()
    assert "Traceback" not in (tmp_path / "stderr.txt").read_text()


_PIPELINE = """
import json, sys
import ray
from ray.data import ActorPoolStrategy

class CaptionBatch:
    def __init__(self, model):
        from textcap import Captioner
        self.captioner = Captioner.load(model, device="cpu", keeps_embeddings=False)

    def __call__(self, batch):
        results = list(self.captioner.caption(batch["item"].tolist(), batch_size=4))
        return {"path": [one.path for one in results], "caption": [one.caption for one in results]}

ray.init(include_dashboard=False, log_to_driver=False)
model, *paths = sys.argv[1:]
found = ray.data.from_items(paths).map_batches(
    CaptionBatch, fn_constructor_args=(model,), batch_size=4, compute=ActorPoolStrategy(size=1)
)
print(json.dumps({row["path"]: row["caption"] for row in found.iter_rows()}))
"""


def test_captioner_works_in_a_pipeline_of_ones_own(place: Path, tmp_path: Path) -> None:
    paths = [str(place / "sounds" / f"{number:04}.wav") for number in (0, 1, 2, 3, 4)]
    words = [sys.executable, "-c", _PIPELINE, str(place / "model"), *paths]
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = rows(done.stdout.strip().splitlines()[-1])
    printed = rows(run("caption", *paths, "--json", "-m", place / "model", "--device", "cpu").stdout)
    assert found == {row["path"]: row.get("caption", "") for row in printed}


def test_misuse_and_missing_clusters_are_told(place: Path, tmp_path: Path) -> None:
    work = plan(tmp_path / "work", place / "sounds")
    for words, message in (
        (["--workers", 2], "--workers needs --ray"),
        (["--ray", "local", "--part", "1/2"], "--ray divides the shards itself: leave out --part"),
    ):
        done = run("corpus", "run", work, "-m", place / "model", *words)
        assert done.exit_code == 2 and message in " ".join(done.stderr.replace("│", " ").split())
    words = command("corpus", "run", work, "-m", place / "model", *SHORT, "--ray", "auto")
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("textcap: Ray at auto cannot be used: ")
    program = "import sys; sys.modules['ray'] = None; from textcap.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *words[3:]], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "textcap: --ray needs Ray (pip install 'textcap[ray]')"


@pytest.mark.slow
def test_three_thousand_sounds_through_twenty_kills(place: Path, tmp_path: Path) -> None:
    """Workers and drivers are killed in turn, at moments spread over the time of a run."""
    sounds = write_sounds(tmp_path / "sounds", 3000, 60, with_killer=True)
    one = plan(tmp_path / "one", sounds)
    started_s = time.monotonic()
    run_alone(command("corpus", "run", one, "-m", place / "model", *SHORT), environment(tmp_path))
    took_s, moments = time.monotonic() - started_s, random.Random(0)
    work, n_killed = plan(tmp_path / "work", sounds), 0
    while n_killed < 20:
        driver = Driver(place, work, tmp_path)
        if not driver.wait_until(lambda driver=driver: bool(driver.workers())):
            break  # it is done
        for _ in range(2):
            end_s = time.monotonic() + moments.uniform(0.02, 0.05) * took_s
            if driver.wait_until(lambda end_s=end_s: time.monotonic() > end_s):
                for worker in driver.workers()[:1]:
                    worker.send_signal(signal.SIGKILL)
                    n_killed += 1
        driver.process.send_signal(signal.SIGKILL)
        n_killed += 1
        driver.end()
    assert n_killed >= 10
    Driver(place, work, tmp_path).succeed()
    assert exported(work) == exported(one)
    assert len(rows(export(work, "all.jsonl").read_text())) == 3000
