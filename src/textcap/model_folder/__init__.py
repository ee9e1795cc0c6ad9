"""Save and load a model folder: a trained mapper with all that is needed to use it and to train it again.

Knows no training and no backbone beyond its name and hash. A folder is written beside its place and renamed,
and a folder that this version cannot read is an error that says what to do.
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

from textcap.config import AdapterFacts, BridgeConfig, MapperConfig, TrainingConfig, from_dict, to_dict
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
_LATER_FIELDS = {"device": str, "precision": str, "n_processes": int}
_FROM_A_MODEL_HINT = "choose a folder that textcap train wrote"
_AGAIN_HINT = "train again, or take a whole copy of the folder"


@dataclass(frozen=True)
class ModelConfig:
    """What a model folder records beside the weights; enough to repeat the run."""

    backbone_name: str  # as `Backbone.load` takes it
    backbone_hash: str
    bridge: BridgeConfig
    mapper: MapperConfig
    training: TrainingConfig
    end_token_id: int
    n_training_captions: int
    n_held_out_captions: int
    caption_files: tuple[CaptionFile, ...]
    packages: Mapping[str, str]  # versions by name, Python's among them
    command: str
    device: str = "unknown"  # that it was trained on; older folders do not say
    precision: str = "unknown"
    n_processes: int = 1
    pair_files: tuple[CaptionFile, ...] = ()  # captions that were learned from sounds, as many as could be used
    adapter: AdapterFacts | None = None  # of the linear adapter that the bridge applied to text


@dataclass(frozen=True)
class StoredModel:
    """A model folder, read."""

    path: Path
    config: ModelConfig
    mapper: Mapper  # on the CPU, frozen

    @property
    def backbone_name(self) -> str:
        """The backbone to caption with, as `Backbone.load` takes it."""
        return self.config.backbone_name

    @property
    def backbone_hash(self) -> str:
        """Content hash of the backbone that the mapper was trained on."""
        return self.config.backbone_hash

    @property
    def bridge(self) -> BridgeConfig:
        """What is done about the modality gap."""
        return self.config.bridge

    @property
    def end_token_id(self) -> int:
        """The token that ends a caption."""
        return self.config.end_token_id


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run depends on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
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
        metrics: One record for each epoch.
        adapter: What the bridge applied to text embeddings; captioning does not need it.
        force: Replace a model folder that is there; it stays until the new one is whole.

    Raises:
        InputError: The folder is there already and `force` is not set, it is no model folder, or it cannot be
            written.
    """
    if missing := [name for name, tensor in mapper.state_dict().items() if not tensor.isfinite().all()]:
        raise InputError(f"the mapper's {missing[0]} holds values that are no numbers", hint="lower --learning-rate")
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
        except SafetensorError as error:  # its way to report a full disk
            raise InputError(f"cannot write {folder}: {error}", hint="free some space, or write elsewhere") from error


def metrics_lines(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return the records of a run as JSON Lines."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in metrics)


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is one that `save_model` wrote, be it of another format version."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "format_version" in values


def load_model(folder: Path) -> StoredModel:
    """Read a model folder.

    Raises:
        CheckpointError: The folder or a file in it is missing or broken, or is of an unknown format version.
    """
    if not os.path.isdir(folder):  # Path's own raises when a name is too long
        raise CheckpointError(f"there is no model folder {folder}", hint="make one with textcap train")
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
        raise CheckpointError(f"{path.parent} has no {CONFIG_FILE}", hint=_FROM_A_MODEL_HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint=_AGAIN_HINT) from error
    found = values.get("format_version") if isinstance(values, dict) else None
    if found is None:
        raise CheckpointError(f"{path} is not of a textcap model", hint=_FROM_A_MODEL_HINT)
    if found != FORMAT_VERSION:
        message = f"{path} is of format {found!r}, and this textcap reads {FORMAT_VERSION}"
        raise CheckpointError(message, hint="use the textcap that wrote it, or train again")
    try:
        return _from_json(values)
    except (InputError, KeyError, TypeError) as error:
        lacking = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path} is broken: {lacking}", hint=_AGAIN_HINT) from error


def _from_json(values: dict[str, Any]) -> ModelConfig:
    # The first folders that were written lack what stands before their own values here.
    bridge = {"audio_noise_variance": 0.0, "calibration": None, **values["bridge"]}
    bridge.pop("noise_std", None)  # for readers; the variance counts
    adapter = values.get("adapter")
    plain = {
        "backbone_name": str,
        "backbone_hash": str,
        "end_token_id": int,
        "command": str,
        "packages": dict,
    }
    plain |= {"n_training_captions": int, "n_held_out_captions": int}
    # Not in the first folders that were written.
    plain |= {name: kind for name, kind in _LATER_FIELDS.items() if name in values}
    for name, kind in plain.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise InputError(f"{name} is {values[name]!r}")
    if values["end_token_id"] < 0:
        raise InputError(f"end_token_id is {values['end_token_id']}, but must be 0 or more")
    return ModelConfig(
        bridge=from_dict(BridgeConfig, bridge),
        mapper=from_dict(MapperConfig, values["mapper"]),
        training=from_dict(TrainingConfig, values["training"]),
        caption_files=_files_from_json(values["caption_files"]),
        pair_files=_files_from_json(values.get("pair_files", [])),
        adapter=None if adapter is None else from_dict(AdapterFacts, adapter),
        **{name: values[name] for name in plain},
    )


def _files_from_json(files: list[dict[str, Any]]) -> tuple[CaptionFile, ...]:
    return tuple(from_dict(CaptionFile, {"weight": 1.0, **file}) for file in files)


def _read_mapper(path: Path, config: MapperConfig) -> Mapper:
    try:
        tensors = read_safetensors(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {MAPPER_FILE}", hint=_AGAIN_HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint=_AGAIN_HINT) from error
    with torch.device("meta"):
        mapper = Mapper(config)
    for name, parameter in mapper.state_dict().items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            raise CheckpointError(f"{path} has no tensor {name} {list(parameter.shape)}", hint=_AGAIN_HINT)
    if extra := sorted(tensors.keys() - mapper.state_dict().keys()):
        raise CheckpointError(f"{path} holds {extra[0]}, which is no part of a mapper", hint=_AGAIN_HINT)
    mapper.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return mapper.eval().requires_grad_(False)
