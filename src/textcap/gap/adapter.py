"""The linear adapter h from text to audio embeddings (paper, Table 3), and its file format.

An adapter records the backbone that it was fitted on. Fitting one is left to `gap.fit`.
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
_REFIT_HINT = "run textcap fit-adapter to make an adapter"


@dataclass(frozen=True)
class LinearAdapter:
    """h(t) = W t + b, which moves unit-length text embeddings towards audio embeddings."""

    matrix: Tensor  # W, [E, E], in the layout of torch.nn.Linear.weight
    bias: Tensor  # b, [E]
    facts: AdapterFacts  # the backbone and the pairs it was fitted on, and its figures on held-out pairs

    def apply(self, embeddings: Tensor) -> Tensor:
        """Apply h to text embeddings `[B, E]`, and return vectors `[B, E]` that are not unit length."""
        matrix, bias = self.matrix.to(embeddings), self.bias.to(embeddings)
        return torch.nn.functional.linear(embeddings, matrix, bias)


def save_adapter(path: Path, adapter: LinearAdapter) -> None:
    """Write an adapter to a safetensors file, overwriting any existing file.

    Raises:
        InputError: The adapter contains NaN or infinite values, or the file cannot be written.
    """
    if not (adapter.matrix.isfinite().all() and adapter.bias.isfinite().all()):
        raise InputError("the adapter contains NaN or infinite values", hint="use a --strength above 0")
    facts = {"format_version": FORMAT_VERSION, "textcap": version("textcap"), **to_dict(adapter.facts)}
    tensors = {name: getattr(adapter, name).float().cpu().contiguous() for name in ("matrix", "bias")}
    atomic_write_bytes(path, save(tensors, {_METADATA_KEY: json.dumps(facts)}))


def load_adapter(path: Path) -> LinearAdapter:
    """Read an adapter that `save_adapter` wrote.

    Raises:
        CheckpointError: The file does not exist, cannot be read, is not a valid adapter file, or has a format version
            that this version of textcap does not know.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata, names = file.metadata() or {}, set(file.keys())
            if _METADATA_KEY not in metadata or names != {"matrix", "bias"}:
                raise CheckpointError(f"{path} is not a valid adapter file", hint=_REFIT_HINT)
            matrix, bias = file.get_tensor("matrix").float(), file.get_tensor("bias").float()
        facts = _read_facts(path, metadata[_METADATA_KEY])
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", hint=_REFIT_HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint=_REFIT_HINT) from error
    if bias.ndim != 1 or matrix.shape != (len(bias), len(bias)):
        shapes = f"its matrix has shape {list(matrix.shape)} and its bias {list(bias.shape)}"
        raise CheckpointError(f"{path} is not a valid adapter file: {shapes}", hint=_REFIT_HINT)
    if not (matrix.isfinite().all() and bias.isfinite().all()):
        raise CheckpointError(f"{path} contains NaN or infinite values", hint=_REFIT_HINT)
    return LinearAdapter(matrix, bias, facts)


def _read_facts(path: Path, text: str) -> AdapterFacts:
    try:
        values: Any = json.loads(text)
        found = values.pop("format_version")
        values.pop("textcap")  # the version of textcap that wrote it, recorded for people
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a valid adapter file", hint=_REFIT_HINT) from error
    if found != FORMAT_VERSION:
        message = f"{path} has format {found!r}, but this version of textcap reads format {FORMAT_VERSION}"
        raise CheckpointError(message, hint="use the version of textcap that wrote it, or fit the adapter again")
    try:
        return from_dict(AdapterFacts, values)
    except InputError as error:
        raise CheckpointError(f"{path} is not a valid adapter file: {error}", hint=_REFIT_HINT) from error
