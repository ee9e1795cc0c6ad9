"""Decoding sound files of all kinds and cutting them into windows, and the errors for files that cannot be used."""

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from textcap.audio.windows import cut_windows, read_windows
from textcap.config import AudioConfig
from textcap.errors import InputError

# 70 samples every 35
SMALL = AudioConfig(sample_rate_hz=100, window_s=0.7, hop_s=0.35, n_fft=64, stft_hop_samples=16)


def _noise(n_samples: int, n_channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n_samples, n_channels)).astype(np.float32)


def _write(path: Path, samples: np.ndarray, rate_hz: int = 44100) -> Path:
    soundfile.write(path, samples, rate_hz, subtype="FLOAT")
    return path


@settings(deadline=None)
@given(
    n_samples=st.integers(1, 1000),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    hop=st.integers(1, 70),
)
def test_windows_cover_every_sample_for_any_blocks(n_samples: int, cuts: list[int], hop: int) -> None:
    config = replace(SMALL, hop_s=hop / 100)
    signal = np.arange(1, n_samples + 1, dtype=np.float32)
    blocks = np.split(signal, sorted(min(cut, n_samples) for cut in cuts))
    windows = list(cut_windows(iter(blocks), config))

    assert all(len(w.samples) == 70 for w in windows)
    assert windows[-1].end_s == n_samples / 100
    if n_samples <= 70:
        assert len(windows) == 1
        np.testing.assert_array_equal(windows[0].samples, np.resize(signal, 70))
    else:
        covered = np.zeros(n_samples, bool)
        for window in windows:
            start = round(window.start_s * 100)
            np.testing.assert_array_equal(window.samples, signal[start : start + 70])
            covered[start : start + 70] = True
        assert covered.all()
        starts = [round(w.start_s * 100) for w in windows]
        assert starts[:-1] == list(range(0, hop * (len(starts) - 1), hop))
        assert starts[-1] == n_samples - 70
        assert starts[-1] - starts[-2] <= hop


def test_short_clip_is_repeated_to_fill_one_window(tmp_path: Path) -> None:
    samples = _noise(3 * 44100)
    [window] = read_windows(_write(tmp_path / "a.wav", samples), AudioConfig())
    np.testing.assert_array_equal(window.samples, np.tile(samples[:, 0], 3)[: 7 * 44100])
    assert (window.start_s, window.end_s) == (0.0, 3.0)


def test_stereo_channels_are_averaged(tmp_path: Path) -> None:
    samples = _noise(7 * 44100, n_channels=2)
    [window] = read_windows(_write(tmp_path / "a.wav", samples), AudioConfig())
    np.testing.assert_allclose(window.samples, samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000, 96000])
def test_resampling_in_blocks_equals_resampling_at_once(tmp_path: Path, rate_hz: int) -> None:
    samples = _noise(rate_hz * 20 + 17, seed=rate_hz)
    windows = list(read_windows(_write(tmp_path / "a.wav", samples, rate_hz), AudioConfig()))
    whole = soxr.resample(samples[:, 0], rate_hz, 44100)
    assert windows[-1].end_s == pytest.approx(20 + 17 / rate_hz, abs=1e-3)
    np.testing.assert_allclose(windows[0].samples, whole[: 7 * 44100], atol=1e-5)
    np.testing.assert_allclose(windows[-1].samples, whole[-7 * 44100 :], atol=1e-5)


def test_reading_a_file_twice_gives_equal_windows(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", _noise(30 * 22050), 22050)
    first, second = (list(read_windows(path, AudioConfig())) for _ in range(2))
    assert len(first) == 8
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE"])
def test_all_sample_formats_give_equal_samples(tmp_path: Path, subtype: str) -> None:
    samples = _noise(7 * 44100)
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype=subtype)
    [window] = read_windows(tmp_path / "a.wav", AudioConfig())
    step = {"PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_U8": 2**-7}.get(subtype, 1e-7)
    np.testing.assert_allclose(window.samples, samples[:, 0], atol=1.01 * step)


def test_silence_is_read(tmp_path: Path) -> None:
    [window] = read_windows(_write(tmp_path / "a.wav", np.zeros((441, 1), np.float32)), AudioConfig())
    assert not window.samples.any()
    assert window.is_silent


def test_sound_under_10_ms_is_an_error(tmp_path: Path) -> None:
    assert len(list(read_windows(_write(tmp_path / "a.wav", _noise(441)), AudioConfig()))) == 1
    with pytest.raises(InputError, match=r"a\.wav has only 9\.98 ms of sound \(give at least 10 ms\)"):
        list(read_windows(_write(tmp_path / "a.wav", _noise(440)), AudioConfig()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a sound at all", "cannot be read as sound"),
        (b"<html><body>404</body></html>", "cannot be read as sound"),
    ],
)
def test_file_that_is_not_sound_is_an_error_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        list(read_windows(path, AudioConfig()))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.wav does not exist"):
        list(read_windows(tmp_path / "nothing.wav", AudioConfig()))
    with pytest.raises(InputError, match=r"is a folder \(name the files in it"):
        list(read_windows(tmp_path, AudioConfig()))


def test_file_without_samples_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.wav has no samples"):
        list(read_windows(_write(tmp_path / "a.wav", _noise(0)), AudioConfig()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_an_error(tmp_path: Path, value: float) -> None:
    samples = _noise(1000)
    samples[500] = value
    with pytest.raises(InputError, match="contains NaN or infinite samples"):
        list(read_windows(_write(tmp_path / "a.wav", samples), AudioConfig()))


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names must be Unicode here")
def test_file_with_a_name_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    written = _write(tmp_path / "a.wav", _noise(1000))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    written.rename(odd)
    [window] = read_windows(odd, AudioConfig())
    assert window.end_s == pytest.approx(1000 / 44100)


def test_extension_is_ignored(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", _noise(1000)).rename(tmp_path / "a.raw")
    assert len(list(read_windows(path, AudioConfig()))) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe_is_read(tmp_path: Path) -> None:
    content = _write(tmp_path / "a.wav", _noise(1000)).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,), daemon=True)
    writer.start()
    [window] = read_windows(tmp_path / "pipe", AudioConfig())
    writer.join(timeout=10)
    assert window.end_s == pytest.approx(1000 / 44100)


@pytest.mark.parametrize("name", ["n" * 5000 + ".wav", "a.wav/b.wav", "nul\0.wav", "half\ud800.wav"])
def test_impossible_file_name_is_an_error(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "a.wav", _noise(10))
    with pytest.raises(InputError, match="cannot be read: File name too long|does not exist|is not a valid file name"):
        list(read_windows(tmp_path / name, AudioConfig()))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read all files")
def test_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    _write(closed / "a.wav", _noise(10))
    closed.chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be read: Permission denied"):
            list(read_windows(closed / "a.wav", AudioConfig()))
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("value", [3e38, -1e30, 1001])
def test_samples_far_out_of_range_are_an_error(tmp_path: Path, value: float) -> None:
    samples = _noise(1000)
    samples[500] = value
    with pytest.raises(InputError, match="contains samples far outside the range from -1 to 1, up to "):
        list(read_windows(_write(tmp_path / "a.wav", samples), AudioConfig()))


def test_samples_slightly_out_of_range_are_read(tmp_path: Path) -> None:
    assert len(list(read_windows(_write(tmp_path / "a.wav", 1999 * _noise(1000)), AudioConfig()))) == 1


@pytest.mark.parametrize("rate_hz", [1, 999])
def test_sample_rate_that_is_too_low_is_an_error(tmp_path: Path, rate_hz: int) -> None:
    with pytest.raises(InputError, match=f"has a sample rate of {rate_hz} Hz, but must have at least 1,000 Hz"):
        list(read_windows(_write(tmp_path / "a.wav", _noise(100), rate_hz), AudioConfig()))


def test_blocks_stay_small_for_any_rate_and_number_of_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class RecordingStream(soxr.ResampleStream):
        def resample_chunk(self, x: np.ndarray, last: bool = False) -> np.ndarray:
            resampled = super().resample_chunk(x, last)
            sizes.append(len(resampled))
            return resampled

    monkeypatch.setattr(soxr, "ResampleStream", RecordingStream)
    slow = _write(tmp_path / "slow.wav", _noise(60_000), 1000)  # a minute
    assert list(read_windows(slow, AudioConfig()))[-1].end_s == pytest.approx(60, abs=0.01)
    wide = _write(tmp_path / "wide.wav", _noise(20_000, n_channels=64), 48000)
    assert list(read_windows(wide, AudioConfig()))[-1].end_s == pytest.approx(20_000 / 48000, abs=0.001)
    assert max(sizes) < 2**19
