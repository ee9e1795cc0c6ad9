"""Which bridge helps at which modality gap: mappers trained on text whose gap is turned like a dial.

    python -m benchmarks.dial [--work FOLDER] [--jobs 2]

The gap is that of the tiny backbone with its narrow projections, widened to a mean cosine of .4. One share of the mean
squared distance is a constant shift; the rest is private to a sound or a caption: what a ridge regression on the scene
does not predict of its embedding, turned by a random orthonormal map for each side within the same 256 dimensions.

Each mapper is trained once and captions the test clips across every bridge that it can be used with. Results are kept
in the work folder, so an interrupted run continues. Noise, ranks and weights are chosen on other clips than those
reported.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tiny.projections import private_part, ridge_weights, scene_features

from benchmarks.bridges import TEXT_SIDES, CovarianceNoise, Sides, audio_sides, text_side
from benchmarks.narrow import narrow_backbone
from benchmarks.sound_world import caption_embeddings, embed_sounds, keep_array, refuse_other_plan, train_mapper
from textcap.config import BridgeConfig, TrainingConfig
from textcap.demo.folder import Clip, held_out_clips, training_pairs
from textcap.demo.grammar import event_f1
from textcap.files import atomic_write_text
from textcap.gap.bridge import Bridge
from textcap.gap.compare import best_bridge, compare_bridges
from textcap.gap.measure import measure_gap
from textcap.gap.retrieval import Array, measure_retrieval, unit_rows
from textcap.models.backbone import Backbone

# Shares no clip or caption with the demo, the training of the embedded models or any other benchmark.
WORLD_SEED = 6006
TUNING_SEED = 6007
SHARES = (0.1, 0.5, 0.9)
NARROW = "narrow"
NOISES = (0.0, 0.02, 0.04, 0.06, 0.1, 0.2)  # standard deviations
SEEDS = (0, 1, 2)
SAMPLE_SIZES = (10, 30, 100, 300, 1000)


@dataclass(frozen=True)
class Plan:
    """The sizes of the run."""

    n_captions: int = 10240
    n_sounds: int = 5000  # recordings without captions, of other clips
    n_pairs: int = 1000  # of these, with captions
    n_seen: int = 330
    n_unseen: int = 170
    n_steps: int = 320
    batch_size: int = 128
    learning_rate: float = 2e-3
    cosine: float = 0.4
    noise_std: float = 0.06  # beside every bridge; the best of `NOISES` on the clips for tuning, see docs


@dataclass(frozen=True)
class Part:
    """One mapper to train.

    Attributes:
        gap: A share of the shift, or `NARROW`.
        trained_on: "text", "audio", or the name of a bridge that moves the text.
        noise_std: Standard deviation of the noise; None for the plan's.
        n_times: How many times the plan's steps.
        rate: How many times the plan's learning rate.
    """

    gap: float | str
    trained_on: str = "text"
    noise_std: float | None = None
    seed: int = 0
    n_times: int = 1
    rate: float = 1.0

    @property
    def name(self) -> str:
        """A unique name, for the files of the part."""
        noise = "" if self.noise_std is None else f"-noise{self.noise_std:g}"
        rest = (f"-{self.n_times}x" if self.n_times > 1 else "") + (f"-rate{self.rate:g}" if self.rate != 1 else "")
        return f"{self.gap}-{self.trained_on}{noise}{rest}-{self.seed}"


def parts_of(plan: Plan) -> list[Part]:
    """Return the parts in the order in which they are run."""
    middle, others, moving = SHARES[1], (SHARES[0], SHARES[2]), [name for name in TEXT_SIDES if name != "text"]
    simple = [Part(middle, noise_std=0.0), Part(middle), Part(middle, "audio", 0.0)]
    found = [replace(part, seed=seed) for seed in SEEDS for part in simple]
    found += [Part(middle, name) for name in moving] + [Part(middle, "centre", 0.0)]
    for share in others:
        found += [replace(part, gap=share) for part in simple]
        found += [Part(share, name) for name in moving] + [Part(share, "centre", 0.0)]
    found += [replace(part, gap=NARROW) for part in simple] + [Part(NARROW, "centre")]
    found += [Part(middle, noise_std=std) for std in NOISES if std not in (0.0, plan.noise_std)]
    found += [replace(part, n_times=2) for part in simple]
    found += [Part(middle, "audio", 0.0, rate=0.5)]
    assert len(found) <= 50
    return found


@dataclass(frozen=True)
class World:
    """Embeddings of one gap, unit length; the two sides of a row belong together."""

    text: Array  # [N, E], of the training captions
    audio: Array  # [N, E], of the clips that they describe
    sounds: Array  # [S, E], of other clips
    sounds_text: Array  # [S, E], of a caption of each of these, used for pairs only
    one_kind: Array  # [300, E], of those with the kind of sound that most of them have
    test: Array  # [T, E], of the sounds to caption
    test_text: Array  # [T, E], of one caption of each
    tuning: Array  # [T, E], of the sounds to tune on


@cache
def clips(plan: Plan) -> dict[str, list[Clip]]:
    """Return the clips of every role."""
    training = training_pairs(plan.n_captions + plan.n_sounds, WORLD_SEED)
    return {
        "training": training[: plan.n_captions],
        "sounds": training[plan.n_captions :],
        "test": held_out_clips(plan.n_seen, plan.n_unseen, WORLD_SEED),
        "tuning": held_out_clips(plan.n_seen, plan.n_unseen, TUNING_SEED),
    }


def prepare(plan: Plan, work: Path, n_jobs: int) -> None:
    """Write the embeddings of all clips and captions with the narrow projections."""
    backbone = str(narrow_backbone(work / "backbone"))
    for role, several in clips(plan).items():
        embed_sounds(work / f"{role}-audio.npy", backbone, several, n_jobs)
        path = work / f"{role}-text.npy"
        if not path.exists():
            captions = [clip.captions[0] for clip in several]
            keep_array(path, Backbone.load(backbone).text_encoder().encode(captions).numpy())


def world_at(plan: Plan, work: Path, gap: float | str) -> World:
    """Return the embeddings of the sound world at one point of the dial."""
    narrow = {(role, side): np.load(work / f"{role}-{side}.npy") for role in clips(plan) for side in ("audio", "text")}
    moved = narrow if gap == NARROW else dict(turn(plan, narrow, float(gap)))
    return World(
        moved["training", "text"],
        moved["training", "audio"],
        moved["sounds", "audio"],
        moved["sounds", "text"],
        moved["sounds", "audio"][_of_one_kind(clips(plan)["sounds"])],
        moved["test", "audio"],
        moved["test", "text"],
        moved["tuning", "audio"],
    )


def _of_one_kind(several: list[Clip]) -> list[int]:
    counts = Counter(kind for clip in several for kind in clip.scene.kinds)
    kind, _ = counts.most_common(1)[0]
    return [i for i, clip in enumerate(several) if kind in clip.scene.kinds][:300]


def turn(plan: Plan, narrow: Mapping[tuple[str, str], Array], share: float) -> Iterator[tuple[tuple[str, str], Array]]:
    """Yield the embeddings moved apart: n(wc x + wp n(p) R + ws u), with R and u of each side.

    The weights follow from the mean cosine that is asked for and the share of the squared distance that is a shift.
    """
    pairs = (unit_rows(narrow["training", "audio"]) * unit_rows(narrow["training", "text"])).sum(axis=1)
    kept = plan.cosine / float(pairs.mean())
    shift = share * (1 - plan.cosine)
    private = 1 - kept - shift
    generator = torch.Generator().manual_seed(WORLD_SEED)
    width = narrow["training", "audio"].shape[1]
    features = {role: scene_features([clip.scene for clip in several]) for role, several in clips(plan).items()}
    for side in ("audio", "text"):
        direction = torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)
        rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
        weights = ridge_weights(torch.from_numpy(narrow["training", side]), features["training"])
        for role in features:
            vectors = torch.from_numpy(narrow[role, side])
            turned = private_part(vectors, features[role], weights) @ rotation
            moved = kept**0.5 * vectors + max(private, 0.0) ** 0.5 * turned + shift**0.5 * direction
            yield (role, side), unit_rows(moved.numpy()).astype(np.float32)


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
    for name, move in audio_sides(part.trained_on, sides, SAMPLE_SIZES).items():
        found[name] = {
            role: caption_embeddings(captioner, move(rows))
            for role, rows in (("test", world.test), ("tuning", world.tuning))
        }
    path.parent.mkdir(exist_ok=True)
    facts = {"noise_std": std, "cpu_s": round(time.process_time() - started_s, 1)}
    atomic_write_text(path, json.dumps({"captions": found, "facts": facts}, indent=1))
    return part.name


def figures(plan: Plan, captions: list[str], role: str = "test") -> dict[str, float]:
    """Return event F1 over all clips, over seen and over unseen combinations."""
    scenes, n = [clip.scene for clip in clips(plan)[role]], plan.n_seen
    return {
        "F1": event_f1(captions, scenes).f1,
        "seen": event_f1(captions[:n], scenes[:n]).f1,
        "unseen": event_f1(captions[n:], scenes[n:]).f1,
    }


def noise_by_the_rule(world: World) -> tuple[float, float]:
    """Return the noise of the 30-pair rule, and that in a basis in which the shift has three coordinates."""
    audio, text = world.sounds, world.sounds_text
    shift = audio.mean(axis=0) - text.mean(axis=0)
    wanted = np.zeros(len(shift))
    wanted[:3] = 3**-0.5
    mirror = shift / np.linalg.norm(shift) - wanted  # Householder's: exchanges the two directions
    mirror /= np.linalg.norm(mirror)
    sides = (audio, text), tuple(rows - 2 * np.outer(rows @ mirror, mirror) for rows in (audio, text))
    first, second = (measure_gap(*side).sample.noise_std for side in sides)
    return first, second


def bridges_picked(plan: Plan, world: World, n_draws: int = 10) -> dict[str, int]:
    """Return how often `textcap gap` picks each bridge on other pairs, as many as the plan's."""
    picked: Counter[str] = Counter()
    for draw in range(n_draws):
        rows = np.random.default_rng([WORLD_SEED, draw]).choice(len(world.sounds), plan.n_pairs, replace=False)
        picked[best_bridge(compare_bridges(world.sounds[rows], world.sounds_text[rows], seed=draw))] += 1
    return dict(picked)


def results(plan: Plan, work: Path) -> str:
    """Return a line for each part and bridge, and for each gap what it is."""
    lines = []
    for gap in (*SHARES, NARROW):
        world = world_at(plan, work, gap)
        shift = float(np.square(world.audio.mean(axis=0) - world.text.mean(axis=0)).sum())
        distance = float(np.square(world.audio - world.text).sum(axis=1).mean())
        recall = measure_retrieval(world.test, world.test_text)
        lines.append(
            f"gap {gap}: mean cosine {recall.cosine:.3f}, shift {shift / distance:.2f} of the squared distance, "
            f"recall@1 {recall.recall_at_1:.3f} among {len(world.test)}; noise by the rule "
            "{:.3f}, with the shift on three coordinates {:.3f}; ".format(*noise_by_the_rule(world))
            + f"picked on {plan.n_pairs:,} pairs: {bridges_picked(plan, world)}"
        )
    for part in parts_of(plan):
        path = work / "parts" / f"{part.name}.json"
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            for bridge, by_role in kept["captions"].items():
                tuned = figures(plan, by_role["tuning"], "tuning")["F1"]
                cells = [f"{value:.3f}" for value in (*figures(plan, by_role["test"]).values(), tuned)]
                lines.append("\t".join([part.name, bridge, *cells]))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the missing parts and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("dial-benchmark"), help="folder to keep results in")
    parser.add_argument("--jobs", type=int, default=2, help="mappers to train at once, one thread each")
    options = parser.parse_args()
    plan = Plan()
    options.work.mkdir(parents=True, exist_ok=True)
    refuse_other_plan(options.work, plan)
    prepare(plan, options.work, options.jobs)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_part, plan, options.work, part) for part in parts_of(plan)]
        for place, future in enumerate(as_completed(futures)):
            print(f"{place + 1} of {len(futures)}: {future.result()}", flush=True)
    text = results(plan, options.work)
    atomic_write_text(options.work / "results.tsv", text)
    print(text)


if __name__ == "__main__":
    main()
