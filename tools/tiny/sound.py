"""Render clips of the sound world once, in several processes, and keep their log-mel spectrograms in files."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.config import AudioConfig
from textcap.demo.render import render_scene
from textcap.demo.scenes import Scene, sample_scene
from textcap.models.clap import FrontEnd
from tiny.log import Log
from tiny.settings import EVENT_SHARES

# First scene seeds. The benchmarks' test clips start at 10,000,000; no clip of this tool may reach that seed.
TRAINING_SEEDS = 1_000_000
VALIDATION_SEEDS = 9_000_000
_CHUNK = 64


@dataclass(frozen=True)
class Clips:
    """Scenes and the log-mel spectrograms of their audio."""

    scenes: list[Scene]
    log_mel: NDArray[np.float16]  # [W, F, M] in dB

    def split(self, n: int) -> tuple["Clips", "Clips"]:
        """Return the first n clips, and the rest."""
        return Clips(self.scenes[:n], self.log_mel[:n]), Clips(self.scenes[n:], self.log_mel[n:])


def scene_of_seed(seed: int, *, unseen: bool) -> Scene:
    """Return the scene that belongs to a seed; its audio is rendered from the same seed."""
    return sample_scene(np.random.default_rng(seed), unseen=unseen, event_shares=EVENT_SHARES)


def render_clips(path: Path, seeds: range, unseen: list[bool], audio: AudioConfig, log: Log) -> Clips:
    """Return the clips that belong to seeds; read their spectrograms from the file if it exists, else write it."""
    scenes = [scene_of_seed(seed, unseen=flag) for seed, flag in zip(seeds, unseen, strict=True)]
    if not path.exists():
        start = time.monotonic()
        jobs = [(list(seeds[i : i + _CHUNK]), scenes[i : i + _CHUNK]) for i in range(0, len(scenes), _CHUNK)]
        parts = []
        with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
            for part in pool.imap(partial(_render_chunk, audio=audio), jobs):
                parts.append(part)
                if len(parts) % 40 == 0:
                    log.write("sound", clips=len(parts) * _CHUNK, seconds=time.monotonic() - start)
        part_file = path.with_suffix(".partial")
        with part_file.open("wb") as file:
            np.save(file, np.concatenate(parts))
        os.replace(part_file, path)
        log.write("sound", clips=len(scenes), seconds=time.monotonic() - start)
    return Clips(scenes, np.load(path))


def _render_chunk(job: tuple[list[int], list[Scene]], audio: AudioConfig) -> NDArray[np.float16]:
    torch.set_num_threads(1)
    seeds, scenes = job
    rendered = [
        render_scene(scene, seed, rate_hz=audio.sample_rate_hz, duration_s=audio.window_s)
        for seed, scene in zip(seeds, scenes, strict=True)
    ]
    windows = torch.from_numpy(np.stack(rendered))
    with torch.inference_mode():
        return FrontEnd(audio)(windows)[:, 0].half().numpy()  # type: ignore[no-any-return]
