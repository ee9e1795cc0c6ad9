"""Weights to measure with: random ones of the real models' sizes, in the files of msclap, made once and kept."""

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.processes import CannotRunError, made
from full_size import (
    STOP_TOKEN,
    clap_tensors,
    clapcap_tensors,
    gpt2_tensors,
    load_msclap,
    save_gpt2,
    save_pth,
    write_tokenizer,
)
from textcap.config import BackboneConfig
from textcap.models.backbone import Backbone
from textcap.models.mapper import Mapper
from textcap.weights import WeightSet

CLAP, CLAPCAP = "clap", "clapcap"


@dataclass(frozen=True)
class Weights:
    """The files of both backbones of msclap.

    Attributes:
        folder: Holds `clap.pth`, `clapcap.pth`, `model.safetensors`, `vocab.json` and `merges.txt`.
        config: The sizes of all parts.
        has_msclap: Whether msclap can load these files: it knows only its own sizes.
    """

    folder: Path
    config: BackboneConfig
    has_msclap: bool = False

    @property
    def _tokenizer_files(self) -> dict[str, Path]:
        return {"vocab": self.folder / "vocab.json", "merges": self.folder / "merges.txt"}

    @cached_property
    def msclap_2023(self) -> Backbone:
        """The backbone with both encoders."""
        paths = {CLAP: self.folder / "clap.pth", "language_model": self.folder / "model.safetensors"}
        return self._backbone("msclap-2023", paths)

    @cached_property
    def clapcap(self) -> Backbone:
        """The backbone with a mapper of its own, whose captions never end by themselves."""
        return self._backbone(CLAPCAP, {CLAPCAP: self.folder / "clapcap.pth"})

    def _backbone(self, name: str, paths: dict[str, Path]) -> Backbone:
        return Backbone(name, self.config, WeightSet(name, paths | self._tokenizer_files, "0" * 64))

    @property
    def mapper(self) -> Mapper:
        """The mapper of clapcap."""
        return self.clapcap.released_mapper()

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of "clap" or "clapcap" by msclap's names."""
        tensors: dict[str, Tensor] = torch.load(self.folder / f"{name}.pth", weights_only=True)["model"]
        return tensors

    def msclap(self, name: str) -> Any:
        """Return msclap's wrapper of "clap" or "clapcap", which reads these files."""
        version = "2023" if name == CLAP else name
        return load_msclap(self.folder / f"{name}.pth", version, *self._tokenizer_files.values())


def full_size_weights(work: Path) -> Weights:
    """Return random weights of full size, which are made where the work folder lacks them.

    Raises:
        CannotRunError: msclap, whose classes give the names and shapes, is not installed.
    """
    if importlib.util.find_spec("msclap") is None:
        raise CannotRunError("needs msclap: pip install 'textcap[verify]', on Python 3.12 or older")
    return Weights(made(work / "weights", _write_full_size), BackboneConfig(), has_msclap=True)


def _write_full_size(folder: Path) -> None:
    folder.mkdir(parents=True)
    save_pth(clap_tensors(seed=1), folder / "clap.pth")
    tensors = clapcap_tensors(seed=3)
    # A logit of 0 is never among the best, so every caption has as many tokens as the search allows.
    tensors["gpt.transformer.wte.weight"][STOP_TOKEN] = 0
    save_pth(tensors, folder / "clapcap.pth")
    save_gpt2(gpt2_tensors(seed=2), folder / "model.safetensors")
    write_tokenizer(folder)
