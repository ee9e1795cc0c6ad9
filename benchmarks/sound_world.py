"""Measure how well training on text alone works, on 300 held-out clips of the sound world.

    python benchmarks/sound_world.py [--work FOLDER] [--seeds 3] [--jobs 2]

Trains the same mapper on text with the default bridge, with noise only, with neither, and on the audio embeddings of
the same number of pairs. As a baseline, also gives each clip its nearest training caption. The result of each part is
kept in the work folder, so an interrupted run continues. Prints a table with the mean and standard deviation over
seeds. To tune something, use another --world-seed: its clips, captions and pairs are different.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
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
from textcap.gap.bridge.affine import centring
from textcap.models.backbone import Backbone
from textcap.scoring import score_files
from textcap.training.data import make_examples
from textcap.training.loop import MapperTraining

N_SEEN, N_UNSEEN = 200, 100
WORLD_SEED = 1000  # shares no clip or caption with the demo or the training of the embedded models
DEFAULT_BRIDGE = "text, default bridge"
CONDITIONS = (DEFAULT_BRIDGE, "text, noise", "text, no bridge", "audio pairs")


@dataclass(frozen=True)
class Plan:
    """What to measure, and the folder to keep the results in."""

    work: Path
    backbone: str
    world_seed: int
    n_pairs: int
    noise_std: float | None  # standard deviation of the noise; None for the backbone's default
    training: TrainingConfig

    @property
    def pairs(self) -> list[Clip]:
        """The training clips, with one caption each."""
        return training_pairs(self.n_pairs, self.world_seed)

    @property
    def held_out(self) -> list[Clip]:
        """The test clips, unseen combinations last."""
        return held_out_clips(N_SEEN, N_UNSEEN, self.world_seed)

    def part_path(self, condition: str, seed: int) -> Path:
        """Return the path of the captions of one part."""
        return self.work / f"{condition.replace(', ', '-').replace(' ', '-')}-{seed}.json"


def embed_sounds(path: Path, backbone: str, clips: list[Clip], n_jobs: int) -> np.ndarray:
    """Return the audio embeddings `[N, E]` of clips; read them from the file if it exists, else write it."""
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


def embed_texts(path: Path, backbone: str, captions: list[str]) -> None:
    """Write the text embeddings `[N, E]` of captions, unless the file exists."""
    if not path.exists():
        keep_array(path, Backbone.load(backbone).text_encoder().encode(captions).numpy())
        print(f"embedded {len(captions)} captions for {path.name}", flush=True)


def keep_array(path: Path, array: np.ndarray) -> None:
    """Write an array beside its path, then rename it: an interrupted run leaves no partial file."""
    with open(path.with_suffix(".tmp"), "wb") as file:
        np.save(file, array)
    path.with_suffix(".tmp").rename(path)


def render(clip: Clip) -> np.ndarray:
    """Return the audio of a clip, one window `[S]`."""
    return render_scene(clip.scene, clip.sound_seed, RATE_HZ)


def train_mapper(
    backbone: Backbone, captions: list[str], embeddings: np.ndarray, bridge: Bridge, training: TrainingConfig
) -> Captioner:
    """Train a mapper on captions and their embeddings `[N, E]`; return a captioner with the bridge's audio side."""
    run = MapperTraining(
        make_examples(captions, embeddings, backbone.tokenizer),
        backbone.language_model(),
        backbone.tokenizer,
        bridge,
        backbone.config.mapper,
        training,
        Accelerator(cpu=True),
    )
    return Captioner(backbone, run.run(), bridge, backbone.tokenizer.end_id, torch.device("cpu"))


def caption_embeddings(captioner: Captioner, embeddings: np.ndarray) -> list[str]:
    """Return captions of audio embeddings `[M, E]`."""
    batches = torch.from_numpy(embeddings).float().split(50)
    return [best.caption for batch in batches for best, *_ in captioner.candidates(batch)]


def caption_part(
    plan: Plan, path: Path, backbone: Backbone, embeddings: np.ndarray, bridge: Bridge, seed: int
) -> list[str]:
    """Train one mapper on the captions and their embeddings `[N, E]`; write and return its captions of the clips."""
    captions_to_learn = [clip.captions[0] for clip in plan.pairs]
    captioner = train_mapper(backbone, captions_to_learn, embeddings, bridge, replace(plan.training, seed=seed))
    captions = caption_embeddings(captioner, np.load(plan.work / "held_out.npy"))
    atomic_write_text(path, json.dumps(captions, indent=1))
    return captions


def run_part(plan: Plan, condition: str, seed: int) -> None:
    """Train one mapper and caption the held-out clips with it, unless the part exists."""
    path = plan.part_path(condition, seed)
    if path.exists():
        return
    torch.set_num_threads(1)
    backbone = Backbone.load(plan.backbone)
    embeddings = np.load(plan.work / ("pairs.npy" if condition == "audio pairs" else "text.npy"))
    bridge = bridge_of(backbone, condition, plan.noise_std)
    captions = caption_part(plan, path, backbone, embeddings, bridge, seed)
    print(f"{condition}, seed {seed}: {figures(plan, captions)}", flush=True)


def bridge_of(backbone: Backbone, condition: str, noise_std: float | None = None) -> Bridge:
    """Return the bridge of a condition; without a standard deviation, with the backbone's noise."""
    variance = backbone.config.noise_variance if noise_std is None else noise_std**2
    if condition == DEFAULT_BRIDGE and backbone.config.default_bridge == "centre":
        means = np.array(backbone.config.mean_sound), np.array(backbone.config.mean_text)
        return Bridge(BridgeConfig(variance, kind="centre"), affine=centring(*means))
    return Bridge(BridgeConfig(variance if condition in CONDITIONS[:2] else 0.0))


def figures(plan: Plan, captions: list[str]) -> dict[str, float]:
    """Return event F1 over all clips, over seen and unseen combinations, and the share of distinct captions."""
    scenes = [clip.scene for clip in plan.held_out]
    return {
        "all": event_f1(captions, scenes).f1,
        "seen": event_f1(captions[:N_SEEN], scenes[:N_SEEN]).f1,
        "unseen": event_f1(captions[N_SEEN:], scenes[N_SEEN:]).f1,
        "distinct": len(set(captions)) / len(captions),
    }


def cider_d(clips: Sequence[Clip], captions: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return CIDEr-D of several systems' captions of clips, against the captions of the clips.

    It is NaN if it could not be computed.
    """
    with tempfile.TemporaryDirectory() as folder:
        references = Path(folder) / "references.json"
        references.write_text(json.dumps({str(i): clip.captions for i, clip in enumerate(clips)}))
        paths = [Path(folder) / f"{place}.json" for place in range(len(captions))]
        for path, several in zip(paths, captions.values(), strict=True):
            path.write_text(json.dumps({str(i): caption for i, caption in enumerate(several)}))
        report = score_files(references, paths, metrics="cider_d")
    for failed in report.failed:
        print(f"CIDEr-D is skipped: {failed.problem}", flush=True)
    values = [system["cider_d"].value for system in report.scoring.systems]
    return {name: float("nan") if value is None else value for name, value in zip(captions, values, strict=True)}


def nearest_captions(plan: Plan) -> list[str]:
    """Return the training caption whose text embedding is nearest to the audio embedding of each held-out clip."""
    similarity = np.load(plan.work / "held_out.npy") @ np.load(plan.work / "text.npy").T
    pairs = plan.pairs
    return [pairs[i].captions[0] for i in similarity.argmax(axis=1)]


def prepare(plan: Plan, n_jobs: int, *, with_audio: bool) -> None:
    """Write the embeddings that all parts need, and print how well those of held-out pairs match."""
    pairs, held_out = plan.pairs, plan.held_out
    audio = embed_sounds(plan.work / "held_out.npy", plan.backbone, held_out, n_jobs)
    if with_audio:
        embed_sounds(plan.work / "pairs.npy", plan.backbone, pairs, n_jobs)
    encoder = Backbone.load(plan.backbone).text_encoder()
    np.save(plan.work / "text.npy", encoder.encode([clip.captions[0] for clip in pairs]).numpy())
    text = encoder.encode([clip.captions[0] for clip in held_out]).numpy()
    similarity = audio @ text.T
    rank = (similarity > similarity.diagonal()[:, None]).sum(axis=1)
    norm = np.abs(audio - text).max(axis=1).mean()
    print(
        f"held-out pairs: mean cosine {similarity.diagonal().mean():.3f}, recall@1 {(rank < 1).mean():.3f}, "
        f"recall@10 {(rank < 10).mean():.3f} among {len(held_out)}, mean infinity norm {norm:.3f}"
    )


def main() -> None:
    """Run the missing parts, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("sound-world-benchmark"), help="folder to keep results in")
    parser.add_argument("--seeds", type=int, default=3, help="number of mappers to train in each condition")
    parser.add_argument("--jobs", type=int, default=2, help="mappers to train at once, one thread each")
    parser.add_argument("--backbone", default="tiny", help="name or folder of a backbone")
    parser.add_argument("--world-seed", type=int, default=WORLD_SEED, help="seed of all clips and captions")
    parser.add_argument("--pairs", type=int, default=9000, help="number of captions, and of clips, to train on")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the captions")
    parser.add_argument("--noise-std", type=float, help="standard deviation of the noise (default: the backbone's)")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS, help="what to train on")
    options = parser.parse_args()
    training = TrainingConfig(epochs=options.epochs, batch_size=128, learning_rate=2e-3, held_out_captions=0)
    plan = Plan(options.work, options.backbone, options.world_seed, options.pairs, options.noise_std, training)
    plan.work.mkdir(parents=True, exist_ok=True)
    refuse_other_plan(plan.work, plan, Backbone.load(plan.backbone).content_hash)
    prepare(plan, options.jobs, with_audio="audio pairs" in options.conditions)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        parts = [(condition, seed) for seed in range(options.seeds) for condition in options.conditions]
        for done in [pool.submit(run_part, plan, condition, seed) for condition, seed in parts]:
            done.result()
    print_table(plan, options.conditions, options.seeds)


def refuse_other_plan(work: Path, plan: Any, weights: str) -> None:
    """Write the plan and the hash of the weights to the work folder, or compare them with those there.

    Raises:
        SystemExit: The work folder holds results of another plan or other weights.
    """
    path, text = work / "plan.json", json.dumps({**asdict(plan), "weights": weights}, default=str, indent=1)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{work} holds results of another plan or model (choose another folder with --work)")
    atomic_write_text(path, text)


def fill_jars(work: Path, source: Path) -> None:
    """Put the jars of the metrics in the work folder, and make the scoring use them."""
    # Imported late, because it imports huggingface_hub, which reads environment variables when it is imported.
    from textcap.scoring.jar_fetching import fetch_metrics

    folder = work / "jars"
    folder.mkdir(exist_ok=True)
    os.environ["AAC_METRICS_CACHE_PATH"] = str(folder.resolve())
    for _ in fetch_metrics([source]):
        pass


def print_table(plan: Plan, conditions: list[str], n_seeds: int) -> None:
    """Print the mean and standard deviation of every figure."""
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
    for name, runs in rows.items():
        cells = [show([run[column] for run in runs]) for column in columns]
        print(f"| {name} | {' | '.join(cells)} |")


def show(values: list[float]) -> str:
    """Return the mean, with the standard deviation if there are several values."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
