"""Measure the modality gap on a file of pairs, and set the noise by it (paper, section 3.2).

Knows no command line. A file may name many sounds: only those that the draws can use are embedded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.adapter import LinearAdapter
from textcap.backbone import Backbone
from textcap.config import NoiseCalibration
from textcap.gap import N_DRAWS, N_PAIRS, RULE, GapReport, draw_pairs, measure_gap
from textcap.pair_embeddings import HeardPairs, embed_pair_captions, hear_pairs, one_caption_each
from textcap.pairs import PairSet, left_out

_CHOICE_STREAM = 1_000_000  # of the seed's draws; no draw of `measure_gap` has its number


@dataclass(frozen=True)
class PairGap:
    """The gap of a file of pairs, with the embeddings it was measured on."""

    report: GapReport
    heard: HeardPairs
    text: NDArray[np.float32]  # [N, E], unit length, one caption of each of the pairs heard


@dataclass(frozen=True)
class CalibratedNoise:
    """Noise as pairs say it should be."""

    noise_variance: float
    calibration: NoiseCalibration
    warnings: tuple[str, ...]


def gap_of_pairs(
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
    heard = hear_pairs(pairs, backbone, device, min_pairs=n, progress=progress)
    text = one_caption_each(heard, embed_pair_captions(heard, backbone, device), seed)
    if adapter is not None:
        text = adapter.apply(torch.from_numpy(text)).numpy()
    return PairGap(measure_gap(heard.audio, text, n=n, draws=draws, seed=seed), heard, text)


def calibrate_noise(
    pairs: PairSet,
    backbone: Backbone,
    device: torch.device,
    *,
    adapter: LinearAdapter | None = None,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> CalibratedNoise:
    """Set the noise by the paper's rule on its 30 pairs, as `gap_of_pairs` measures them with its defaults.

    Raises:
        InputError: Fewer pairs than that can be used.
    """
    gap = gap_of_pairs(pairs, backbone, device, adapter=adapter, progress=progress)
    file, report = pairs.file, gap.report
    rule = f"{RULE} after the adapter" if adapter is not None else RULE
    calibration = NoiseCalibration(file.name, file.sha256, report.n, report.seed, rule)
    warnings = (*pairs.warnings, *gap.heard.warnings, *left_out(gap.heard.source))
    return CalibratedNoise(report.sample.noise_variance, calibration, warnings)
