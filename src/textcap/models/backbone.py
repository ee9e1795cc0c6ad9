"""A backbone: the two frozen halves, CLAP and a language model, found by name, and what suits a mapper between them.

A name stands for both halves, and each can be replaced by another: a folder in transformers' form, or a repository of
the hub.
"""

import hashlib
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from textcap.config import BackboneConfig, MapperConfig, from_dict
from textcap.errors import CheckpointError, FileError, InputError
from textcap.files import open_regular, read_json
from textcap.models.clap import AudioEncoder, ClapHalf, TextEncoder, open_clap
from textcap.models.language_model import CaptionTokenizer, LanguageModel, LanguageModelHalf, open_language_model
from textcap.models.mapper import Mapper, load_clapcap_mapper
from textcap.models.weight_files import CLAPCAP as CLAPCAP
from textcap.models.weight_files import EMBEDDED, FOLDER_KIND, KINDS, WeightFiles, kind_of
from textcap.weights import WEIGHT_SETS, DownloadProgress, embedded_folder, ensure, model_folder
from textcap.weights.repository import is_repository


@dataclass(frozen=True)
class BackboneNames:
    """What to take a backbone from, as the user names it.

    Attributes:
        backbone: "msclap-2023", "clapcap" (which has no text encoder), "tiny" for the built-in backbone, or a folder
            with the same files as that.
        clap: What replaces its CLAP: a folder in transformers' form, or a repository such as
            "laion/clap-htsat-unfused".
        language_model: What replaces its language model, such as "Qwen/Qwen3-0.6B".
    """

    backbone: str = "msclap-2023"
    clap: str | None = None
    language_model: str | None = None

    @classmethod
    def of(cls, name: "str | Path | BackboneNames") -> "BackboneNames":
        """Return the names of a backbone that may be given by its own alone."""
        return name if isinstance(name, BackboneNames) else BackboneNames(str(name))

    @property
    def has_other_halves(self) -> bool:
        """Whether a half of the named backbone is replaced."""
        return self.clap is not None or self.language_model is not None

    def absolute(self) -> "BackboneNames":
        """Return the names with folders as absolute paths, to be found from any working folder."""
        halves = {name: value and _absolute(value) for name, value in vars(self).items() if name != "backbone"}
        own = self.backbone if self.backbone in KINDS else os.path.abspath(self.backbone)
        return BackboneNames(own, **halves)

    def check_trainable(self) -> None:
        """Check that a model can be trained on the backbone, without loading its weights.

        Raises:
            InputError: The backbone has no text encoder.
        """
        if self.clap is None and kind_of(self.backbone).text_encoder is None:
            problem = f"{self.backbone} has no text encoder, so no model can be trained on it"
            raise InputError(problem, hint="use msclap-2023")

    def check_public(self, model: str) -> None:
        """Check that what a model of others names is no place on this machine or on its network.

        Raises:
            CheckpointError: It is.
        """
        halves = (half for half in (self.clap, self.language_model) if half is not None)
        if self.backbone not in KINDS or not all(map(is_repository, halves)):
            hint = "ask its author for the folder, and give it with --clap or --language-model"
            raise CheckpointError(f"{model} needs a folder of its author's machine: {self}", hint=hint)

    def __str__(self) -> str:
        halves = {"CLAP": self.clap, "language model": self.language_model}
        used = " and ".join(f"{what} {name}" for what, name in halves.items() if name is not None)
        return f"{self.backbone} with {used}" if used else self.backbone


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
        trainable = [known for known, kind in KINDS.items() if kind.text_encoder is not None]
        hint = f"use {', '.join(trainable)}, or a folder with config.json"
        raise InputError(f"backbone {name!r} {error.problem}", hint=hint) from error
    try:
        values = read_json(path)
        no_means: dict[str, list[float]] = {"mean_sound": [], "mean_text": []}
        return from_dict(BackboneConfig, {**no_means, **values} if isinstance(values, dict) else values)
    except InputError as error:
        raise CheckpointError(f"{path} is not a valid backbone configuration: {error}") from error


class Backbone:
    """The frozen halves of a captioner: CLAP and a language model.

    Create one with `Backbone.load`.

    Attributes:
        names: The names that the user gave.
        kind: Where the parts of the named backbone are stored.
        config: The sizes of all parts, and the noise variance that suits the modality gap.
        clap: The CLAP.
        language_model_half: The language model.
        weight_paths: The weight files of the named backbone by role.
    """

    def __init__(
        self,
        names: BackboneNames,
        config: BackboneConfig,
        files: WeightFiles,
        clap: ClapHalf,
        language_model: LanguageModelHalf,
    ) -> None:
        self.names, self.kind, self.config = names, files.kind, config
        self.clap, self.language_model_half = clap, language_model
        self.weight_paths, self._files = files.paths, files

    @classmethod
    def load(
        cls, name: str | Path | BackboneNames, *, offline: bool | None = None, progress: DownloadProgress | None = None
    ) -> "Backbone":
        """Find a backbone on disk, or download it; tensors are read when a part is first needed.

        Args:
            name: "msclap-2023", "clapcap", "tiny", a folder, or `BackboneNames` that replace a half.
            offline: Whether to work without the network; by default the environment variable HF_HUB_OFFLINE decides.
            progress: Called while weights are downloaded with a file's name, its bytes so far, the total and a note.

        Raises:
            DownloadError: The weights are not on disk and cannot be downloaded.
            InputError: No such backbone exists.
            CheckpointError: A configuration is not valid, or a half cannot be used.
        """
        names = BackboneNames.of(name)
        own, config = names.backbone, read_backbone_config(names.backbone)
        clap, language_model = None, None
        if names.clap is not None:
            clap = open_clap(names.clap, model_folder(names.clap, offline=offline, progress=progress))
        if names.language_model is not None:
            folder = model_folder(names.language_model, offline=offline, progress=progress)
            language_model = open_language_model(names.language_model, folder)
        if own in WEIGHT_SETS and None in (clap, language_model):  # else none of its own is used
            paths = ensure(own, offline=offline, progress=progress).paths
        else:
            folder = _folder_of(own)
            paths = {part.role: folder / f"{part.role}.safetensors" for part in FOLDER_KIND.parts}
            paths |= {"vocab": folder / "vocab.json", "merges": folder / "merges.txt"}
        backbone = cls.of_files(names, config, paths, clap, language_model)
        _ = backbone.content_hash  # reads the files, so that one that is missing is told now
        return backbone

    @classmethod
    def of_files(
        cls,
        names: BackboneNames,
        config: BackboneConfig,
        paths: dict[str, Path],
        clap: ClapHalf | None = None,
        language_model: LanguageModelHalf | None = None,
    ) -> "Backbone":
        """Build a backbone from weight files.

        Args:
            names: What it is called.
            config: Its sizes.
            paths: The files by role.
            clap: Taken in place of the CLAP in the files.
            language_model: Taken in place of the language model in the files.
        """
        from textcap.models.gpt2 import Gpt2Half
        from textcap.models.msclap import MsclapHalf

        files = WeightFiles(kind_of(names.backbone), paths)
        if clap is not None:  # what is known of a gap is known of one CLAP
            config = replace(config, noise_variance=None, mean_sound=(), mean_text=())
        clap = clap or MsclapHalf(config.name, config.clap, files)
        if language_model is None:
            language_model = Gpt2Half(config.name, config.language_model, files, files.kind.licences[1])
        mapper = _fitted(config.mapper, clap.config.embedding_width, language_model.config.width)
        config = replace(config, clap=clap.config, language_model=language_model.config, mapper=mapper)
        return cls(names, config, files, clap, language_model)

    @property
    def name(self) -> str:
        """Its name for messages, with the halves that were replaced."""
        return str(self.names)

    @property
    def content_hash(self) -> str:
        """SHA-256 of both halves, in hexadecimal."""
        return hashlib.sha256(f"{self.clap.content_hash} {self.language_model_half.content_hash}".encode()).hexdigest()

    @property
    def tokenizer(self) -> CaptionTokenizer:
        """The tokenizer of the language model.

        Raises:
            CheckpointError: Its files are not valid, or do not fit the language model.
        """
        return self.language_model_half.tokenizer

    def audio_encoder(self, device: torch.device | str = "cpu") -> AudioEncoder:
        """Return CLAP's audio encoder, frozen, on a device."""
        return self.clap.audio_encoder().to(device)

    def text_encoder(self, device: torch.device | str = "cpu") -> TextEncoder:
        """Return CLAP's text encoder, frozen, on a device.

        Raises:
            InputError: The backbone has no text encoder.
        """
        return self.clap.text_encoder().to(device)

    def language_model(self, device: torch.device | str = "cpu") -> LanguageModel:
        """Return the language model, frozen, on a device."""
        return self.language_model_half.load().to(device)

    def released_mapper(self) -> Mapper:
        """Return the mapper that comes with a released captioner.

        Raises:
            ValueError: The backbone has no mapper.
        """
        part = self.kind.mapper
        if part is None:
            raise ValueError(f"{self.name} has no mapper")
        config, prefix = self.config.mapper, part.prefix
        return self._files.load(part, config.n_parameters, lambda file: load_clapcap_mapper(config, file, prefix))

    def unused_tensors(self) -> list[str]:
        """Return the names of tensors in the files read so far that no part has used."""
        return self._files.unused_tensors()


def _fitted(mapper: MapperConfig, embedding_width: int, width: int) -> MapperConfig:
    """Return the sizes of a mapper between other halves; as many heads as divide the width."""
    if width == mapper.width:
        return replace(mapper, embedding_width=embedding_width)
    n_heads = max(n for n in range(1, mapper.n_heads + 1) if math.gcd(n, width) == n)
    return replace(mapper, embedding_width=embedding_width, width=width, n_heads=n_heads)


def _absolute(name: str) -> str:
    return os.path.abspath(name) if os.path.isdir(name) or not is_repository(name) else name


def _folder_of(name: str) -> Path:
    return embedded_folder() if name == EMBEDDED else Path(name)
