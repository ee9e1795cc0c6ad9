"""Read and write files of tensors, and load tensors into modules by exact name and shape.

Nothing in a file is believed: a tensor that is missing, has another shape or type, or contains NaN or infinite values
is an error that names the tensor and the file. A tensor that no module uses is not an error; it is listed in
`Checkpoint.unused`. The files that textcap writes carry a SHA-256 of everything in them.
"""

import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from textcap.errors import CheckpointError, FileError, InputError
from textcap.files import atomic_write_with, open_regular, parse_json, seal, unseal

MAX_HEADER_BYTES = 32_000_000

_Module = TypeVar("_Module", bound=nn.Module)

# Buffers and unused heads that old checkpoints contain; they do not mean that the file is the wrong one.
_EXPECTED_EXTRAS = re.compile(
    r"(\.attn\.(masked_)?bias|relative_position_index|attn_mask|num_batches_tracked|conv_imag\.weight)$"
    r"|\.tscam_conv\.|\.head\.|\.spec_augmenter\.|^(.*\.)?logit_scale$|lm_head\.weight$"
)


@dataclass
class Checkpoint:
    """The tensors of one weight file, with a record of which were loaded.

    Attributes:
        path: The weight file.
        tensors: All tensors of the file by name.
        used: Names of the tensors that modules have requested.
        absent: Names of optional tensors that the file lacks; the modules keep their own values.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    used: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)

    @property
    def unused(self) -> list[str]:
        """Sorted names of tensors that no module has requested, except those known from old checkpoints."""
        return sorted(n for n in set(self.tensors) - self.used if not _EXPECTED_EXTRAS.search(n))

    def require_values(self, least: int) -> None:
        """Check that a file is large enough for a module, before the module is built.

        Raises:
            CheckpointError: The file has fewer numbers than the module has parameters.
        """
        n_values = sum(tensor.numel() for tensor in self.tensors.values())
        if n_values < least:
            raise CheckpointError(f"{self.path} has {n_values:,} numbers, but the configuration asks for {least:,}")


@dataclass(frozen=True)
class TensorSource:
    """The place of a module's tensor in a weight file."""

    name: str  # of the tensor in the file
    pick: Callable[[Tensor], Tensor] = lambda tensor: tensor  # extracts the module's tensor from the file's
    optional: bool = False  # if the file lacks it, the module keeps its own value


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors with metadata to a safetensors file, overwriting any existing file.

    Args:
        tensors: Tensors on any device; the file has them as float32.
        metadata: What else to keep. The SHA-256 of the tensors is added as "tensors", and that of all metadata as
            "sha256".

    Raises:
        InputError: A tensor contains NaN or infinite values, or the file cannot be written.
    """
    plain = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    if broken := [name for name, tensor in plain.items() if not tensor.isfinite().all()]:
        raise InputError(f"{broken[0]} contains NaN or infinite values, so {path.name} is not written")
    sealed = seal({**metadata, "tensors": sha256_of_tensors(plain)})

    def save(new: Path) -> None:
        try:
            save_file(plain, new, sealed)
        except SafetensorError as error:  # safetensors raises this, not an OSError, if the disk is full
            hint = "free some space, or write elsewhere"
            raise InputError(f"{path} cannot be written: {error}", hint=hint) from error
        _order_header(new)

    atomic_write_with(path, save)


def read_tensors(path: Path, *, hint: str, n_values: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the float32 tensors of a file that `write_tensors` wrote by name, on the CPU, and its metadata.

    Args:
        hint: What to do if the file cannot be used, for the error message.
        n_values: How many numbers the tensors have; checked before they are read.

    Raises:
        CheckpointError: The file does not exist, is damaged, has other tensors or was changed.
    """
    try:
        header = _read_header(path)
        metadata = unseal(header.pop("__metadata__", None), path)
        if not all(isinstance(value, str) for value in metadata.values()):
            raise FileError(path, "is not a safetensors file: its metadata is not text")
        found = sum(_n_values(path, name, entry) for name, entry in header.items())
        if n_values is not None and found != n_values:
            raise FileError(path, f"has {found:,} numbers, but must have {n_values:,}")
        tensors = read_safetensors(path)
        if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise FileError(path, f"contains NaN or infinite values in {broken[0]}")
        if metadata.pop("tensors", None) != sha256_of_tensors(tensors):
            raise FileError(path, "is damaged: the SHA-256 of its tensors is not the one it records")
    except FileError as error:
        raise CheckpointError(error.message, hint=hint) from error
    except (OSError, SafetensorError) as error:
        problem = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be read: {problem}", hint=hint) from error
    return tensors, metadata


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, types, shapes and values of tensors on the CPU, in any order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _order_header(path: Path) -> None:
    """Sort the names in a file's header: safetensors writes the metadata in a random order."""
    with open(path, "r+b") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_bytes))
        ordered = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= n_bytes
        file.seek(8)
        file.write(ordered.ljust(n_bytes))


def _read_header(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        n_bytes = int.from_bytes(file.read(8), "little")
        if n_bytes > min(size - 8, MAX_HEADER_BYTES):
            raise FileError(path, "cannot be read: it is truncated or not a safetensors file")
        header = parse_json(file.read(n_bytes), path, max_bytes=MAX_HEADER_BYTES)
    if not isinstance(header, dict):
        raise FileError(path, "is not a safetensors file")
    return header


def _n_values(path: Path, name: str, entry: Any) -> int:
    dtype, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
    if dtype != "F32" or not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise FileError(path, f"has a tensor {name} of type {dtype}, but must have float32 only")
    return math.prod(shape)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, on the CPU.

    Raises:
        FileError: The file does not exist or cannot be opened.
        SafetensorError: The file is truncated or not a safetensors file.
    """
    with open_regular(path) as file:  # safetensors reports any file that it cannot open as missing
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError:  # safetensors can map only files whose names are UTF-8
            return load(file.read())
        return load_file(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.safetensors` file, a `.bin` file of tensors, or a `.pth` file with them under "model" as in msclap.

    If the format of a `.pth` file allows it, its tensors stay on disk until they are used.

    Raises:
        CheckpointError: The file is missing, truncated, not a weight file, or contains more than tensors.
    """
    is_downloaded = any(part.startswith("models--") for part in path.absolute().parts)  # the layout of the hub's cache
    hint = "delete it and run textcap fetch" if is_downloaded else "make a complete copy of its folder"
    try:
        if path.suffix == ".safetensors":
            return Checkpoint(path, read_safetensors(path))
        open_regular(path).close()
        # Only torch's zip format can be memory-mapped; files from torch before 1.6 are read at once.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileError as error:
        raise CheckpointError(error.message, hint="run textcap fetch" if is_downloaded else hint) from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} is truncated or not a weight file", hint=hint) from error
    except Exception as error:  # torch raises pickle.UnpicklingError for files that contain code
        if type(error).__name__ != "UnpicklingError":
            raise
        raise CheckpointError(f"{path} is not a weight file, or contains more than tensors", hint=hint) from error
    tensors = content.get("model", content if path.suffix == ".bin" else None) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CheckpointError(f'{path} has no tensors under "model"', hint=hint)
    return Checkpoint(path, tensors)


def load_exact(
    module: _Module, checkpoint: Checkpoint, source_of: Callable[[str], TensorSource] = TensorSource
) -> _Module:
    """Load every tensor of a module from a checkpoint, converted to the module's dtype, and return it frozen.

    Args:
        source_of: Returns the place in the checkpoint of a tensor of the module's state dict; by default the same name.

    Raises:
        CheckpointError: A tensor is missing, has another shape or type, or contains NaN or infinite values; the message
            names the first one.
    """
    with torch.no_grad():
        for ours, target in module.state_dict().items():
            source = source_of(ours)
            checkpoint.used.add(source.name)
            if source.name not in checkpoint.tensors:
                if not source.optional:
                    raise CheckpointError(f"{checkpoint.path} lacks the tensor {source.name}")
                checkpoint.absent.add(source.name)
                continue
            tensor = source.pick(checkpoint.tensors[source.name])
            if tensor.shape != target.shape:
                shapes = f"{list(tensor.shape)} instead of {list(target.shape)}"
                raise CheckpointError(f"{checkpoint.path}: tensor {source.name} has shape {shapes}")
            if tensor.is_floating_point() != target.is_floating_point():
                types = f"{tensor.dtype} instead of {target.dtype}"
                raise CheckpointError(f"{checkpoint.path}: tensor {source.name} has type {types}")
            if not tensor.isfinite().all():
                raise CheckpointError(f"{checkpoint.path}: tensor {source.name} contains NaN or infinite values")
            target.copy_(tensor)
    return module.eval().requires_grad_(False)
