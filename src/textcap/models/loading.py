"""Read weight files and load their tensors into modules, by exact name and shape.

A tensor that is missing or has another shape is an error that names the tensor and the file. A tensor that no module
uses is not an error; it is listed in `Checkpoint.unused`.
"""

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from textcap.errors import CheckpointError

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


@dataclass(frozen=True)
class TensorSource:
    """The place of a module's tensor in a weight file."""

    name: str  # of the tensor in the file
    pick: Callable[[Tensor], Tensor] = lambda tensor: tensor  # extracts the module's tensor from the file's
    optional: bool = False  # if the file lacks it, the module keeps its own value


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, on the CPU.

    Raises:
        OSError: The file is missing or cannot be opened.
        SafetensorError: The file is truncated or not a safetensors file.
    """
    with open(path, "rb") as file:  # safetensors reports any file that it cannot open as missing
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError:  # safetensors can map only files whose names are UTF-8
            return load(file.read())
        return load_file(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.safetensors` file, or a `.pth` file with its tensors under "model" as in msclap.

    If the format of a `.pth` file allows it, its tensors stay on disk until they are used.

    Raises:
        CheckpointError: The file is missing, truncated, not a weight file, or contains more than tensors.
    """
    is_downloaded = any(part.startswith("models--") for part in path.absolute().parts)  # the layout of the hub's cache
    hint = "delete it and run textcap fetch" if is_downloaded else "make a complete copy of its folder"
    try:
        if path.suffix == ".safetensors":
            return Checkpoint(path, read_safetensors(path))
        # Only torch's zip format can be memory-mapped; files from torch before 1.6 are read at once.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        missing_hint = "run textcap fetch" if is_downloaded else hint
        raise CheckpointError(f"{path} does not exist", hint=missing_hint) from error
    except (PermissionError, IsADirectoryError) as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} is truncated or not a weight file", hint=hint) from error
    except Exception as error:  # torch raises pickle.UnpicklingError for files that contain code
        if type(error).__name__ != "UnpicklingError":
            raise
        raise CheckpointError(f"{path} is not a weight file, or contains more than tensors", hint=hint) from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CheckpointError(f'{path} has no tensors under "model"', hint=hint)
    return Checkpoint(path, tensors)


def load_exact(module: nn.Module, checkpoint: Checkpoint, sources: Mapping[str, TensorSource] | None = None) -> None:
    """Load every tensor of a module from a checkpoint, converted to the module's dtype.

    Args:
        sources: The place in the checkpoint of each tensor of the module's state dict; by default the same name.

    Raises:
        CheckpointError: A tensor is missing or has another shape; the message names the first one.
    """
    state = module.state_dict()
    sources = sources or {name: TensorSource(name) for name in state}
    with torch.no_grad():
        for ours, target in state.items():
            source = sources[ours]
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
            target.copy_(tensor)
