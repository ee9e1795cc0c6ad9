"""Sounds and captions of the sound world to measure with, made once in the work folder."""

from pathlib import Path

import numpy as np
import soundfile

from benchmarks.processes import ONE_THREAD, made, run_process, textcap
from textcap.demo.folder import training_captions
from textcap.demo.render import render_scene
from textcap.demo.scenes import sample_scene
from textcap.models.backbone import Backbone

_SEED = 77


def world_sounds(work: Path, n: int, duration_s: float, rate_hz: int = 16000) -> Path:
    """Return a folder of WAV files with sounds of the sound world."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        for index in range(n):
            soundfile.write(folder / f"{index:05}.wav", _scene_sound(index, rate_hz, duration_s), rate_hz)

    return made(work / f"sounds-{duration_s:g}s-{rate_hz}-{n}", write)


def mixed_sounds(work: Path, n: int) -> list[Path]:
    """Return sound files in four formats, at several rates, with one or two channels, of 2 to 7 s."""
    formats, rates_hz = ("wav", "flac", "ogg", "mp3"), (16000, 22050, 44100, 48000)

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        for index in range(n):
            rate_hz, duration_s = rates_hz[index // 4 % 4], 2.0 + index % 6
            sound = _scene_sound(index, rate_hz, duration_s)
            if index % 3 == 0:
                sound = np.stack((sound, 0.5 * _scene_sound(index + n, rate_hz, duration_s)), axis=1)
            soundfile.write(folder / f"{index:04}.{formats[index % 4]}", sound, rate_hz)

    return sorted(made(work / f"mixed-2-7s-{n}", write).iterdir())


def tiny_model(work: Path) -> Path:
    """Return a model folder of the tiny backbone, which has hardly been trained: its captions need not be good.

    Its bridge is noise, which models of older versions have as well.
    """
    return _tiny_model(work, 512, "--epochs", "4", "--bridge", "noise")


def trained_model(work: Path, n_captions: int) -> Path:
    """Return a model folder of the tiny backbone, trained like that of the demo."""
    return _tiny_model(work, n_captions, "--epochs", "10", "--learning-rate", "2e-3")


def _tiny_model(work: Path, n_captions: int, *options: str) -> Path:
    def train(folder: Path) -> None:
        words = ("--backbone", "tiny", "--held-out", "0", "--quiet", *options)
        run_process(textcap("train", world_captions(work, n_captions), "-o", folder, *words), work, ONE_THREAD)

    # Another tiny backbone would refuse the model.
    return made(work / f"tiny-model-{Backbone.load('tiny').content_hash[:8]}-{n_captions}", train)


def world_captions(work: Path, n: int) -> Path:
    """Return a text file of captions of the sound world."""

    def write(path: Path) -> None:
        path.write_text("\n".join(training_captions(n, _SEED)) + "\n", encoding="utf-8")

    return made(work / f"captions-{n}.txt", write)


def _scene_sound(index: int, rate_hz: int, duration_s: float) -> np.ndarray:
    scene = sample_scene(np.random.default_rng([_SEED, index]), unseen=False)
    # A scene has at least 2 s: of a shorter sound, take what is in the middle.
    sound, n = render_scene(scene, index, rate_hz, max(duration_s, 2.0)), round(duration_s * rate_hz)
    start = (len(sound) - n) // 2
    return sound[start : start + n]
