"""Save and load a model folder: a trained mapper with everything that is needed to use it and to train it again.

The backbone is not part of the folder, only the names and content hashes of its halves. A folder is written under a
temporary name and then renamed, so an interrupted run leaves no incomplete model folder. `config.json` has the SHA-256
of the mapper and of its own content, so that a damaged folder is refused.
"""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from textcap.config import (
    NOT_NEGATIVE,
    AdapterFacts,
    BridgeConfig,
    Checked,
    MapperConfig,
    TrainingConfig,
    counts,
    from_dict,
)
from textcap.data.captions import CaptionFile
from textcap.data.text import escape_json
from textcap.errors import CheckpointError, FileError, InputError
from textcap.files import MODEL_FOLDER, atomic_folder, read_json, seal, sha256_of_file, unseal
from textcap.gap.adapter import LinearAdapter, save_adapter
from textcap.gap.bridge.affine import AffineBridge, shapes
from textcap.model_folder.card import model_card
from textcap.models.backbone import Backbone, BackboneNames
from textcap.models.loading import read_tensors, write_tensors
from textcap.models.mapper import Mapper
from textcap.models.weight_files import Half

FORMAT_VERSION = 4

CONFIG_FILE = "config.json"
MAPPER_FILE = "mapper.safetensors"
ADAPTER_FILE = "adapter.safetensors"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.jsonl"
_BRIDGE_PREFIX = "bridge."

PACKAGES = ("textcap", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy")
_NOT_A_MODEL_HINT = "choose a folder that textcap train wrote"
_DAMAGED_HINT = "copy the whole folder again, or train again"


@dataclass(frozen=True)
class ModelConfig(Checked):
    """What a model folder records besides the weights; enough to repeat the training run."""

    backbone: BackboneNames  # as `Backbone.load` takes it
    # content hashes of the halves that the mapper was trained on, and their licences
    clap_hash: str
    clap_licence: str
    language_model_hash: str
    language_model_licence: str
    bridge: BridgeConfig
    mapper: MapperConfig
    training: TrainingConfig
    end_token_id: int = field(metadata=NOT_NEGATIVE)  # the token that ends a caption
    n_training_captions: int
    n_held_out_captions: int
    caption_files: tuple[CaptionFile, ...]
    packages: Mapping[str, str]  # versions of Python and of the packages used, by name
    command: str  # the command line of the training run
    device: str = "unknown"  # the device it was trained on
    precision: str = "unknown"  # the precision it was trained in
    n_processes: int = field(default=1, metadata=counts())  # number of processes it was trained with
    # number of threads of each process; another number rounds differently
    n_threads: int = field(default=1, metadata=counts())
    pair_files: tuple[CaptionFile, ...] = ()  # pairs files, each with the number of captions whose sound was used
    # what the held-out loss was measured on, if not on captions held out
    validation_files: tuple[CaptionFile, ...] = ()
    adapter: AdapterFacts | None = None  # about the linear adapter that the bridge applied to text embeddings, if any
    run: str = ""  # SHA-256 of all that identifies the training run, see `training.state.WorkFolder`


@dataclass(frozen=True)
class StoredModel:
    """The content of a model folder."""

    path: Path  # the folder
    config: ModelConfig
    mapper: Mapper  # on the CPU, frozen
    affine: AffineBridge | None = None  # the part of the bridge that moves embeddings, if any

    def check_backbone(self, backbone: Backbone) -> None:
        """Check that a backbone is the one that the mapper was trained on.

        Raises:
            CheckpointError: The weights of a half, or its sizes, are others.
        """
        config = self.config
        halves: list[tuple[Half, str, str]] = [
            (backbone.clap, "CLAP", config.clap_hash),
            (backbone.language_model_half, "language model", config.language_model_hash),
        ]
        for half, what, expected in halves:
            if half.content_hash != expected:
                theirs = f"{config.backbone}, its {what} with weights {expected[:12]}"
                message = f"{self.path} was trained on {theirs}, but those on disk are {half.content_hash[:12]}"
                raise CheckpointError(message, hint="download the revision it was trained on, or train it again")
        mapper, language_model = config.mapper, backbone.config.language_model
        fits = (mapper.embedding_width, mapper.width) == (backbone.config.clap.embedding_width, language_model.width)
        if not fits or config.end_token_id >= language_model.vocab_size:
            message = f"{self.path / CONFIG_FILE} does not fit the sizes of {config.backbone}"
            raise CheckpointError(message, hint=_DAMAGED_HINT)


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of packages, by default those that a training run depends on, by name."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # also textcap itself, if it runs from a source tree without being installed
            versions[name] = "unknown"
    return versions


def save_model(
    folder: Path,
    config: ModelConfig,
    mapper: Mapper,
    metrics: Sequence[Mapping[str, Any]] = (),
    *,
    adapter: LinearAdapter | None = None,
    affine: AffineBridge | None = None,
    force: bool = False,
    within: Path | None = None,
) -> None:
    """Write a model folder.

    Args:
        folder: The folder to write.
        config: What to record about the training run.
        mapper: The trained mapper.
        metrics: One record for each epoch.
        adapter: The adapter that the bridge applied to text embeddings; captioning does not need it.
        affine: The part of the bridge that moves embeddings, if any; captioning needs it.
        force: Overwrite an existing model folder, which stays in place until the new one is complete.
        within: A folder on the same disk to keep the new one in until then, such as the run's work folder.

    Raises:
        InputError: The mapper contains NaN or infinite values, the folder exists and `force` is not set or it is not a
            model folder with nothing else in it, or it cannot be written.
    """
    with atomic_folder(folder, kind=MODEL_FOLDER, force=force, within=within) as new:
        moving = {_BRIDGE_PREFIX + name: tensor for name, tensor in (affine.tensors() if affine else {}).items()}
        write_tensors(new / MAPPER_FILE, {**mapper.state_dict(), **moving}, {})
        if adapter is not None:
            save_adapter(new / ADAPTER_FILE, adapter)
        head = {"kind": MODEL_FOLDER.mark, "format_version": FORMAT_VERSION}
        values = seal({**head, **asdict(config), "mapper_sha256": sha256_of_file(new / MAPPER_FILE)})
        text = escape_json(json.dumps(values, indent=2, ensure_ascii=False)) + "\n"
        for name, content in (
            (CONFIG_FILE, text),
            (METRICS_FILE, metrics_lines(metrics)),
            (CARD_FILE, model_card(folder.name, asdict(config), metrics)),
        ):
            (new / name).write_bytes(content.encode())


def metrics_lines(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return the records of a training run as JSON Lines, one line per epoch."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in metrics)


def load_model(folder: Path) -> StoredModel:
    """Read a model folder.

    Raises:
        CheckpointError: The folder or a file in it does not exist or is damaged, or the folder has a format version
            that this version of textcap does not know.
    """
    if not os.path.isdir(folder):  # Path.is_dir would raise if a name is too long
        problem = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise CheckpointError(f"{folder} {problem}", hint="name a model folder, or run textcap train to make one")
    config, mapper_sha256 = _read_config(folder / CONFIG_FILE)
    return StoredModel(folder, config, *_read_mapper(folder / MAPPER_FILE, config, mapper_sha256))


def _read_config(path: Path) -> tuple[ModelConfig, str]:
    try:
        values = read_json(path)
        if not isinstance(values, dict) or values.get("kind") != MODEL_FOLDER.mark:
            raise CheckpointError(f"{path} is not a valid model configuration", hint=_NOT_A_MODEL_HINT)
        if (found := values.get("format_version")) != FORMAT_VERSION:
            message = f"{path} has format {found!r:.20}, but this version of textcap reads format {FORMAT_VERSION}"
            raise CheckpointError(message, hint="use the version of textcap that wrote it, or train again")
        values = unseal(values, path)
        mapper_sha256 = str(values.pop("mapper_sha256", ""))
        del values["kind"], values["format_version"]
        return from_dict(ModelConfig, values), mapper_sha256
    except FileError as error:
        raise CheckpointError(error.message, hint=_DAMAGED_HINT) from error
    except InputError as error:
        raise CheckpointError(f"{path} is not a valid model configuration: {error}", hint=_DAMAGED_HINT) from error


def _read_mapper(path: Path, config: ModelConfig, sha256: str) -> tuple[Mapper, AffineBridge | None]:
    expected = shapes(config.bridge.kind, config.mapper.embedding_width)
    n_values = config.mapper.n_parameters + sum(map(math.prod, expected.values()))
    tensors, _ = read_tensors(path, hint=_DAMAGED_HINT, n_values=n_values)
    if sha256_of_file(path) != sha256:
        raise CheckpointError(f"{path} is not the mapper that {CONFIG_FILE} records", hint=_DAMAGED_HINT)
    moving = {name: tensors.pop(_BRIDGE_PREFIX + name, torch.empty(0)) for name in expected}
    if any(tensor.shape != expected[name] for name, tensor in moving.items()):
        raise CheckpointError(f"{path} lacks the bridge that {CONFIG_FILE} records", hint=_DAMAGED_HINT)
    with torch.device("meta"):
        mapper = Mapper(config.mapper)
    try:
        mapper.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(f"{path} does not fit {CONFIG_FILE}: {problem}", hint=_DAMAGED_HINT) from error
    return mapper.eval().requires_grad_(False), AffineBridge(**moving) if moving else None
