"""List the files of each set of weights, and find them in the cache folders.

Never uses the network. A file that is found comes with the commit it belongs to. The models that metrics use are sets
as well, each of them a folder.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from textcap.errors import InputError
from textcap.weights.cache import search_folders
from textcap.weights.hub_cache import RepoCache, content_state, is_commit

MSCLAP = "microsoft/msclap"
GPT2 = "openai-community/gpt2"
TINYBERT = "sentence-transformers/paraphrase-TinyBERT-L6-v2"
BERT = "google-bert/bert-base-uncased"
FENSE = "blmoistawinde/fense"
# Former names on the hub. transformers caches a repository under the name that it was requested by.
_OTHER_NAMES = {GPT2: ("gpt2",), BERT: ("bert-base-uncased",)}


@dataclass(frozen=True)
class WeightFile:
    """One file of a set of weights."""

    role: str  # what textcap uses the file for
    repo: str  # repository on the hub
    name: str  # name of the file in the repository
    licence: str  # as stated on the repository's card
    size_bytes: int  # approximate; the hub gives the exact size
    url: str = ""  # of a file of a release, which is kept as if it came from the hub
    sha256: str = ""  # of a file of a release; the first 40 digits stand for its commit


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

_BERT_FILES = {"config.json": 600, "tokenizer.json": 466_000, "tokenizer_config.json": 500}
_SENTENCE_FILES = {"modules.json": 229, "sentence_bert_config.json": 53, "1_Pooling/config.json": 200}
# The models of FENSE, by repository. Their folder can also be made by hand: then roles are paths in it. The lists are
# fixed because a repository holds the same weights in several formats; BERT's own weights are not needed, as the
# detector has those of its encoder.
METRIC_MODELS: dict[str, tuple[WeightFile, ...]] = {
    repo: tuple(WeightFile(f"{repo.split('/')[1]}/{name}", repo, name, "Apache-2.0", sizes[name]) for name in sizes)
    for repo, sizes in (
        (TINYBERT, {**_BERT_FILES, **_SENTENCE_FILES, "model.safetensors": 268_000_000}),
        (BERT, _BERT_FILES),
    )
}
METRIC_MODELS[FENSE] = (
    WeightFile(
        "echecker_clotho_audiocaps_base.ckpt",
        FENSE,
        "echecker_clotho_audiocaps_base.ckpt",
        "MIT",
        438_000_000,  # that of the encoder in 32-bit floats
        f"https://github.com/{FENSE}/releases/download/V0.1/echecker_clotho_audiocaps_base.ckpt",
        # As in the sources of the packages fense and aac-metrics.
        "1a719f090af70614bbdb9f9437530b7e133c48cfa4a58d964de0d47fc974a2fa",
    ),
)


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
    if file.repo == FENSE and revision is None:
        # Where the packages fense and aac-metrics keep it.
        torch_home = os.environ.get("TORCH_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/torch"
        path = Path(os.environ.get("FENSE_DATA") or f"{torch_home}/hub/fense_data").expanduser() / file.name
        if path.is_file():
            yield path, file.sha256[:40]


def files_of(name: str) -> tuple[WeightFile, ...]:
    """Return the files of a set of weights.

    Raises:
        InputError: There is no such set; the known ones are named.
    """
    files = WEIGHT_SETS.get(name) or METRIC_MODELS.get(name)
    if files is None:
        raise InputError(f"there are no weights called {name!r}", hint=f"use one of {', '.join(WEIGHT_SETS)}")
    return files


def find_folder(name: str) -> Path | None:
    """Return a folder that has all files of a model of a metric, of one commit and none of them damaged, or None.

    Args:
        name: A key of `METRIC_MODELS`.

    Raises:
        FileError: A file cannot be read.
    """
    files = files_of(name)
    for path, _ in copies(files[0]):
        pairs = [(path.parent / file.name, file.sha256) for file in files]
        if all(one.is_file() and content_state(one, sha256) != "damaged" for one, sha256 in pairs):
            return path.parent
    return None
