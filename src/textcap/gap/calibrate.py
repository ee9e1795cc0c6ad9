"""Measure the modality gap on a file of pairs, and set the noise by it (paper, section 3.2).

Knows no command line. A file may name many sounds: only those that the draws can use are embedded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.config import NoiseCalibration
from textcap.data.pairs import PairSet
from textcap.embedding.pairs import EmbeddedPairs, embed_pair_captions, embed_pairs, one_caption_per_pair
from textcap.gap.adapter import LinearAdapter
from textcap.gap.measure import N_DRAWS, N_PAIRS, RULE, GapReport, draw_pairs, measure_gap
from textcap.models.backbone import Backbone

_CHOICE_STREAM = 1_000_000  # of the seed's draws; no draw of `measure_gap` has its number


@dataclass(frozen=True)
class PairGap:
    """The gap of a file of pairs, with the embeddings it was measured on."""

    report: GapReport
    pairs: EmbeddedPairs
    text: NDArray[np.float32]  # [N, E], unit length, of one caption of each pair


@dataclass(frozen=True)
class CalibratedNoise:
    """Noise as pairs say it should be."""

    noise_variance: float
    calibration: NoiseCalibration
    warnings: tuple[str, ...]


def measure_pair_gap(
    pairs: PairSet,
    backbone: Backbone,
    device: torch.device,
    *,
    n: int = N_PAIRS,
    draws: int = N_DRAWS,
    seed: int = 0,
    adapter: LinearAdapter | None = None,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> PairGap:
    """Embed as many pairs as n * draws, chosen by the seed, one caption of each, and measure the gap on them.

    Args:
        adapter: Applied to the text embeddings first.
        progress: Told how many sounds of how many are embedded.

    Raises:
        InputError: Fewer than n pairs can be used.
    """
    if len(pairs.pairs) > n * draws:
        chosen = draw_pairs(len(pairs.pairs), n * draws, seed, _CHOICE_STREAM)
        pairs = replace(pairs, pairs=tuple(pairs.pairs[i] for i in chosen))
    embedded = embed_pairs(pairs, backbone, device, min_pairs=n, progress=progress)
    text = one_caption_per_pair(embedded, embed_pair_captions(embedded, backbone, device), seed)
    if adapter is not None:
        text = adapter.apply(torch.from_numpy(text)).numpy()
    return PairGap(measure_gap(embedded.audio, text, n=n, draws=draws, seed=seed), embedded, text)


def calibrate_noise(
    pairs: PairSet,
    backbone: Backbone,
    device: torch.device,
    *,
    adapter: LinearAdapter | None = None,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> CalibratedNoise:
    """Set the noise by the paper's rule on its 30 pairs, as `measure_pair_gap` measures them with its defaults.

    Raises:
        InputError: Fewer pairs than that can be used.
    """
    gap = measure_pair_gap(pairs, backbone, device, adapter=adapter, progress=progress)
    file, report = pairs.file, gap.report
    rule = f"{RULE} after the adapter" if adapter is not None else RULE
    calibration = NoiseCalibration(file.name, file.sha256, report.n, report.seed, rule)
    return CalibratedNoise(report.sample.noise_variance, calibration, gap.pairs.notices)
