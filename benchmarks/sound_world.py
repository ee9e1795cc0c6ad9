"""Does training on text alone work? Measured on 300 held-out clips of the sound world.

    python benchmarks/sound_world.py [--work FOLDER] [--seeds 3] [--jobs 2]

Trains the same mapper on text with noise, on text without noise, and on the audio embeddings of as many
pairs; gives each clip its nearest training caption as well. Each part is kept in the work folder, so a killed
run goes on. Prints a table with the mean and the spread over seeds.
"""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from textcap.backbone import Backbone
from textcap.bridge import Bridge
from textcap.captioner import Captioner
from textcap.config import BridgeConfig, TrainingConfig
from textcap.demo.folder import RATE_HZ, Clip, held_out_clips, training_pairs
from textcap.demo.grammar import event_f1
from textcap.demo.render import render_scene
from textcap.files import atomic_write_text
from textcap.training.data import make_examples
from textcap.training.loop import MapperTraining

N_PAIRS, N_SEEN, N_UNSEEN = 9000, 200, 100
WORLD_SEED = 1000  # no clip or caption of the demo, and none that the embedded models were built on
TRAINING = TrainingConfig(epochs=6, batch_size=128, learning_rate=2e-3, held_out_captions=0)
CONDITIONS = ("text, noise", "text, no noise", "audio pairs")


def embed_sounds(clips: list[Clip], path: Path, n_jobs: int) -> np.ndarray:
    """Return the audio embeddings `[N, E]` of clips, kept at `path`."""
    if not path.exists():
        encoder = Backbone.load("tiny").audio_encoder()
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
        with open(path.with_suffix(".tmp"), "wb") as file:
            np.save(file, np.concatenate(parts))
        path.with_suffix(".tmp").rename(path)
    return np.load(path)


def render(clip: Clip) -> np.ndarray:
    """Return the sound of a clip, one window `[S]`."""
    return render_scene(clip.scene, clip.sound_seed, RATE_HZ)


def run_part(work: Path, condition: str, seed: int, n_threads: int) -> None:
    """Train one mapper and caption the held-out clips with it."""
    path = part_path(work, condition, seed)
    if path.exists():
        return
    torch.set_num_threads(n_threads)
    backbone = Backbone.load("tiny")
    captions = [clip.captions[0] for clip in training_pairs(N_PAIRS, WORLD_SEED)]
    on_audio = condition == "audio pairs"
    embeddings = np.load(work / ("pairs.npy" if on_audio else "text.npy"))
    bridge = Bridge(BridgeConfig(backbone.config.noise_variance if condition == "text, noise" else 0.0))
    config = TrainingConfig(**{**vars(TRAINING), "seed": seed})
    language_model = backbone.language_model()
    examples = make_examples(captions, embeddings, backbone.tokenizer)
    training = MapperTraining(
        examples,
        language_model,
        backbone.tokenizer,
        bridge,
        backbone.config.mapper,
        config,
        Accelerator(cpu=True),
    )
    mapper = training.run().mapper
    captioner = Captioner(backbone, mapper, bridge, backbone.tokenizer.end_id, torch.device("cpu"))
    heard = torch.from_numpy(np.load(work / "held_out.npy"))
    said = [
        found.caption
        for start in range(0, len(heard), 50)
        for found in captioner.caption_embeddings(heard[start : start + 50])
    ]
    atomic_write_text(path, json.dumps(said, indent=1))
    print(f"{condition}, seed {seed}: {figures(said)}", flush=True)


def figures(said: list[str]) -> dict[str, float]:
    """Return event F1 over all clips, the seen and the unseen combinations, and the share of distinct captions."""
    scenes = [clip.scene for clip in held_out_clips(N_SEEN, N_UNSEEN, WORLD_SEED)]
    return {
        "all": event_f1(said, scenes).f1,
        "seen": event_f1(said[:N_SEEN], scenes[:N_SEEN]).f1,
        "unseen": event_f1(said[N_SEEN:], scenes[N_SEEN:]).f1,
        "distinct": len(set(said)) / len(said),
    }


def nearest_captions(work: Path) -> list[str]:
    """Give each held-out clip the training caption whose text embedding is nearest to its audio embedding."""
    similarity = np.load(work / "held_out.npy") @ np.load(work / "text.npy").T
    pairs = training_pairs(N_PAIRS, WORLD_SEED)
    return [pairs[i].captions[0] for i in similarity.argmax(axis=1)]


def prepare(work: Path, n_jobs: int) -> None:
    """Write the embeddings that every part needs."""
    pairs, held_out = training_pairs(N_PAIRS, WORLD_SEED), held_out_clips(N_SEEN, N_UNSEEN, WORLD_SEED)
    heard = embed_sounds(held_out, work / "held_out.npy", n_jobs)
    embed_sounds(pairs, work / "pairs.npy", n_jobs)
    encoder = Backbone.load("tiny").text_encoder()
    np.save(work / "text.npy", encoder.encode([clip.captions[0] for clip in pairs]).numpy())
    said = encoder.encode([clip.captions[0] for clip in held_out]).numpy()
    similarity = heard @ said.T
    rank = (similarity > similarity.diagonal()[:, None]).sum(axis=1)
    print(
        f"held-out pairs: mean cosine {similarity.diagonal().mean():.3f}, recall@1 {(rank < 1).mean():.3f}, "
        f"recall@10 {(rank < 10).mean():.3f} among {len(held_out)}"
    )


def main() -> None:
    """Run the parts that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("sound-world-benchmark"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="mappers trained at once, one thread each")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    prepare(options.work, options.jobs)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        parts = [(c, s) for s in range(options.seeds) for c in CONDITIONS]
        for done in [pool.submit(run_part, options.work, c, s, 1) for c, s in parts]:
            done.result()
    print_table(options.work, options.seeds)


def print_table(work: Path, n_seeds: int) -> None:
    """Print mean and standard deviation of every figure."""
    columns = ("all", "seen", "unseen", "distinct")
    rows = {
        condition: [
            figures(json.loads(part_path(work, condition, seed).read_text(encoding="utf-8"))) for seed in range(n_seeds)
        ]
        for condition in CONDITIONS
    }
    rows["nearest training caption"] = [figures(nearest_captions(work))]
    print(f"| trained on | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, found in rows.items():
        cells = [show([one[column] for one in found]) for column in columns]
        print(f"| {name} | {' | '.join(cells)} |")


def show(values: list[float]) -> str:
    """Return the mean, with the standard deviation where there are several values."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def part_path(work: Path, condition: str, seed: int) -> Path:
    """Return where the captions of one part are kept."""
    return work / f"{condition.replace(', ', '-').replace(' ', '-')}-{seed}.json"


if __name__ == "__main__":
    main()
