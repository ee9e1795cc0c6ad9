"""Embed sound files of any length: one unit-length vector for each, the mean over its windows.

Windows of several files go through the encoder in one batch. Every embedding is kept in a store.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textcap.audio.windows import read_windows
from textcap.config import CAPTION_BATCH_SIZE
from textcap.device import memory_errors
from textcap.errors import FileError, InputError
from textcap.models.backbone import Backbone
from textcap.models.clap import AudioEncoder
from textcap.store import Row, Store

READING_VERSION = 1  # to be raised when decoding, windows or pooling give another result for the same bytes

_MEMORY_HINT = "lower --batch-size, or use --device cpu"


@dataclass(frozen=True)
class Recording:
    """The CLAP embedding of a sound, and what reading it has found."""

    embedding: NDArray[np.float32]  # [E], unit length
    duration_s: float
    is_silent: bool = False  # whether every window is silent
    notes: tuple[str, ...] = ()  # what the user must know, each worded to follow the name, such as "ends early"


@dataclass(frozen=True)
class WindowEmbeddings:
    """The CLAP embeddings of the windows of one sound, in their order."""

    vectors: NDArray[np.float32]  # [W, E], unit length
    starts_s: NDArray[np.float64]  # [W], in the container's own time
    ends_s: NDArray[np.float64]  # [W]
    is_silent: NDArray[np.bool_]  # [W]
    duration_s: float
    notes: tuple[str, ...] = ()


class RecordingEmbedder:
    """Embeds sound files with the audio encoder of one backbone.

    Attributes:
        store: Keeps the embeddings, by the SHA-256 of the files' bytes.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self._backbone, self._device = backbone, device
        clap = backbone.config.clap
        rules = f"{READING_VERSION} {sorted(asdict(clap.audio).items())}"
        self.store = Store.of("audio", backbone.config.name, backbone.content_hash, clap.embedding_width, rules)

    @cached_property
    def encoder(self) -> AudioEncoder:
        """The audio encoder, which is loaded when it is first needed."""
        return self._backbone.audio_encoder(self._device)

    def embed(
        self,
        paths: Sequence[Path],
        *,
        batch_size: int = CAPTION_BATCH_SIZE,
        progress: Callable[[int, int], None] = lambda n_done, n_total: None,
    ) -> list[Recording | InputError]:
        """Return the recording of each file, or the error why it cannot be read.

        A file is identified by its bytes: copies are embedded once, and a file that has changed is embedded again.

        Args:
            batch_size: Number of windows to embed at once, over several files, and number of files that are kept
                together; it affects embeddings only by rounding.
            progress: Called with the number of files done and the total.

        Raises:
            DeviceError: The device has too little memory.
        """
        keys = self.store.file_keys(paths)
        # A file without a key, such as a pipe, stands for itself; reading it tells what is wrong with it.
        items: list[bytes | int] = [index if key is None else key for index, key in enumerate(keys)]
        rows = self.store.read([key or b"" for key in keys])
        found: dict[bytes | int, Recording | InputError] = {
            item: Recording(np.frombuffer(row.value, "<f4"), **json.loads(row.facts))
            for item, row in zip(items, rows, strict=True)
            if row is not None
        }
        missing = list({item: index for index, item in enumerate(items) if item not in found}.values())
        progress(len(paths) - len(missing), len(paths))
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            files = [paths[index] for index in batch]
            with memory_errors(f"on {self._device} while embedding sounds", hint=_MEMORY_HINT):
                results = self._embed(files, batch_size)
            new: dict[bytes, Row] = {}
            for index, key, result in zip(batch, self.store.file_keys(files), results, strict=True):
                # A file that was changed while it was read has another key now.
                if key is not None and key == keys[index] and isinstance(result, Recording):
                    facts = json.dumps({"duration_s": result.duration_s})
                    new[key] = Row(result.embedding.astype("<f4").tobytes(), facts.encode())
            self.store.write(new)
            found.update(zip((items[index] for index in batch), results, strict=True))
            progress(len(paths) - len(missing) + start + len(batch), len(paths))
        results = [found[item] for item in items]
        return [r.at(path) if isinstance(r, FileError) else r for r, path in zip(results, paths, strict=True)]

    @torch.inference_mode()
    def _embed(self, paths: Sequence[Path], batch_size: int) -> list[Recording | InputError]:
        clap = self._backbone.config.clap
        sums = torch.zeros(len(paths), clap.embedding_width)
        ends_s: dict[int, float] = {}
        errors: dict[int, InputError] = {}
        pending: list[tuple[int, Tensor]] = []

        def flush() -> None:
            if pending:
                windows = torch.stack([samples for _, samples in pending]).to(self._device)  # [W, S]
                owners = torch.tensor([i for i, _ in pending])
                sums.index_add_(0, owners, self.encoder(windows).float().cpu())
                pending.clear()

        for i, path in enumerate(paths):
            try:
                for window in read_windows(path, clap.audio):
                    pending.append((i, torch.from_numpy(window.samples)))
                    ends_s[i] = window.end_s
                    if len(pending) == batch_size:
                        flush()
            except InputError as error:
                errors[i] = error
        flush()
        units = torch.nn.functional.normalize(sums, dim=-1).numpy()  # the sum and the mean have the same direction
        for i in np.flatnonzero(~np.isfinite(units).all(axis=1)).tolist():
            hint = "the weights of the backbone may be damaged"
            errors.setdefault(i, FileError(paths[i], "has an embedding that is NaN or infinite", hint=hint))
        return [errors[i] if i in errors else Recording(units[i], ends_s[i]) for i in range(len(paths))]
