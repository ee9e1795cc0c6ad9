"""Read and write one repository in a cache folder with the layout of Hugging Face's cache.

Never uses the network. Blobs are named by the hub's hash of their content and snapshots by their commit, so the cache
keeps both for every file. msclap and transformers find the files that textcap has downloaded.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from textcap.files import atomic_write_text, read_regular, rename_durably, sha256_of_file, workspace
from textcap.weights.cache import known_sha256

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RepoCache:
    """One repository in one cache folder, which need not exist.

    Attributes:
        root: The cache folder.
        repo: The repository, such as "microsoft/msclap".
    """

    # textcap's own reference: the commit that was last fetched, which may differ from that of "main".
    OWN_REFERENCE: ClassVar[str] = "textcap"

    root: Path
    repo: str

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache folder."""
        return self.root / f"models--{self.repo.replace('/', '--')}"

    def commits(self) -> list[str]:
        """Return the commits with files on disk: the recorded one of "main" first, then the newest first."""
        try:
            snapshots = [path for path in (self.folder / "snapshots").iterdir() if is_commit(path.name)]
            snapshots.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        except OSError:  # the repository is not cached here, or may not be read
            return []
        main = self.reference("main")
        return sorted((path.name for path in snapshots), key=lambda commit: commit != main)

    def reference(self, revision: str) -> str | None:
        """Return the commit that was recorded for a branch or tag, or None."""
        try:
            commit = (self.folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return commit if is_commit(commit) else None

    def remember(self, commit: str, revision: str) -> None:
        """Record a commit as the one that was last fetched, and as that of a branch or tag."""
        for reference in (revision, self.OWN_REFERENCE):
            if not is_commit(reference) and self.reference(reference) != commit:
                atomic_write_text(self.folder / "refs" / reference, commit)

    def file(self, commit: str, name: str) -> Path | None:
        """Return the path of a file at a commit, or None if it is not on disk; a broken link counts as missing."""
        path = self.folder / "snapshots" / commit / name
        return path if path.is_file() else None

    def blob(self, hub_hash: str) -> Path:
        """Return the path for the content with a hash."""
        return self.folder / "blobs" / hub_hash

    def lock(self, hub_hash: str) -> Path:
        """Return the path of the lock for writing the content with a hash; huggingface_hub takes the same one."""
        return self.root / ".locks" / self.folder.name / f"{hub_hash}.lock"

    def place(self, commit: str, name: str, content: Path) -> Path:
        """Make content the file of a commit, as a link if the file system supports links.

        Args:
            commit: The commit that the file belongs to.
            name: Name of the file in the repository.
            content: A blob of this repository, or a file in another cache folder.

        Returns:
            The path of the file.
        """
        path = self.folder / "snapshots" / commit / name
        with workspace(path.parent) as beside:
            content = content.resolve()
            # A relative link inside the repository, so that a cache folder can be moved.
            inside = content.is_relative_to(self.folder.resolve())
            target = os.path.relpath(content, path.parent.resolve()) if inside else str(content)
            _link(beside / path.name, target, content)
            rename_durably(beside / path.name, path)
        return path


def is_commit(text: str) -> bool:
    """Return whether a text is a full commit hash."""
    return _COMMIT.fullmatch(text) is not None


def is_hub_hash(text: str) -> bool:
    """Return whether a text is a hash as a hub gives it: SHA-256, or git's SHA-1 for small files."""
    return _HASH.fullmatch(text) is not None


def kept_hash(path: Path) -> str | None:
    """Return the hub's hash that the cache keeps for a file, or None if it keeps none."""
    blob = path.resolve()
    if is_hub_hash(blob.name):
        return blob.name
    # Without symbolic links the file is a hard link to its blob.
    snapshots = next((above for above in path.parents if above.name == "snapshots"), None)
    for other in sorted((snapshots.parent / "blobs").glob("*")) if snapshots else ():
        if is_hub_hash(other.name) and other.samefile(path):
            return other.name
    return None


def content_state(path: Path, hub_hash: str = "", *, thorough: bool = False) -> Literal["right", "damaged", "unknown"]:
    """Return whether a file has the content that the cache keeps a hash of; unknown if it keeps none.

    Args:
        path: The file in a snapshot.
        hub_hash: The hash that it must have, if that is known without the cache.
        thorough: Hash a large file even if it was hashed before and has not changed since.

    Raises:
        FileError: The file cannot be read.
    """
    expected = hub_hash or kept_hash(path)
    if expected is None:
        return "unknown"
    if thorough or len(expected) < 64:
        return "right" if has_hash(path, expected) else "damaged"
    return "right" if known_sha256(path) == expected else "damaged"


def has_hash(path: Path, hub_hash: str) -> bool:
    """Return whether a file's content has the hash that the hub gave.

    Raises:
        FileError: The file cannot be read.
    """
    if len(hub_hash) == 64:
        return sha256_of_file(path) == hub_hash
    content = read_regular(path)
    # git hashes the size with the content
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == hub_hash


def _link(path: Path, target: str, content: Path) -> None:
    try:
        os.symlink(target, path)
    except (OSError, NotImplementedError):
        try:
            os.link(content, path)
        except (OSError, NotImplementedError):
            shutil.copyfile(content, path)  # a file system without links: the copy takes additional space
