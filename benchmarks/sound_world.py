"""Does training on text alone work? Measured on 300 held-out clips of the sound world.

    python benchmarks/sound_world.py [--work FOLDER] [--seeds 3] [--jobs 2]

Trains the same mapper on text with noise, on text without noise, and on the audio embeddings of as many
pairs; gives each clip its nearest training caption as well. Each part is kept in the work folder, so a killed
run goes on. Prints a table with the mean and the spread over seeds. What is tuned is tuned with another
--world-seed, whose clips, captions and pairs are others.
"""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from textcap.captioner import Captioner
from textcap.config import BridgeConfig, TrainingConfig
from textcap.demo.folder import RATE_HZ, Clip, held_out_clips, training_pairs
from textcap.demo.grammar import event_f1
from textcap.demo.render import render_scene
from textcap.files import atomic_write_text
from textcap.gap.bridge import Bridge
from textcap.models.backbone import Backbone
from textcap.training.data import make_examples
from textcap.training.loop import MapperTraining

N_SEEN, N_UNSEEN = 200, 100
WORLD_SEED = 1000  # no clip or caption of the demo, and none that the embedded models were built on
CONDITIONS = ("text, noise", "text, no noise", "audio pairs")


@dataclass(frozen=True)
class Plan:
    """What is measured, and where its parts are kept."""

    work: Path
    backbone: str
    world_seed: int
    n_pairs: int
    noise_std: float | None  # None: the backbone's own
    training: TrainingConfig

    @property
    def pairs(self) -> list[Clip]:
        return training_pairs(self.n_pairs, self.world_seed)

    @property
    def held_out(self) -> list[Clip]:
        return held_out_clips(N_SEEN, N_UNSEEN, self.world_seed)

    def part_path(self, condition: str, seed: int) -> Path:
        """Return where the captions of one part are kept."""
        return self.work / f"{condition.replace(', ', '-').replace(' ', '-')}-{seed}.json"


def embed_sounds(path: Path, backbone: str, clips: list[Clip], n_jobs: int) -> np.ndarray:
    """Return the audio embeddings `[N, E]` of clips, kept in a file."""
    if not path.exists():
        encoder = Backbone.load(backbone).audio_encoder()
        parts = []
        with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
            for start in range(0, len(clips), 512):
                sounds = list(pool.map(render, clips[start : start + 512], chunksize=16))
                with torch.inference_mode():
                    parts += [
                        encoder(torch.from_numpy(np.stack(sounds[i : i + 64]))).numpy()
                        for i in range(0, len(sounds), 64)
                    ]
                print(f"embedded {start + len(sounds)} of {len(clips)} sounds", flush=True)
        keep_array(path, np.concatenate(parts))
    return np.load(path)


def keep_array(path: Path, array: np.ndarray) -> None:
    """Write an array beside its place, then put it there: what is killed leaves no half of a file."""
    with open(path.with_suffix(".tmp"), "wb") as file:
        np.save(file, array)
    path.with_suffix(".tmp").rename(path)


def render(clip: Clip) -> np.ndarray:
    """Return the sound of a clip, one window `[S]`."""
    return render_scene(clip.scene, clip.sound_seed, RATE_HZ)


def train_and_caption(
    backbone: Backbone,
    captions: list[str],
    embeddings: np.ndarray,
    bridge: Bridge,
    training: TrainingConfig,
    heard: np.ndarray,
) -> list[str]:
    """Train a mapper on captions with their embeddings `[N, E]`, and caption the audio embeddings `[M, E]` with it."""
    run = MapperTraining(
        make_examples(captions, embeddings, backbone.tokenizer),
        backbone.language_model(),
        backbone.tokenizer,
        bridge,
        backbone.config.mapper,
        training,
        Accelerator(cpu=True),
    )
    captioner = Captioner(backbone, run.run().mapper, bridge, backbone.tokenizer.end_id, torch.device("cpu"))
    sounds = torch.from_numpy(heard)
    return [
        found.caption
        for start in range(0, len(sounds), 50)
        for found in captioner.caption_embeddings(sounds[start : start + 50])
    ]


def run_part(plan: Plan, condition: str, seed: int) -> None:
    """Train one mapper and caption the held-out clips with it."""
    path = plan.part_path(condition, seed)
    if path.exists():
        return
    torch.set_num_threads(1)
    backbone = Backbone.load(plan.backbone)
    embeddings = np.load(plan.work / ("pairs.npy" if condition == "audio pairs" else "text.npy"))
    variance = backbone.config.noise_variance if plan.noise_std is None else plan.noise_std**2
    said = train_and_caption(
        backbone,
        [clip.captions[0] for clip in plan.pairs],
        embeddings,
        Bridge(BridgeConfig(variance if condition == "text, noise" else 0.0)),
        TrainingConfig(**{**vars(plan.training), "seed": seed}),
        np.load(plan.work / "held_out.npy"),
    )
    atomic_write_text(path, json.dumps(said, indent=1))
    print(f"{condition}, seed {seed}: {figures(plan, said)}", flush=True)


def figures(plan: Plan, said: list[str]) -> dict[str, float]:
    """Return event F1 over all clips, the seen and the unseen combinations, and the share of distinct captions."""
    scenes = [clip.scene for clip in plan.held_out]
    return {
        "all": event_f1(said, scenes).f1,
        "seen": event_f1(said[:N_SEEN], scenes[:N_SEEN]).f1,
        "unseen": event_f1(said[N_SEEN:], scenes[N_SEEN:]).f1,
        "distinct": len(set(said)) / len(said),
    }


def nearest_captions(plan: Plan) -> list[str]:
    """Give each held-out clip the training caption whose text embedding is nearest to its audio embedding."""
    similarity = np.load(plan.work / "held_out.npy") @ np.load(plan.work / "text.npy").T
    pairs = plan.pairs
    return [pairs[i].captions[0] for i in similarity.argmax(axis=1)]


def prepare(plan: Plan, n_jobs: int, *, with_audio: bool) -> None:
    """Write the embeddings that every part needs."""
    pairs, held_out = plan.pairs, plan.held_out
    heard = embed_sounds(plan.work / "held_out.npy", plan.backbone, held_out, n_jobs)
    if with_audio:
        embed_sounds(plan.work / "pairs.npy", plan.backbone, pairs, n_jobs)
    encoder = Backbone.load(plan.backbone).text_encoder()
    np.save(plan.work / "text.npy", encoder.encode([clip.captions[0] for clip in pairs]).numpy())
    said = encoder.encode([clip.captions[0] for clip in held_out]).numpy()
    similarity = heard @ said.T
    rank = (similarity > similarity.diagonal()[:, None]).sum(axis=1)
    norm = np.abs(heard - said).max(axis=1).mean()
    print(
        f"held-out pairs: mean cosine {similarity.diagonal().mean():.3f}, recall@1 {(rank < 1).mean():.3f}, "
        f"recall@10 {(rank < 10).mean():.3f} among {len(held_out)}, mean infinity norm {norm:.3f}"
    )


def main() -> None:
    """Run the parts that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("sound-world-benchmark"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="mappers trained at once, one thread each")
    parser.add_argument("--backbone", default="tiny", help="or the folder of one")
    parser.add_argument("--world-seed", type=int, default=WORLD_SEED)
    parser.add_argument("--pairs", type=int, default=9000, help="captions, and clips, to train on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--noise-std", type=float, help="instead of the backbone's own")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    options = parser.parse_args()
    training = TrainingConfig(epochs=options.epochs, batch_size=128, learning_rate=2e-3, held_out_captions=0)
    plan = Plan(options.work, options.backbone, options.world_seed, options.pairs, options.noise_std, training)
    plan.work.mkdir(parents=True, exist_ok=True)
    refuse_other_plan(plan.work, plan)
    prepare(plan, options.jobs, with_audio="audio pairs" in options.conditions)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        parts = [(condition, seed) for seed in range(options.seeds) for condition in options.conditions]
        for done in [pool.submit(run_part, plan, condition, seed) for condition, seed in parts]:
            done.result()
    print_table(plan, options.conditions, options.seeds)


def refuse_other_plan(work: Path, plan: Any) -> None:
    """Stop where the work folder holds parts of another plan."""
    path, text = work / "plan.json", json.dumps(asdict(plan), default=str, indent=1)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{work} holds another measurement: choose another --work")
    atomic_write_text(path, text)


def print_table(plan: Plan, conditions: list[str], n_seeds: int) -> None:
    """Print mean and standard deviation of every figure."""
    columns = ("all", "seen", "unseen", "distinct")
    rows = {
        condition: [
            figures(plan, json.loads(plan.part_path(condition, seed).read_text(encoding="utf-8")))
            for seed in range(n_seeds)
        ]
        for condition in conditions
    }
    rows["nearest training caption"] = [figures(plan, nearest_captions(plan))]
    print(f"| trained on | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, found in rows.items():
        cells = [show([one[column] for one in found]) for column in columns]
        print(f"| {name} | {' | '.join(cells)} |")


def show(values: list[float]) -> str:
    """Return the mean, with the standard deviation where there are several values."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
