"""Keep SPICE's database of parsed captions between runs, and never use a damaged or incomplete one.

The database is one file. Each run works on its own copy, which then replaces the stored file by a rename, with its
hash in front. Runs at the same time do not interfere: the file of the last one to finish is kept.
"""

import hashlib
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from textcap.errors import InputError
from textcap.files import atomic_write_with, sha256_of_file

_DATABASE = "data.mdb"
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
        self._kept: tuple[int, int] | None = None  # size and time of the database when it was last stored or copied

    def copy_to(self, folder: Path) -> None:
        """Copy the stored database into a folder, if there is a valid one; remove a damaged one."""
        database = folder / _DATABASE
        with suppress(OSError, InputError):
            with open(self.path, "rb") as stored, open(database, "xb") as copy:
                expected = stored.read(_DIGEST_CHARS + 1)
                shutil.copyfileobj(stored, copy)
            if expected == f"{sha256_of_file(database)}\n".encode():
                self._kept = _state(database)
                return
            self.path.unlink()
        database.unlink(missing_ok=True)

    def keep(self, folder: Path) -> None:
        """Store the database that a run has left in a folder, unless it has not changed."""
        database = folder / _DATABASE
        with suppress(OSError, InputError):
            state = _state(database)
            if state == self._kept or not 0 < state[0] <= _MAX_BYTES:
                return
            digest = sha256_of_file(database)

            def write(new: Path) -> None:
                with open(database, "rb") as source, open(new, "xb") as stored:
                    stored.write(f"{digest}\n".encode())
                    shutil.copyfileobj(source, stored)

            if self.path.is_dir():  # not ours
                self.path.rename(self.path.with_name(f"{self.path.name}.{secrets.token_hex(6)}"))
            atomic_write_with(self.path, write)
            self._kept = state


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
