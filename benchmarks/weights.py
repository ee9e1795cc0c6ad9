"""Weights to measure with: random ones of the real models' sizes, in the files of msclap, made once and kept.

Also sounds of the length that the models take.
"""

import importlib.util
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
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
    write_sound,
    write_tokenizer,
)
from textcap.config import AudioConfig, BackboneConfig, from_dict
from textcap.models.backbone import Backbone, BackboneNames
from textcap.models.mapper import Mapper

CLAP, CLAPCAP, GPT2 = "clap", "clapcap", "model"


@dataclass(frozen=True)
class Weights:
    """The files of both backbones of msclap.

    Attributes:
        folder: Holds `clap.pth`, `clapcap.pth`, `model.safetensors`, `vocab.json`, `merges.txt`, and the sizes of all
            parts in `config.json`.
    """

    folder: Path

    @cached_property
    def config(self) -> BackboneConfig:
        """The sizes of all parts."""
        return from_dict(BackboneConfig, json.loads((self.folder / "config.json").read_text(encoding="utf-8")))

    @property
    def has_msclap(self) -> bool:
        """Whether msclap can load these files: it knows only its own sizes."""
        return self.config == BackboneConfig() and has_msclap()

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
        return Backbone.of_files(BackboneNames(name), self.config, paths | self._tokenizer_files)

    @property
    def mapper(self) -> Mapper:
        """The mapper of clapcap."""
        return self.clapcap.released_mapper()

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of "clap" or "clapcap" by msclap's names, or those of the other GPT-2, "model"."""
        if name == GPT2:
            return load_file(self.folder / "model.safetensors")
        tensors: dict[str, Tensor] = torch.load(self.folder / f"{name}.pth", weights_only=True)["model"]
        return tensors

    def msclap(self, name: str) -> Any:
        """Return msclap's wrapper of "clap" or "clapcap", which reads these files."""
        version = "2023" if name == CLAP else name
        return load_msclap(self.folder / f"{name}.pth", version, *self._tokenizer_files.values())


def has_msclap() -> bool:
    """Return whether msclap is installed."""
    return importlib.util.find_spec("msclap") is not None


def weights_in(work: Path) -> Weights:
    """Return the weights in a work folder; random ones of full size are made if there are none.

    Raises:
        CannotRunError: msclap, whose classes give the names and shapes, is not installed.
    """
    return Weights(made(work / "weights", _write_full_size))


def window_sounds(work: Path, audio: AudioConfig, n: int) -> list[Path]:
    """Return mono sounds that are exactly one window long, at the model's rate."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        for index in range(n):
            write_sound(folder / f"{index}.wav", audio.window_s, seed=index, rate_hz=audio.sample_rate_hz)

    folder = made(work / f"windows-{audio.window_s:g}s-{audio.sample_rate_hz}-{n}", write)
    return [folder / f"{index}.wav" for index in range(n)]


def _write_full_size(folder: Path) -> None:
    if not has_msclap():
        raise CannotRunError("needs msclap: pip install 'textcap[verify]', on Python 3.12 or older")
    folder.mkdir(parents=True)
    save_pth(clap_tensors(seed=1), folder / "clap.pth")
    tensors = clapcap_tensors(seed=3)
    # A logit of 0 is never among the best, so every caption has as many tokens as the search allows.
    tensors["gpt.transformer.wte.weight"][STOP_TOKEN] = 0
    save_pth(tensors, folder / "clapcap.pth")
    save_gpt2(gpt2_tensors(seed=2), folder / "model.safetensors")
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(asdict(BackboneConfig())), encoding="utf-8")
