"""Find the parts of a named backbone in its weight files, and load each when it is first needed.

A `BackboneKind` says where they are stored. One file may hold several parts, of both halves.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from textcap.errors import CheckpointError, InputError
from textcap.files import sha256_of_file, sha256_of_json
from textcap.models.loading import Checkpoint, TensorSource, load_exact, read_checkpoint
from textcap.models.tokenizer import Tokenizer
from textcap.weights import hash_of, known_sha256
from textcap.weights.catalogue import GPT2, MSCLAP

EMBEDDED = "tiny"
CLAPCAP = "clapcap"
# Repositories of the hub with the CLAP and the language model of a backbone.
BASES = {"msclap-2023": (MSCLAP, GPT2), CLAPCAP: (MSCLAP, MSCLAP)}
_LARGE_BYTES = 1 << 26
TOKENIZER_ROLES = ("vocab", "merges")

_Module = TypeVar("_Module", bound=nn.Module)
_logger = logging.getLogger("textcap")


class Half:
    """One half of a backbone on disk.

    Attributes:
        name: As the user gave it, or the name of the backbone that it belongs to.
        licence: As its source states it; empty or "unknown" if that is not known.
    """

    name: str
    licence: str = ""

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything that decides what comes out of it, in hexadecimal."""
        return self._hash()

    @property
    def facts(self) -> dict[str, str]:
        """Its name and hash, as files of embeddings record them."""
        return {"clap": self.name, "clap_hash": self.content_hash}

    def _hash(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class Part:
    """Where one part of a backbone is stored."""

    role: str  # of the weight file, such as "language_model"
    prefix: str = ""  # of the names of the part's tensors; empty if the file contains only this part


@dataclass(frozen=True)
class BackboneKind:
    """Where the parts of a backbone are stored, and how it differs from others."""

    audio_encoder: Part
    language_model: Part
    text_encoder: Part | None = None  # None: no model can be trained on this backbone
    mapper: Part | None = None  # the mapper of a released captioner, which needs no training
    end_token_id: int | None = None  # ends captions of the released captioner; None: the tokenizer's end token
    is_msclap: bool = True  # whether the tensors have msclap's names rather than ours
    licences: tuple[str, str] = ("", "")  # of CLAP and of the language model, as their sources state them
    remark: str = ""  # what who trains or captions with it must know, a sentence

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts that there are."""
        parts = (self.audio_encoder, self.text_encoder, self.language_model, self.mapper)
        return tuple(part for part in parts if part is not None)


FOLDER_KIND = BackboneKind(
    audio_encoder=Part("audio_encoder"),
    text_encoder=Part("text_encoder"),
    language_model=Part("language_model"),
    is_msclap=False,
)
KINDS = {
    "msclap-2023": BackboneKind(
        audio_encoder=Part("clap", "audio_encoder."),
        text_encoder=Part("clap", "caption_encoder."),
        language_model=Part("language_model"),
        licences=("MS-PL", "MIT"),
    ),
    CLAPCAP: BackboneKind(
        audio_encoder=Part("clapcap", "clap."),
        language_model=Part("clapcap", "gpt."),
        mapper=Part("clapcap", "clap_project."),
        end_token_id=220,  # a space: clapcap was trained on captions that end in " <|endoftext|>"
        licences=("MS-PL", "MS-PL"),
    ),
    EMBEDDED: replace(
        FOLDER_KIND,
        licences=("MIT", "MIT"),
        remark="the tiny backbone knows only the synthetic sounds of textcap demo; its captions of recordings mean "
        "nothing",
    ),
}


def kind_of(name: str) -> BackboneKind:
    """Return the kind of a backbone by its name, without accessing the disk; an unknown name is taken as a folder."""
    return KINDS.get(name, FOLDER_KIND)


class WeightFiles:
    """The weight files of one backbone.

    Attributes:
        kind: Where its parts are stored.
        paths: The files by role.
    """

    def __init__(self, kind: BackboneKind, paths: dict[str, Path]) -> None:
        self.kind, self.paths = kind, paths
        self._checkpoints: dict[str, Checkpoint] = {}  # by role; only files with several parts
        self._unused: dict[Path, list[str]] = {}

    def tokenizer(self, n_tokens: int) -> Tokenizer:
        """Return GPT-2's tokenizer.

        Args:
            n_tokens: The number of tokens that it must have.

        Raises:
            CheckpointError: Its files are not valid, or have another number of tokens.
        """
        tokenizer = Tokenizer.load(*(self.paths[role] for role in TOKENIZER_ROLES))
        if tokenizer.vocab_size != n_tokens:
            problem = f"has {tokenizer.vocab_size:,} tokens, but must have {n_tokens:,}"
            raise CheckpointError(f"{self.paths['vocab']} {problem}")
        return tokenizer

    def content_hash(self, parts: Sequence[Part | None], config: Any) -> str:
        """Return the SHA-256 of the files of parts, of the tokenizer's and of a configuration, in hexadecimal.

        Raises:
            CheckpointError: A file is missing or cannot be read.
        """
        roles = {part.role for part in parts if part is not None}.union(TOKENIZER_ROLES)
        return content_hash({role: self.paths[role] for role in roles}, asdict(config))

    def load(self, part: Part, n_parameters: int, load: Callable[[Checkpoint], _Module]) -> _Module:
        """Return a part; its file must have at least as many numbers as the part has parameters."""
        checkpoint = self._checkpoints.get(part.role) or read_checkpoint(self.paths[part.role])
        checkpoint.require_values(n_parameters)
        if part.prefix:  # the file contains other parts as well
            self._checkpoints[part.role] = checkpoint
        module = load(checkpoint)
        self._report_unused(part, checkpoint)
        return module

    def unused_tensors(self) -> list[str]:
        """Return the names of tensors in the files read so far that no part has used."""
        return [name for path in sorted(self._unused) for name in self._unused[path]]

    def _report_unused(self, part: Part, checkpoint: Checkpoint) -> None:
        """Log each unused tensor once, except those of parts of the file that are not loaded yet."""
        other_prefixes = tuple(one.prefix for one in self.kind.parts if one.role == part.role and one != part)
        reported = set(self._unused.get(checkpoint.path, []))
        unused = [name for name in checkpoint.unused if not name.startswith(other_prefixes)]
        if new := [name for name in unused if name not in reported]:
            _logger.info("%s has unused tensors: %s", checkpoint.path, ", ".join(new))
        self._unused[checkpoint.path] = sorted(reported.union(unused))


def content_hash(paths: Mapping[str, Path], config: Any) -> str:
    """Return the SHA-256 of files by role and of a configuration, in hexadecimal.

    Raises:
        CheckpointError: A file is missing or cannot be read.
    """
    try:
        hashes = {role: _sha256(path) for role, path in paths.items()}
    except InputError as error:
        raise CheckpointError(error.message, hint=error.hint) from error
    return hash_of({**hashes, "config": sha256_of_json(config)})


def _sha256(path: Path) -> str:
    # Of a small file it need not be remembered.
    is_large = path.is_file() and path.stat().st_size > _LARGE_BYTES
    return known_sha256(path) if is_large else sha256_of_file(path)


def load_own(build: Callable[[], _Module], checkpoint: Checkpoint) -> _Module:
    """Build a module and load it from a file with our tensor names; tensors that it computes itself may be missing."""
    try:
        module = build()
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        message = f"{checkpoint.path.with_name('config.json')} has sizes that no model can be built from: {error}"
        raise CheckpointError(message) from error
    computed = "num_batches_tracked"
    return load_exact(module, checkpoint, lambda name: TensorSource(name, optional=name.endswith(computed)))
