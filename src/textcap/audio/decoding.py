"""Decode sounds of every kind to samples at a given rate.

What a sound is shows in its content, never in its name. libsndfile reads containers of plain samples, FFmpeg all else,
and soxr resamples. Sounds are read in blocks, so memory does not grow with their length.
"""

import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from shutil import copyfileobj
from typing import BinaryIO, cast

import numpy as np
import soundfile
import soxr

from textcap.audio.ffmpeg import Block, Note, Samples, UndecodableError, decode, ends_early
from textcap.audio.sources import Sound, SoundSource, name_of
from textcap.data.text import open_input
from textcap.errors import FileError
from textcap.files import unreadable

LEAST_S = 0.01  # of sound
SILENCE = 10 ** (-70 / 20)  # the peak below which sound is silence, once its DC offset is removed

# Limits of one block: samples over all channels, and seconds, because a header may claim any sample rate.
_BLOCK_SAMPLES = 1 << 18  # larger blocks are not read faster
_BLOCK_S = 6
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1000, 384_000
_LOUDEST = 1e3  # 60 dB above full scale: no recording is louder
_MOST_CHANNELS = 64  # that are resampled each; a window of them at 44.1 kHz takes 80 MB
_CANCELLED = 0.1  # 20 dB below the loudest channel

# Containers that libsndfile is asked about first, by their first bytes, and subtypes in which no decoder can fail.
_PLAIN_MAGIC = (b"RIFF", b"RIFX", b"FORM", b".snd", b"caff", b"NIST")
_PLAIN_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# MPEG sound, alone or in a WAV file, about which libsndfile is never asked: libmpg123 prints to standard error.
_MPEG = re.compile(rb"\A(ID3|\xff[\xe0-\xff])|fmt [\s\S]{4}\x55\0")
# What libsndfile's log says of a file that is shorter than its header: bytes of sound, claimed and there.
_BYTES_CLAIMED = re.compile(r"^ *(?:data|SSND|BODY|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_UNKNOWN_BYTES = 0x7FFF0000  # or more: the size in headers that were written before the sound


class SoundReader:
    """Reads one sound once, in blocks of samples at a given rate.

    Attributes:
        start_s: When the sound starts, in the container's own time; known with the first block.

    Args:
        rate_hz: Sample rate of the blocks.
        note: Called with what the user must know, worded to follow the name, such as "ends early".
    """

    def __init__(self, source: SoundSource, rate_hz: int, note: Note) -> None:
        self._source, self._name, self._rate_hz, self._note = source, name_of(source), rate_hz, note
        self.start_s = 0.0

    def __iter__(self) -> Iterator[Samples]:
        """Yield blocks `[S, C]`, float32, nominally in the range -1 to 1; some may be empty.

        Raises:
            FileError: The sound cannot be read, is shorter than `LEAST_S`, has a sample rate out of range, or contains
                samples that are NaN, infinite or far out of range.
            InputError: The path is not a valid file name.
        """
        resampler: soxr.ResampleStream | None = None
        rate_hz = n_channels = 0
        offset = np.zeros(0, np.float32)
        length_s = 0.0
        for block, is_last in _mark_last(self._decoded()):
            self._check(block)
            samples = block.samples
            if samples.shape[1] > _MOST_CHANNELS:
                samples = mix(samples)[0][:, None]
            if not rate_hz:
                self.start_s, n_channels = block.start_s, samples.shape[1]
                offset = _offset(samples)
            elif samples.shape[1] != n_channels:
                samples = np.repeat(samples.mean(axis=1, keepdims=True), n_channels, axis=1)
            if block.rate_hz != rate_hz:
                if resampler is not None:
                    yield _flush(resampler, n_channels) + offset
                rate_hz = block.rate_hz
                resampler = None
                if rate_hz != self._rate_hz and not is_last:  # one call gives the same samples in half the time
                    resampler = soxr.ResampleStream(rate_hz, self._rate_hz, n_channels, dtype="float32")
            length_s += len(samples) / rate_hz
            moved = samples - offset if offset.any() else samples
            if resampler is not None:
                resampled = resampler.resample_chunk(moved)
            elif rate_hz != self._rate_hz:
                resampled = soxr.resample(moved, rate_hz, self._rate_hz)
            else:
                resampled = moved
            yield resampled + offset if offset.any() else resampled
        if length_s < LEAST_S - 1e-9:
            problem = f"has only {1000 * length_s:.3g} ms of sound" if length_s else "has no samples"
            raise FileError(self._name, problem, hint=f"give at least {1000 * LEAST_S:g} ms" if length_s else None)
        if resampler is not None:
            yield _flush(resampler, n_channels) + offset

    def _decoded(self) -> Iterator[Block]:
        if isinstance(self._source, Sound):
            yield from _memory_blocks(self._source)
            return
        with ExitStack() as stack:
            opened = stack.enter_context(_opened(self._source))
            if not opened.seekable():
                opened = stack.enter_context(_copied(opened, self._source))
            file = _File(opened)
            try:
                yield from _file_blocks(file, self._note)
            except UndecodableError as error:
                if file.error is None:
                    raise self._not_sound(file, error) from error
            if file.error is not None:
                raise unreadable(self._name, file.error) from file.error

    def _check(self, block: Block) -> None:
        rate = block.rate_hz
        if not _LOWEST_RATE_HZ <= rate <= _HIGHEST_RATE_HZ:
            side = f"at least {_LOWEST_RATE_HZ:,}" if rate < _LOWEST_RATE_HZ else f"at most {_HIGHEST_RATE_HZ:,}"
            problem = f"has a sample rate of {rate} Hz, but must have {side} Hz"
            raise FileError(self._name, problem, hint="convert it to another rate")
        loudest = float(np.abs(block.samples).max(initial=0))
        if not math.isfinite(loudest):
            raise FileError(self._name, "contains NaN or infinite samples", hint="export it again")
        if loudest > _LOUDEST:
            problem = f"contains samples far outside the range from -1 to 1, up to {loudest:.3g}"
            raise FileError(self._name, problem, hint="export it again, scaled to that range")

    def _not_sound(self, file: "_File", error: Exception) -> FileError:
        if not file.seek(0, os.SEEK_END):
            return FileError(self._name, "is empty")
        return FileError(self._name, f"cannot be read as sound: {error}", hint="convert it to WAV or FLAC")


def mix(samples: Samples) -> tuple[Samples, bool]:
    """Return the mean `[S]` over the channels of `[S, C]`, or the loudest where they cancel, and whether they do."""
    if samples.shape[1] == 1 or not len(samples):
        return samples.mean(axis=1), False
    channels = np.ascontiguousarray(samples.T)  # [C, S], on which numpy is ten times as fast
    mean: Samples = channels.mean(axis=0)
    levels = channels.std(axis=1)  # without the DC offset
    if mean.std() < _CANCELLED * levels.max():
        return channels[levels.argmax()], True
    return mean, False


def spooled(source: SoundSource, copies: ExitStack) -> SoundSource:
    """Return a source that can be read at any place: the same, or a temporary copy of a pipe, which `copies` closes.

    Raises:
        FileError: The source cannot be read or copied.
        InputError: The path is not a valid file name.
    """
    if isinstance(source, Sound) or (isinstance(source, str | os.PathLike) and os.path.isfile(source)):
        return source
    with _opened(source) as file:
        return source if file.seekable() else copies.enter_context(_copied(file, source))


def _opened(source: str | os.PathLike[str] | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return open_input(os.fspath(source)) if isinstance(source, str | os.PathLike) else nullcontext(source)


def _copied(file: BinaryIO, source: SoundSource) -> BinaryIO:
    try:
        copy = tempfile.TemporaryFile(prefix=".textcap-")
        copyfileobj(file, copy)
        return cast(BinaryIO, copy)
    except OSError as error:
        raise unreadable(name_of(source), error) from error


class _File:
    """An open file as decoders see it: without a name, and with errors kept, which their callbacks cannot raise."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.tell = file, file.tell
        self.error: OSError | None = None

    def read(self, n: int = -1) -> bytes:
        try:
            return self._file.read(n)
        except OSError as error:
            self.error = error
            return b""

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(place, whence)
        except (OSError, ValueError):  # a place before the start, in a broken file
            return -1


def _file_blocks(file: _File, note: Note) -> Iterator[Block]:
    """Yield the sound of a file, from its start, by whichever decoder can read it.

    Raises:
        UndecodableError: None can.
    """
    file.seek(0)
    head = file.read(4096)
    is_mpeg = _MPEG.search(head)
    if head[:4] in _PLAIN_MAGIC and not is_mpeg:
        sound = None
        with suppress(soundfile.SoundFileError):
            sound = _with_libsndfile(file)
        if sound is not None and sound.frames and sound.subtype.startswith(_PLAIN_SUBTYPES):
            yield from _plain_blocks(sound, note)
            return
    file.seek(0)
    blocks = decode(cast(BinaryIO, file), note)
    try:
        first = next(blocks)
    except UndecodableError as error:
        if is_mpeg:
            raise
        try:  # libsndfile knows a few formats more
            with _with_libsndfile(file) as sound:
                yield from _plain_blocks(sound, note)
        except soundfile.SoundFileError:
            raise error from None
    else:
        yield first
        yield from blocks


def _with_libsndfile(file: _File) -> soundfile.SoundFile:
    file.seek(0)
    return soundfile.SoundFile(file, closefd=False)


def _plain_blocks(sound: soundfile.SoundFile, note: Note) -> Iterator[Block]:
    while len(samples := sound.read(_frames_at_once(sound.channels, sound.samplerate), "float32", always_2d=True)):
        yield Block(samples, sound.samplerate)
    n_claimed, n_there = map(int, found.groups()) if (found := _BYTES_CLAIMED.search(sound.extra_info)) else (0, 0)
    if n_there and n_claimed < _UNKNOWN_BYTES:
        length_s = sound.frames / sound.samplerate
        whole_s = length_s * n_claimed / n_there
        if whole_s - length_s >= LEAST_S:
            note(ends_early(whole_s - length_s, whole_s))


def _memory_blocks(sound: Sound) -> Iterator[Block]:
    samples = sound.samples[:, None] if sound.samples.ndim == 1 else sound.samples
    if samples.ndim != 2 or not samples.shape[1] or samples.dtype.kind != "f":
        raise ValueError(f"samples must be floating point [S] or [S, C], not {samples.dtype} {samples.shape}")
    n_frames = _frames_at_once(samples.shape[1], sound.rate_hz)
    for start in range(0, len(samples), n_frames):
        with np.errstate(over="ignore"):  # a value too large becomes infinite, which is an error of its own
            yield Block(samples[start : start + n_frames].astype(np.float32), sound.rate_hz)


def _frames_at_once(n_channels: int, rate_hz: int) -> int:
    return max(1, min(_BLOCK_SAMPLES // n_channels, _BLOCK_S * rate_hz))


def _offset(samples: Samples) -> Samples:
    """Return the DC offset `[C]` of the channels that are silent but for it.

    A resampler makes a click of the step at both ends of such a channel, so the offset goes around it.
    """
    few = samples[:: max(1, len(samples) // 1000)]
    if (np.ptp(few, axis=0) >= 2 * SILENCE).all():  # as most sounds are, and this is cheap
        return np.zeros(samples.shape[1], np.float32)
    offset: Samples = samples.mean(axis=0)
    offset[np.abs(samples - offset).max(axis=0) >= SILENCE] = 0
    return offset


def _mark_last(blocks: Iterator[Block]) -> Iterator[tuple[Block, bool]]:
    """Yield each block with whether it is the last one."""
    held = next(blocks, None)
    while held is not None:
        following = next(blocks, None)
        yield held, following is None
        held = following


def _flush(resampler: soxr.ResampleStream, n_channels: int) -> Samples:
    rest: Samples = resampler.resample_chunk(np.zeros((0, n_channels), np.float32), last=True)
    return rest
