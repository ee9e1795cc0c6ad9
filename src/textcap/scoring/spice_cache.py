"""Keep SPICE's database of parsed captions between runs, and never use a damaged or incomplete one.

The database is one file. Each run works on its own copy, which then replaces the stored file by a rename, with its
hash in front. Runs at the same time do not interfere: the file of the last one to finish is kept.
"""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

from textcap.files import rename_durably, workspace

_DATABASE = "data.mdb"
_BLOCK_BYTES = 1 << 20
_DIGEST_CHARS = 64
_MAX_BYTES = 1 << 30  # a larger database is not stored: copying it would take longer than it saves


class SpiceCache:
    """The database of parsed captions for one set of jars on one version of Java.

    Args:
        folder: Where to store it; it need not exist. If it cannot be read or written, captions are parsed again.
        key: Strings that identify everything the result of parsing depends on.
    """

    def __init__(self, folder: Path, key: list[str]) -> None:
        digest = hashlib.sha256("\n".join(key).encode()).hexdigest()
        self.path = folder / f"spice-{digest[:16]}.cache"

    def copy_to(self, folder: Path) -> bool:
        """Copy the stored database into a folder, and return whether there is a valid one; remove a damaged one."""
        database = folder / _DATABASE
        try:
            with open(self.path, "rb") as stored, open(database, "xb") as copy:
                expected = stored.read(_DIGEST_CHARS + 1)
                digest = hashlib.sha256()
                while block := stored.read(_BLOCK_BYTES):
                    digest.update(block)
                    copy.write(block)
            if expected == f"{digest.hexdigest()}\n".encode():
                return True
            self.remove()
        except OSError:
            pass
        database.unlink(missing_ok=True)
        return False

    def keep(self, folder: Path) -> None:
        """Store the database that a run has left in a folder."""
        database = folder / _DATABASE
        with suppress(OSError):
            if not 0 < database.stat().st_size <= _MAX_BYTES:
                return
            with workspace(self.path.parent) as beside:
                new = beside / self.path.name
                digest = hashlib.sha256()
                with open(database, "rb") as source, open(new, "xb") as stored:
                    stored.write(b"?" * _DIGEST_CHARS + b"\n")  # the hash is known at the end
                    while block := source.read(_BLOCK_BYTES):
                        digest.update(block)
                        stored.write(block)
                    stored.seek(0)
                    stored.write(digest.hexdigest().encode())
                    stored.flush()
                    os.fsync(stored.fileno())
                if self.path.is_dir() and not self.path.is_symlink():
                    _move_folder_away(self.path)
                rename_durably(new, self.path)

    def remove(self) -> None:
        """Delete the stored database."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _move_folder_away(folder: Path) -> None:
    """Remove a folder if it is empty, else rename it."""
    try:
        folder.rmdir()
    except OSError:
        folder.rename(folder.with_name(f"{folder.name}.{secrets.token_hex(6)}"))
