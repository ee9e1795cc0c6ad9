"""What is frozen, by name: CLAP's two encoders, GPT-2 and their tokenizer, each loaded when it is first asked for.

Knows which file holds which part, for the downloaded backbones and for folders like the embedded one. The content
hash says whether two backbones are the same weights.
"""

import json
import logging
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from textcap.clap import AudioEncoder, TextEncoder, load_audio_encoder, load_text_encoder
from textcap.config import BackboneConfig, from_dict
from textcap.errors import CheckpointError, InputError
from textcap.language_model import LanguageModel, load_language_model
from textcap.mapper import Mapper, load_clapcap_mapper
from textcap.tensors import Checkpoint, Source, load_exact, read_checkpoint
from textcap.tokenizer import Tokenizer
from textcap.weights import WEIGHT_SETS, Progress, WeightSet, embedded_folder, ensure, folder_hash

EMBEDDED = "tiny"
CLAPCAP = "clapcap"
CLAPCAP_END_TOKEN_ID = 220  # a space: clapcap was trained on captions that end in " <|endoftext|>"

_logger = logging.getLogger("textcap")


class Backbone:
    """The frozen parts of one set of weights.

    Attributes:
        name: What the user called it: a name, or a folder.
        config: Sizes of every part, and the noise that suits the modality gap.
        content_hash: SHA-256 over the weight files.
        weight_paths: The files by role.
    """

    def __init__(self, name: str, config: BackboneConfig, weights: WeightSet) -> None:
        self.name = name
        self.config = config
        self.content_hash = weights.content_hash
        self.weight_paths = weights.paths

    @classmethod
    def load(cls, name: str, *, offline: bool | None = None, progress: Progress | None = None) -> "Backbone":
        """Find a backbone on disk, or fetch it; its tensors are read when a part is asked for.

        Args:
            name: "msclap-2023", "clapcap" (which has no text side), "tiny" for the embedded one, or a folder
                with the files of the embedded one.
            offline: Never touch the network; by default as HF_HUB_OFFLINE says.
            progress: Told of bytes while fetching.

        Raises:
            DownloadError: The weights are not on disk and cannot be fetched.
            InputError: There is no such backbone.
            CheckpointError: The folder's configuration is broken.
        """
        if name in WEIGHT_SETS:
            return cls(name, BackboneConfig(name=name), ensure(name, offline=offline, progress=progress))
        folder = embedded_folder() if name == EMBEDDED else Path(name)
        if not (folder / "config.json").is_file():
            known = ", ".join([*WEIGHT_SETS, EMBEDDED])
            raise InputError(f"there is no backbone {name!r}", hint=f"use {known}, or a folder with config.json")
        paths = {
            "audio_encoder": folder / "audio_encoder.safetensors",
            "text_encoder": folder / "text_encoder.safetensors",
            "language_model": folder / "language_model.safetensors",
            "vocab": folder / "vocab.json",
            "merges": folder / "merges.txt",
        }
        config = _read_config(folder / "config.json")
        return cls(name, config, WeightSet(config.name, paths, folder_hash([folder / "config.json", *paths.values()])))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """GPT-2's tokenizer, which CLAP's text tower shares."""
        tokenizer = Tokenizer.load(self.weight_paths["vocab"], self.weight_paths["merges"])
        expected = self.config.language_model.vocab_size
        if tokenizer.vocab_size != expected:
            raise CheckpointError(f"{self.weight_paths['vocab']} has {tokenizer.vocab_size} tokens, not {expected}")
        return tokenizer

    def audio_encoder(self, device: torch.device | str = "cpu") -> AudioEncoder:
        """Return CLAP's audio side, frozen, on a device."""
        if "audio_encoder" in self.weight_paths:
            encoder = AudioEncoder(self.config.clap)
            _load_own(encoder, self.weight_paths["audio_encoder"])
            return encoder.to(device)
        prefix = "clap." if self.name == CLAPCAP else "audio_encoder."
        encoder = load_audio_encoder(self.config.clap, self._msclap_checkpoint, prefix)
        for name in sorted(self._msclap_checkpoint.absent):
            if "extractor" in name:
                _logger.warning("%s lacks %s: computed as msclap does", self._msclap_checkpoint.path, name)
        return encoder.to(device)

    def text_encoder(self, device: torch.device | str = "cpu") -> TextEncoder:
        """Return CLAP's text side, frozen, on a device.

        Raises:
            InputError: These weights have no text side.
        """
        if self.name == CLAPCAP:
            raise InputError("clapcap has no text encoder, so nothing can be trained on it", hint="use msclap-2023")
        if "text_encoder" in self.weight_paths:
            encoder = TextEncoder(self.config.clap, self.tokenizer)
            _load_own(encoder, self.weight_paths["text_encoder"])
            return encoder.to(device)
        return load_text_encoder(self.config.clap, self._msclap_checkpoint, self.tokenizer).to(device)

    def language_model(self, device: torch.device | str = "cpu") -> LanguageModel:
        """Return GPT-2, frozen, on a device."""
        if self.name == CLAPCAP:
            model = load_language_model(self.config.language_model, self._msclap_checkpoint, "gpt.transformer.")
        else:
            model = load_language_model(
                self.config.language_model, read_checkpoint(self.weight_paths["language_model"])
            )
        return model.to(device)

    def released_mapper(self, device: torch.device | str = "cpu") -> Mapper:
        """Return the mapper that clapcap carries; other weights have none, which is a ValueError."""
        if self.name != CLAPCAP:
            raise ValueError(f"{self.name} carries no mapper")
        return load_clapcap_mapper(self.config.mapper, self._msclap_checkpoint).to(device)

    def unused_tensors(self) -> list[str]:
        """Return what no part has asked for so far in the msclap checkpoint, once its parts are loaded."""
        return [] if "_msclap_checkpoint" not in self.__dict__ else self._msclap_checkpoint.unused

    @cached_property
    def _msclap_checkpoint(self) -> Checkpoint:
        return read_checkpoint(self.weight_paths["clapcap" if self.name == CLAPCAP else "clap"])


def _load_own(module: nn.Module, path: Path) -> None:
    """Load a module from a file with its own tensor names; what the module computes itself may be left out."""
    computed = ("relative_position_index", "num_batches_tracked")
    sources = {name: Source(name, optional=name.endswith(computed)) for name in module.state_dict()}
    load_exact(module, read_checkpoint(path), sources)
    module.eval().requires_grad_(False)


def _read_config(path: Path) -> BackboneConfig:
    try:
        return from_dict(BackboneConfig, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, InputError) as error:
        raise CheckpointError(f"{path} is no backbone configuration: {error}") from error
