"""Find and list repositories of the hub: language models, CLAPs and model folders of textcap, each of them a folder.

Only what textcap reads is fetched: safetensors rather than pickles, and never code.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from textcap.errors import DownloadError, FileError, InputError
from textcap.files import parse_json, read_regular
from textcap.weights.cache import search_folders
from textcap.weights.catalogue import WeightFile
from textcap.weights.hub import Hub, Refused, answer
from textcap.weights.hub_cache import RepoCache

INDEX = "model.safetensors.index.json"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CONFIG = "config.json"  # placed last: a snapshot that has it is complete
_WANTED = re.compile(
    r"((pre)?processor_config|added_tokens|special_tokens_map|tokenizer\w*|vocab)\.json|vocab\.txt|merges\.txt|"
    r"[\w.-]+\.model|(mapper|adapter)\.safetensors|metrics\.jsonl|README\.md"
)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")  # the first that there is
_MAPPER = "mapper.safetensors"
_LICENCE = re.compile(r"^license:[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)
_MOST_BYTES = 10_000_000  # of a description


def is_repository(name: str) -> bool:
    """Return whether a name is that of a repository, such as "Qwen/Qwen3-0.6B"; it may also be a folder's."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def find_repository(repo: str) -> Path | None:
    """Return the folder of a repository on disk that is complete, or None; the last one fetched is first."""
    for root in search_folders():
        cache = RepoCache(root, repo)
        commits = [cache.reference(RepoCache.OWN_REFERENCE), *cache.commits()]
        for commit in filter(None, commits):
            folder = cache.folder / "snapshots" / commit
            if (folder / _CONFIG).is_file() and any(_is_there(folder, name) for name in (_MAPPER, *WEIGHTS)):
                return folder
    return None


def files_on_disk(repo: str) -> tuple[WeightFile, ...]:
    """Return the files of a repository on disk; none if it is not there, or not complete."""
    folder = find_repository(repo)
    if folder is None:
        return ()
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return tuple(WeightFile(f"{repo}/{name}", repo, name, licence_of(folder), 0) for name in names)


def files_on_hub(hub: Hub, repo: str, revision: str) -> tuple[WeightFile, ...]:
    """Return the files of a repository to fetch.

    Raises:
        DownloadError: The hub does not answer, has no such repository or refuses it, or it has no weights to read.
    """
    url = f"{hub.endpoint}/api/models/{repo}/revision/{revision.replace('/', '%2F')}"
    try:
        with answer(hub, "GET", url, repo) as response:
            body = b""
            for block in response.iter_bytes():
                body += block
                if len(body) > _MOST_BYTES:
                    raise DownloadError(f"the description of {repo} is too long", hint="check HF_ENDPOINT")
        described: Any = parse_json(body, repo, max_bytes=_MOST_BYTES)
        names = {str(one["rfilename"]) for one in described["siblings"]}
    except (InputError, TypeError, KeyError) as error:
        raise DownloadError(f"the description of {repo} cannot be read", hint="check HF_ENDPOINT") from error
    weights = next((name for name in (_MAPPER, *WEIGHTS) if name in names), None)
    if weights is None or _CONFIG not in names:
        problem = "has no weights in safetensors, nor pytorch_model.bin" if _CONFIG in names else "has no config.json"
        raise DownloadError(f"{repo} {problem}", hint="choose another repository")
    wanted = {weights, *(name for name in names if _WANTED.fullmatch(name))}
    if weights == INDEX:
        wanted |= {name for name in names if _SHARD.fullmatch(name)}
    card = described.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    licence = licence if isinstance(licence, str) else "unknown"
    return tuple(WeightFile(f"{repo}/{name}", repo, name, licence, 0) for name in [*sorted(wanted), _CONFIG])


def gated(hub: Hub, repo: str, error: Refused) -> DownloadError:
    """Return the error for a repository that the hub refuses, with its address."""
    hint = f"if it is gated, accept its terms at {hub.endpoint}/{repo} and set HF_TOKEN; else check its name"
    return DownloadError(f"there is no folder {repo}, and {error.message}", hint=hint)


def licence_of(folder: Path) -> str:
    """Return the licence in the front matter of a folder's card, or "unknown"."""
    try:
        card = read_regular(folder / "README.md").decode("utf-8", "replace")
    except FileError:
        return "unknown"
    found = _LICENCE.search(card.split("\n---", 1)[0]) if card.startswith("---") else None
    return found[1] if found else "unknown"


def _is_there(folder: Path, name: str) -> bool:
    """Return whether a weight file is in a folder, or with an index all that it names."""
    if name != INDEX or not (folder / INDEX).is_file():
        return (folder / name).is_file()
    try:
        shards = json.loads(read_regular(folder / INDEX))["weight_map"].values()
    except (FileError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return all(isinstance(name, str) and (folder / os.path.basename(name)).is_file() for name in shards)
