"""Broken files of every format, in processes with limits of memory and time: only our errors, in one line.

A process decodes many files; if one ends it, the process itself, the file is known by its number.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

resource = pytest.importorskip("resource", reason="needs limits of memory")

# Decodes mutated files; prints the number of each before, and what is wrong after, so that a crash names its file.
CHILD = """
import json, random, resource, sys, time
from pathlib import Path
from textcap.audio.windows import read_windows
from textcap.config import AudioConfig
from textcap.errors import InputError

folder, first, last, limit_bytes = Path(sys.argv[1]), *map(int, sys.argv[2:])
AUDIO = AudioConfig(sample_rate_hz=16000, window_s=1.0, hop_s=1.0)
seeds = sorted(folder.glob("*.seed"))
list(read_windows(seeds[0], AUDIO))  # everything is loaded
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
resource.setrlimit(resource.RLIMIT_AS, (used + limit_bytes, resource.RLIM_INFINITY))


def mutated(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        place = min(int(rng.expovariate(1 / 150)), len(content) - 1)  # most in the header
        kind = rng.randrange(6)
        if kind < 3:
            content[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 3:
            four = (bytes(4), b"\\xff" * 4, b"\\x7f" + b"\\xff" * 3, b"\\0\\0\\0\\x80")
            content[place : place + 4] = rng.choice(four)
        elif kind == 4:
            del content[place : place + rng.randrange(1, 9)]
        else:
            content[place:place] = rng.randbytes(rng.randrange(1, 9))
    return bytes(content[: rng.randrange(len(content))] if not rng.randrange(8) else content) or b"x"


for number in range(first, last):
    rng = random.Random(number)
    path = folder / f"{first}.mutated"
    path.write_bytes(mutated(rng.choice(seeds).read_bytes(), rng))
    print(number, flush=True)
    begun = time.monotonic()
    try:
        for window in read_windows(path, AUDIO):
            assert window.samples.shape == (16000,)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\\n" not in str(error), str(error)
    assert time.monotonic() - begun < 10, "too slow"
print("done")
"""

FORMATS = {
    "wav": "-c:a pcm_s16le -f wav",
    "float": "-c:a pcm_f32le -f wav",
    "adpcm": "-c:a adpcm_ms -f wav",
    "aiff": "-c:a pcm_s16be -f aiff",
    "caf": "-c:a alac -f caf",
    "au": "-c:a pcm_s16be -f au",
    "w64": "-c:a pcm_s16le -f w64",
    "flac": "-c:a flac -f flac",
    "mp3": "-c:a libmp3lame -f mp3",
    "mp3 in wav": "-c:a libmp3lame -f wav",
    "m4a": "-c:a aac -movflags +faststart -f mp4",
    "fragments": "-c:a aac -movflags frag_keyframe+empty_moov -f mp4",
    "alac": "-c:a alac -movflags +faststart -f mp4",
    "adts": "-c:a aac -f adts",
    "wma": "-c:a wmav2 -f asf",
    "opus": "-c:a libopus -ar 48000 -f ogg",
    "vorbis": "-c:a libvorbis -f ogg",
    "webm": "-c:a libopus -ar 48000 -f webm",
    "mkv": "-c:a ac3 -f matroska",
    "ts": "-c:a mp2 -f mpegts",
    "flv": "-c:a libmp3lame -f flv",
    "wv": "-c:a wavpack -f wv",
    "tta": "-c:a tta -f tta",
    "amr": "-c:a libopencore_amrnb -ar 8000 -ac 1 -f amr",
    "avi": "-c:a mp2 -f avi",
}


@pytest.mark.parametrize(
    "n_files",
    [40, pytest.param(500, marks=pytest.mark.long), pytest.param(10_000, marks=pytest.mark.slow)],
)
def test_mutated_files_give_only_our_errors(tmp_path: Path, n_files: int) -> None:
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    t = np.arange(22050) / 22050
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t), 22050)
    for name, options in FORMATS.items():
        command = [program, "-loglevel", "error", "-i", tmp_path / "tone.wav", *options.split()]
        subprocess.run([*command, tmp_path / f"{name}.seed"], check=True, stdin=subprocess.DEVNULL)
    first = 0
    while first < n_files:
        last = min(first + 200, n_files)
        arguments = [tmp_path, first, last, 500 << 20]
        child = subprocess.run(
            [sys.executable, "-c", CHILD, *map(str, arguments)], capture_output=True, text=True, timeout=600
        )
        assert child.stdout.endswith("done\n"), (child.returncode, child.stdout[-20:], child.stderr[-2000:])
        assert child.stderr == ""
        first = last
