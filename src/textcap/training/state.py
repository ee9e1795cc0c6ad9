"""Where an unfinished training run keeps what it needs to go on: a folder beside the model folder to be.

Knows nothing of the loop. The state is one safetensors file, written beside and renamed, so that a run that
is killed at any moment finds the last whole state.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from textcap.checkpoint import METRICS_FILE, metrics_lines
from textcap.errors import CheckpointError, InputError
from textcap.files import atomic_write_text

STATE_FILE = "state.safetensors"
SETTINGS_FILE = "settings.json"

_METADATA_KEY = "textcap"


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run is; all other random choices follow from the seed and the step."""

    step: int = 0
    epoch_loss_sum: float = 0.0  # nats, over the steps of the current epoch
    epoch_tokens: int = 0
    metrics: tuple[dict[str, Any], ...] = field(default=())  # one for each epoch done


class WorkFolder:
    """The folder of an unfinished run, locked while it is open."""

    def __init__(self, path: Path, lock: FileLock | None) -> None:
        self.path = path
        self._lock = lock

    @staticmethod
    def path_of(output: Path) -> Path:
        """Return where the work folder of a run lies."""
        return Path(f"{os.path.abspath(output)}.partial")

    @classmethod
    def open(cls, output: Path, settings: Mapping[str, Any], *, force: bool = False) -> "WorkFolder":
        """Make the work folder of a run, or take up the one that is there.

        Args:
            output: The model folder that the run will write; the work folder lies beside it.
            settings: Plain values for JSON: all that makes a run what it is. An unfinished run with other
                settings is not continued.
            force: Throw an unfinished run with other settings away.

        Raises:
            InputError: The unfinished run has other settings, another process works on it, or the folder
                cannot be written.
        """
        path = cls.path_of(output)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / "lock", blocking=False)
            lock.acquire()
        except Timeout as error:
            hint = "wait for it, or choose another -o"
            raise InputError(f"another training run is writing {path}", hint=hint) from error
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        work = cls(path, lock)
        try:
            work._take_up(json.loads(json.dumps(settings)), force)
        except BaseException:
            lock.release()
            raise
        return work

    def _take_up(self, settings: dict[str, Any], force: bool) -> None:
        settings_file, state_file = self.path / SETTINGS_FILE, self.path / STATE_FILE
        if state_file.exists():
            differing = _differing(settings_file, settings)
            if differing and not force:
                hint = "use --force to start again, or choose another -o"
                raise InputError(f"{self.path} is an unfinished run with other {', '.join(differing)}", hint=hint)
            if differing:
                state_file.unlink()
        atomic_write_text(settings_file, json.dumps(settings, indent=2) + "\n")

    def save(self, progress: TrainingProgress, tensors: Mapping[str, Tensor]) -> None:
        """Keep the state of a run in place of the one before.

        Raises:
            InputError: The file cannot be written; the state before it is untouched.
        """
        beside = self.path / f"{STATE_FILE}.new"
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(contiguous, beside, metadata={_METADATA_KEY: json.dumps(asdict(progress))})
            os.replace(beside, self.path / STATE_FILE)
            # For whoever watches the run; the state is what counts.
            (self.path / METRICS_FILE).write_text(metrics_lines(progress.metrics), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            hint = "free some space, or write elsewhere with -o"
            raise InputError(f"cannot save the state of the run in {self.path}: {error}", hint=hint) from error

    def close(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            self._lock.release()

    def remove(self) -> None:
        """Delete the folder: the run is done."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)


def load_state(work_folder: Path) -> tuple[TrainingProgress, dict[str, Tensor]] | None:
    """Return how far a run was and its tensors on the CPU, or None if it has not saved anything.

    Raises:
        CheckpointError: The state cannot be read.
    """
    path = work_folder / STATE_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads(file.metadata()[_METADATA_KEY])
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}
        return TrainingProgress(**{**values, "metrics": tuple(values["metrics"])}), tensors
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        hint = f"delete {work_folder} to start again"
        raise CheckpointError(f"{path} cannot be read: {error}", hint=hint) from error


def _differing(settings_file: Path, settings: dict[str, Any]) -> list[str]:
    try:
        found = json.loads(settings_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ["settings"]
    before, now = _flat(found), _flat(settings)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {path: values}
    return {
        name: value
        for key, inner in values.items()
        for name, value in _flat(inner, f"{path}.{key}".lstrip(".")).items()
    }
