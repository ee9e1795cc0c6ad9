"""What is frozen, by name: CLAP's two encoders, GPT-2 and their tokenizer, each loaded when it is first asked for.

Knows which file holds which part, for the downloaded backbones and for folders like the embedded one. The content
hash says whether two backbones are the same weights.
"""

import json
import logging
import stat
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from textcap.clap import AudioEncoder, TextEncoder, load_audio_encoder, load_text_encoder
from textcap.config import BackboneConfig
from textcap.errors import CheckpointError, InputError
from textcap.fields import from_dict
from textcap.language_model import LanguageModel, load_language_model
from textcap.mapper import CLAPCAP_PREFIX, Mapper, load_clapcap_mapper
from textcap.tensors import Checkpoint, Source, load_exact, read_checkpoint
from textcap.tokenizer import Tokenizer
from textcap.weights import WEIGHT_SETS, Progress, WeightSet, embedded_folder, ensure, folder_hash

EMBEDDED = "tiny"
CLAPCAP = "clapcap"
CLAPCAP_END_TOKEN_ID = 220  # a space: clapcap was trained on captions that end in " <|endoftext|>"

# Where the parts lie in msclap's two files.
_MSCLAP_SECTIONS = ("audio_encoder.", "caption_encoder.", "clap.", "gpt.", CLAPCAP_PREFIX)

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
        self._unused: dict[Path, list[str]] = {}

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
        _check_folder(name, folder)
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
            self._load_own(encoder, self.weight_paths["audio_encoder"])
            return encoder.to(device)
        prefix = "clap." if self.name == CLAPCAP else "audio_encoder."
        encoder = load_audio_encoder(self.config.clap, self._msclap_checkpoint, prefix)
        for name in sorted(self._msclap_checkpoint.absent):
            if "extractor" in name:
                _logger.warning("%s lacks %s: computed as msclap does", self._msclap_checkpoint.path, name)
        self._report_unused(self._msclap_checkpoint, prefix)
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
            self._load_own(encoder, self.weight_paths["text_encoder"])
            return encoder.to(device)
        encoder = load_text_encoder(self.config.clap, self._msclap_checkpoint, self.tokenizer)
        self._report_unused(self._msclap_checkpoint, "caption_encoder.")
        return encoder.to(device)

    def language_model(self, device: torch.device | str = "cpu") -> LanguageModel:
        """Return GPT-2, frozen, on a device."""
        if self.name == CLAPCAP:
            model = load_language_model(self.config.language_model, self._msclap_checkpoint, "gpt.transformer.")
            self._report_unused(self._msclap_checkpoint, "gpt.")
        else:
            checkpoint = read_checkpoint(self.weight_paths["language_model"])
            model = load_language_model(self.config.language_model, checkpoint)
            self._report_unused(checkpoint)
        return model.to(device)

    def released_mapper(self, device: torch.device | str = "cpu") -> Mapper:
        """Return the mapper that clapcap carries; other weights have none, which is a ValueError."""
        if self.name != CLAPCAP:
            raise ValueError(f"{self.name} carries no mapper")
        mapper = load_clapcap_mapper(self.config.mapper, self._msclap_checkpoint)
        self._report_unused(self._msclap_checkpoint, CLAPCAP_PREFIX)
        return mapper.to(device)

    def unused_tensors(self) -> list[str]:
        """Return what no part has asked for so far in the files that were read."""
        return [name for path in sorted(self._unused) for name in self._unused[path]]

    @cached_property
    def _msclap_checkpoint(self) -> Checkpoint:
        return read_checkpoint(self.weight_paths["clapcap" if self.name == CLAPCAP else "clap"])

    def _load_own(self, module: nn.Module, path: Path) -> None:
        """Load a module from a file with its own tensor names; what the module computes itself may be left out."""
        computed = ("relative_position_index", "num_batches_tracked")
        sources = {name: Source(name, optional=name.endswith(computed)) for name in module.state_dict()}
        checkpoint = read_checkpoint(path)
        load_exact(module, checkpoint, sources)
        module.eval().requires_grad_(False)
        self._report_unused(checkpoint)

    def _report_unused(self, checkpoint: Checkpoint, section: str | None = None) -> None:
        """Log each tensor that nobody asked for once; those of another part of the file wait until it is loaded."""
        others = tuple(other for other in _MSCLAP_SECTIONS if other != section) if section else ()
        reported = set(self._unused.get(checkpoint.path, []))
        unused = [name for name in checkpoint.unused if not name.startswith(others)]
        if new := [name for name in unused if name not in reported]:
            _logger.info("%s: nobody asked for %s", checkpoint.path, ", ".join(new))
        self._unused[checkpoint.path] = sorted(reported.union(unused))


def _check_folder(name: str, folder: Path) -> None:
    known = ", ".join([*WEIGHT_SETS, EMBEDDED])
    hint = f"use {known}, or a folder with config.json"
    try:
        found = stat.S_ISREG((folder / "config.json").stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        found = False
    except (OSError, ValueError) as error:  # an overlong name, a folder that may not be entered, no name at all
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"there is no backbone {name!r} that can be read: {reason}", hint=hint) from error
    if not found:
        raise InputError(f"there is no backbone {name!r}", hint=hint)


def _read_config(path: Path) -> BackboneConfig:
    try:
        return from_dict(BackboneConfig, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, InputError) as error:
        raise CheckpointError(f"{path} is no backbone configuration: {error}") from error
