"""The folder that `textcap demo` works in: captions to train on, sounds nobody trained on, and pairs.

Knows no model. Everything follows from the seed; captions are of training scenes only, and a third of the sounds
have combinations of events that stand in no caption.
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from textcap.demo.grammar import word_scene
from textcap.demo.render import render_scene
from textcap.demo.scenes import Scene, sample_scene
from textcap.errors import InputError
from textcap.files import atomic_folder, atomic_write_text

RATE_HZ = 16000
N_REFERENCES = 5
N_SEEN, N_UNSEEN, N_PAIRS = 16, 8, 120

# Streams of the seed, far apart so that no clip is drawn twice.
_CAPTION_STREAM, _HELD_OUT_STREAM, _PAIR_STREAM = 1, 10_000_000, 2


@dataclass(frozen=True)
class Clip:
    """One clip of the sound world: what happens in it, the seed of its sound, and captions of it."""

    scene: Scene
    sound_seed: int
    captions: tuple[str, ...]


def training_captions(n_captions: int, seed: int) -> list[str]:
    """Return captions of training scenes."""
    rng = np.random.default_rng([seed, _CAPTION_STREAM])
    return [word_scene(sample_scene(rng, unseen=False), rng) for _ in range(n_captions)]


def held_out_clips(n_seen: int, n_unseen: int, seed: int) -> list[Clip]:
    """Return clips for testing, with five captions each.

    Args:
        n_seen: Clips whose combinations of sounds may stand in training captions.
        n_unseen: Clips with a pair of sounds that stands in no training caption; they come last.
    """
    return [_draw_clip([seed, _HELD_OUT_STREAM, i], N_REFERENCES, unseen=i >= n_seen) for i in range(n_seen + n_unseen)]


def training_pairs(n_pairs: int, seed: int) -> list[Clip]:
    """Return clips of training scenes with one caption each."""
    return [_draw_clip([seed, _PAIR_STREAM, i], 1, unseen=False) for i in range(n_pairs)]


def write_sounds(clips: Sequence[Clip], folder: Path, *, n_processes: int = 1) -> list[str]:
    """Render clips into a folder as `001.wav` and so on; return the file names in order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i + 1:03d}.wav" for i in range(len(clips))]
    jobs = [(folder / name, clip) for name, clip in zip(names, clips, strict=True)]
    if n_processes == 1:
        for job in jobs:
            _write_sound(job)
    else:
        with ProcessPoolExecutor(n_processes) as pool:
            list(pool.map(_write_sound, jobs, chunksize=16))
    return names


def write_demo_folder(folder: Path, *, n_captions: int, seed: int = 0, force: bool = False) -> list[Clip]:
    """Write what the demo trains on and what it captions.

    `captions.txt`, `sounds/` with 24 held-out clips and their `references.json`, `pairs/` with 120 further clips
    and their `pairs.csv`.

    Returns:
        The held-out clips, in the order of their files.

    Raises:
        InputError: The folder is there already and `force` is not set, it is not a demo's, or cannot be written.
    """
    held_out, pairs = held_out_clips(N_SEEN, N_UNSEEN, seed), training_pairs(N_PAIRS, seed)
    with atomic_folder(folder, force=force, is_ours=_is_demo_folder) as new:
        atomic_write_text(new / "captions.txt", "\n".join(training_captions(n_captions, seed)) + "\n")
        names = write_sounds(held_out, new / "sounds")
        references = {name: clip.captions for name, clip in zip(names, held_out, strict=True)}
        atomic_write_text(new / "references.json", json.dumps(references, indent=1) + "\n")
        names = write_sounds(pairs, new / "pairs")
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["file_name", "caption"])
        writer.writerows((f"pairs/{name}", clip.captions[0]) for name, clip in zip(names, pairs, strict=True))
        atomic_write_text(new / "pairs.csv", rows.getvalue())
    return held_out


def _is_demo_folder(folder: Path) -> bool:
    return (
        os.path.isfile(folder / "captions.txt")
        and os.path.isfile(folder / "references.json")
        and os.path.isdir(folder / "sounds")
    )


def _draw_clip(seed: Sequence[int], n_captions: int, *, unseen: bool) -> Clip:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, unseen=unseen)
    captions: dict[str, None] = {}  # different ones, in the order drawn
    while len(captions) < n_captions:
        captions[word_scene(scene, rng)] = None
    return Clip(scene, int(rng.integers(2**62)), tuple(captions))


def _write_sound(job: tuple[Path, Clip]) -> None:
    path, clip = job
    samples = render_scene(clip.scene, clip.sound_seed, RATE_HZ)
    try:
        soundfile.write(path, samples, RATE_HZ)
    except soundfile.SoundFileRuntimeError as error:  # a full disk, among others: libsndfile does not say
        raise InputError(f"cannot write {path}: {error}", hint="free some space, or write elsewhere") from error
