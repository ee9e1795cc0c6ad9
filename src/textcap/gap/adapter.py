"""The linear adapter h from text to audio embeddings, and the file it is kept in (paper, Table 3).

Knows neither how it was fitted nor what is trained with it. Loading checks all that can be checked, and returns an
adapter that says which backbone it belongs to.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from textcap.config import AdapterFacts, from_dict, to_dict
from textcap.errors import CheckpointError, InputError
from textcap.files import atomic_write_bytes

FORMAT_VERSION = 1

_METADATA_KEY = "textcap_adapter"
_AGAIN_HINT = "make one with textcap fit-adapter"


@dataclass(frozen=True)
class LinearAdapter:
    """h(t) = W t + b, from unit-length text embeddings towards audio embeddings."""

    matrix: Tensor  # W, [E, E], as torch.nn.Linear has it
    bias: Tensor  # b, [E]
    facts: AdapterFacts

    def apply(self, embeddings: Tensor) -> Tensor:
        """Return h of text embeddings `[B, E]`, `[B, E]`, of any length."""
        matrix, bias = self.matrix.to(embeddings), self.bias.to(embeddings)
        return torch.nn.functional.linear(embeddings, matrix, bias)


def save_adapter(path: Path, adapter: LinearAdapter) -> None:
    """Write an adapter, replacing what is at the path.

    Raises:
        InputError: It holds values that are no numbers, or the file cannot be written.
    """
    if not (adapter.matrix.isfinite().all() and adapter.bias.isfinite().all()):
        raise InputError("the adapter holds values that are no numbers", hint="fit it with a --strength above 0")
    facts = {"format_version": FORMAT_VERSION, "textcap": version("textcap"), **to_dict(adapter.facts)}
    tensors = {name: getattr(adapter, name).float().cpu().contiguous() for name in ("matrix", "bias")}
    atomic_write_bytes(path, save(tensors, {_METADATA_KEY: json.dumps(facts)}))


def load_adapter(path: Path) -> LinearAdapter:
    """Read an adapter.

    Raises:
        CheckpointError: The file is missing or broken, is no adapter, or is of an unknown format version.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata, names = file.metadata() or {}, set(file.keys())
            if _METADATA_KEY not in metadata or names != {"matrix", "bias"}:
                raise CheckpointError(f"{path} is no adapter", hint=_AGAIN_HINT)
            matrix, bias = file.get_tensor("matrix").float(), file.get_tensor("bias").float()
        facts = _read_facts(path, metadata[_METADATA_KEY])
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no adapter {path}", hint=_AGAIN_HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint=_AGAIN_HINT) from error
    if bias.ndim != 1 or matrix.shape != (len(bias), len(bias)):
        raise CheckpointError(f"{path} has a matrix {list(matrix.shape)} and a bias {list(bias.shape)}")
    if not (matrix.isfinite().all() and bias.isfinite().all()):
        raise CheckpointError(f"{path} holds values that are no numbers", hint=_AGAIN_HINT)
    return LinearAdapter(matrix, bias, facts)


def _read_facts(path: Path, text: str) -> AdapterFacts:
    try:
        values: Any = json.loads(text)
        found = values.pop("format_version")
        values.pop("textcap")  # for readers
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is no adapter", hint=_AGAIN_HINT) from error
    if found != FORMAT_VERSION:
        message = f"{path} is an adapter of format {found!r}, and this textcap reads {FORMAT_VERSION}"
        raise CheckpointError(message, hint="use the textcap that wrote it, or fit it again")
    try:
        return from_dict(AdapterFacts, values)
    except InputError as error:
        raise CheckpointError(f"{path} is broken: {error}", hint=_AGAIN_HINT) from error
