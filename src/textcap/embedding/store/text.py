"""Cache the text embeddings of a list of captions on disk.

The embeddings are returned as a read-only memory map, so memory use does not grow with the number of captions. The
cache is verified by checksums before it is used.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from textcap.errors import InputError
from textcap.weights.cache import own_cache_folder

FORMAT_VERSION = 1
CHUNK_CAPTIONS = 1024  # number of captions per chunk; a killed run repeats at most one chunk

_READ_BYTES = 1 << 22


class Encoder(Protocol):
    """Embeds captions, as CLAP's text encoder does."""

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Return the embeddings of N captions, `[N, E]`, unit length, on the CPU."""


@dataclass(frozen=True)
class TextEmbeddings:
    """The embeddings of a list of captions, in the same order."""

    vectors: NDArray[np.float32]  # [N, E], unit length, read-only
    warnings: tuple[str, ...] = ()


def default_cache_folder() -> Path:
    """Return the folder in which text embeddings are cached."""
    return own_cache_folder() / "text_embeddings"


def embed_captions(
    captions: Sequence[str],
    *,
    content_hash: str,
    backbone_hash: str,
    width: int,
    load_encoder: Callable[[], Encoder],
    cache_folder: Path | None = None,
    progress: Callable[[int], None] = lambda n_done: None,
) -> TextEmbeddings:
    """Return the text embeddings of captions, and compute only those that are not in the cache.

    If several processes need the same embeddings at once, one computes them and the others wait. If the cache cannot
    be written, the embeddings go to a temporary file, with a warning.

    Args:
        content_hash: Identifies the list of captions.
        backbone_hash: Content hash of the backbone, which identifies the encoder's weights.
        width: Embedding width E.
        load_encoder: Called only if embeddings have to be computed.
        cache_folder: By default `default_cache_folder()`.
        progress: Called with the number of captions done.

    Raises:
        InputError: The embeddings cannot be written, neither to the cache nor to a temporary file.
    """
    key = hashlib.sha256(f"{FORMAT_VERSION} {content_hash} {backbone_hash} {width}".encode()).hexdigest()[:40]
    folder = cache_folder or default_cache_folder()
    table = _Table(folder / f"{key}.npy", len(captions), width)
    if table.is_complete():
        return TextEmbeddings(table.open())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            if not table.is_complete():
                table.fill(captions, load_encoder, progress)
        return TextEmbeddings(table.open())
    except OSError as error:
        warning = f"text embeddings cannot be cached in {folder}: {error.strerror or error}"
    return _embed_without_cache(captions, width, load_encoder(), progress, warning)


class _Table:
    """A `.npy` file that is written chunk by chunk, with the SHA-256 of every chunk in a second file."""

    def __init__(self, path: Path, n_rows: int, width: int) -> None:
        self.path, self.shape = path, (n_rows, width)
        self.partial = path.with_suffix(".partial")
        self.digests = path.with_suffix(".sha256")
        self.header = _npy_header(self.shape)

    def open(self) -> NDArray[np.float32]:
        """Return the finished table as a read-only memory map."""
        return np.memmap(self.path, np.float32, mode="r", offset=len(self.header), shape=self.shape)

    def is_complete(self) -> bool:
        """Return whether the finished table exists, with the right size and the right checksum of every chunk."""
        expected = len(self.header) + self.shape[0] * self.shape[1] * 4
        try:
            size_fits = self.path.stat().st_size == expected
        except OSError:
            return False
        return size_fits and self._n_intact_chunks(self.path) == len(self._chunk_sizes())

    def fill(
        self, captions: Sequence[str], load_encoder: Callable[[], Encoder], progress: Callable[[int], None]
    ) -> None:
        """Compute the missing chunks of the partial table, then rename it to its final name."""
        n_intact = self._n_intact_chunks(self.partial)
        sizes = self._chunk_sizes()
        digests = self._read_digests()[:n_intact]
        n_done = min(n_intact * CHUNK_CAPTIONS, len(captions))
        progress(n_done)
        with open(self.partial, "r+b" if n_intact else "w+b") as file:
            file.write(self.header)
            file.truncate(len(self.header) + sum(sizes[:n_intact]))
            file.seek(0, os.SEEK_END)
            for chunk in _encoded_chunks(captions[n_done:], load_encoder() if n_done < len(captions) else None):
                # The checksum is written after its chunk: a chunk without a checksum is computed again.
                file.write(chunk)
                file.flush()
                digests.append(hashlib.sha256(chunk).hexdigest())
                self.digests.write_text("\n".join(digests) + "\n", encoding="ascii")
                n_done = min(n_done + CHUNK_CAPTIONS, len(captions))
                progress(n_done)
            os.fsync(file.fileno())
        os.replace(self.partial, self.path)

    def _chunk_sizes(self) -> list[int]:
        n_rows, width = self.shape
        return [min(CHUNK_CAPTIONS, n_rows - start) * width * 4 for start in range(0, n_rows, CHUNK_CAPTIONS)]

    def _read_digests(self) -> list[str]:
        try:
            return self.digests.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return []

    def _n_intact_chunks(self, path: Path) -> int:
        """Return the number of chunks before the first with a wrong or missing checksum."""
        n_intact = 0
        try:
            with open(path, "rb") as file:
                if file.read(len(self.header)) != self.header:
                    return 0
                for size, digest in zip(self._chunk_sizes(), self._read_digests(), strict=False):
                    if _digest_of_next(file, size) != digest:
                        break
                    n_intact += 1
        except OSError:
            return 0
        return n_intact


def _embed_without_cache(
    captions: Sequence[str], width: int, encoder: Encoder, progress: Callable[[int], None], warning: str
) -> TextEmbeddings:
    try:
        with tempfile.TemporaryFile() as file:
            for number, chunk in enumerate(_encoded_chunks(captions, encoder), start=1):
                file.write(chunk)
                progress(min(number * CHUNK_CAPTIONS, len(captions)))
            file.flush()
            # The memory map keeps the file open; its disk space is freed together with the map.
            return TextEmbeddings(np.memmap(file, np.float32, mode="r", shape=(len(captions), width)), (warning,))
    except OSError as error:
        message = f"text embeddings cannot be written to a temporary file: {error.strerror or error}"
        raise InputError(message, hint="set TEXTCAP_CACHE to a folder with free space") from error


def _encoded_chunks(captions: Sequence[str], encoder: Encoder | None) -> Iterator[bytes]:
    for start in range(0, len(captions), CHUNK_CAPTIONS):
        assert encoder is not None
        vectors = encoder.encode(captions[start : start + CHUNK_CAPTIONS])
        yield vectors.numpy().astype("<f4", copy=False).tobytes()


def _digest_of_next(file: IO[bytes], size: int) -> str:
    digest = hashlib.sha256()
    while size and (block := file.read(min(size, _READ_BYTES))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def _npy_header(shape: tuple[int, int]) -> bytes:
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)  # type: ignore[no-untyped-call,unused-ignore]
    return header.getvalue()
