"""Save the state of an unfinished training run in a work folder, beside the model folder that it will write.

The state is one safetensors file, written under another name and then renamed. A run that is killed at any moment
leaves the last complete state.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from textcap.errors import CheckpointError, InputError
from textcap.files import atomic_write_text, follow_umask
from textcap.model_folder import METRICS_FILE, metrics_lines
from textcap.models.loading import read_safetensors

STATE_FILE = "state.safetensors"
SETTINGS_FILE = "settings.json"

_METADATA_KEY = "textcap"
_LOCK_FILE = "lock"
_OUR_FILES = (STATE_FILE, f"{STATE_FILE}.new", SETTINGS_FILE, METRICS_FILE, _LOCK_FILE)
_SETTINGS = {"captions", "backbone", "bridge", "mapper", "training"}  # keys that tell our settings file from others


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run has come; all random choices follow from the seed and the step."""

    step: int = 0  # steps done since the start of the first epoch
    epoch_loss_sum: float = 0.0  # nats, over the steps of the current epoch
    epoch_tokens: int = 0  # tokens in the steps of the current epoch
    metrics: tuple[dict[str, Any], ...] = field(default=())  # one record for each epoch done


class WorkFolder:
    """The work folder of an unfinished run, locked while it is open."""

    def __init__(self, path: Path, lock: FileLock | None) -> None:
        self.path = path
        self._lock = lock

    @staticmethod
    def path_of(output: Path) -> Path:
        """Return the path of a run's work folder."""
        return Path(f"{os.path.abspath(output)}.partial")

    @classmethod
    def open(cls, output: Path, settings: Mapping[str, Any], *, force: bool = False) -> "WorkFolder":
        """Create the work folder of a run, or open the existing one to continue its run.

        Args:
            output: The model folder that the run will write; the work folder is beside it.
            settings: Everything that identifies the run, as plain values for JSON. An unfinished run with other
                settings is not continued.
            force: Discard an unfinished run with other settings.

        Raises:
            InputError: The unfinished run has other settings, another process is working on it, or the folder cannot
                be written or contains files that no run has written.
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
        work = cls(path, lock)
        try:
            work._continue_or_start(json.loads(json.dumps(settings)), force)
        except BaseException:
            work.close()
            raise
        return work

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

    def _continue_or_start(self, settings: dict[str, Any], force: bool) -> None:
        settings_file, state_file = self.path / SETTINGS_FILE, self.path / STATE_FILE
        if state_file.exists():
            differing = _differing(settings_file, settings)
            if differing and not force:
                hint = "use --force to discard it and start again, or choose another -o"
                message = f"{self.path} holds an unfinished run that differs in {', '.join(differing)}"
                raise InputError(message, hint=hint)
            if differing:
                state_file.unlink()
        atomic_write_text(settings_file, json.dumps(settings, indent=2) + "\n")

    def save(self, progress: TrainingProgress, tensors: Mapping[str, Tensor]) -> None:
        """Save the state of a run in place of the previous one.

        Args:
            progress: How far the run has come.
            tensors: The tensors to continue from, by name, on any device.

        Raises:
            InputError: The file cannot be written; the previous state is untouched.
        """
        beside = self.path / f"{STATE_FILE}.new"
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(contiguous, beside, metadata={_METADATA_KEY: json.dumps(asdict(progress))})
            follow_umask(beside)
            os.replace(beside, self.path / STATE_FILE)
            # Only for people who watch the run; `load_state` takes the metrics from the state.
            (self.path / METRICS_FILE).write_text(metrics_lines(progress.metrics), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            hint = "free some space, or choose another -o"
            raise InputError(f"the state of the run in {self.path} cannot be written: {error}", hint=hint) from error

    def close(self) -> None:
        """Unlock the folder, and delete it if it has no saved state to continue from."""
        if self._lock is None or not self._lock.is_locked:
            return
        if (self.path / STATE_FILE).exists():
            self._lock.release()
        else:
            self.remove()

    def remove(self) -> None:
        """Delete this run's files, and the folder if nothing else is in it."""
        for name in _OUR_FILES[:-1]:
            _unlink_quietly(self.path / name)
        for path in self.path.glob(".textcap-*.tmp"):
            _unlink_quietly(path)
        if self._lock is not None:
            self._lock.release()
        _unlink_quietly(self.path / _LOCK_FILE)  # after the release: Windows cannot delete a locked file
        try:
            self.path.rmdir()
        except OSError:  # it contains files of someone else
            return


def has_saved(output: Path) -> bool:
    """Return whether an unfinished run of a model folder has a saved state to continue from."""
    return os.path.exists(WorkFolder.path_of(output) / STATE_FILE)


def load_state(work_folder: Path) -> tuple[TrainingProgress, dict[str, Tensor]] | None:
    """Return how far a run had come and its tensors, on the CPU, or None if it has not saved a state.

    Raises:
        CheckpointError: The state cannot be read.
    """
    path = work_folder / STATE_FILE
    if not path.exists():
        return None
    try:
        tensors = read_safetensors(path)
        values = json.loads(_metadata(path)[_METADATA_KEY])
        return TrainingProgress(**{**values, "metrics": tuple(values["metrics"])}), tensors
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        hint = f"delete {work_folder} to start again"
        raise CheckpointError(f"{path} cannot be read: {error}", hint=hint) from error


def _metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; the library itself opens only files whose names are UTF-8."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        metadata: dict[str, str] = json.loads(file.read(size))["__metadata__"]
        return metadata


def _refuse_foreign(path: Path) -> None:
    """Raise an InputError if the folder contains files that no run has written."""
    names = sorted(os.listdir(path))
    foreign = [n for n in names if n not in _OUR_FILES and not (n.startswith(".textcap-") and n.endswith(".tmp"))]
    if SETTINGS_FILE in names and STATE_FILE not in names:  # beside a state, `_differing` checks them
        try:
            settings = json.loads((path / SETTINGS_FILE).read_text(encoding="utf-8"))
        except ValueError:
            settings = None
        if not isinstance(settings, dict) or not settings.keys() >= _SETTINGS:
            foreign.append(SETTINGS_FILE)
    if foreign:
        message = f"{path} is needed as a work folder, but contains {foreign[0]}, which textcap did not write"
        raise InputError(message, hint="move it away, or choose another -o")


def _unlink_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _differing(settings_file: Path, settings: dict[str, Any]) -> list[str]:
    """Return the names of the settings that differ from those in a file."""
    try:
        found = json.loads(settings_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
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
