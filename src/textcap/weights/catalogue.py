"""List the files of each set of weights, and find them in the cache folders.

Never uses the network. A file that is found comes with the commit it belongs to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from textcap.errors import InputError
from textcap.weights.cache import search_folders
from textcap.weights.hub_cache import RepoCache, is_commit

MSCLAP = "microsoft/msclap"
GPT2 = "openai-community/gpt2"
# Former names on the hub. transformers caches a repository under the name that it was requested by.
_OTHER_NAMES = {GPT2: ("gpt2",)}


@dataclass(frozen=True)
class WeightFile:
    """One file of a set of weights."""

    role: str  # what textcap uses the file for
    repo: str  # repository on the hub
    name: str  # name of the file in the repository
    licence: str  # as stated on the repository's card
    size_bytes: int  # approximate; the hub gives the exact size


_TOKENIZER = (
    WeightFile("vocab", GPT2, "vocab.json", "MIT", 1_042_301),
    WeightFile("merges", GPT2, "merges.txt", "MIT", 456_318),
)
WEIGHT_SETS: dict[str, tuple[WeightFile, ...]] = {
    "msclap-2023": (
        WeightFile("clap", MSCLAP, "CLAP_weights_2023.pth", "MS-PL", 690_000_000),
        WeightFile("language_model", GPT2, "model.safetensors", "MIT", 548_105_171),
        *_TOKENIZER,
    ),
    "clapcap": (
        WeightFile("clapcap", MSCLAP, "clapcap_weights_2023.pth", "MS-PL", 1_712_037_386),
        *_TOKENIZER,
    ),
}


def copies(file: WeightFile, revision: str | None = None) -> Iterator[tuple[Path, str]]:
    """Yield the path and the commit of each copy of a file that is on disk, the one to use first.

    Args:
        file: The file to find.
        revision: The commit that it must belong to; by default any, with the last one that was fetched first. Nothing
            is found for a branch or tag, which may have moved.
    """
    repos = (file.repo, *_OTHER_NAMES.get(file.repo, ()))
    caches = [RepoCache(root, repo) for root in search_folders() for repo in repos]
    commits = [revision]
    if revision is None:
        commits = [cache.reference(RepoCache.OWN_REFERENCE) for cache in caches]
        commits += [commit for cache in caches for commit in cache.commits()]
    for commit in dict.fromkeys(commit for commit in commits if commit and is_commit(commit)):
        for cache in caches:
            if (path := cache.file(commit, file.name)) is not None:
                yield path, commit


def files_of(name: str) -> tuple[WeightFile, ...]:
    """Return the files of a set of weights.

    Raises:
        InputError: There is no such set; the known ones are named.
    """
    if name not in WEIGHT_SETS:
        raise InputError(f"there are no weights called {name!r}", hint=f"use one of {', '.join(WEIGHT_SETS)}")
    return WEIGHT_SETS[name]
