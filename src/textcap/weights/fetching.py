"""Download the files of the weights into the cache, and check the files on disk.

A file is downloaded under a lock and a temporary name, checked, and then renamed. Weights are downloaded here only.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from textcap.errors import DownloadError, InputError
from textcap.files import is_disk_full
from textcap.weights.cache import cache_folder
from textcap.weights.catalogue import GPT2, MSCLAP, WeightFile, files_of, held, same_content
from textcap.weights.download import DownloadProgress, RemoteFile, download, look_up
from textcap.weights.hub import Hub
from textcap.weights.hub_cache import RepoCache, has_hash, is_commit, kept_hash


@dataclass(frozen=True)
class FetchedFile:
    """A file of a set that `fetch` was called for."""

    file: WeightFile
    path: Path
    commit: str  # of the repository, 40 hexadecimal digits
    downloaded: bool  # False if it was on disk already


@dataclass(frozen=True)
class VerifiedFile:
    """The state of a file on disk, as `verify_cache` found it."""

    file: WeightFile
    path: Path | None  # None if it is missing
    state: Literal["right", "damaged", "missing", "unknown"]  # unknown: the cache has no hash for it


def fetch(
    names: Sequence[str],
    *,
    revision: str | Mapping[str, str] | None = None,
    progress: DownloadProgress | None = None,
    hub: Hub | None = None,
) -> list[FetchedFile]:
    """Make sure that sets of weights are on disk, and download the files that are missing.

    Files in a known cache folder are used as they are. The others come from the current main branch. Its commit is
    recorded with the files; given as the revision later, it downloads the same bytes.

    Args:
        names: Keys of `WEIGHT_SETS`.
        revision: Branch, tag or commit of microsoft/msclap, or one for each repository by name. A branch or tag is
            looked up again even if its files are on disk. Without a revision, files on disk are used.
        progress: Called with the bytes downloaded.
        hub: The hub to download from; by default the one that HF_ENDPOINT names.

    Returns:
        One entry for each file; a file that several sets share is listed once.

    Raises:
        DownloadError: A file cannot be downloaded or written. Complete files are kept, and the next call continues an
            interrupted one.
        InputError: There is no such set or repository, or the revision is not valid.
    """
    wanted = list(dict.fromkeys(file for name in names for file in files_of(name)))
    revisions = _revisions(revision)
    on_disk = {file: held(file, revisions.get(file.repo)) for file in wanted}
    missing = [file for file in wanted if on_disk[file] is None]
    downloaded: dict[WeightFile, FetchedFile] = {}
    if missing:
        if is_offline():
            hint = "unset it, or use weights that are on disk"
            raise DownloadError(
                "the environment forbids downloads (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)", hint=hint
            )
        downloaded = _download_all(hub or Hub.from_environment(), missing, revisions, progress)
    result = []
    for file in wanted:
        known = on_disk[file]
        result.append(downloaded[file] if known is None else FetchedFile(file, *known, downloaded=False))
    _record_commits(result, revisions)
    return result


def verify_cache(names: Sequence[str]) -> list[VerifiedFile]:
    """Check files on disk against the hashes that the cache has kept from their download; never use the network.

    Args:
        names: Keys of `WEIGHT_SETS`.

    Raises:
        InputError: There is no such set, or one of its files cannot be read.
    """
    result = []
    for file in dict.fromkeys(file for name in names for file in files_of(name)):
        known = held(file)
        if known is None:
            result.append(VerifiedFile(file, None, "missing"))
            continue
        expected = kept_hash(known[0])
        if expected is None:
            result.append(VerifiedFile(file, known[0], "unknown"))
        else:
            state: Literal["right", "damaged"] = "right" if has_hash(known[0], expected) else "damaged"
            result.append(VerifiedFile(file, known[0], state))
    return result


def _download_all(
    hub: Hub, missing: list[WeightFile], revisions: Mapping[str, str], progress: DownloadProgress | None
) -> dict[WeightFile, FetchedFile]:
    commits = dict(revisions)  # all files of a repository come from one commit, even if a branch moves meanwhile
    remotes: dict[WeightFile, RemoteFile] = {}
    for file in missing:
        remotes[file] = look_up(hub, file.repo, file.name, commits.get(file.repo, "main"))
        commits[file.repo] = remotes[file].commit
    known = {file: same_content(file, remote.hub_hash) for file, remote in remotes.items()}
    root = cache_folder()
    with _write_errors(root):
        _check_space(root, [remote for file, remote in remotes.items() if known[file] is None])
        return {file: _download_one(hub, file, remote, known[file], progress) for file, remote in remotes.items()}


def _download_one(
    hub: Hub, file: WeightFile, remote: RemoteFile, content: Path | None, progress: DownloadProgress | None
) -> FetchedFile:
    cache = RepoCache(cache_folder(), remote.repo)
    downloaded = False
    if content is None:
        content = cache.blob(remote.hub_hash)
        with cache.lock(remote.hub_hash):
            # Another process may have downloaded it while this one waited for the lock.
            if not (content.is_file() and has_hash(content, remote.hub_hash)):
                partial = cache.partial(remote.hub_hash)
                partial.parent.mkdir(parents=True, exist_ok=True)
                download(hub, remote, partial, progress)
                os.replace(partial, content)
                downloaded = True
    return FetchedFile(file, cache.place(remote.commit, file.name, content), remote.commit, downloaded)


def _record_commits(fetched: list[FetchedFile], revisions: Mapping[str, str]) -> None:
    """Record the commit that `find` should prefer, if a revision was given or a file was downloaded."""
    for one in fetched:
        repo = one.file.repo
        if repo not in revisions and not one.downloaded:
            continue
        cache = RepoCache(cache_folder(), repo)
        revision = revisions.get(repo, "main")
        with _write_errors(cache.root):
            for reference in (revision, RepoCache.OWN_REFERENCE):
                if not is_commit(reference) and cache.reference(reference) != one.commit:
                    cache.remember(one.commit, reference)


def _revisions(revision: str | Mapping[str, str] | None) -> dict[str, str]:
    by_repo = {MSCLAP: revision} if isinstance(revision, str) else dict(revision or {})
    for repo, name in by_repo.items():
        if repo not in (MSCLAP, GPT2):
            raise InputError(f"no weights come from the repository {repo!r}", hint=f"use {MSCLAP} or {GPT2}")
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", name) or ".." in name:
            raise InputError(f"{name!r} is not a valid revision", hint="use a branch, a tag or a commit")
    return by_repo


def _check_space(root: Path, remotes: list[RemoteFile]) -> None:
    needed = 0
    for remote in remotes:
        partial = RepoCache(root, remote.repo).partial(remote.hub_hash)
        needed += (remote.size_bytes or 0) - (partial.stat().st_size if partial.exists() else 0)
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        message = f"the weights need {needed / 1e6:,.0f} MB more, but {root} has only {free / 1e6:,.0f} MB free"
        raise DownloadError(message, hint="free some space, or set TEXTCAP_CACHE to a folder on another disk")


@contextmanager
def _write_errors(root: Path) -> Iterator[None]:
    """Turn errors of writing to the cache folder within the block into a DownloadError."""
    try:
        yield
    except (OSError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        if isinstance(cause, OSError) and is_disk_full(cause):
            hint = "free some space and run the command again to continue, or set TEXTCAP_CACHE to another disk"
            raise DownloadError(f"the disk is full under {root}", hint=hint) from error
        reason = getattr(cause, "strerror", None) or str(cause or error)
        hint = "set TEXTCAP_CACHE to a folder that you may write to"
        raise DownloadError(f"the cache folder {root} cannot be written: {reason}", hint=hint) from error


def is_offline() -> bool:
    """Return whether Hugging Face's environment variables forbid the use of the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)
