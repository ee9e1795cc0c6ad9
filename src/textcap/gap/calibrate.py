"""Measure the modality gap on a pairs file, and set the training noise by it (paper, section 3.2).

Only as many sounds are embedded as the draws can use, however many the file names.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.config import NoiseCalibration
from textcap.data.pairs import PairSet
from textcap.embedding.captions import embed_captions
from textcap.embedding.pairs import EmbeddedPairs, embed_pairs, one_caption_per_pair
from textcap.gap.bridge import Bridge
from textcap.gap.measure import N_DRAWS, N_PAIRS, RULE, GapReport, draw_pairs, measure_gap
from textcap.models.backbone import Backbone

_CHOICE_STREAM = 1_000_000  # random stream for the choice of pairs, above the numbers that `measure_gap` uses


@dataclass(frozen=True)
class PairGap:
    """The gap on the pairs of a file, with the embeddings it was measured on."""

    report: GapReport
    pairs: EmbeddedPairs
    text: NDArray[np.float32]  # [N, E], of one caption per pair, unit length


def measure_pair_gap(
    pairs: PairSet,
    backbone: Backbone,
    device: torch.device,
    *,
    n: int = N_PAIRS,
    draws: int = N_DRAWS,
    most: int = 0,
    seed: int = 0,
    bridge: Bridge | None = None,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> PairGap:
    """Embed randomly chosen pairs, one caption each, and measure the gap on them.

    Args:
        most: Number of pairs to embed at most, if n * draws are not more.
        n: Number of pairs in a draw.
        draws: Number of draws.
        seed: Seed of the choice of pairs and captions, and of the draws.
        bridge: Applied to both sides, but for its noise, before the gap is measured.
        progress: Called with the number of sounds embedded and the total.

    Raises:
        InputError: Fewer than n pairs have a readable sound file.
        DeviceError: The device has too little memory.
    """
    most = max(most, n * draws)
    if len(pairs.pairs) > most:
        chosen = draw_pairs(len(pairs.pairs), most, seed, _CHOICE_STREAM)
        pairs = replace(pairs, pairs=tuple(pairs.pairs[i] for i in chosen))
    embedded = embed_pairs(pairs, backbone, device, min_pairs=n, progress=progress)
    texts = embed_captions(embedded.captions, backbone, device)
    audio, text = embedded.audio, one_caption_per_pair(embedded, texts, seed)
    if bridge is not None:
        audio = bridge.audio_side(torch.from_numpy(audio)).numpy()
        text = bridge.moved_text(torch.from_numpy(text)).numpy()
    return PairGap(measure_gap(audio, text, n=n, draws=draws, seed=seed), embedded, text)


def calibrate_noise(
    bridge: Bridge,
    pairs: PairSet,
    backbone: Backbone,
    device: torch.device,
    *,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> Bridge:
    """Set the noise on text by the paper's rule, on the 30 pairs that `measure_pair_gap` draws by default.

    Args:
        bridge: The bridge whose noise is set; the gap is measured that the rest of it leaves.
        progress: Called with the number of sounds embedded and the total.

    Returns:
        The bridge with the noise and what it was measured on.

    Raises:
        InputError: Fewer pairs than that have a readable sound file.
        DeviceError: The device has too little memory.
    """
    report = measure_pair_gap(pairs, backbone, device, bridge=bridge, progress=progress).report
    before = "the adapter" if bridge.adapter else f"the bridge {bridge.config.kind}" if bridge.affine else ""
    rule = f"{RULE} after {before}" if before else RULE
    calibration = NoiseCalibration(pairs.file.name, pairs.file.sha256, report.n, report.seed, rule)
    config = replace(bridge.config, noise_variance=report.sample.noise_variance, calibration=calibration)
    return Bridge(config, bridge.adapter, bridge.affine)
