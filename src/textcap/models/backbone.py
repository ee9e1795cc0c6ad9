"""Load backbones by name: CLAP's two encoders, GPT-2 and their tokenizer, each when it is first needed.

A `BackboneKind` describes where the parts of a set of weights are stored. Two backbones with the same content hash have
the same weights.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from textcap.config import BackboneConfig, from_dict
from textcap.errors import CheckpointError, FileError, InputError
from textcap.files import open_regular, read_json
from textcap.models.clap import AudioEncoder, TextEncoder, load_audio_encoder, load_text_encoder
from textcap.models.language_model import LanguageModel, load_language_model
from textcap.models.loading import Checkpoint, TensorSource, load_exact, read_checkpoint
from textcap.models.mapper import Mapper, load_clapcap_mapper
from textcap.models.tokenizer import Tokenizer
from textcap.weights import WEIGHT_SETS, DownloadProgress, WeightSet, embedded_folder, ensure, folder_hash

EMBEDDED = "tiny"
CLAPCAP = "clapcap"

_Module = TypeVar("_Module", bound=nn.Module)
_logger = logging.getLogger("textcap")


@dataclass(frozen=True)
class Part:
    """Where one part of a backbone is stored."""

    role: str  # of the weight file, such as "language_model"
    prefix: str = ""  # of the names of the part's tensors; empty if the file contains only this part


@dataclass(frozen=True)
class BackboneKind:
    """Where the parts of a backbone are stored, and how it differs from others."""

    audio_encoder: Part
    language_model: Part
    text_encoder: Part | None = None  # None: no model can be trained on this backbone
    mapper: Part | None = None  # the mapper of a released captioner, which needs no training
    end_token_id: int | None = None  # ends captions of the released captioner; None: the tokenizer's end token
    is_msclap: bool = True  # whether the tensors have msclap's names rather than ours
    remark: str = ""  # what who trains or captions with it must know, a sentence

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts that there are."""
        parts = (self.audio_encoder, self.text_encoder, self.language_model, self.mapper)
        return tuple(part for part in parts if part is not None)


_FOLDER_KIND = BackboneKind(
    audio_encoder=Part("audio_encoder"),
    text_encoder=Part("text_encoder"),
    language_model=Part("language_model"),
    is_msclap=False,
)
_KINDS = {
    "msclap-2023": BackboneKind(
        audio_encoder=Part("clap", "audio_encoder."),
        text_encoder=Part("clap", "caption_encoder."),
        language_model=Part("language_model"),
    ),
    CLAPCAP: BackboneKind(
        audio_encoder=Part("clapcap", "clap."),
        language_model=Part("clapcap", "gpt."),
        mapper=Part("clapcap", "clap_project."),
        end_token_id=220,  # a space: clapcap was trained on captions that end in " <|endoftext|>"
    ),
    EMBEDDED: replace(
        _FOLDER_KIND,
        remark="the tiny backbone knows only the synthetic sounds of textcap demo; its captions of recordings mean "
        "nothing",
    ),
}


def kind_of(name: str) -> BackboneKind:
    """Return the kind of a backbone by its name, without accessing the disk; an unknown name is taken as a folder."""
    return _KINDS.get(name, _FOLDER_KIND)


def check_trainable(name: str) -> None:
    """Check that a model can be trained on a backbone, without loading its weights.

    Raises:
        InputError: The backbone has no text encoder.
    """
    if kind_of(name).text_encoder is None:
        raise InputError(f"{name} has no text encoder, so no model can be trained on it", hint="use msclap-2023")


def read_backbone_config(name: str) -> BackboneConfig:
    """Return the sizes of a backbone and its noise, by its name or folder, without its weights.

    Raises:
        InputError: No such backbone exists.
        CheckpointError: The folder's configuration is not valid.
    """
    if name in WEIGHT_SETS:
        return BackboneConfig(name=name)
    path = _folder_of(name) / "config.json"
    try:
        open_regular(path).close()
    except FileError as error:
        trainable = [known for known, kind in _KINDS.items() if kind.text_encoder is not None]
        hint = f"use {', '.join(trainable)}, or a folder with config.json"
        raise InputError(f"backbone {name!r} {error.problem}", hint=hint) from error
    try:
        values = read_json(path)
        no_means: dict[str, list[float]] = {"mean_sound": [], "mean_text": []}
        return from_dict(BackboneConfig, {**no_means, **values} if isinstance(values, dict) else values)
    except InputError as error:
        raise CheckpointError(f"{path} is not a valid backbone configuration: {error}") from error


class Backbone:
    """The frozen parts of one set of weights.

    Attributes:
        name: The name or folder, as given by the user.
        kind: Where its parts are stored.
        config: The sizes of all parts, and the noise variance that suits the modality gap.
        content_hash: SHA-256 of the weight files, in hexadecimal.
        weight_paths: The weight files by role.
    """

    def __init__(self, name: str, config: BackboneConfig, weights: WeightSet) -> None:
        self.name = name
        self.kind = kind_of(name)
        self.config = config
        self.content_hash = weights.content_hash
        self.weight_paths = weights.paths
        self._checkpoints: dict[str, Checkpoint] = {}  # by role; only files with several parts
        self._unused: dict[Path, list[str]] = {}

    @classmethod
    def load(cls, name: str, *, offline: bool | None = None, progress: DownloadProgress | None = None) -> "Backbone":
        """Find a backbone on disk, or download it; tensors are read when a part is first needed.

        Args:
            name: "msclap-2023", "clapcap" (which has no text encoder), "tiny" for the built-in backbone, or a folder
                with the same files as the built-in backbone.
            offline: Do not use the network; None takes the setting from HF_HUB_OFFLINE.
            progress: Called while downloading, see `DownloadProgress`.

        Raises:
            DownloadError: The weights are not on disk and cannot be downloaded.
            InputError: No such backbone exists.
            CheckpointError: The folder's configuration is not valid.
        """
        if name in WEIGHT_SETS:
            return cls(name, BackboneConfig(name=name), ensure(name, offline=offline, progress=progress))
        config, folder = read_backbone_config(name), _folder_of(name)
        paths = {part.role: folder / f"{part.role}.safetensors" for part in _FOLDER_KIND.parts}
        paths |= {"vocab": folder / "vocab.json", "merges": folder / "merges.txt"}
        return cls(name, config, WeightSet(config.name, paths, folder_hash([folder / "config.json", *paths.values()])))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """GPT-2's tokenizer, shared with CLAP's text encoder.

        Raises:
            CheckpointError: Its files are not valid, or have another number of tokens than the language model.
        """
        tokenizer = Tokenizer.load(self.weight_paths["vocab"], self.weight_paths["merges"])
        expected = self.config.language_model.vocab_size
        if tokenizer.vocab_size != expected:
            path, n_tokens = self.weight_paths["vocab"], tokenizer.vocab_size
            raise CheckpointError(f"{path} has {n_tokens:,} tokens, but must have {expected:,}")
        return tokenizer

    def audio_encoder(self, device: torch.device | str = "cpu") -> AudioEncoder:
        """Return CLAP's audio encoder, frozen, on a device."""
        config, part = self.config.clap, self.kind.audio_encoder

        def load(checkpoint: Checkpoint) -> AudioEncoder:
            if not self.kind.is_msclap:
                return _load_own(lambda: AudioEncoder(config), checkpoint)
            encoder = load_audio_encoder(config, checkpoint, part.prefix)
            for name in sorted(checkpoint.absent):
                if "extractor" in name:
                    _logger.warning("%s lacks %s, which is computed as in msclap instead", checkpoint.path, name)
            return encoder

        return self._load(part, config.audio_tower.least_parameters, load, device)

    def text_encoder(self, device: torch.device | str = "cpu") -> TextEncoder:
        """Return CLAP's text encoder, frozen, on a device.

        Raises:
            InputError: The backbone has no text encoder.
        """
        check_trainable(self.name)
        config, part = self.config.clap, self.kind.text_encoder
        assert part is not None

        def load(checkpoint: Checkpoint) -> TextEncoder:
            if self.kind.is_msclap:
                return load_text_encoder(config, checkpoint, self.tokenizer, part.prefix)
            return _load_own(lambda: TextEncoder(config, self.tokenizer), checkpoint)

        return self._load(part, config.text_tower.n_parameters, load, device)

    def language_model(self, device: torch.device | str = "cpu") -> LanguageModel:
        """Return GPT-2, frozen, on a device."""
        config, part = self.config.language_model, self.kind.language_model
        prefix = f"{part.prefix}transformer." if part.prefix else None
        return self._load(part, config.n_parameters, lambda file: load_language_model(config, file, prefix), device)

    def released_mapper(self, device: torch.device | str = "cpu") -> Mapper:
        """Return the mapper of a released captioner on a device.

        Raises:
            ValueError: The backbone has no mapper.
        """
        part = self.kind.mapper
        if part is None:
            raise ValueError(f"{self.name} has no mapper")
        config, prefix = self.config.mapper, part.prefix
        return self._load(part, config.n_parameters, lambda file: load_clapcap_mapper(config, file, prefix), device)

    def unused_tensors(self) -> list[str]:
        """Return the names of tensors in the files read so far that no part has used."""
        return [name for path in sorted(self._unused) for name in self._unused[path]]

    def _load(
        self, part: Part, n_parameters: int, load: Callable[[Checkpoint], _Module], device: torch.device | str
    ) -> _Module:
        """Return a part on a device; its file must have at least as many numbers as the part has parameters."""
        checkpoint = self._checkpoints.get(part.role) or read_checkpoint(self.weight_paths[part.role])
        checkpoint.require_values(n_parameters)
        if part.prefix:  # the file contains other parts as well
            self._checkpoints[part.role] = checkpoint
        module = load(checkpoint)
        self._report_unused(part, checkpoint)
        return module.to(device)

    def _report_unused(self, part: Part, checkpoint: Checkpoint) -> None:
        """Log each unused tensor once, except those of parts of the file that are not loaded yet."""
        other_prefixes = tuple(one.prefix for one in self.kind.parts if one.role == part.role and one != part)
        reported = set(self._unused.get(checkpoint.path, []))
        unused = [name for name in checkpoint.unused if not name.startswith(other_prefixes)]
        if new := [name for name in unused if name not in reported]:
            _logger.info("%s has unused tensors: %s", checkpoint.path, ", ".join(new))
        self._unused[checkpoint.path] = sorted(reported.union(unused))


def _load_own(build: Callable[[], _Module], checkpoint: Checkpoint) -> _Module:
    """Build a module and load it from a file with our tensor names; tensors that it computes itself may be missing."""
    try:
        module = build()
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        message = f"{checkpoint.path.with_name('config.json')} has sizes that no model can be built from: {error}"
        raise CheckpointError(message) from error
    computed = "num_batches_tracked"
    return load_exact(module, checkpoint, lambda name: TensorSource(name, optional=name.endswith(computed)))


def _folder_of(name: str) -> Path:
    return embedded_folder() if name == EMBEDDED else Path(name)
