"""Measure the modality gap on files, and set the training noise by it (paper, section 3.2).

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
from textcap.embedding.pairs import EmbeddedPairs, embed_pairs, one_caption_each
from textcap.gap.bridge import Bridge
from textcap.gap.measure import N_DRAWS, N_PAIRS, RULE, GapReport, measure_gap
from textcap.models.backbone import Backbone

_CHOICE_STREAM = 1_000_000  # random stream for the choice of pairs, above the numbers that `measure_gap` uses


@dataclass(frozen=True)
class PairGap:
    """The gap on the pairs of a file, with embeddings of as many pairs as were asked for."""

    report: GapReport
    pairs: EmbeddedPairs  # with one caption each
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
        n: Number of pairs in a draw.
        draws: Number of draws; all draw from the same n * draws pairs of the file.
        most: Number of pairs to embed, if the file has them and n * draws are not more.
        seed: Seed of the choice of pairs and captions, and of the draws.
        bridge: Applied to both sides, but for its noise, before the gap is measured.
        progress: Called with the number of sounds embedded and the total.

    Raises:
        InputError: Fewer than n pairs have a readable sound file.
        DeviceError: The device has too little memory.
    """
    pairs = one_caption_each(pairs, seed)
    order = np.random.default_rng([seed, _CHOICE_STREAM]).permutation(len(pairs.pairs))
    drawn_from = {pairs.pairs[i] for i in order[: n * draws]}
    chosen = tuple(pairs.pairs[i] for i in np.sort(order[: max(most, n * draws)]))
    embedded = embed_pairs(replace(pairs, pairs=chosen), backbone, device, min_pairs=n, progress=progress)
    audio, text = embedded.audio, np.array(embed_captions(embedded.captions, backbone, device))
    if bridge is not None:
        audio = bridge.audio_side(torch.from_numpy(audio)).numpy()
        text = bridge.moved_text(torch.from_numpy(text)).numpy()
    rows = [row for row, pair in enumerate(embedded.pairs) if pair in drawn_from]
    return PairGap(measure_gap(audio[rows], text[rows], n=n, draws=draws, seed=seed), embedded, text)


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
