"""Which bridge helps at which modality gap: mappers trained on text whose gap is turned like a dial.

    python -m benchmarks.dial [--work FOLDER] [--jobs 2] [--plot PATH] [--jars PATH]

The gap is that of the tiny backbone with its narrow projections, widened to a mean cosine of .4. One share of the mean
squared distance is a constant shift; the rest is private to a sound or a caption: what a ridge regression on the scene
does not predict of its embedding, turned by a random orthonormal map for each side within the same 256 dimensions.

Each mapper is trained once and captions the test clips across every bridge that it can be used with. Results are kept
in the work folder, so an interrupted run continues. Noise, ranks and weights are chosen on other clips than those
reported. CIDEr-D needs Java and the jars of `textcap fetch metrics`; --jars names the file or folder to take them from.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.dial.bridges import CovarianceNoise, Sides, audio_sides, text_side
from benchmarks.dial.narrow import narrow_backbone, weights_hash
from benchmarks.dial.plan import (
    NARROW,
    SAMPLE_SIZES,
    SHARES,
    Part,
    Plan,
    World,
    clips,
    of_one_kind,
    parts_of,
)
from benchmarks.dial.tables import results
from benchmarks.dial.turn import Dial
from benchmarks.sound_world import (
    caption_embeddings,
    embed_sounds,
    embed_texts,
    fill_jars,
    refuse_other_plan,
    train_mapper,
)
from textcap.config import BridgeConfig, TrainingConfig
from textcap.files import atomic_write_text
from textcap.gap.bridge import Bridge
from textcap.gap.retrieval import Array
from textcap.models.backbone import Backbone


def prepare(plan: Plan, work: Path, n_jobs: int) -> None:
    """Write the embeddings of all clips and captions with the narrow projections."""
    backbone = str(narrow_backbone(work / "backbone"))
    for role, several in clips(plan).items():
        embed_sounds(work / f"{role}-audio.npy", backbone, several, n_jobs)
        embed_texts(work / f"{role}-text.npy", backbone, [clip.captions[0] for clip in several])


def world_at(plan: Plan, work: Path, gap: float | str) -> World:
    """Return the embeddings of the sound world at one point of the dial."""
    narrow = {(role, side): np.load(work / f"{role}-{side}.npy") for role in clips(plan) for side in ("audio", "text")}
    moved = narrow if gap == NARROW else dict(turn(plan, narrow, float(gap)))
    return World(
        moved["training", "text"],
        moved["training", "audio"],
        moved["sounds", "audio"],
        moved["sounds", "text"],
        moved["sounds", "audio"][of_one_kind(clips(plan)["sounds"])],
        moved["test", "audio"],
        moved["test", "text"],
        moved["tuning", "audio"],
    )


def turn(plan: Plan, narrow: Mapping[tuple[str, str], Array], share: float) -> Iterator[tuple[tuple[str, str], Array]]:
    """Yield the embeddings of each role and side, moved apart."""
    scenes = {role: [clip.scene for clip in several] for role, several in clips(plan).items()}
    dial = Dial(narrow["training", "audio"], narrow["training", "text"], scenes["training"], plan.cosine, share)
    for (role, side), rows in narrow.items():
        yield (role, side), dial.turned(side, rows, scenes[role])


def run_part(plan: Plan, work: Path, part: Part) -> str:
    """Train the mapper of a part and caption the clips across its bridges, unless its file exists; return its name."""
    path = work / "parts" / f"{part.name}.json"
    if path.exists():
        return part.name
    torch.set_num_threads(1)
    started_s, world = time.process_time(), world_at(plan, work, part.gap)
    sides = Sides(world.text, world.sounds, world.sounds_text[: plan.n_pairs], world.one_kind)
    embeddings = world.audio if part.trained_on == "audio" else text_side(part.trained_on, sides)
    std = plan.noise_std if part.noise_std is None else part.noise_std
    bridge = CovarianceNoise(sides, std) if part.trained_on == "covariance" else Bridge(BridgeConfig(std**2))
    captions = [clip.captions[0] for clip in clips(plan)["training"]]
    training = TrainingConfig(
        epochs=part.n_times * plan.n_steps * plan.batch_size // plan.n_captions,
        batch_size=plan.batch_size,
        learning_rate=part.rate * plan.learning_rate,
        held_out_captions=0,
        seed=part.seed,
    )
    backbone = Backbone.load(str(narrow_backbone(work / "backbone")))
    captioner = train_mapper(backbone, captions, embeddings.astype(np.float32), bridge, training)
    found: dict[str, dict[str, list[str]]] = {}
    sizes = SAMPLE_SIZES if part == Part(part.gap) else ()
    for name, move in audio_sides(part.trained_on, sides, sizes).items():
        found[name] = {
            role: caption_embeddings(captioner, move(rows))
            for role, rows in (("test", world.test), ("tuning", world.tuning))
        }
    path.parent.mkdir(exist_ok=True)
    facts = {"noise_std": std, "cpu_s": round(time.process_time() - started_s, 1)}
    atomic_write_text(path, json.dumps({"captions": found, "facts": facts}, indent=1))
    return part.name


def main() -> None:
    """Run the missing parts and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("dial-benchmark"), help="folder to keep results in")
    parser.add_argument("--jobs", type=int, default=2, help="mappers to train at once, one thread each")
    parser.add_argument("--plot", type=Path, help="file for the plot of the bridges (default: in the work folder)")
    parser.add_argument("--jars", type=Path, help="file or folder with the jars of textcap score, for CIDEr-D")
    options = parser.parse_args()
    plan = Plan()
    options.work.mkdir(parents=True, exist_ok=True)
    refuse_other_plan(options.work, plan, weights_hash())
    if options.jars is not None:
        fill_jars(options.work, options.jars)
    prepare(plan, options.work, options.jobs)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_part, plan, options.work, part) for part in parts_of(plan)]
        for place, future in enumerate(as_completed(futures)):
            print(f"{place + 1} of {len(futures)}: {future.result()}", flush=True)
    worlds = {gap: world_at(plan, options.work, gap) for gap in (*SHARES, NARROW)}
    print(results(plan, options.work, worlds, options.plot or options.work / "dial.svg"))
