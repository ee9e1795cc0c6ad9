"""Write the folder that `textcap demo` works in: training captions, held-out sounds, and audio-text pairs.

Everything follows from the seed. The training captions describe training scenes only, and a third of the held-out
sounds contain a pair of events that occurs in no training caption. Models are left to `textcap.cli.demo`.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from textcap.data.text import read_text
from textcap.demo.grammar import word_scene
from textcap.demo.render import render_scene
from textcap.demo.scenes import Scene, sample_scene
from textcap.errors import InputError
from textcap.files import DEMO_FOLDER, atomic_folder

RATE_HZ = 16000
N_REFERENCES = 5
N_SEEN, N_UNSEEN, N_PAIRS = 16, 8, 120

# Random streams of one seed, all different so that no clip is drawn twice.
_CAPTION_STREAM, _HELD_OUT_STREAM, _PAIR_STREAM = 1, 10_000_000, 2


@dataclass(frozen=True)
class Clip:
    """One clip of the sound world: its scene, the seed that its sound is rendered from, and its captions."""

    scene: Scene
    sound_seed: int
    captions: tuple[str, ...]


def training_captions(n_captions: int, seed: int) -> list[str]:
    """Return captions of training scenes, drawn from a seed."""
    rng = np.random.default_rng([seed, _CAPTION_STREAM])
    return [word_scene(sample_scene(rng, unseen=False), rng) for _ in range(n_captions)]


def held_out_clips(n_seen: int, n_unseen: int, seed: int) -> list[Clip]:
    """Return clips for testing, with five captions each.

    Args:
        n_seen: Number of clips whose combinations of sounds may occur in training captions.
        n_unseen: Number of clips with a pair of sounds that occurs in no training caption; they come last.
        seed: Seed of the scenes, sounds and captions.
    """
    return [_draw_clip([seed, _HELD_OUT_STREAM, i], N_REFERENCES, unseen=i >= n_seen) for i in range(n_seen + n_unseen)]


def training_pairs(n_pairs: int, seed: int) -> list[Clip]:
    """Return clips of training scenes with one caption each."""
    return [_draw_clip([seed, _PAIR_STREAM, i], 1, unseen=False) for i in range(n_pairs)]


def write_sounds(clips: Sequence[Clip], folder: Path) -> list[str]:
    """Render clips into a folder as `001.wav`, `002.wav` and so on; return the file names in order.

    Raises:
        InputError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i + 1:03d}.wav" for i in range(len(clips))]
    for name, clip in zip(names, clips, strict=True):
        samples = render_scene(clip.scene, clip.sound_seed, RATE_HZ)
        try:
            soundfile.write(folder / name, samples, RATE_HZ)
        except soundfile.SoundFileRuntimeError as error:  # libsndfile gives no reason: the disk may be full
            hint = "free some space, or use another folder"
            raise InputError(f"{folder / name} cannot be written: {error}", hint=hint) from error
    return names


def write_demo_folder(folder: Path, *, n_captions: int, seed: int = 0, force: bool = False) -> list[Clip]:
    """Write the data that the demo trains on and captions.

    The folder holds `demo.json`, which marks it as the demo's; `captions.txt`; `sounds/` with the held-out clips, and
    `references.json` with their captions; `pairs/` with further clips, and `pairs.csv` with one caption for each.

    Args:
        folder: The folder to write.
        n_captions: Number of training captions.
        seed: Seed of all captions and sounds.
        force: Replace an existing folder if it is empty or has nothing in it but what the demo wrote.

    Returns:
        The held-out clips, in the order of their files.

    Raises:
        InputError: The folder exists and may not be replaced, or cannot be written.
    """
    held_out, pairs = held_out_clips(N_SEEN, N_UNSEEN, seed), training_pairs(N_PAIRS, seed)
    with atomic_folder(folder, kind=DEMO_FOLDER, force=force) as new:
        _write(new / DEMO_FOLDER.mark_file, _mark(n_captions, seed))
        _write(new / "captions.txt", "\n".join(training_captions(n_captions, seed)) + "\n")
        names = write_sounds(held_out, new / "sounds")
        references = {name: clip.captions for name, clip in zip(names, held_out, strict=True)}
        _write(new / "references.json", json.dumps(references, indent=1) + "\n")
        names = write_sounds(pairs, new / "pairs")
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["file_name", "caption"])
        writer.writerows((f"pairs/{name}", clip.captions[0]) for name, clip in zip(names, pairs, strict=True))
        _write(new / "pairs.csv", rows.getvalue())
    return held_out


def is_demo_folder(folder: Path, *, n_captions: int, seed: int = 0) -> bool:
    """Return whether a folder was written with these settings, and has nothing in it but what the demo writes.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        is_same = read_text(folder / DEMO_FOLDER.mark_file).text == _mark(n_captions, seed)
    except InputError:
        return False
    return is_same and DEMO_FOLDER.in_the_way(folder) is None


def _mark(n_captions: int, seed: int) -> str:
    return json.dumps({"kind": DEMO_FOLDER.mark, "n_captions": n_captions, "seed": seed}) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def _draw_clip(seed: Sequence[int], n_captions: int, *, unseen: bool) -> Clip:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, unseen=unseen)
    captions: dict[str, None] = {}  # distinct captions in the order drawn
    while len(captions) < n_captions:
        captions[word_scene(scene, rng)] = None
    return Clip(scene, int(rng.integers(2**62)), tuple(captions))
