"""Keep what SPICE has parsed between runs, so that nothing broken or half-written is ever taken for it.

Knows that SPICE keeps a database of one file in a folder, and nothing of captions. A run works on a copy of its
own; what it leaves takes the place of the old one by a rename, with its hash in front. Two runs at once do not
meet: the later one's file stays.
"""

import hashlib
import os
import secrets
import time
from pathlib import Path

_DATABASE = "data.mdb"
_BLOCK_BYTES = 1 << 20
_DIGEST_CHARS = 64
_MOST_BYTES = 1 << 30  # what is larger is begun anew: a copy would take longer than it saves
_LEFTOVER_S = 24 * 3600.0  # nobody writes one file for so long


class SpiceCache:
    """Parsed captions of one set of jars on one Java.

    Args:
        folder: Where to keep them; it need not exist. What cannot be read or written there costs only time.
        key: Names of what the parse depends on.
    """

    def __init__(self, folder: Path, key: list[str]) -> None:
        digest = hashlib.sha256("\n".join(key).encode()).hexdigest()
        self.path = folder / f"spice-{digest[:16]}.cache"

    def copy_to(self, folder: Path) -> bool:
        """Put a copy of the database into a folder, if there is a sound one; return whether there is.

        What is not sound is removed.
        """
        database = folder / _DATABASE
        try:
            with open(self.path, "rb") as kept, open(database, "xb") as copy:
                promised = kept.read(_DIGEST_CHARS + 1)
                digest = hashlib.sha256()
                while block := kept.read(_BLOCK_BYTES):
                    digest.update(block)
                    copy.write(block)
            if promised == f"{digest.hexdigest()}\n".encode():
                return True
            self.remove()
        except OSError:
            pass
        database.unlink(missing_ok=True)
        return False

    def keep(self, folder: Path) -> None:
        """Keep the database that a run has left in a folder."""
        database = folder / _DATABASE
        beside = self.path.with_name(f".textcap-{secrets.token_hex(6)}.tmp")
        try:
            if not 0 < database.stat().st_size <= _MOST_BYTES:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with open(database, "rb") as left, open(beside, "xb") as kept:
                kept.write(b"?" * _DIGEST_CHARS + b"\n")  # no hash is this, until the whole is written
                while block := left.read(_BLOCK_BYTES):
                    digest.update(block)
                    kept.write(block)
                kept.seek(0)
                kept.write(digest.hexdigest().encode())
                kept.flush()
                os.fsync(kept.fileno())
            if self.path.is_dir() and not self.path.is_symlink():
                _make_way(self.path)
            os.replace(beside, self.path)
            remove_leftovers(self.path.parent)
        except OSError:
            return
        finally:
            _remove(beside)

    def remove(self) -> None:
        """Forget what is kept."""
        _remove(self.path)


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files that killed runs have left in a folder, if they are older than a day."""
    for path in folder.glob(".textcap-*.tmp"):
        try:
            if path.is_file() and path.lstat().st_mtime < time.time() - _LEFTOVER_S:
                path.unlink()
        except OSError:
            continue


def _make_way(folder: Path) -> None:
    """Remove an empty folder; one that holds something gets another name."""
    try:
        folder.rmdir()
    except OSError:
        folder.rename(folder.with_name(f"{folder.name}.{secrets.token_hex(6)}"))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
