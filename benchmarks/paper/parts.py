"""Train the mapper of one part and caption the test clips with it, from the embeddings in the work folder.

The result of a part is a JSON file with its captions and the facts of its training. A part whose file exists is
skipped.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.paper.plan import CALIBRATED, DEFAULT, N_CALIBRATION_PAIRS, Part, Plan
from benchmarks.paper.worlds import captions_of
from benchmarks.sound_world import DEFAULT_BRIDGE, bridge_of, caption_embeddings, train_mapper
from textcap.config import BridgeConfig, TrainingConfig
from textcap.data.captions import CaptionFile
from textcap.files import atomic_write_text
from textcap.gap.adapter import LinearAdapter
from textcap.gap.bridge import Bridge
from textcap.gap.bridge.affine import centring
from textcap.gap.fit import fit_adapter
from textcap.gap.measure import measure_gap
from textcap.models.backbone import Backbone


def part_path(work: Path, part: Part) -> Path:
    """Return the path of a part's result."""
    return work / "parts" / f"{part.name}.json"


def run_part(plan: Plan, work: Path, part: Part) -> str:
    """Run a part unless its file exists; return its name."""
    path = part_path(work, part)
    if path.exists():
        return part.name
    started_s, cpu_s = time.monotonic(), time.process_time()
    adapter = make_adapter(plan, work, part.adapter_pairs, part.seed) if part.adapter_pairs else None
    captions, embeddings = draws(plan, work, part.sources)
    if part.noise_variance == DEFAULT:
        bridge = default_bridge(plan, work, embeddings)
    elif part.noise_variance == CALIBRATED:
        bridge = Bridge(BridgeConfig(calibrated_variance(work, adapter)), adapter)
    else:
        bridge = Bridge(BridgeConfig(float(part.noise_variance)), adapter)
    training = TrainingConfig(
        epochs=plan.n_steps * plan.batch_size // len(captions),
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        held_out_captions=0,
        seed=part.seed,
    )
    captioner = train_mapper(Backbone.load(plan.backbone), captions, embeddings, bridge, training)
    test_captions = caption_embeddings(captioner, np.load(work / "test-audio.npy"))
    facts = {
        "noise_variance": bridge.config.noise_variance,
        "draws": len(captions) * training.epochs,
        "adapter": asdict(adapter.facts) if adapter else None,
        "wall_s": round(time.monotonic() - started_s, 1),
        "cpu_s": round(time.process_time() - cpu_s, 1),
    }
    path.parent.mkdir(exist_ok=True)
    atomic_write_text(path, json.dumps({"captions": test_captions, "facts": facts}, indent=1))
    return part.name


def default_bridge(plan: Plan, work: Path, text: np.ndarray) -> Bridge:
    """Return the backbone's default bridge.

    On the dial's gap, whose means the backbone does not know, they are those of the part's text embeddings `[N, E]` and
    of the training clips, as with `textcap train --audio-sample`.
    """
    backbone = Backbone.load(plan.backbone)
    if plan.shift is None:
        return bridge_of(backbone, DEFAULT_BRIDGE)
    affine = centring(np.load(work / "audio.npy").mean(axis=0), text.mean(axis=0))
    return Bridge(BridgeConfig(backbone.config.noise_variance, kind="centre"), affine=affine)


def draws(plan: Plan, work: Path, sources: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Return the captions and embeddings `[N, E]` of one epoch, with the same number from each source."""
    captions: list[str] = []
    embeddings = []
    for source in sources:
        writer, _, scarce = source.partition(":")
        n_different = plan.n_scarce if scarce else plan.n_captions
        repeats = plan.n_captions // n_different
        captions += captions_of(writer, plan.n_captions)[:n_different] * repeats
        embeddings += [np.load(work / f"{writer}.npy")[:n_different]] * repeats
    return captions, np.concatenate(embeddings)


def calibrated_variance(work: Path, adapter: LinearAdapter | None = None) -> float:
    """Return the noise variance by the paper's rule, from 30 pairs that are used neither for training nor for testing.

    With an adapter, the rule is applied to the gap that remains after the adapter.
    """
    text = np.load(work / "calibration-text.npy")
    if adapter is not None:
        moved = torch.nn.functional.normalize(adapter.apply(torch.from_numpy(text)), dim=-1)
        text = moved.numpy()
    report = measure_gap(np.load(work / "calibration-audio.npy"), text, n=N_CALIBRATION_PAIRS)
    return float(report.sample.noise_variance)


def make_adapter(plan: Plan, work: Path, n_pairs: int, seed: int) -> LinearAdapter:
    """Fit the linear adapter on pairs drawn from the training pairs."""
    rows = np.sort(np.random.default_rng([seed, n_pairs]).permutation(plan.n_captions)[:n_pairs])
    audio, text = (np.load(work / name)[rows] for name in ("audio.npy", "plain.npy"))
    fitted = fit_adapter(audio, text, np.arange(n_pairs), seed=seed)
    return fitted.adapter(Backbone.load(plan.backbone), CaptionFile("sound world", "", n_pairs), n_pairs, seed)
