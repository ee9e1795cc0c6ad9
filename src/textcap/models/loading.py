"""Read weight files and load them into modules exactly.

Knows no model. A tensor that is missing or has another shape is an error that names it and the file; a tensor
that nobody asked for never stops a load, it is kept for `Checkpoint.unused`.
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

# Buffers and unused heads that old checkpoints carry, and that say nothing about a wrong file.
_EXPECTED_EXTRAS = re.compile(
    r"(\.attn\.(masked_)?bias|relative_position_index|attn_mask|num_batches_tracked|conv_imag\.weight)$"
    r"|\.tscam_conv\.|\.head\.|\.spec_augmenter\.|^(.*\.)?logit_scale$|lm_head\.weight$"
)


@dataclass
class Checkpoint:
    """The tensors of one weight file, and what became of them.

    Attributes:
        path: The file.
        tensors: Every tensor in it by name.
        used: Names that a module asked for.
        absent: Optional names that the file lacks; the module computed them itself.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    used: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)

    @property
    def unused(self) -> list[str]:
        """Names that nobody asked for, without those that old checkpoints are known to carry."""
        return sorted(n for n in set(self.tensors) - self.used if not _EXPECTED_EXTRAS.search(n))


@dataclass(frozen=True)
class TensorSource:
    """Where a module's tensor comes from: a name in the file, and what is taken of it."""

    name: str
    pick: Callable[[Tensor], Tensor] = lambda tensor: tensor
    optional: bool = False


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, on the CPU.

    Raises:
        OSError: It is missing or cannot be opened.
        SafetensorError: It is cut short, or no safetensors file.
    """
    with open(path, "rb") as file:  # safetensors calls any file that it cannot open missing
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError:  # it maps only files whose names are UTF-8
            return load(file.read())
        return load_file(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.safetensors` file, or a `.pth` file with its tensors under "model" as msclap saves them.

    Tensors of a `.pth` file stay on disk until they are used, where its format allows it.

    Raises:
        CheckpointError: The file is missing, cut short, no weight file, or holds more than tensors.
    """
    fetched = any(part.startswith("models--") for part in path.absolute().parts)  # as the hub's cache is laid out
    hint = "delete it and run textcap fetch" if fetched else "take a whole copy of its folder"
    try:
        if path.suffix == ".safetensors":
            return Checkpoint(path, read_safetensors(path))
        # Only torch's zip format can be mapped; files of torch before 1.6 are read whole.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        missing_hint = "run textcap fetch" if fetched else hint
        raise CheckpointError(f"there is no weight file {path}", hint=missing_hint) from error
    except (PermissionError, IsADirectoryError) as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} is cut short or no weight file", hint=hint) from error
    except Exception as error:  # torch raises pickle.UnpicklingError for files that hold code
        if type(error).__name__ != "UnpicklingError":
            raise
        raise CheckpointError(f"{path} is no weight file, or holds more than tensors", hint=hint) from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CheckpointError(f'{path} has no tensors under "model"', hint=hint)
    return Checkpoint(path, tensors)


def load_exact(module: nn.Module, checkpoint: Checkpoint, sources: Mapping[str, TensorSource] | None = None) -> None:
    """Fill every tensor of a module from a checkpoint, converted to the module's dtype.

    Args:
        sources: For each name in the module's state dict where it comes from; by default the same name.

    Raises:
        CheckpointError: A tensor is missing or has another shape; the first of each is named.
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
