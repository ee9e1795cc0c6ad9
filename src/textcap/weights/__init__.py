"""The weights by name: found on disk, or fetched, as a path for each role.

Knows no tensors. Where everything is on disk nobody is asked; the hash of a set says whether two are the
same bytes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from textcap.errors import CheckpointError, DownloadError, InputError
from textcap.files import sha256_of_file, sha256_remembered
from textcap.weights.cache import cache_folder, own_cache_folder
from textcap.weights.catalogue import WEIGHT_SETS, WeightFile, files_of, held
from textcap.weights.download import DownloadProgress
from textcap.weights.fetching import FetchedFile, VerifiedFile, fetch, is_offline, verify_cache
from textcap.weights.hub import Hub

__all__ = [
    "WEIGHT_SETS",
    "FetchedFile",
    "Hub",
    "DownloadProgress",
    "VerifiedFile",
    "WeightFile",
    "WeightSet",
    "cache_folder",
    "embedded_folder",
    "ensure",
    "fetch",
    "find",
    "folder_hash",
    "own_cache_folder",
    "verify_cache",
]


@dataclass(frozen=True)
class WeightSet:
    """A complete set of weights on disk."""

    name: str
    paths: dict[str, Path]  # by role
    content_hash: str  # SHA-256, equal for equal files wherever they lie


def embedded_folder() -> Path:
    """Return the folder of the embedded models.

    Raises:
        CheckpointError: This installation lacks them.
    """
    folder = Path(str(files("textcap"))) / "demo" / "embedded"
    if not (folder / "config.json").is_file():
        message = f"this installation of textcap lacks its embedded models in {folder}"
        raise CheckpointError(message, hint="install it again")
    return folder


def folder_hash(paths: Iterable[Path]) -> str:
    """Return one SHA-256 for some files: over their names in order, with the SHA-256 of each.

    Raises:
        CheckpointError: One of them cannot be read.
    """
    try:
        return _hash_of({path.name: sha256_of_file(path) for path in paths})
    except InputError as error:
        raise CheckpointError(error.message, hint=error.hint) from error


def find(name: str) -> WeightSet | None:
    """Return a set of weights if all of its files are on disk, without asking the network.

    Args:
        name: A key of `WEIGHT_SETS`.

    Raises:
        InputError: There is no such set, or a file of it cannot be read.
    """
    paths: dict[str, Path] = {}
    for file in files_of(name):
        known = held(file)
        if known is None:
            return None
        paths[file.role] = known[0]
    memory = own_cache_folder() / "hashes.json"
    return WeightSet(name, paths, _hash_of({role: sha256_remembered(path, memory) for role, path in paths.items()}))


def ensure(
    name: str, *, offline: bool | None = None, progress: DownloadProgress | None = None, hub: Hub | None = None
) -> WeightSet:
    """Return a set of weights, fetching what is not on disk. Where all of it is, nobody is asked.

    Args:
        name: A key of `WEIGHT_SETS`.
        offline: Never fetch; by default as HF_HUB_OFFLINE says.
        progress: Told of the bytes while fetching.
        hub: Where to fetch from; by default as HF_ENDPOINT says.

    Raises:
        DownloadError: Something is missing and may not or cannot be fetched.
        InputError: There is no such set.
    """
    found = find(name)
    if found is not None:
        return found
    if offline or (offline is None and is_offline()):
        message = f"the weights {name} are not all on this machine, and nothing may be fetched offline"
        hint = f"with a network, run: textcap fetch {name}; `textcap demo` and `train --backbone tiny` need none"
        raise DownloadError(message, hint=hint)
    fetch([name], progress=progress, hub=hub)
    found = find(name)
    if found is None:
        raise DownloadError(f"the weights {name} vanished from {cache_folder()}", hint="fetch them again")
    return found


def _hash_of(hashes: Mapping[str, str]) -> str:
    lines = "".join(f"{key} {value}\n" for key, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()
