"""One repository in a cache folder laid out as Hugging Face lays out its own.

Knows the layout and nothing of the network. Blobs are named by the hub's hash of their content, snapshots by
the commit, so both are kept with every file; and msclap and transformers find what textcap fetched.
"""

import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import filelock

from textcap.errors import InputError
from textcap.files import atomic_write_text

_BLOCK_BYTES = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RepoCache:
    """Where one repository's files lie in one cache folder, which need not exist.

    Attributes:
        root: The cache folder.
        repo: The repository, like "microsoft/msclap".
    """

    # A reference of textcap's own: the commit that it was last asked for, which need not be where "main" is.
    OWN_REFERENCE: ClassVar[str] = "textcap"

    root: Path
    repo: str

    @property
    def folder(self) -> Path:
        """The repository's folder."""
        return self.root / f"models--{self.repo.replace('/', '--')}"

    def commits(self) -> list[str]:
        """Return the commits with files here: the one that "main" stood at, then the newest on disk."""
        try:
            snapshots = [path for path in (self.folder / "snapshots").iterdir() if is_commit(path.name)]
            snapshots.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        except OSError:  # no such repository here, or one that may not be read
            return []
        main = self.reference("main")
        return sorted((path.name for path in snapshots), key=lambda commit: commit != main)

    def reference(self, revision: str) -> str | None:
        """Return the commit that a branch or tag stood at when it was last asked for."""
        try:
            commit = (self.folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return commit if is_commit(commit) else None

    def remember(self, commit: str, revision: str) -> None:
        """Write down which commit a branch or tag stands at; a commit's own name needs no writing down."""
        if is_commit(revision) or ".." in revision.split("/"):
            return
        atomic_write_text(self.folder / "refs" / revision, commit)

    def file(self, commit: str, name: str) -> Path | None:
        """Return a file as of a commit, or None. A link whose blob is gone is no file."""
        path = self.folder / "snapshots" / commit / name
        return path if path.is_file() else None

    def blob(self, hub_hash: str) -> Path:
        """Return where the content with a hash belongs."""
        return self.folder / "blobs" / hub_hash

    def partial(self, hub_hash: str) -> Path:
        """Return where such content grows; named by its hash, so a file that has changed starts anew."""
        return self.folder / "blobs" / f"{hub_hash}.textcap-partial"

    def lock(self, hub_hash: str) -> filelock.BaseFileLock:
        """Return the lock that huggingface_hub takes, too, before it writes such content."""
        path = self.root / ".locks" / self.folder.name / f"{hub_hash}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(str(path))

    def place(self, commit: str, name: str, content: Path) -> Path:
        """Make content the file of a commit, as a link where the file system has links.

        Args:
            commit: The commit that has this content under the name.
            name: The file's name in the repository.
            content: A blob of this repository, or a file in another cache folder.
        """
        path = self.folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content.resolve()
        # Relative inside the repository, so that a cache folder can be moved.
        inside = content.is_relative_to(self.folder.resolve())
        target = os.path.relpath(content, path.parent.resolve()) if inside else str(content)
        beside = path.parent / f".textcap-{secrets.token_hex(6)}.tmp"
        try:
            _link(beside, target, content)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        return path


def is_commit(text: str) -> bool:
    """Say whether this is the full name of a commit."""
    return _COMMIT.fullmatch(text) is not None


def is_hub_hash(text: str) -> bool:
    """Say whether this is one of the two hashes a hub gives: SHA-256, or git's SHA-1 for small files."""
    return _HASH.fullmatch(text) is not None


def kept_hash(path: Path) -> str | None:
    """Return the hub's hash that is kept with a cached file, or None where none is."""
    blob = path.resolve()
    if is_hub_hash(blob.name):
        return blob.name
    # Without symbolic links the file is a second name of its blob.
    for other in sorted((path.parents[2] / "blobs").glob("*")):
        if is_hub_hash(other.name) and other.samefile(path):
            return other.name
    return None


def has_hash(path: Path, hub_hash: str) -> bool:
    """Say whether a file's bytes have the hash that the hub gave.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            if len(hub_hash) == 64:
                digest = hashlib.sha256()
            else:  # git hashes the size with the content
                digest = hashlib.sha1(f"blob {os.fstat(file.fileno()).st_size}\0".encode(), usedforsecurity=False)
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest() == hub_hash


def _link(path: Path, target: str, content: Path) -> None:
    try:
        os.symlink(target, path)
    except (OSError, NotImplementedError):
        try:
            os.link(content, path)
        except (OSError, NotImplementedError):
            shutil.copyfile(content, path)  # file systems without any links pay with space
