"""Embed sounds of any length: one unit-length vector for each, the mean over its windows, or one for each window.

A thread reads ahead of the encoder, and windows of several sounds go through it in one batch. The embeddings of files
are kept in a store.
"""

import json
import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textcap.audio.decoding import spooled
from textcap.audio.sources import SoundSource, name_of
from textcap.audio.windows import Window, read_windows
from textcap.config import AudioConfig
from textcap.data.text import counted
from textcap.device import memory_errors
from textcap.errors import FileError, InputError
from textcap.models.backbone import Backbone
from textcap.models.clap import AudioEncoder
from textcap.models.precision import half_precision
from textcap.store import NoStore, Row, Store

# To be raised when decoding, windows, the rules for silence and channels, or pooling change a result.
READING_VERSION = 3

_MEMORY_HINT = "lower --batch-size, or use --device cpu"

_Outcome = tuple[str, ...] | InputError  # of reading a sound: the notes, or why it cannot be used
Reading = Callable[[int | None], None]
_Take = Callable[[int, Window, Tensor], None]
T = TypeVar("T")

_logger = logging.getLogger("textcap")


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
    """Embeds sounds with the audio encoder of one backbone.

    Attributes:
        store: Keeps the embeddings of files, by the SHA-256 of their bytes.

    Args:
        precision: In which the tower computes; int8 leaves it at float32.
        keeps: Whether embeddings are kept in the cache folder.
    """

    def __init__(
        self, backbone: Backbone, device: torch.device, precision: str = "float32", *, keeps: bool = True
    ) -> None:
        self._backbone, self._device, self._dtype = backbone, device, half_precision(precision)
        clap = backbone.config.clap
        rules = f"{READING_VERSION} {sorted(asdict(clap.audio).items())}"
        if self._dtype != torch.float32:
            rules += f" {precision}"
        own = backbone.clap.name, backbone.clap.content_hash, clap.embedding_width
        self.store = Store.of("audio", *own, rules) if keeps else NoStore(Path(os.devnull), clap.embedding_width)

    @cached_property
    def encoder(self) -> AudioEncoder:
        """The audio encoder, which is loaded when it is first needed."""
        return self._backbone.audio_encoder(self._device).compute_in(self._dtype)

    def embed(
        self,
        sources: Sequence[SoundSource],
        *,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] = lambda n_done, n_total: None,
        reading: Reading = lambda index: None,
    ) -> list[Recording | InputError]:
        """Return the recording of each sound, or the error why it cannot be read.

        A file is identified by its bytes: copies are embedded once, and a file that has changed is embedded again.
        What has no path is always embedded.

        Args:
            batch_size: Number of windows to embed at once, over several sounds, and number of sounds that are kept
                together, by default what suits the backbone; it affects embeddings only by rounding.
            progress: Called with the number of sounds done and the total.
            reading: Called from another thread with the index of each sound before it is read, and with None when no
                other is read for now.

        Raises:
            DeviceError: The device has too little memory.
        """
        batch_size = self._backbone.config.batch_size(batch_size)
        keys = self._keys(sources)
        # A sound without a key, such as a pipe, stands for itself; reading it tells what is wrong with it.
        items: list[bytes | int] = [index if key is None else key for index, key in enumerate(keys)]
        rows = self.store.read([key or b"" for key in keys])
        found: dict[bytes | int, Recording | InputError] = {
            item: _recording_of(row) for item, row in zip(items, rows, strict=True) if row is not None
        }
        missing = list({item: index for index, item in enumerate(items) if item not in found}.values())
        progress(len(sources) - len(missing), len(sources))
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            chosen = [sources[index] for index in batch]
            with memory_errors(f"on {self._device} while embedding sounds", hint=_MEMORY_HINT):
                results = self._embed(chosen, batch_size, renumbered(reading, batch))
            new: dict[bytes, Row] = {}
            for index, key, result in zip(batch, self._keys(chosen), results, strict=True):
                # A file that was changed while it was read has another key now.
                if key is not None and key == keys[index] and isinstance(result, Recording):
                    new[key] = _row_of(result)
            self.store.write(new)
            found.update(zip((items[index] for index in batch), results, strict=True))
            progress(len(sources) - len(missing) + start + len(batch), len(sources))
        results = [found[item] for item in items]
        return [r.at(name_of(s)) if isinstance(r, FileError) else r for r, s in zip(results, sources, strict=True)]

    def windows(
        self,
        source: SoundSource,
        *,
        hop_s: float | None = None,
        batch_size: int | None = None,
        reading: Reading = lambda index: None,
    ) -> WindowEmbeddings:
        """Return the embeddings of the windows of a sound; they are not kept.

        Args:
            hop_s: Distance between the starts of two windows in seconds; by default half a window.
            batch_size: As in `embed`.
            reading: As in `embed`.

        Raises:
            InputError: The sound cannot be read, or `hop_s` is out of range.
            DeviceError: The device has too little memory.
        """
        audio = self.with_hop(hop_s)
        spans: list[tuple[float, float, bool]] = []
        vectors: list[NDArray[np.float32]] = []

        def take(_: int, window: Window, vector: Tensor) -> None:
            spans.append((window.start_s, window.end_s, window.is_silent))
            vectors.append(vector.numpy())

        with memory_errors(f"on {self._device} while embedding {name_of(source)}", hint=_MEMORY_HINT):
            size = self._backbone.config.batch_size(batch_size)
            (outcome,) = self._encode([source], audio, size, take, reading)
        if isinstance(outcome, InputError):
            raise outcome.at(name_of(source)) if isinstance(outcome, FileError) else outcome
        units = np.stack(vectors)
        if not np.isfinite(units).all():
            raise _not_finite(source)
        starts_s, ends_s, is_silent = map(np.array, zip(*spans, strict=True))
        return WindowEmbeddings(units, starts_s, ends_s, is_silent, float(ends_s[-1] - starts_s[0]), outcome)

    def with_hop(self, hop_s: float | None) -> AudioConfig:
        """Return how sounds are cut into windows that start so many seconds apart, by default half a window.

        Raises:
            SettingError: `hop_s` is out of range.
        """
        audio = self._backbone.config.clap.audio
        return replace(audio, hop_s=audio.window_s / 2 if hop_s is None else hop_s)

    def _keys(self, sources: Sequence[SoundSource]) -> list[bytes | None]:
        """Return the keys of sounds in the store; None for one that is not a file."""
        paths = {i: Path(source) for i, source in enumerate(sources) if isinstance(source, str | os.PathLike)}
        keys = dict(zip(paths, self.store.file_keys(list(paths.values())), strict=True))
        return [keys.get(i) for i in range(len(sources))]

    def _embed(self, sources: Sequence[SoundSource], batch_size: int, reading: Reading) -> list[Recording | InputError]:
        clap = self._backbone.config.clap
        sums = torch.zeros(len(sources), clap.embedding_width)
        spans: dict[int, tuple[float, float]] = {}  # start and end of each sound
        is_silent = [True] * len(sources)

        def take(i: int, window: Window, vector: Tensor) -> None:
            sums[i] += vector
            spans[i] = spans.get(i, (window.start_s,))[0], window.end_s
            is_silent[i] &= window.is_silent

        outcomes = self._encode(sources, clap.audio, batch_size, take, reading)
        units = torch.nn.functional.normalize(sums, dim=-1).numpy()  # the sum and the mean have the same direction
        results: list[Recording | InputError] = []
        for i, outcome in enumerate(outcomes):
            if isinstance(outcome, InputError):
                results.append(outcome)
            elif not np.isfinite(units[i]).all():
                results.append(_not_finite(sources[i]))
            else:
                start_s, end_s = spans[i]
                results.append(Recording(units[i], end_s - start_s, is_silent[i], outcome))
        return results

    @torch.inference_mode()
    def _encode(
        self,
        sources: Sequence[SoundSource],
        audio: AudioConfig,
        batch_size: int,
        take: _Take,
        reading: Reading,
    ) -> list[_Outcome]:
        """Embed the windows of sounds, and call `take` for each with the index of its sound and its vector `[E]`."""
        outcomes: dict[int, _Outcome] = {}
        pending: list[tuple[int, Window]] = []

        def flush() -> None:
            if pending:
                samples = torch.from_numpy(np.stack([window.samples for _, window in pending]))  # [W, S]
                vectors = self.encoder(samples.to(self._device)).float().cpu()
                for (i, window), vector in zip(pending, vectors, strict=True):
                    take(i, window, vector)
                pending.clear()

        with ExitStack() as copies:
            # Pipes are copied first: reading them may block, and a thread that is blocked cannot be stopped.
            held = [_or_error(source, copies) for source in sources]
            for i, item in copies.enter_context(_read_ahead(_read_all(held, audio, reading), batch_size)):
                if isinstance(item, Window):
                    pending.append((i, item))
                else:
                    outcomes[i] = item
                if len(pending) == batch_size:
                    flush()
            flush()
        return [outcomes[i] for i in range(len(sources))]


def log_findings(sources: Sequence[SoundSource], recordings: Sequence[Recording | InputError]) -> None:
    """Log a warning for each note on a sound, and one with the number of silent sounds, which are left out."""
    for source, recording in zip(sources, recordings, strict=True):
        for note in recording.notes if isinstance(recording, Recording) else ():
            _logger.warning("%s %s", name_of(source), note)
    if n_silent := sum(isinstance(recording, Recording) and recording.is_silent for recording in recordings):
        _logger.warning("left out %s", counted(n_silent, "silent sound"))


@contextmanager
def _read_ahead(items: Generator[T, None, None], n: int) -> Generator[Generator[T, None, None], None, None]:
    """Run a generator in a thread of its own, at most n items ahead.

    When the block is left, for whatever reason, the thread has ended and the generator is closed. What the generator
    raises is raised by the generator that the block gets.
    """
    queue: Queue[tuple[T] | BaseException | None] = Queue(n)
    stopped = Event()

    def work() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                queue.put((item,))
                if stopped.is_set():
                    break
        except BaseException as error:
            end = error
        items.close()
        queue.put(end)

    def results() -> Generator[T, None, None]:
        while (found := queue.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found[0]

    thread = Thread(target=work, name="textcap-reader", daemon=True)
    thread.start()
    try:
        yield results()
    finally:
        stopped.set()
        while thread.is_alive():
            with suppress(Empty):  # the thread may wait for a place
                queue.get(timeout=0.01)


def _read_all(
    sources: Sequence[SoundSource | InputError], audio: AudioConfig, reading: Reading
) -> Generator[tuple[int, Window | _Outcome], None, None]:
    """Yield the windows of sounds with the index of the sound, and after the last one of each its outcome."""
    for i, source in enumerate(sources):
        notes: list[str] = []
        reading(i)
        try:
            if isinstance(source, InputError):
                raise source
            for window in read_windows(source, audio, note=notes.append):
                yield i, window
            yield i, tuple(notes)
        except InputError as error:
            yield i, error
    reading(None)


def renumbered(reading: Reading, numbers: Sequence[int]) -> Reading:
    """Return a function that passes on the number of each index, and None as it is."""
    return lambda index: reading(None if index is None else numbers[index])


def _or_error(source: SoundSource, copies: ExitStack) -> SoundSource | InputError:
    try:
        return spooled(source, copies)
    except InputError as error:
        return error


def _recording_of(row: Row) -> Recording:
    facts = json.loads(row.facts)
    return Recording(np.frombuffer(row.value, "<f4"), **{**facts, "notes": tuple(facts["notes"])})


def _row_of(recording: Recording) -> Row:
    facts = {"duration_s": recording.duration_s, "is_silent": recording.is_silent, "notes": recording.notes}
    return Row(recording.embedding.astype("<f4").tobytes(), json.dumps(facts).encode())


def _not_finite(source: SoundSource) -> FileError:
    hint = "the weights of the backbone may be damaged"
    return FileError(name_of(source), "has an embedding that is NaN or infinite", hint=hint)
