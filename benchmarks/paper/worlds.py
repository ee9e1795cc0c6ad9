"""Provide the clips, captions and embeddings that all parts share.

Audio and text are embedded once and kept in the work folder. Training is left to `benchmarks.paper.parts`.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.dial.turn import Dial
from benchmarks.paper.plan import (
    CALIBRATION_SEED,
    DIAL_COSINE,
    N_CALIBRATION_PAIRS,
    N_REFERENCES,
    N_SEEN,
    N_UNSEEN,
    WORLD_SEED,
    Plan,
)
from benchmarks.paper.writers import WRITERS, references
from benchmarks.sound_world import embed_sounds, embed_texts, keep_array
from textcap.demo.folder import Clip, held_out_clips, training_pairs
from textcap.demo.scenes import Scene
from textcap.files import atomic_write_text


@cache
def training_clips(n_clips: int) -> list[Clip]:
    """Return the training clips, each with one plain caption."""
    return training_pairs(n_clips, WORLD_SEED)


@cache
def clips_for_testing() -> list[Clip]:
    """Return the test clips, unseen combinations last."""
    return held_out_clips(N_SEEN, N_UNSEEN, WORLD_SEED)


def captions_of(writer: str, n_captions: int) -> list[str]:
    """Return a writer's training captions.

    They describe the training clips. Only the second writer describes other clips, so that the added text is about
    different scenes.
    """
    if writer in ("plain", "audio"):
        return [clip.captions[0] for clip in training_clips(n_captions)]
    rng = np.random.default_rng([WORLD_SEED, _stream(writer)])
    return [WRITERS[writer].word(scene, rng) for scene in scenes_of(writer, n_captions)]


def scenes_of(writer: str, n_captions: int) -> list[Scene]:
    """Return the scenes that a writer's training captions describe."""
    if writer == "second":
        return [clip.scene for clip in training_pairs(2 * n_captions, WORLD_SEED)[n_captions:]]
    return [clip.scene for clip in training_clips(n_captions)]


def _stream(writer: str) -> int:
    """Return the number of a writer's stream of random numbers."""
    return int.from_bytes(writer.encode(), "big")


def references_by(writer: str) -> list[list[str]]:
    """Return a writer's five captions of each test clip."""
    if writer == "plain":
        return [list(clip.captions) for clip in clips_for_testing()]
    rng = np.random.default_rng([WORLD_SEED, _stream(writer), 1])
    return [references(writer, clip.scene, N_REFERENCES, rng) for clip in clips_for_testing()]


def prepare(plan: Plan, work: Path, n_jobs: int) -> None:
    """Write all missing embeddings and reference files to the work folder."""
    calibration = training_pairs(N_CALIBRATION_PAIRS, CALIBRATION_SEED)
    sounds = {"test-audio": clips_for_testing(), "calibration-audio": calibration}
    sounds["audio"] = training_clips(plan.n_captions)
    texts = {writer: captions_of(writer, plan.n_captions) for writer in WRITERS}
    texts["calibration-text"] = [clip.captions[0] for clip in calibration]
    embedded = work if plan.shift is None else work / "narrow"
    embedded.mkdir(exist_ok=True)
    for name, clips in sounds.items():
        embed_sounds(embedded / f"{name}.npy", plan.backbone, clips, n_jobs)
    for name, captions in texts.items():
        embed_texts(embedded / f"{name}.npy", plan.backbone, captions)
    if plan.shift is not None:
        scenes = {name: [clip.scene for clip in clips] for name, clips in sounds.items()}
        scenes |= {writer: scenes_of(writer, plan.n_captions) for writer in WRITERS}
        scenes["calibration-text"] = scenes["calibration-audio"]
        rows = {name: np.load(embedded / f"{name}.npy") for name in scenes}
        dial = Dial(rows["audio"], rows["plain"], scenes["audio"], DIAL_COSINE, plan.shift)
        for name in scenes:
            keep_array(
                work / f"{name}.npy", dial.turned("audio" if name in sounds else "text", rows[name], scenes[name])
            )
    for writer in WRITERS:
        path = references_path(work, writer)
        if not path.exists():
            by_clip = {f"{i:03d}": captions for i, captions in enumerate(references_by(writer))}
            atomic_write_text(path, json.dumps(by_clip, indent=1))


def references_path(work: Path, writer: str) -> Path:
    """Return the path of a writer's references."""
    return work / f"references-{writer}.json"
