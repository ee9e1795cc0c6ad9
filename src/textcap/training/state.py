"""Where an unfinished training run keeps what it needs to go on: a folder beside the model folder to be.

Knows nothing of the loop. The state is one safetensors file, written beside and renamed, so that a run that
is killed at any moment finds the last whole state.
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
_SETTINGS = {"captions", "backbone", "bridge", "mapper", "training"}  # by these our settings are known


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
                cannot be written or holds what no run has put there.
        """
        path = cls.path_of(output)
        try:
            path.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(path)
            lock = FileLock(path / _LOCK_FILE, blocking=False)
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
            work.close()
            raise
        return work

    @classmethod
    def sweep(cls, output: Path) -> None:
        """Remove what processes left that were ended before they saved anything."""
        path = cls.path_of(output)
        lock = FileLock(path / _LOCK_FILE, blocking=False)
        try:
            if not os.path.isdir(path) or (path / STATE_FILE).exists():
                return
            _refuse_foreign(path)
            lock.acquire()
        except (Timeout, OSError, InputError):  # someone else's
            return
        cls(path, lock).close()

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
            follow_umask(beside)
            os.replace(beside, self.path / STATE_FILE)
            # For whoever watches the run; the state is what counts.
            (self.path / METRICS_FILE).write_text(metrics_lines(progress.metrics), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            hint = "free some space, or write elsewhere with -o"
            raise InputError(f"cannot save the state of the run in {self.path}: {error}", hint=hint) from error

    def close(self) -> None:
        """Let others have the folder; without a saved state there is nothing in it to go on from, and it goes."""
        if self._lock is None or not self._lock.is_locked:
            return
        if (self.path / STATE_FILE).exists():
            self._lock.release()
        else:
            self.remove()

    def remove(self) -> None:
        """Delete the folder, as far as it is this run's: the run is done."""
        for name in _OUR_FILES[:-1]:
            _unlink_quietly(self.path / name)
        for path in self.path.glob(".textcap-*.tmp"):
            _unlink_quietly(path)
        if self._lock is not None:
            self._lock.release()
        _unlink_quietly(self.path / _LOCK_FILE)  # Windows keeps it while it is locked
        try:
            self.path.rmdir()
        except OSError:  # it holds what somebody put there meanwhile
            return


def has_saved(output: Path) -> bool:
    """Whether there is an unfinished run of a model folder that would go on from a saved state."""
    return os.path.exists(WorkFolder.path_of(output) / STATE_FILE)


def load_state(work_folder: Path) -> tuple[TrainingProgress, dict[str, Tensor]] | None:
    """Return how far a run was and its tensors on the CPU, or None if it has not saved anything.

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
    """Return what a safetensors file says beside its tensors, whatever its name is."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        metadata: dict[str, str] = json.loads(file.read(size))["__metadata__"]
        return metadata


def _refuse_foreign(path: Path) -> None:
    """Raise an InputError if the folder holds what no run has put there."""
    names = sorted(os.listdir(path))
    foreign = [n for n in names if n not in _OUR_FILES and not (n.startswith(".textcap-") and n.endswith(".tmp"))]
    if SETTINGS_FILE in names and STATE_FILE not in names:  # with a state beside them they are looked at later
        try:
            settings = json.loads((path / SETTINGS_FILE).read_text(encoding="utf-8"))
        except ValueError:
            settings = None
        if not isinstance(settings, dict) or not settings.keys() >= _SETTINGS:
            foreign.append(SETTINGS_FILE)
    if foreign:
        message = f"{path} is wanted for the unfinished run, and holds {foreign[0]} of another making"
        raise InputError(message, hint="move it away, or choose another -o")


def _unlink_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


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
