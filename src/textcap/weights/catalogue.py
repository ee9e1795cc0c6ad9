"""The files of the weights by name, and where each lies on disk.

Knows the cache folders and asks no network; what it returns are paths with the commit they belong to.
"""

from dataclasses import dataclass
from pathlib import Path

from textcap.errors import InputError
from textcap.weights.cache import search_folders
from textcap.weights.hub_cache import RepoCache, has_hash, is_commit, kept_hash

MSCLAP = "microsoft/msclap"
GPT2 = "openai-community/gpt2"
# Where the hub had it before; transformers still files it under the name that it was asked for.
_OTHER_NAMES = {GPT2: ("gpt2",)}


@dataclass(frozen=True)
class WeightFile:
    """One file of a set."""

    role: str  # what textcap uses it for
    repo: str  # repository on the hub
    name: str  # file in it
    licence: str  # as the repository's card says
    size_bytes: int  # about; the hub is asked for the exact size


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
    """Return a file's path and commit; a branch or tag is held by nobody, for it may have moved."""
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
    """Return a file with the same bytes under another commit: most commits change only its text."""
    for cache in caches_of(file.repo):
        for commit in cache.commits():
            path = cache.file(commit, file.name)
            if path is not None and kept_hash(path) == hub_hash and has_hash(path, hub_hash):
                return path
    return None


def caches_of(repo: str) -> list[RepoCache]:
    """Return where a repository may lie, the folder that is written to first."""
    return [RepoCache(root, name) for root in search_folders() for name in (repo, *_OTHER_NAMES.get(repo, ()))]


def files_of(name: str) -> tuple[WeightFile, ...]:
    """Return the files of a set, or raise an InputError that names the known sets."""
    if name not in WEIGHT_SETS:
        raise InputError(f"there are no weights called {name!r}", hint=f"known are {', '.join(WEIGHT_SETS)}")
    return WEIGHT_SETS[name]
