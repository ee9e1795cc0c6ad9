"""Provide sets of weights by name, as a path for each role: from disk, or else downloaded.

If all files of a set are on disk, the network is not used. A file is downloaded under a lock and a temporary name,
checked, and then renamed. Nothing is deleted; a damaged file in the cache folder is replaced. The hash of a set tells
whether two sets hold the same bytes. Reading the files is left to `textcap.models.loading`.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from textcap.errors import CheckpointError, DownloadError, InputError
from textcap.files import rename_durably, sha256_of_file
from textcap.weights.cache import cache_folder as cache_folder
from textcap.weights.cache import check_space, writing_to
from textcap.weights.cache import known_sha256 as known_sha256
from textcap.weights.catalogue import GPT2, MSCLAP, copies, files_of, find_folder
from textcap.weights.catalogue import METRIC_MODELS as METRIC_MODELS
from textcap.weights.catalogue import WEIGHT_SETS as WEIGHT_SETS
from textcap.weights.catalogue import WeightFile as WeightFile
from textcap.weights.download import DownloadProgress as DownloadProgress
from textcap.weights.download import RemoteFile, download_file, locked, look_up, silent
from textcap.weights.hub import Hub as Hub
from textcap.weights.hub import Refused, check_online, is_offline
from textcap.weights.hub_cache import RepoCache, content_state, has_hash, kept_hash
from textcap.weights.repository import files_on_disk, files_on_hub, find_repository, gated, is_repository


@dataclass(frozen=True)
class WeightSet:
    """A complete set of weights on disk."""

    name: str
    paths: dict[str, Path]  # by role
    content_hash: str  # SHA-256, the same for the same files in any folder


@dataclass(frozen=True)
class FetchedFile:
    """A file of a set that `fetch` was called for."""

    file: WeightFile
    path: Path
    commit: str  # of the repository, 40 hexadecimal digits; for a file of a release those of its SHA-256
    downloaded: bool  # False if it was on disk already


@dataclass(frozen=True)
class VerifiedFile:
    """The state of a file on disk, as `verify_cache` found it."""

    file: WeightFile
    path: Path | None  # None if it is missing
    state: Literal["right", "damaged", "missing", "unknown"]  # unknown: the cache has no hash for it


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
        return hash_of({path.name: sha256_of_file(path) for path in paths})
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
        known = next(copies(file), None)
        if known is None:
            return None
        paths[file.role] = known[0]
    return WeightSet(name, paths, hash_of({role: known_sha256(path) for role, path in paths.items()}))


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
    assert found is not None
    return found


def fetch(
    names: Sequence[str],
    *,
    revision: str | Mapping[str, str] | None = None,
    progress: DownloadProgress | None = None,
    hub: Hub | None = None,
) -> list[FetchedFile]:
    """Make sure that sets of weights are on disk, and download the files that are missing or damaged.

    Files in a known cache folder are used, unless their content is not the one that was downloaded; it is hashed if
    the file has changed since it was last hashed. Missing files come from the current main branch, damaged ones from
    their own commit. The commit is recorded with the files; given as the revision later, it downloads the same bytes.

    Args:
        names: Keys of `WEIGHT_SETS` or `METRIC_MODELS`, or repositories of the hub.
        revision: Branch, tag or commit of microsoft/msclap, or one for each repository by name. A branch or tag is
            looked up again even if its files are on disk. Without a revision, files on disk are used.
        progress: Called with the bytes downloaded, with what is waited for, and with each damaged file.
        hub: The hub to download from; by default the one that HF_ENDPOINT names.

    Returns:
        One entry for each file; a file that several sets share is listed once.

    Raises:
        DownloadError: A file cannot be downloaded or written. Complete files are kept, and the next call continues an
            interrupted one.
        InputError: There is no such set or repository, the revision is not valid, or a file on disk cannot be read.
    """
    show = progress or silent
    repositories = [name for name in names if is_repository(name) and name not in METRIC_MODELS]
    revisions = _revisions(revision, repositories)
    listed: dict[str, tuple[WeightFile, ...]] = {}
    for repo in repositories:
        listed[repo] = () if repo in revisions else files_on_disk(repo)
        if not listed[repo]:
            check_online("use weights that are on disk")
            hub = hub or Hub.from_environment()
            try:
                listed[repo] = files_on_hub(hub, repo, revisions.setdefault(repo, "main"))
            except Refused as error:
                raise gated(hub, repo, error) from error
    wanted = list(dict.fromkeys(file for name in names for file in listed.get(name) or files_of(name)))
    # A model that is used as a folder needs all of its files from one commit.
    revisions |= {name: "main" for name in names if name in METRIC_MODELS and find_folder(name) is None}
    fetched: dict[WeightFile, FetchedFile] = {}
    damaged: dict[WeightFile, str] = {}  # with the commit of each
    for file in wanted:
        known = next(copies(file, revisions.get(file.repo)), None)
        if known is not None and content_state(known[0], file.sha256) == "damaged":
            show(file.name, 0, 0, f"{known[0].resolve()} is damaged: {file.name} is downloaded again")
            damaged[file] = known[1]
        elif known is not None:
            fetched[file] = FetchedFile(file, *known, downloaded=False)
    missing = [file for file in wanted if file not in fetched]
    remotes: dict[WeightFile, RemoteFile] = {}
    if missing:
        check_online("use weights that are on disk")
        commits = dict(revisions)  # all files of a repository come from one commit, even if a branch moves meanwhile
        hub = hub or Hub.from_environment()
        for file in missing:
            asked = damaged.get(file) or commits.get(file.repo, "main")
            if file.url:
                remotes[file] = RemoteFile(file.name, file.url, file.sha256, None, file.sha256[:40])
            else:
                try:
                    remotes[file] = look_up(hub, file.repo, file.name, asked, show)
                except Refused as error:
                    raise (gated(hub, file.repo, error) if file.repo in listed else error) from error
            if file not in damaged:
                commits[file.repo] = remotes[file].commit
    contents = _contents_on_disk(remotes)
    with writing_to(cache_folder()):
        # One repository after the other, so that a failure leaves those before it complete.
        for repo in dict.fromkeys(file.repo for file in wanted):
            cache, own = RepoCache(cache_folder(), repo), [file for file in wanted if file.repo == repo]
            downloaded = {
                file: contents[file] is None and _download_blob(hub, remotes[file], cache, show)
                for file in own
                if hub is not None and file in remotes
            }
            # Recorded before files are put in place: a killed run looks up the rest again, and their commit with them.
            for file in own:
                if repo in revisions or (file in remotes and file not in damaged):
                    cache.remember((remotes.get(file) or fetched[file]).commit, revisions.get(repo, "main"))
            for file, is_new in downloaded.items():
                remote = remotes[file]
                path = cache.place(remote.commit, file.name, contents[file] or cache.blob(remote.hash))
                fetched[file] = FetchedFile(file, path, remote.commit, is_new)
    return [fetched[file] for file in wanted]


def verify_cache(names: Sequence[str]) -> list[VerifiedFile]:
    """Check files on disk against the hashes that the cache has kept from their download; never use the network.

    Args:
        names: Keys of `WEIGHT_SETS` or `METRIC_MODELS`, or repositories of the hub.

    Raises:
        InputError: There is no such set, or one of its files cannot be read.
    """
    result = []
    named = {**WEIGHT_SETS, **METRIC_MODELS}
    listed = (files_of(name) if name in named or not is_repository(name) else files_on_disk(name) for name in names)
    for file in dict.fromkeys(file for several in listed for file in several):
        known = next(copies(file), None)
        state = "missing" if known is None else content_state(known[0], file.sha256, thorough=True)
        result.append(VerifiedFile(file, known and known[0], state))
    return result


def _contents_on_disk(remotes: Mapping[WeightFile, RemoteFile]) -> dict[WeightFile, Path | None]:
    """Return a file with the content of each, or None; most commits to a repository change only its description.

    Raises:
        DownloadError: There is too little space for the others.
    """
    contents = {
        file: next(
            (path for path, _ in copies(file) if kept_hash(path) == remote.hash and content_state(path) == "right"),
            None,
        )
        for file, remote in remotes.items()
    }
    absent = [remote.size_bytes or file.size_bytes for file, remote in remotes.items() if contents[file] is None]
    check_space(cache_folder(), sum(absent), "the weights")
    return contents


def _download_blob(hub: Hub, remote: RemoteFile, cache: RepoCache, progress: DownloadProgress) -> bool:
    """Make sure that the cache has the content of a file, and return whether it had to be downloaded."""
    blob = cache.blob(remote.hash)
    with locked(cache.lock(remote.hash), remote.name, progress):
        # Another process may have downloaded it while this one waited for the lock.
        if blob.is_file() and has_hash(blob, remote.hash):
            return False
        partial = blob.with_name(f"{remote.hash}.textcap-partial")
        download_file(hub, remote, partial, progress)
        rename_durably(partial, blob)
    return True


def model_folder(name: str, *, offline: bool | None = None, progress: DownloadProgress | None = None) -> Path:
    """Return the folder that a name leads to: a local one goes first, else a repository of the hub, which is fetched.

    Args:
        name: A folder, or a repository such as "Qwen/Qwen3-0.6B".
        offline: Never download; by default as HF_HUB_OFFLINE says.
        progress: Called with the bytes downloaded.

    Raises:
        InputError: It is neither.
        DownloadError: The repository is not on disk, and must not or cannot be downloaded.
    """
    if os.path.isdir(name):
        return Path(name)
    if not is_repository(name):
        hint = "name a folder, or a repository of the hub such as Qwen/Qwen3-0.6B"
        raise InputError(f"{name} is not a folder", hint=hint)
    if (found := find_repository(name)) is not None:
        return found
    if offline or (offline is None and is_offline()):
        message = f"{name} is neither a folder nor on disk as a repository, and nothing is downloaded offline"
        raise DownloadError(message, hint=f"run textcap fetch {name} with a network")
    return fetch([name], progress=progress)[0].path.parent


def _revisions(revision: str | Mapping[str, str] | None, repositories: Sequence[str]) -> dict[str, str]:
    only = repositories[0] if len(repositories) == 1 else MSCLAP
    by_repo = {only: revision} if isinstance(revision, str) else dict(revision or {})
    for repo, name in by_repo.items():
        if repo not in (MSCLAP, GPT2, *repositories):
            raise InputError(f"no weights come from the repository {repo!r}", hint=f"use {MSCLAP} or {GPT2}")
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", name) or ".." in name:
            raise InputError(f"{name!r} is not a valid revision", hint="use a branch, a tag or a commit")
    return by_repo


def hash_of(hashes: Mapping[str, str]) -> str:
    """Return one SHA-256 for several by name, in any order."""
    lines = "".join(f"{key} {value}\n" for key, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()
