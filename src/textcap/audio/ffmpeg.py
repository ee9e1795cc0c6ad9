"""Decode sound with FFmpeg, through PyAV: compressed sound of every kind, and films.

FFmpeg is given open files without a name and may open nothing else, so neither a name nor a playlist makes it read
another file or the network.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.audio.plane import AudioPlane
from av.error import FFmpegError, InvalidDataError

from textcap.data.text import counted

Samples = npt.NDArray[np.float32]
Note = Callable[[str], None]  # called with what the user must know, worded to follow the name of the sound

# FFmpeg's sample formats, without the p of those that have a plane for each channel.
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}

_LEAST_BLOCK_S = 6.0
_MOST_BLOCK_SAMPLES = 1 << 18  # over all channels

# Time stamps may be rounded or drift by less than this; a larger gap is one in the sound.
_LEAST_GAP_S = 0.05
_MOST_GAPS_S = 3600.0  # more in total are time stamps that cannot be trusted
_LEAST_MISSING_S = 0.25  # headers count the padding of a codec, up to about 0.2 s, as sound

# Containers whose headers give the length of a stream; in others FFmpeg infers it from what is there.
_LENGTH_IN_HEADER = {"aiff", "ape", "au", "avi", "caf", "flac", "mov", "tta", "w64", "wav", "wv"}
# The first frame of an MP3 that says how many follow: a header, zeros, and a name with the flag that there is a count.
_MP3_LENGTH = re.compile(
    rb"\xff[\xe0-\xff][\s\S]{2,4}\0{9,32}((Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|VBRI)"
)
_GUESSED = ("amrnb", "amrwb")  # AMR without a header, which some versions take other files for
_MP3_HEAD_BYTES = 4096  # more than a frame of MP3 has
_OGG_PAGE_BYTES = 65307  # the most that a page has

# Versions before 19 refuse tags that are not UTF-8 unless told otherwise.
_TAGS: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


class UndecodableError(Exception):
    """A file holds nothing that the decoder can read; the message says why."""


@dataclass(frozen=True)
class Block:
    """Consecutive samples of a sound.

    Attributes:
        samples: `[S, C]`, float32, nominally in the range -1 to 1.
        rate_hz: Sample rate.
        start_s: When they start, in the container's own time.
    """

    samples: Samples
    rate_hz: int
    start_s: float = 0.0


def decode(file: BinaryIO, note: Note) -> Iterator[Block]:
    """Yield the first audio stream of a file; pictures and films are passed over.

    Time is that of the container, in which the earliest stream starts at 0. What FFmpeg trims, such as the delay of an
    encoder, is trimmed. A gap in the time stamps becomes silence, so that later sounds keep their time. A packet that
    does not decode is passed over.

    Args:
        file: A file that can be read at any place.
        note: Called at the end with what is missing.

    Raises:
        UndecodableError: FFmpeg does not recognise the file, or it has no sound that FFmpeg can decode.
    """
    try:
        options = {"protocol_whitelist": "none"}
        container = av.open(file, container_options=options, io_open=_refuse, **_TAGS)
    except FFmpegError as error:
        raise UndecodableError(_reason(error, file)) from error
    with container:
        if container.format.name in _GUESSED:
            raise UndecodableError("its format is not known")
        if not container.streams.audio:
            raise UndecodableError("it has no sound")
        if container.streams.audio[0].codec_context is None:  # decoding crashes without one
            raise UndecodableError("its codec is not known")
        yield from _Stream(container, file).blocks(note)


class _Stream:
    """The first audio stream of a container, and what its packets have shown."""

    def __init__(self, container: Any, file: BinaryIO) -> None:
        self._container, self._file = container, file
        self._stream = container.streams.audio[0]
        self._first_byte: int | None = None  # of the first packet
        self._n_failed = self._n_failed_last = 0  # packets before the last that can be decoded, and after it
        self._ends_inside = False  # the last packet is incomplete, or what follows it cannot be read
        self._length_s = self._gaps_s = 0.0

    def blocks(self, note: Note) -> Iterator[Block]:
        """Yield blocks of several seconds; a block has one sample rate and one number of channels."""
        held: list[Any] = []  # frames
        start_s, form, n_held, most = 0.0, (0, 0, ""), 0, 0.0
        for frame, frame_s, n_silent in self._frames_in_time():
            rate_hz, n_channels, _ = new_form = frame.sample_rate, frame.layout.nb_channels, frame.format.name
            if held and (new_form != form or n_silent or n_held >= most):
                yield Block(_samples(held), form[0], start_s)
                held, n_held = [], 0
            for start in range(-n_silent, 0, rate_hz):
                silence = np.zeros((min(rate_hz, -start), n_channels), np.float32)
                yield Block(silence, rate_hz, frame_s + start / rate_hz)
            if not held:
                start_s, form = frame_s, new_form
                most = min(_LEAST_BLOCK_S * rate_hz, _MOST_BLOCK_SAMPLES / n_channels)
            held.append(frame)
            n_held += frame.samples
        if not held:
            raise UndecodableError("none of its packets can be decoded" if self._n_failed_last else "it has no samples")
        yield Block(_samples(held), form[0], start_s)
        for text in self._notes():
            note(text)

    def _frames_in_time(self) -> Iterator[tuple[Any, float, int]]:
        """Yield each frame with its start, and the number of samples of silence that fill a gap before it."""
        origin_s = (self._container.start_time or 0) / 1e6
        end_s: float | None = None
        for frame in self._frames():
            n_samples, rate_hz = frame.samples, frame.sample_rate
            if not n_samples or rate_hz <= 0:
                continue
            time_s = frame.time
            start_s = time_s - origin_s if time_s is not None else end_s or 0.0
            if end_s is None:
                end_s = max(0.0, start_s)
            gap_s = start_s - end_s
            n_silent = 0
            if gap_s > _LEAST_GAP_S and self._gaps_s + gap_s <= _MOST_GAPS_S:
                self._gaps_s += gap_s
                n_silent = round(gap_s * rate_hz)
                end_s += n_silent / rate_hz
            elif gap_s > _LEAST_GAP_S:
                origin_s += gap_s
            yield frame, end_s, n_silent
            end_s += n_samples / rate_hz
            self._length_s += (n_silent + n_samples) / rate_hz

    def _frames(self) -> Iterator[Any]:
        """Yield the frames of the packets that can be decoded, and count the others."""
        try:
            for packet in self._container.demux(self._stream):
                if self._first_byte is None:
                    self._first_byte = packet.pos or 0
                try:
                    frames = packet.decode()
                except FFmpegError:
                    self._n_failed_last += any(bytes(packet))  # zeros are padding
                    continue
                if packet.size:  # not the end mark, after which a decoder gives what it still has
                    self._n_failed, self._n_failed_last = self._n_failed + self._n_failed_last, 0
                    self._ends_inside = packet.is_corrupt
                yield from frames
        except FFmpegError:
            self._ends_inside = True

    def _notes(self) -> Iterator[str]:
        expected_s = self._length_in_header_s()
        missing_s = math.inf if expected_s is None else expected_s - self._length_s
        if expected_s is not None and missing_s > _LEAST_MISSING_S:
            yield ends_early(missing_s, expected_s)
        elif missing_s > _LEAST_GAP_S and (self._n_failed_last or self._ends_inside or self._is_torn()):
            yield "ends early"  # unless all is there, and what cannot be read comes after it, such as a tag
        if self._n_failed:
            yield f"has {counted(self._n_failed, 'packet')} that cannot be decoded and are left out"
        if self._gaps_s:
            yield f"has gaps in its time stamps, which are taken as silence: {self._gaps_s:.2f} s"

    def _length_in_header_s(self) -> float | None:
        names = set(self._container.format.name.split(","))
        stream, whole = self._stream, self._container
        if names & {"matroska", "flv"} and len(whole.streams) == 1:  # the length is that of the longest stream
            return whole.duration / 1e6 if whole.duration else None
        is_known = bool(names & _LENGTH_IN_HEADER)
        if "mp3" in names:
            is_known = bool(_MP3_LENGTH.search(self._bytes_before(self._first_byte or 0, _MP3_HEAD_BYTES)))
        return float(stream.duration * stream.time_base) if is_known and stream.duration else None

    def _is_torn(self) -> bool:
        """Return whether the last page of an Ogg file is incomplete; FFmpeg drops such a page silently."""
        if self._container.format.name != "ogg":
            return False
        tail = self._bytes_before(self._file.seek(0, 2), 2 * _OGG_PAGE_BYTES)
        page = tail[tail.rfind(b"OggS") :]
        n_segments = page[26] if len(page) > 26 else 0
        return b"OggS" in tail and len(page) < 27 + n_segments + sum(page[27 : 27 + n_segments])

    def _bytes_before(self, place: int, n: int) -> bytes:
        self._file.seek(max(0, place - n))
        return self._file.read(min(place, n))


def ends_early(missing_s: float, whole_s: float) -> str:
    """Return the note on a sound whose header says that there should be more."""
    return f"ends early: {missing_s:.2f} s of {whole_s:.2f} s are missing"


def _samples(frames: Sequence[Any]) -> Samples:
    """Return the samples of frames of one form, `[S, C]`."""
    form, n_channels = frames[0].format, frames[0].layout.nb_channels
    dtype = np.dtype(_DTYPES[form.name.removesuffix("p")])
    n_planes = n_channels if form.is_planar else 1
    values = np.empty((sum(frame.samples for frame in frames) * n_channels // n_planes, n_planes), dtype)
    start = 0
    for frame in frames:
        n = frame.samples * n_channels // n_planes
        for place in range(n_planes):  # `frame.planes` finds one too many if there are 8 or more
            plane: Any = AudioPlane(frame, place)
            values[start : start + n, place] = np.frombuffer(plane, dtype, n)
        start += n
    values = values.reshape(-1, n_channels)
    with np.errstate(over="ignore"):  # a double too large becomes infinite, which is an error of its own
        samples = values.astype(np.float32, copy=False)
    if dtype.kind != "f":
        samples /= np.float32(2.0 ** (8 * dtype.itemsize - 1))
        samples -= np.float32(dtype.kind == "u")  # unsigned samples have their zero in the middle
    return samples


def _refuse(url: str, flags: int, options: object) -> Any:
    raise PermissionError(f"{url} is not opened")


def _reason(error: FFmpegError, file: BinaryIO) -> str:
    if isinstance(error, PermissionError):  # the file itself is open, so this is about another one
        return "it is a list of other files"
    if not isinstance(error, InvalidDataError):
        return error.strerror or str(error)
    file.seek(4)
    return "its index is missing, as in an unfinished film" if file.read(4) == b"ftyp" else "its format is not known"
