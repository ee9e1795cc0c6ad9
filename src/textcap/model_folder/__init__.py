"""Save and load a model folder: a trained mapper with everything that is needed to use it and to train it again.

The backbone is not part of the folder, only its name and content hash. A folder is written under a temporary name and
then renamed, so an interrupted run leaves no incomplete model folder.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from textcap.config import AdapterFacts, BridgeConfig, MapperConfig, TrainingConfig, from_dict, require, to_dict
from textcap.data.captions import CaptionFile
from textcap.data.text import escape_surrogates
from textcap.errors import CheckpointError, InputError
from textcap.files import atomic_folder, atomic_write_text, follow_umask
from textcap.gap.adapter import LinearAdapter, save_adapter
from textcap.model_folder.card import model_card
from textcap.models.loading import read_safetensors
from textcap.models.mapper import Mapper

FORMAT_VERSION = 1

CONFIG_FILE = "config.json"
MAPPER_FILE = "mapper.safetensors"
ADAPTER_FILE = "adapter.safetensors"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.jsonl"

_PACKAGES = ("textcap", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy")
_LATER_FIELDS = {"device": str, "precision": str, "n_processes": int}  # missing in the oldest model folders
_NOT_A_MODEL_HINT = "choose a folder that textcap train wrote"
_DAMAGED_HINT = "copy the whole folder again, or train again"


@dataclass(frozen=True)
class ModelConfig:
    """What a model folder records besides the weights; enough to repeat the training run."""

    backbone_name: str  # as `Backbone.load` takes it
    backbone_hash: str  # content hash of the backbone that the mapper was trained on
    bridge: BridgeConfig
    mapper: MapperConfig
    training: TrainingConfig
    end_token_id: int  # the token that ends a caption
    n_training_captions: int
    n_held_out_captions: int
    caption_files: tuple[CaptionFile, ...]
    packages: Mapping[str, str]  # versions of Python and of the packages used, by name
    command: str  # the command line of the training run
    device: str = "unknown"  # the device it was trained on; older folders do not record it
    precision: str = "unknown"  # the precision it was trained in; older folders do not record it
    n_processes: int = 1  # number of processes it was trained with
    pair_files: tuple[CaptionFile, ...] = ()  # pairs files, each with the number of captions whose sound was used
    adapter: AdapterFacts | None = None  # about the linear adapter that the bridge applied to text embeddings, if any


@dataclass(frozen=True)
class StoredModel:
    """The content of a model folder."""

    path: Path  # the folder
    config: ModelConfig
    mapper: Mapper  # on the CPU, frozen

    @property
    def backbone_name(self) -> str:
        """The name of the backbone to caption with, as `Backbone.load` takes it."""
        return self.config.backbone_name

    @property
    def backbone_hash(self) -> str:
        """Content hash of the backbone that the mapper was trained on."""
        return self.config.backbone_hash

    @property
    def bridge(self) -> BridgeConfig:
        """Settings of the bridge across the modality gap."""
        return self.config.bridge

    @property
    def end_token_id(self) -> int:
        """The token that ends a caption."""
        return self.config.end_token_id


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a training run depends on, by name."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # textcap itself, if it runs from a source tree without being installed
            versions[name] = "unknown"
    return versions


def save_model(
    folder: Path,
    config: ModelConfig,
    mapper: Mapper,
    metrics: Sequence[Mapping[str, Any]] = (),
    *,
    adapter: LinearAdapter | None = None,
    force: bool = False,
) -> None:
    """Write a model folder.

    Args:
        folder: The folder to write.
        config: What to record about the training run.
        mapper: The trained mapper.
        metrics: One record for each epoch.
        adapter: The adapter that the bridge applied to text embeddings; captioning does not need it.
        force: Overwrite an existing model folder, which stays in place until the new one is complete.

    Raises:
        InputError: The mapper contains NaN or infinite values, the folder exists and `force` is not set or it is not a
            model folder, or it cannot be written.
    """
    if broken := [name for name, tensor in mapper.state_dict().items() if not tensor.isfinite().all()]:
        raise InputError(f"the mapper's {broken[0]} contains NaN or infinite values", hint="lower --learning-rate")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in mapper.state_dict().items()}
    with atomic_folder(folder, force=force, is_ours=is_model_folder) as beside:
        values = json.dumps(_to_json(config), indent=2, ensure_ascii=False)
        atomic_write_text(beside / CONFIG_FILE, escape_surrogates(values) + "\n")
        atomic_write_text(beside / METRICS_FILE, metrics_lines(metrics))
        if adapter is not None:
            save_adapter(beside / ADAPTER_FILE, adapter)
        atomic_write_text(beside / CARD_FILE, model_card(folder.name, _to_json(config), metrics))
        try:
            save_file(tensors, beside / MAPPER_FILE)
            follow_umask(beside / MAPPER_FILE)
        except SafetensorError as error:  # safetensors raises this, not an OSError, if the disk is full
            hint = "free some space, or write elsewhere"
            raise InputError(f"{folder} cannot be written: {error}", hint=hint) from error


def metrics_lines(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return the records of a training run as JSON Lines, one line per epoch."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in metrics)


def is_model_folder(folder: Path) -> bool:
    """Return whether `save_model` wrote a folder, in this or any other format version."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "format_version" in values


def load_model(folder: Path) -> StoredModel:
    """Read a model folder.

    Raises:
        CheckpointError: The folder or a file in it does not exist or is damaged, or the folder has a format version
            that this version of textcap does not know.
    """
    if not os.path.isdir(folder):  # Path.is_dir would raise if a name is too long
        problem = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise CheckpointError(f"{folder} {problem}", hint="name a model folder, or run textcap train to make one")
    config = _read_config(folder / CONFIG_FILE)
    return StoredModel(folder, config, _read_mapper(folder / MAPPER_FILE, config.mapper))


def _to_json(config: ModelConfig) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "backbone_name": config.backbone_name,
        "backbone_hash": config.backbone_hash,
        "bridge": {**to_dict(config.bridge), "noise_std": config.bridge.noise_std},
        "mapper": to_dict(config.mapper),
        "training": to_dict(config.training),
        "end_token_id": config.end_token_id,
        "n_training_captions": config.n_training_captions,
        "n_held_out_captions": config.n_held_out_captions,
        "caption_files": [to_dict(file) for file in config.caption_files],
        "packages": dict(config.packages),
        "command": config.command,
        "device": config.device,
        "precision": config.precision,
        "n_processes": config.n_processes,
        "pair_files": [to_dict(file) for file in config.pair_files],
        "adapter": to_dict(config.adapter) if config.adapter else None,
    }


def _read_config(path: Path) -> ModelConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", hint=_NOT_A_MODEL_HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint=_DAMAGED_HINT) from error
    found = values.get("format_version") if isinstance(values, dict) else None
    if found is None:
        raise CheckpointError(f"{path} is not a valid model configuration", hint=_NOT_A_MODEL_HINT)
    if found != FORMAT_VERSION:
        message = f"{path} has format {found!r}, but this version of textcap reads format {FORMAT_VERSION}"
        raise CheckpointError(message, hint="use the version of textcap that wrote it, or train again")
    try:
        return _from_json(values)
    except (InputError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path} is not a valid model configuration: {reason}", hint=_DAMAGED_HINT) from error


def _from_json(values: dict[str, Any]) -> ModelConfig:
    # The oldest model folders lack these two fields.
    bridge = {"audio_noise_variance": 0.0, "calibration": None, **values["bridge"]}
    bridge.pop("noise_std", None)  # recorded for people; it follows from the variance
    adapter = values.get("adapter")
    types = {
        "backbone_name": str,
        "backbone_hash": str,
        "end_token_id": int,
        "command": str,
        "packages": dict,
    }
    types |= {"n_training_captions": int, "n_held_out_captions": int}
    types |= {name: kind for name, kind in _LATER_FIELDS.items() if name in values}
    for name, kind in types.items():
        is_valid = isinstance(values[name], kind) and not isinstance(values[name], bool)
        require(is_valid, name, values[name], f"of type {kind.__name__}")
    require(values["end_token_id"] >= 0, "end_token_id", values["end_token_id"], "0 or more")
    return ModelConfig(
        bridge=from_dict(BridgeConfig, bridge),
        mapper=from_dict(MapperConfig, values["mapper"]),
        training=from_dict(TrainingConfig, values["training"]),
        caption_files=_files_from_json(values["caption_files"]),
        pair_files=_files_from_json(values.get("pair_files", [])),
        adapter=None if adapter is None else from_dict(AdapterFacts, adapter),
        **{name: values[name] for name in types},
    )


def _files_from_json(files: list[dict[str, Any]]) -> tuple[CaptionFile, ...]:
    return tuple(from_dict(CaptionFile, {"weight": 1.0, **file}) for file in files)


def _read_mapper(path: Path, config: MapperConfig) -> Mapper:
    try:
        tensors = read_safetensors(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", hint=_DAMAGED_HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint=_DAMAGED_HINT) from error
    with torch.device("meta"):
        mapper = Mapper(config)
    for name, parameter in mapper.state_dict().items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            message = f"{path} has no tensor {name} of shape {list(parameter.shape)}"
            raise CheckpointError(message, hint=_DAMAGED_HINT)
    if extra := sorted(tensors.keys() - mapper.state_dict().keys()):
        raise CheckpointError(f"{path} has a tensor {extra[0]}, which a mapper does not have", hint=_DAMAGED_HINT)
    mapper.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return mapper.eval().requires_grad_(False)
