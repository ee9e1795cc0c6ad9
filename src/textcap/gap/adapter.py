"""The linear adapter h from text to audio embeddings (paper, Table 3), and its file format.

An adapter records the CLAP that it was fitted on. Fitting one is left to `gap.fit`.
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from textcap.config import AdapterFacts, from_dict
from textcap.errors import CheckpointError, InputError
from textcap.files import parse_json
from textcap.models.backbone import Backbone
from textcap.models.loading import read_tensors, write_tensors

FORMAT_VERSION = "3"

_KIND = "textcap adapter"
_REFIT_HINT = "run textcap fit-adapter to make an adapter"


@dataclass(frozen=True)
class LinearAdapter:
    """h(t) = W t + b, which moves unit-length text embeddings towards audio embeddings."""

    matrix: Tensor  # W, [E, E], in the layout of torch.nn.Linear.weight
    bias: Tensor  # b, [E]
    facts: AdapterFacts  # the CLAP and the pairs it was fitted on, and its figures on held-out pairs

    def apply(self, embeddings: Tensor) -> Tensor:
        """Apply h to text embeddings `[B, E]`, and return vectors `[B, E]` that are not unit length."""
        matrix, bias = self.matrix.to(embeddings), self.bias.to(embeddings)
        return torch.nn.functional.linear(embeddings, matrix, bias)

    def check_backbone(self, backbone: Backbone, name: str) -> None:
        """Check that the adapter was fitted on the CLAP of a backbone.

        Args:
            name: The adapter's file or what to call it, for the error message.

        Raises:
            CheckpointError: The CLAP has other weights or another width.
        """
        width, expected = len(self.bias), backbone.config.clap.embedding_width
        if self.facts.clap_hash != backbone.clap.content_hash:
            theirs, ours = self.facts.clap_hash[:12], backbone.clap.content_hash[:12]
            problem = f"was fitted on {self.facts.clap_name} with weights {theirs}, not {ours}"
        elif width != expected:
            problem = f"has width {width}, but the embeddings of {backbone.name} have width {expected}"
        else:
            return
        raise CheckpointError(f"{name} {problem}", hint="fit it again on this CLAP, or train on that one")


def save_adapter(path: Path, adapter: LinearAdapter) -> None:
    """Write an adapter to a safetensors file, overwriting any existing file.

    Raises:
        InputError: The adapter contains NaN or infinite values, or the file cannot be written.
    """
    metadata = {"kind": _KIND, "format_version": FORMAT_VERSION, "textcap": version("textcap")}
    tensors = {"matrix": adapter.matrix, "bias": adapter.bias}
    write_tensors(path, tensors, {**metadata, "facts": json.dumps(asdict(adapter.facts))})


def load_adapter(path: Path) -> LinearAdapter:
    """Read an adapter that `save_adapter` wrote.

    Raises:
        CheckpointError: The file does not exist, cannot be read, is damaged or not an adapter file, or has a format
            version that this version of textcap does not know.
    """
    tensors, metadata = read_tensors(path, hint=_REFIT_HINT)
    if metadata.get("kind") != _KIND or tensors.keys() != {"matrix", "bias"}:
        raise CheckpointError(f"{path} is not a valid adapter file", hint=_REFIT_HINT)
    if (found := metadata.get("format_version", "unknown")) != FORMAT_VERSION:
        message = f"{path} has format {found:.20}, but this version of textcap reads format {FORMAT_VERSION}"
        raise CheckpointError(message, hint="use the version of textcap that wrote it, or fit the adapter again")
    matrix, bias = tensors["matrix"], tensors["bias"]
    if bias.ndim != 1 or matrix.shape != (len(bias), len(bias)):
        shapes = f"its matrix has shape {list(matrix.shape)} and its bias {list(bias.shape)}"
        raise CheckpointError(f"{path} is not a valid adapter file: {shapes}", hint=_REFIT_HINT)
    try:
        return LinearAdapter(matrix, bias, from_dict(AdapterFacts, parse_json(metadata.get("facts", ""), path)))
    except InputError as error:
        raise CheckpointError(f"{path} is not a valid adapter file: {error}", hint=_REFIT_HINT) from error
