"""Provide sets of weights by name, as a path for each role: from disk, or else downloaded.

If all files of a set are on disk, the network is not used. The hash of a set tells whether two sets hold the same
bytes. Reading the files is left to `textcap.models.loading`.
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
    content_hash: str  # SHA-256, the same for the same files in any folder


def embedded_folder() -> Path:
    """Return the folder of the built-in models.

    Raises:
        CheckpointError: This installation does not contain them.
    """
    folder = Path(str(files("textcap"))) / "demo" / "embedded"
    if not (folder / "config.json").is_file():
        message = f"this installation of textcap has no built-in models in {folder}"
        raise CheckpointError(message, hint="install textcap again")
    return folder


def folder_hash(paths: Iterable[Path]) -> str:
    """Return one SHA-256 for several files: over their names in alphabetical order, each with the file's SHA-256.

    Raises:
        CheckpointError: One of them cannot be read.
    """
    try:
        return _hash_of({path.name: sha256_of_file(path) for path in paths})
    except InputError as error:
        raise CheckpointError(error.message, hint=error.hint) from error


def find(name: str) -> WeightSet | None:
    """Return a set of weights if all of its files are on disk, else None; never use the network.

    Args:
        name: A key of `WEIGHT_SETS`.

    Raises:
        InputError: There is no such set, or one of its files cannot be read.
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
    """Return a set of weights, and download the files that are not on disk.

    If all files are on disk, the network is not used.

    Args:
        name: A key of `WEIGHT_SETS`.
        offline: Never download; by default as HF_HUB_OFFLINE says.
        progress: Called with the bytes downloaded.
        hub: The hub to download from; by default the one that HF_ENDPOINT names.

    Raises:
        DownloadError: A file is not on disk, and must not or cannot be downloaded.
        InputError: There is no such set.
    """
    found = find(name)
    if found is not None:
        return found
    if offline or (offline is None and is_offline()):
        message = f"the weights {name} are not all on disk, and nothing is downloaded offline"
        hint = f"run textcap fetch {name} with a network; textcap demo and train --backbone tiny need no weights"
        raise DownloadError(message, hint=hint)
    fetch([name], progress=progress, hub=hub)
    found = find(name)
    if found is None:
        message = f"the weights {name} disappeared from {cache_folder()} after the download"
        raise DownloadError(message, hint=f"run textcap fetch {name}")
    return found


def _hash_of(hashes: Mapping[str, str]) -> str:
    lines = "".join(f"{key} {value}\n" for key, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()
