"""Save the state of an unfinished training run in a work folder, beside the model folder that it will write.

The state is one file of tensors, written under another name and then renamed. A run that is killed at any moment leaves
the last complete state, and at its end a model folder with or without the work folder: see docs/security.md.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from textcap.config import from_dict
from textcap.errors import CheckpointError, FileError, InputError
from textcap.files import (
    OVERWRITE_HINT,
    WORK_FOLDER,
    atomic_write_text,
    parse_json,
    read_sealed,
    remove_quietly,
    seal,
    sha256_of_json,
    sweep,
)
from textcap.model_folder import CONFIG_FILE, METRICS_FILE, metrics_lines
from textcap.models.loading import MAX_HEADER_BYTES, read_tensors, write_tensors

STATE_FILE = "state.safetensors"
SETTINGS_FILE = WORK_FOLDER.mark_file

STORED = CAPTIONS, WITH_PAIRS = "captions", "with-pairs"  # folders of stored captions, of text alone and of all
_LOCK_FILE = "lock"


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run has come; all random choices follow from the seed and the step."""

    step: int = 0  # steps done since the start of the first epoch
    loss_sum: float = 0.0  # nats, over the steps since the last measurement
    n_tokens: int = 0  # tokens in these steps
    n_threads: int = 1  # of each process; another number rounds differently, also of processes
    n_processes: int = 1
    metrics: tuple[dict[str, Any], ...] = field(default=())  # one record for each measurement
    best_step: int = 0  # of the measurement with the least held-out loss so far; 0 before the first one
    best_loss: float = 0.0  # nats per token

    @property
    def n_worse(self) -> int:
        """The number of measurements since the best one."""
        return sum(record["step"] > self.best_step for record in self.metrics)


class WorkFolder:
    """The work folder of an unfinished run, locked while it is open.

    Attributes:
        path: The folder.
        run: SHA-256 of the settings, which identify the run; the model folder records it.
        is_done: Whether this very run has already written its model folder, and was killed before it could delete its
            work folder.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self.run = ""
        self.is_done = False
        self._lock = lock

    @staticmethod
    def path_of(output: Path) -> Path:
        """Return the path of a run's work folder."""
        return Path(f"{os.path.abspath(output)}.partial")

    @staticmethod
    def done_run(output: Path) -> str | None:
        """Return the run that wrote a model folder if a work folder is beside it, unless that is of another run."""
        path = WorkFolder.path_of(output)
        try:
            run: str | None = read_sealed(output / CONFIG_FILE).get("run")
            # `remove` deletes the settings after the state: without them, the work folder may be of any run.
            if (path / SETTINGS_FILE).exists() or has_saved(output):
                return run if run == sha256_of_json(read_sealed(path / SETTINGS_FILE).get("settings")) else None
        except FileError:
            return None
        return run if path.is_dir() else None

    @classmethod
    def lock(cls, output: Path) -> "WorkFolder":
        """Create the work folder of a run, or take the existing one.

        Args:
            output: The model folder that the run will write; the work folder is beside it.

        Raises:
            InputError: Another process is working on it, or it cannot be written or contains files that no run has
                written.
        """
        path = cls.path_of(output)
        try:
            path.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(path)
            lock = FileLock(path / _LOCK_FILE, blocking=False)
            lock.acquire()
        except Timeout as error:
            hint = "wait until it ends, or choose another -o"
            raise InputError(f"another training run is writing {path}", hint=hint) from error
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
        sweep(path, after_s=0)
        return cls(path, lock)

    @classmethod
    def sweep(cls, output: Path) -> None:
        """Delete the work folder of processes that were ended before they saved a state."""
        path = cls.path_of(output)
        lock = FileLock(path / _LOCK_FILE, blocking=False)
        try:
            if not os.path.isdir(path) or (path / STATE_FILE).exists():
                return
            _refuse_foreign(path)
            lock.acquire()
        except (Timeout, OSError, InputError):  # in use, or not ours
            return
        cls(path, lock).close()

    def begin(self, output: Path, settings: Mapping[str, Any], *, force: bool = False) -> None:
        """Continue the run in the folder, or start one.

        Args:
            output: The model folder that the run will write.
            settings: Everything that identifies the run, as plain values for JSON. An unfinished run with other
                settings is not continued.
            force: Discard an unfinished run with other settings.

        Raises:
            InputError: The unfinished run has other settings, or the folder cannot be written.
        """
        state_file, settings = self.path / STATE_FILE, dict(json.loads(json.dumps(settings)))
        self.run, done = sha256_of_json(settings), self.done_run(output)
        if done not in (None, self.run) and not force:
            self.remove()
            raise InputError(f"{output} already exists", hint=OVERWRITE_HINT)
        # Without a state, --force may have begun the same run again.
        self.is_done = done == self.run and (state_file.exists() or not force)
        if state_file.exists() and (differing := _differing(self.path / SETTINGS_FILE, settings)):
            if not force:
                hint = "use --force to discard it and start again, or choose another -o"
                message = f"{self.path} holds an unfinished run that differs in {', '.join(differing)}"
                raise InputError(message, hint=hint)
            state_file.unlink()
        values = seal({"kind": WORK_FOLDER.mark, "settings": settings})
        atomic_write_text(self.path / SETTINGS_FILE, json.dumps(values, indent=2) + "\n")

    def save(self, progress: TrainingProgress, tensors: Mapping[str, Tensor]) -> None:
        """Save the state of a run in place of the previous one.

        Args:
            progress: How far the run has come.
            tensors: The tensors to continue from, by name, on any device.

        Raises:
            InputError: The file cannot be written; the previous state is untouched.
        """
        try:
            write_tensors(self.path / STATE_FILE, tensors, {"run": self.run, "progress": json.dumps(asdict(progress))})
            # Only for people who watch the run; `load_state` takes the metrics from the state.
            atomic_write_text(self.path / METRICS_FILE, metrics_lines(progress.metrics))
        except InputError as error:
            hint = "free some space, or choose another -o"
            message = f"the state of the run in {self.path} cannot be written: {error.message}"
            raise InputError(message, hint=hint) from error

    def close(self) -> None:
        """Unlock the folder, and delete it if it has no saved state to continue from."""
        if not self._lock.is_locked:
            return
        if (self.path / STATE_FILE).exists():
            self.release()
        else:
            self.remove()

    def release(self) -> None:
        """Unlock the folder for another process of the run."""
        self._lock.release()

    def remove(self) -> None:
        """Delete this run's files, and the folder unless something else was put into it.

        Not by a rename like `discard`: if the process is killed, `done_run` still finds the folder and knows the run.
        """
        if os.name == "nt":  # which cannot delete an open file
            self._lock.release()
        # Without settings, only a lock is ours.
        for name in (*STORED, METRICS_FILE, STATE_FILE, SETTINGS_FILE, _LOCK_FILE):
            remove_quietly(self.path / name)
        self._lock.release()
        with suppress(OSError):
            self.path.rmdir()


def has_saved(output: Path) -> bool:
    """Return whether an unfinished run of a model folder has a saved state to continue from."""
    return os.path.exists(WorkFolder.path_of(output) / STATE_FILE)


def load_state(work_folder: Path) -> tuple[TrainingProgress, dict[str, Tensor]] | None:
    """Return how far a run had come and its tensors, on the CPU, or None if it has not saved a state.

    Raises:
        CheckpointError: The state cannot be read, was changed, or is that of another run.
    """
    path, hint = work_folder / STATE_FILE, f"delete {work_folder} to start again"
    if not os.path.lexists(path):
        return None
    tensors, metadata = read_tensors(path, hint=hint)
    try:
        settings = read_sealed(work_folder / SETTINGS_FILE)
        if metadata.get("run") != sha256_of_json(settings.get("settings")):
            raise FileError(path, f"is not the state of the run in {SETTINGS_FILE}")
        progress = parse_json(metadata.get("progress", ""), path, max_bytes=MAX_HEADER_BYTES)
        return from_dict(TrainingProgress, progress), tensors
    except InputError as error:
        raise CheckpointError(f"the state of the run cannot be used: {error.message}", hint=hint) from error


def _refuse_foreign(path: Path) -> None:
    """Raise an InputError if the folder is a link or contains files that no run has written."""
    foreign = "a link" if os.path.islink(path) else WORK_FOLDER.in_the_way(path)
    if foreign:
        message = f"{path} is needed as a work folder, but contains {foreign}, which textcap did not write"
        raise InputError(message, hint="move it away, or choose another -o")


def _differing(settings_file: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ from those in a file."""
    try:
        found = read_sealed(settings_file).get("settings")
    except FileError:
        return ["settings"]
    before, now = _flat(found), _flat(settings)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    """Return nested settings as one dictionary, with names such as "training.seed"."""
    if not isinstance(values, dict):
        return {path: values}
    return {
        name: value
        for key, inner in values.items()
        for name, value in _flat(inner, f"{path}.{key}".lstrip(".")).items()
    }
