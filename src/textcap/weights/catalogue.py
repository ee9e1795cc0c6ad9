"""List the files of each set of weights, and find them in the cache folders.

Never uses the network. A file that is found comes with the commit it belongs to.
"""

from dataclasses import dataclass
from pathlib import Path

from textcap.errors import InputError
from textcap.weights.cache import search_folders
from textcap.weights.hub_cache import RepoCache, has_hash, is_commit, kept_hash

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


def held(file: WeightFile, revision: str | None = None) -> tuple[Path, str] | None:
    """Return the path and the commit of a file that is on disk, else None.

    Args:
        file: The file to find.
        revision: The commit that it must belong to; by default any, with the last one that was fetched first. None is
            returned for a branch or tag, which may have moved.
    """
    caches = caches_of(file.repo)
    if revision is None:
        preferred = [cache.reference(RepoCache.OWN_REFERENCE) for cache in caches]
        commits = [
            *(commit for commit in preferred if commit),
            *(c for cache in caches for c in cache.commits()),
        ]
    else:
        commits = [revision] if is_commit(revision) else []
    for commit in dict.fromkeys(commits):
        for cache in caches:
            path = cache.file(commit, file.name)
            if path is not None:
                return path, commit
    return None


def same_content(file: WeightFile, hub_hash: str) -> Path | None:
    """Return a file with this content that is on disk under any commit, else None.

    Most commits to a repository change only its description, so the weights need not be downloaded again.
    """
    for cache in caches_of(file.repo):
        for commit in cache.commits():
            path = cache.file(commit, file.name)
            if path is not None and kept_hash(path) == hub_hash and has_hash(path, hub_hash):
                return path
    return None


def caches_of(repo: str) -> list[RepoCache]:
    """Return the places where a repository may be cached; the first is the one to write to."""
    return [RepoCache(root, name) for root in search_folders() for name in (repo, *_OTHER_NAMES.get(repo, ()))]


def files_of(name: str) -> tuple[WeightFile, ...]:
    """Return the files of a set of weights.

    Raises:
        InputError: There is no such set; the known ones are named.
    """
    if name not in WEIGHT_SETS:
        raise InputError(f"there are no weights called {name!r}", hint=f"use one of {', '.join(WEIGHT_SETS)}")
    return WEIGHT_SETS[name]
