"""Every sound is read by its content, as the ffmpeg program reads it; no other file is read, and nothing printed."""

import csv
import io
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from textcap.audio.decoding import SoundReader
from textcap.audio.sources import Sound, SoundSource
from textcap.audio.windows import Window, read_windows
from textcap.config import AudioConfig
from textcap.errors import FileError, InputError

RATE_HZ = 16000
SMALL = AudioConfig(sample_rate_hz=RATE_HZ, window_s=1.0, hop_s=1.0)


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., bytes]:
    """The ffmpeg program: called with arguments, it returns what it writes to standard output."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()

    def run(*arguments: object) -> bytes:
        command = [program, "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout

    return run


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Three seconds of a chirp with noise, in stereo, as WAV."""
    t = np.arange(3 * 44100) / 44100
    left = 0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t) + np.random.default_rng(0).normal(0, 0.01, len(t))
    soundfile.write(tmp_path / "tone.wav", np.stack([left, 0.5 * left], axis=1), 44100)
    return tmp_path / "tone.wav"


def read(source: SoundSource, rate_hz: int = RATE_HZ) -> tuple[np.ndarray, list[str]]:
    """Return the mean over the channels of a sound, and the notes."""
    notes: list[str] = []
    return np.concatenate([block.mean(axis=1) for block in SoundReader(source, rate_hz, notes.append)]), notes


def windows_of(source: SoundSource) -> tuple[list[Window], list[str]]:
    notes: list[str] = []
    return list(read_windows(source, SMALL, note=notes.append)), notes


def correlation(found: np.ndarray, expected: np.ndarray, rate_hz: int = RATE_HZ) -> float:
    """Return the best correlation of two signals that are shifted by at most 50 ms, over what both contain."""
    best = -1.0
    for shift in sorted(range(-rate_hz // 20, rate_hz // 20 + 1), key=abs):
        one, other = found[max(0, shift) :], expected[max(0, -shift) :]
        n = min(len(one), len(other))
        if n < 0.9 * max(len(found), len(expected)) - rate_hz // 20:
            continue
        one, other = one[:n] - one[:n].mean(), other[:n] - other[:n].mean()
        best = max(best, float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-20)))
        if best > 0.9995:
            break
    return best


def ffmpeg_reads(ffmpeg: Callable[..., bytes], path: Path, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Return what ffmpeg decodes, at its own rate, with the channels averaged; then resampled as textcap does."""
    raw = ffmpeg("-i", path, "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-rf64", "never", "-")
    samples, found_hz = soundfile.read(io.BytesIO(raw), dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), found_hz, rate_hz)


# Every format, against the ffmpeg program.

FORMATS = {
    "aac.m4a": "-c:a aac",
    "fast.m4a": "-c:a aac -movflags +faststart",
    "alac.m4a": "-c:a alac",
    "fragments.mp4": "-c:a aac -movflags frag_keyframe+empty_moov",
    "adts.aac": "-c:a aac -f adts",
    "wma.wma": "-c:a wmav2",
    "amr.amr": "-c:a libopencore_amrnb -ar 8000 -ac 1",
    "ac3.ac3": "-c:a ac3",
    "eac3.mka": "-c:a eac3",
    "dts.dts": "-c:a dca -strict -2",
    "opus.webm": "-c:a libopus -ar 48000",
    "opus.ogg": "-c:a libopus -ar 48000",
    "vorbis.ogg": "-c:a libvorbis",
    "flac.ogg": "-c:a flac",
    "flac.flac": "-c:a flac",
    "flac24.flac": "-c:a flac -sample_fmt s32",
    "mp3.mp3": "-c:a libmp3lame",
    "cbr.mp3": "-c:a libmp3lame -b:a 128k -write_xing 0 -id3v2_version 0",
    "mp2.mp2": "-c:a mp2",
    "wavpack.wv": "-c:a wavpack",
    "tta.tta": "-c:a tta",
    "film.ts": "-c:a mp2 -f mpegts",
    "flash.flv": "-c:a libmp3lame",
    "adpcm.wav": "-c:a adpcm_ms",
    "gsm-like.wav": "-c:a adpcm_ima_wav",
    "mp3.wav": "-c:a libmp3lame",
    "pcm.mov": "-c:a pcm_s24be",
    "pcm.mkv": "-c:a pcm_s16le",
    "pcm.au": "-c:a pcm_s16be",
    "pcm.aiff": "-c:a pcm_s24be",
    "pcm.caf": "-c:a pcm_s16be",
    "alac.caf": "-c:a alac",
    "pcm64.wav": "-c:a pcm_s64le",
    "pcm.w64": "-c:a pcm_f64le",
    "pcm.rf64": "-c:a pcm_s16le -rf64 always -f wav",
    "alaw.wav": "-c:a pcm_alaw",
}


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_read_as_ffmpeg_reads_it(ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    ffmpeg("-i", tone, *FORMATS[name].split(), path)
    named = path.rename(tmp_path / "sound.txt")  # the name says nothing
    # At its own rate, because the delay of a codec, which old releases do not trim everywhere, is whole samples there.
    found, notes = read(named, 44100)
    assert notes == []
    assert correlation(found, ffmpeg_reads(ffmpeg, named, 44100), 44100) > 0.999
    with named.open("rb") as file:
        np.testing.assert_array_equal(read(file, 44100)[0], found)
        assert not file.closed


@pytest.mark.parametrize("name", [name for name in soundfile.available_formats() if name not in ("RAW", "SD2", "SDS")])
def test_all_that_libsndfile_reads_is_read(tmp_path: Path, name: str) -> None:
    samples = 0.5 * np.sin(np.arange(RATE_HZ) * 0.1)
    soundfile.write(tmp_path / "a", samples, RATE_HZ, format=name)
    expected, rate_hz = soundfile.read(tmp_path / "a", dtype="float32")
    found, notes = read(tmp_path / "a", rate_hz)
    assert notes == []
    assert correlation(found, expected, rate_hz) > 0.999


# The test data: files in odd, rare and broken forms.

# What differs from ffmpeg, and why.
NOT_AS_FFMPEG = {
    "broken/corrupt_middle.flac": "a frame is lost; textcap puts silence in its place, ffmpeg joins what is left",
    "real/tinytag_vbri.mp3": "a packet of its first second is torn",
}
# The files that textcap warns about; each is broken in the way that its note says.
NOTES = {
    "broken/corrupt_middle.flac": "has ",  # gaps; and by the version of FFmpeg, packets that cannot be decoded
    "broken/mm_adts-0-frame.mp3": "ends early: 217.63 s of 217.81 s are missing",
    "broken/truncated_dog_16.flac": "ends early: 3.43 s of 5.00 s are missing",
    "derived/dog_antiphase_stereo.wav": "has channels whose mean is almost silent, so the loudest one is used",
    "real/tinytag_vbri.mp3": "ends early: 221.75 s of 222.20 s are missing",  # the first 8 KB of a song
}


def odd_files(test_data: Path) -> dict[str, float]:
    """Return how many seconds of each file ffmpeg decodes."""
    with (test_data / "audio_odd" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: float(row["ffmpeg_decoded_s"] or 0) for row in csv.DictReader(file)}


def libsndfile_decodes(path: Path) -> bool:
    try:
        samples, rate_hz = soundfile.read(path)
    except soundfile.SoundFileError:
        return False
    return len(samples) >= 0.01 * rate_hz


def test_odd_files_are_read_where_ffmpeg_or_libsndfile_reads_them(test_data: Path) -> None:
    files = odd_files(test_data)
    assert len(files) == 106
    for name, decoded_s in files.items():
        path = test_data / "audio_odd" / name
        try:
            windows, notes = windows_of(path)
        except FileError as error:
            assert str(error).startswith(f"{path} ") and "\n" not in str(error)
            assert decoded_s < 0.01 and not libsndfile_decodes(path), error
        else:
            assert decoded_s >= 0.01 or libsndfile_decodes(path), name
            assert all(w.samples.shape == (RATE_HZ,) and np.isfinite(w.samples).all() for w in windows)
            assert bool(notes) == (name in NOTES), (name, notes)
            assert all(note.startswith(NOTES[name]) for note in notes)


@pytest.mark.long
def test_odd_files_sound_as_ffmpeg_decodes_them(ffmpeg: Callable[..., bytes], test_data: Path) -> None:
    n_compared = 0
    for name, decoded_s in odd_files(test_data).items():
        path = test_data / "audio_odd" / name
        if decoded_s < 0.1 or all(window.is_silent for window in windows_of(path)[0]) or name in NOT_AS_FFMPEG:
            continue
        if "antiphase" in name:  # its mean is silent
            continue
        assert correlation(read(path)[0], ffmpeg_reads(ffmpeg, path)) > 0.999, name
        n_compared += 1
    assert n_compared >= 45


@pytest.mark.parametrize("part", [pytest.param(slice(0, 40, 8)), pytest.param(slice(None), marks=pytest.mark.long)])
def test_real_sounds_are_as_ffmpeg_decodes_them(ffmpeg: Callable[..., bytes], test_data: Path, part: slice) -> None:
    paths = sorted((test_data / "audio_real").glob("*/*"))
    assert len(paths) == 40
    for path in paths[part]:
        found, notes = read(path)
        assert notes == []
        assert correlation(found, ffmpeg_reads(ffmpeg, path)) > 0.999, path


# Time.


def test_a_film_has_the_time_of_its_container(ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path) -> None:
    film = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=5", "-itsoffset", "1.5", "-i", tone]
    for name in ("film.mp4", "film.mkv", "film.ts"):
        ffmpeg(*film, "-c:v", "mpeg2video" if name.endswith("ts") else "mpeg4", "-c:a", "mp2", tmp_path / name)
        windows, notes = windows_of(tmp_path / name)
        assert notes == []
        assert windows[0].start_s == pytest.approx(1.5, abs=0.05)
        assert windows[-1].end_s == pytest.approx(4.5, abs=0.05)
        found, expected = read(tmp_path / name, 44100)[0], ffmpeg_reads(ffmpeg, tmp_path / name, 44100)
        assert correlation(found, expected, 44100) > 0.999


def test_a_gap_in_the_time_stamps_is_silence(ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path) -> None:
    ffmpeg("-i", tone, "-af", "asetpts=PTS+if(gt(T\\,1)\\,2/TB\\,0)", "-c:a", "flac", tmp_path / "gap.mka")
    found, notes = read(tmp_path / "gap.mka")
    assert [note[:47] for note in notes] == ["has gaps in its time stamps, which are taken as"]
    assert len(found) / RATE_HZ == pytest.approx(5, abs=0.05)
    whole, _ = read(tone)
    [*_, (start, end)] = [(i, j) for i, j in zip(*_silent_runs(found), strict=True) if j - i > RATE_HZ]
    assert (end - start) / RATE_HZ == pytest.approx(2, abs=0.05)
    start, end = start - 500, end + 500  # without the resampler's ringing
    assert correlation(found[:start], whole[:start]) > 0.995
    assert correlation(found[end:], whole[end - len(found) :]) > 0.995


def _silent_runs(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.diff(np.concatenate(([0], np.abs(samples) < 1e-6, [0])).astype(int))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def test_rate_and_channels_may_change_inside(ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path) -> None:
    parts = [("44100", "2"), ("22050", "1"), ("48000", "2")]
    for i, (rate_hz, channels) in enumerate(parts):
        ffmpeg("-i", tone, "-ar", rate_hz, "-ac", channels, "-c:a", "mp2", "-b:a", "160k", tmp_path / f"{i}.mp2")
    joined = tmp_path / "joined.mp2"
    joined.write_bytes(b"".join((tmp_path / f"{i}.mp2").read_bytes() for i in range(3)))
    found, _ = read(joined)
    assert len(found) / RATE_HZ == pytest.approx(9, abs=0.2)
    third = len(found) // 3
    whole, _ = read(tone)
    for i in range(3):
        middle = found[i * third + RATE_HZ : i * third + 2 * RATE_HZ]
        assert correlation(middle, whole[RATE_HZ : 2 * RATE_HZ]) > 0.95  # the delay of the codec is half a sample here


def test_pictures_are_passed_over(ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48", "-frames:v", "1", tmp_path / "cover.png")
    covered = [
        "-i",
        tone,
        "-i",
        tmp_path / "cover.png",
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "mjpeg",
        "-disposition:v",
        "attached_pic",
    ]
    for name in ("a.mp3", "a.m4a", "a.flac"):
        ffmpeg(*covered, tmp_path / name)
        found, notes = read(tmp_path / name)
        assert notes == []
        assert len(found) / RATE_HZ == pytest.approx(3, abs=0.05)
    with pytest.raises(FileError, match=r"cover\.png cannot be read as sound: it has no sound \(convert it"):
        read(tmp_path / "cover.png")


# What is missing.

WHOLE_AND_CUT = {
    "pcm.wav": "-c:a pcm_s16le",
    "pcm.aiff": "-c:a pcm_s16be",
    "pcm.rf64": "-c:a pcm_s16le -rf64 always -f wav",
    "flac.flac": "-c:a flac",
    "xing.mp3": "-c:a libmp3lame",
    "aac.m4a": "-c:a aac -movflags +faststart",
}


@pytest.mark.parametrize("name", WHOLE_AND_CUT)
def test_truncated_file_says_how_much_is_missing(
    ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path, name: str
) -> None:
    ffmpeg("-i", tone, *WHOLE_AND_CUT[name].split(), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(content[: len(content) * 6 // 10])
    found, notes = read(cut)
    missing_s = 3 - len(found) / RATE_HZ
    assert 0.8 < missing_s < 2
    [note] = notes
    words = note.split()
    assert (words[:2], words[3:5], words[6:]) == (["ends", "early:"], ["s", "of"], ["s", "are", "missing"])
    assert float(words[2]) == pytest.approx(missing_s, abs=0.1)
    assert float(words[5]) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("name", ["adts.aac", "opus.ogg", "vorbis.ogg", "wma.wma", "flac.ogg"])
def test_file_that_visibly_ends_early_says_so(
    ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path, name: str
) -> None:
    ffmpeg("-i", tone, *FORMATS[name].split(), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) * 6 // 10])
    assert read(tmp_path / "cut")[1] == ["ends early"]


@pytest.mark.parametrize("name", ["pcm.wav", "flac.flac", "xing.mp3", "aac.m4a", "cbr.mp3", "opus.ogg", "wavpack.wv"])
@pytest.mark.parametrize("tail", [b"TAG" + b"a" * 125, bytes(700), b"APETAGEX" + bytes(range(256))])
def test_whole_file_with_a_tag_after_it_gives_no_note(
    ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path, name: str, tail: bytes
) -> None:
    ffmpeg("-i", tone, *{**FORMATS, **WHOLE_AND_CUT}[name].split(), tmp_path / name)
    with (tmp_path / name).open("ab") as file:
        file.write(tail)
    assert read(tmp_path / name)[1] == []


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_streamed_wav_without_a_size_gives_no_note(tone: Path, tmp_path: Path, size: int) -> None:
    content = bytearray(tone.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    content[4:8] = struct.pack("<I", size)
    (tmp_path / "streamed.wav").write_bytes(content)
    found, notes = read(tmp_path / "streamed.wav")
    assert notes == []
    assert len(found) == 3 * RATE_HZ


def test_film_without_its_index_says_so(ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path) -> None:
    ffmpeg("-i", tone, tmp_path / "a.m4a")
    content = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=r"a\.m4a cannot be read as sound: its index is missing"):
        read(tmp_path / "a.m4a")


# Nothing but the file itself is read, and nothing is printed.


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\n{path}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\nfile:{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {path}\n",
        "ffconcat version 1.0\nfile tone.wav\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT3S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet mimeType="audio/wav"><Representation id="1" bandwidth="1"><BaseURL>{path}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
    ],
    ids=["hls", "hls protocol", "concat", "concat beside", "sdp", "dash"],
)
@pytest.mark.parametrize("name", ["x.wav", "x.m3u8"])
def test_playlist_opens_no_other_file(
    tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content.format(path=tone, port=51234), encoding="utf-8")
    begun = time.monotonic()
    with pytest.raises(FileError, match="cannot be read as sound: "):
        read(tmp_path / name)
    assert time.monotonic() - begun < 5  # and waits for no packet from the network


@pytest.mark.parametrize("name", ["concat:a.wav", "http:x.wav", "data:audio", "pipe:0", "%d.wav"])
@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
def test_names_are_not_protocols(tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    tone.rename(tmp_path / name)
    assert len(read(name)[0]) == 3 * RATE_HZ


def test_decoders_print_nothing(test_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in odd_files(test_data):
        try:
            read(test_data / "audio_odd" / name)
        except FileError:
            pass
    assert capfd.readouterr() == ("", "")


# Sources of every kind.


def test_pipe_of_any_format_is_read(ffmpeg: Callable[..., bytes], tone: Path, tmp_path: Path) -> None:
    ffmpeg("-i", tone, tmp_path / "a.m4a")  # its index is at the end
    content = (tmp_path / "a.m4a").read_bytes()
    read_end, write_end = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(write_end, content), os.close(write_end)))
    writer.start()
    with open(read_end, "rb") as pipe:
        found, _ = read(pipe)
    writer.join()
    np.testing.assert_array_equal(found, read(tmp_path / "a.m4a")[0])


def test_samples_in_memory_are_read(tone: Path) -> None:
    samples, rate_hz = soundfile.read(tone)
    np.testing.assert_allclose(read(Sound(samples, rate_hz))[0], read(tone)[0], atol=1e-6)
    np.testing.assert_allclose(read(Sound(samples.mean(axis=1), rate_hz))[0], read(tone)[0], atol=1e-6)
    for wrong in (np.zeros((2, 2, 2)), np.zeros(100, np.int16), np.zeros((100, 0))):
        with pytest.raises(ValueError, match=r"samples must be floating point \[S\] or \[S, C\], not "):
            read(Sound(wrong, 16000))
    with pytest.raises(FileError, match="samples has only 5 ms of sound"):
        read(Sound(np.zeros(80), 16000))
    with pytest.raises(FileError, match="samples has no samples"):
        read(Sound(np.zeros(0), 16000))


def test_open_file_is_read_from_its_start(tone: Path) -> None:
    file = io.BytesIO(tone.read_bytes())
    file.seek(1000)
    np.testing.assert_array_equal(read(file)[0], read(tone)[0])


def test_file_that_fails_while_it_is_read_is_an_error(tone: Path, ffmpeg: Callable[..., bytes], tmp_path: Path) -> None:
    ffmpeg("-i", tone, tmp_path / "a.mp3")

    class Failing(io.BytesIO):
        def read(self, n: int | None = -1, /) -> bytes:
            if self.tell() > 20_000:
                raise OSError(5, "Input/output error")
            return super().read(n)

    for path in (tone, tmp_path / "a.mp3"):
        with pytest.raises(FileError, match="open file cannot be read: Input/output error"):
            read(Failing(path.read_bytes()))


@pytest.mark.parametrize("rate_hz", [1000, 11025, 192_000, 384_000])
def test_any_rate_is_read(tmp_path: Path, rate_hz: int) -> None:
    samples = 0.5 * np.sin(2 * np.pi * 100 * np.arange(rate_hz) / rate_hz)
    soundfile.write(tmp_path / "a.wav", samples, rate_hz)
    expected = 0.5 * np.sin(2 * np.pi * 100 * np.arange(RATE_HZ) / RATE_HZ)
    np.testing.assert_allclose(read(tmp_path / "a.wav")[0][500:-500], expected[500:-500], atol=2e-3)


def test_rate_that_is_too_high_is_an_error(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(10_000), 500_000)
    with pytest.raises(InputError, match="has a sample rate of 500000 Hz, but must have at most 384,000 Hz"):
        read(tmp_path / "a.wav")


# Silence and channels.


@pytest.mark.parametrize("rate_hz", [16000, 44100])
@pytest.mark.parametrize("level", ["zero", "dc", "-80 dB", "-60 dB"])
def test_silence_is_known(tmp_path: Path, rate_hz: int, level: str) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 3 * rate_hz)
    signal = {"zero": 0 * noise, "dc": 0 * noise + 0.4, "-80 dB": 1e-4 * noise, "-60 dB": 1e-3 * noise + 0.1}[level]
    soundfile.write(tmp_path / "a.wav", signal, rate_hz, subtype="FLOAT")
    windows, notes = windows_of(tmp_path / "a.wav")
    assert [window.is_silent for window in windows] == [level != "-60 dB"] * 3
    assert notes == []


def test_windows_are_silent_one_by_one(tmp_path: Path) -> None:
    signal = np.zeros(4 * RATE_HZ)
    signal[RATE_HZ : 2 * RATE_HZ] = np.random.default_rng(0).uniform(-0.5, 0.5, RATE_HZ)
    soundfile.write(tmp_path / "a.wav", signal, RATE_HZ)
    assert [window.is_silent for window in windows_of(tmp_path / "a.wav")[0]] == [True, False, True, True]


def test_channels_that_cancel_give_way_to_the_loudest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    left = rng.uniform(-0.5, 0.5, 3 * RATE_HZ).astype(np.float32)
    right = left.copy()
    right[RATE_HZ : 2 * RATE_HZ] *= -0.9  # in the second window
    soundfile.write(tmp_path / "a.wav", np.stack([right, left], axis=1), RATE_HZ, subtype="FLOAT")
    windows, notes = windows_of(tmp_path / "a.wav")
    assert notes == ["has channels whose mean is almost silent, so the loudest one is used"]
    for i, window in enumerate(windows):
        np.testing.assert_allclose(window.samples, left[i * RATE_HZ : (i + 1) * RATE_HZ], atol=1e-6)


def test_channels_that_hardly_cancel_are_averaged(tmp_path: Path) -> None:
    left = np.random.default_rng(0).uniform(-0.5, 0.5, RATE_HZ).astype(np.float32)
    for factor, cancels in ((-0.79, False), (-0.81, True)):  # a mean of 0.105 and 0.095 of the louder channel
        soundfile.write(tmp_path / "a.wav", np.stack([left, factor * left], axis=1), RATE_HZ, subtype="FLOAT")
        assert bool(windows_of(tmp_path / "a.wav")[1]) == cancels


@pytest.mark.parametrize("n_channels", [3, 8, 32, 100, 255])
def test_any_number_of_channels_is_averaged(tmp_path: Path, n_channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE_HZ, 1)) * np.linspace(0.5, 1, n_channels)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    [window], notes = windows_of(tmp_path / "a.wav")
    assert notes == []
    np.testing.assert_allclose(window.samples, samples.mean(axis=1), atol=1e-5)


@pytest.mark.parametrize("n_channels", [2, 7, 8, 12])
def test_planes_of_many_channels_are_all_read(tmp_path: Path, n_channels: int) -> None:
    # FFmpeg decodes Vorbis to a plane for each channel, and PyAV finds one too many if there are 8 or more.
    tones = [np.sin(np.arange(RATE_HZ) * 0.02 * (1 + i)) / n_channels for i in range(n_channels)]
    soundfile.write(tmp_path / "a.ogg", np.stack(tones, axis=1), RATE_HZ, format="OGG", subtype="VORBIS")
    [window], notes = windows_of(tmp_path / "a.ogg")
    assert notes == []
    assert np.corrcoef(window.samples[:RATE_HZ], np.mean(tones, axis=0))[0, 1] > 0.98


@pytest.mark.parametrize("rate_hz", [RATE_HZ // 2, RATE_HZ, 2 * RATE_HZ])
@pytest.mark.parametrize("duration_s", [1, 14])
def test_sound_of_one_block_or_of_several_is_resampled_alike(tmp_path: Path, rate_hz: int, duration_s: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (rate_hz * duration_s, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate_hz, subtype="FLOAT")
    blocks = list(SoundReader(tmp_path / "a.wav", RATE_HZ, lambda note: None))
    assert (len(blocks) > 1) == (duration_s > 1)
    np.testing.assert_allclose(np.concatenate(blocks), soxr.resample(samples, rate_hz, RATE_HZ), atol=1e-6)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", ["flac.mkv", "pcm.wav"])
def test_memory_does_not_grow_with_length(ffmpeg: Callable[..., bytes], tmp_path: Path, form: str) -> None:
    ffmpeg(*"-f lavfi -i anoisesrc=r=8000:a=0.1:d=21600 -ac 1 -c:a".split(), *LONG[form].split(), tmp_path / form)
    child = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / form], capture_output=True, text=True, check=True, timeout=500
    )
    length_s, grown_bytes = map(float, child.stdout.split())
    assert length_s == pytest.approx(6 * 3600, abs=0.1)
    assert grown_bytes < 100e6


LONG = {"flac.mkv": "flac -compression_level 0", "pcm.wav": "pcm_u8"}
MEMORY = """
import sys
from pathlib import Path
from textcap.audio.sources import Sound
from textcap.audio.windows import read_windows
from textcap.config import AudioConfig
import numpy as np
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
audio = AudioConfig(sample_rate_hz=16000)
list(read_windows(Sound(np.zeros(160_000), 16000), audio))
before = most = resident()
for window in read_windows(sys.argv[1], audio):
    most = max(most, resident())
print(window.end_s, most - before)
"""


def test_decoding_needs_neither_torch_nor_more_than_the_base_packages() -> None:
    code = "import sys, textcap.audio.windows; print({'torch', 'transformers', 'av'} & {*sys.modules})"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "{'av'}\n"
