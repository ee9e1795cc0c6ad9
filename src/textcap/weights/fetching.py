"""Bring the files of the weights onto this machine, and check them later.

Knows how a fetched file gets into the cache: under a lock, beside its place, checked, renamed. Nothing
else in textcap goes to the network.
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
    """A file that `fetch` was asked for."""

    file: WeightFile
    path: Path
    commit: str  # of the repository, 40 hexadecimal digits
    downloaded: bool  # False when it was on disk already


@dataclass(frozen=True)
class VerifiedFile:
    """What `verify_cache` found for a file."""

    file: WeightFile
    path: Path | None
    state: Literal["right", "damaged", "missing", "unknown"]  # unknown: no hash is kept with it


def fetch(
    names: Sequence[str],
    *,
    revision: str | Mapping[str, str] | None = None,
    progress: DownloadProgress | None = None,
    hub: Hub | None = None,
) -> list[FetchedFile]:
    """Bring sets of weights onto this machine; the one function that goes to the network.

    What a known cache holds is used as it is. The rest comes from the main branch as it stands now; its
    commit is recorded with the files, and giving it as the revision another time brings the same bytes.

    Args:
        names: Keys of `WEIGHT_SETS`.
        revision: Branch, tag or commit of microsoft/msclap, or of each repository by its name. A branch or
            tag is looked up anew even where files are there; where none is given, what is there will do.
        progress: Told of the bytes as they come.
        hub: Where to fetch from; by default as HF_ENDPOINT says.

    Returns:
        What became of each file; one that several sets share comes once.

    Raises:
        DownloadError: Something could not be had or written. What is complete stays, and what was interrupted
            is taken up by the next call.
        InputError: There is no such set, or no such repository in them.
    """
    wanted = list(dict.fromkeys(file for name in names for file in files_of(name)))
    revisions = _revisions(revision)
    on_disk = {file: held(file, revisions.get(file.repo)) for file in wanted}
    missing = [file for file in wanted if on_disk[file] is None]
    brought: dict[WeightFile, FetchedFile] = {}
    if missing:
        if is_offline():
            raise DownloadError("HF_HUB_OFFLINE is set, so nothing is fetched", hint="unset it, or use what is there")
        brought = _bring(hub or Hub.from_environment(), missing, revisions, progress)
    result = []
    for file in wanted:
        known = on_disk[file]
        result.append(brought[file] if known is None else FetchedFile(file, *known, downloaded=False))
    _record(result, revisions)
    return result


def verify_cache(names: Sequence[str]) -> list[VerifiedFile]:
    """Check files on disk against the hashes that were kept when they were fetched, without a network.

    Args:
        names: Keys of `WEIGHT_SETS`.

    Raises:
        InputError: There is no such set, or a file of it cannot be read.
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


def _bring(
    hub: Hub, missing: list[WeightFile], revisions: Mapping[str, str], progress: DownloadProgress | None
) -> dict[WeightFile, FetchedFile]:
    commits = dict(revisions)  # all files of a repository from one commit, even if it changes meanwhile
    remotes: dict[WeightFile, RemoteFile] = {}
    for file in missing:
        remotes[file] = look_up(hub, file.repo, file.name, commits.get(file.repo, "main"))
        commits[file.repo] = remotes[file].commit
    same = {file: same_content(file, remote.hub_hash) for file, remote in remotes.items()}
    root = cache_folder()
    with _writing(root):
        _check_space(root, [remote for file, remote in remotes.items() if same[file] is None])
        return {file: _obtain(hub, file, remote, same[file], progress) for file, remote in remotes.items()}


def _obtain(
    hub: Hub, file: WeightFile, remote: RemoteFile, content: Path | None, progress: DownloadProgress | None
) -> FetchedFile:
    cache = RepoCache(cache_folder(), remote.repo)
    downloaded = False
    if content is None:
        content = cache.blob(remote.hub_hash)
        with cache.lock(remote.hub_hash):
            # Another fetch may have brought it while this one waited.
            if not (content.is_file() and has_hash(content, remote.hub_hash)):
                partial = cache.partial(remote.hub_hash)
                partial.parent.mkdir(parents=True, exist_ok=True)
                download(hub, remote, partial, progress)
                os.replace(partial, content)
                downloaded = True
    return FetchedFile(file, cache.place(remote.commit, file.name, content), remote.commit, downloaded)


def _record(fetched: list[FetchedFile], revisions: Mapping[str, str]) -> None:
    """Write down which commit `find` shall prefer, where it would choose another or something was fetched."""
    for one in fetched:
        repo = one.file.repo
        if repo not in revisions and not one.downloaded:
            continue
        cache = RepoCache(cache_folder(), repo)
        asked = revisions.get(repo, "main")
        with _writing(cache.root):
            for reference in (asked, RepoCache.OWN_REFERENCE):
                if not is_commit(reference) and cache.reference(reference) != one.commit:
                    cache.remember(one.commit, reference)


def _revisions(revision: str | Mapping[str, str] | None) -> dict[str, str]:
    asked = {MSCLAP: revision} if isinstance(revision, str) else dict(revision or {})
    for repo, name in asked.items():
        if repo not in (MSCLAP, GPT2):
            raise InputError(f"no weights come from {repo!r}", hint=f"known are {MSCLAP} and {GPT2}")
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", name) or ".." in name:
            raise InputError(f"{name!r} cannot be a revision", hint="give a branch, a tag or a commit")
    return asked


def _check_space(root: Path, remotes: list[RemoteFile]) -> None:
    needed = 0
    for remote in remotes:
        partial = RepoCache(root, remote.repo).partial(remote.hub_hash)
        needed += (remote.size_bytes or 0) - (partial.stat().st_size if partial.exists() else 0)
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        message = f"the weights need {needed / 1e6:,.0f} MB more, and {root} has {free / 1e6:,.0f} MB free"
        raise DownloadError(message, hint="free some space, or set TEXTCAP_CACHE to a folder on another disk")


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        if isinstance(cause, OSError) and is_disk_full(cause):
            hint = "free some space and run it again: it goes on; or set TEXTCAP_CACHE to another disk"
            raise DownloadError(f"the disk is full under {root}", hint=hint) from error
        reason = getattr(cause, "strerror", None) or str(cause or error)
        hint = "set TEXTCAP_CACHE to a folder that you may write to"
        raise DownloadError(f"cannot write to the cache folder {root}: {reason}", hint=hint) from error


def is_offline() -> bool:
    """Say whether the environment forbids the network, in Hugging Face's words."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)
