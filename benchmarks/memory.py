"""Whether a memory of captions, or CLAP's similarity, chooses better captions on the built-in models.

    python -m benchmarks.memory [--work FOLDER] [--jobs 2]

A memory holds text embeddings; a share of each sound's embedding is replaced by the mean of those near it (DeCap,
MATS). Reranking puts the candidates of a wide beam in the order of a mean of score and similarity. Both are measured
on clips of all kinds of sound with the training captions as memory, and for a change of domain: clips of twelve kinds,
and as memory captions of these kinds alone. What is best on the clips for tuning is marked; the other column reports
it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.dial.bridges import remember
from benchmarks.sound_world import embed_sounds
from benchmarks.sounds import trained_model, world_captions
from textcap.captioner import Captioner, Ranking
from textcap.config import BridgeConfig, DecodingConfig
from textcap.demo.folder import Clip, held_out_clips, training_pairs
from textcap.demo.grammar import event_f1
from textcap.demo.sounds import KINDS
from textcap.gap.bridge import Bridge
from textcap.gap.retrieval import Array
from textcap.model_folder import load_model
from textcap.models.similarity import rank

N_CAPTIONS, N_CLIPS, N_OF_KINDS, BEAM = 8000, 500, 2000, 8
SEEDS = {"test": 6008, "tuning": 6009}
SHARES, WEIGHTS = (0.0, 0.5, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0)
DOMAIN = frozenset(list(KINDS)[::4])


def clips_of(domain: str, role: str) -> list[Clip]:
    """Return the clips of a role: "all kinds", or "12 kinds"."""
    seed = SEEDS[role]
    if domain == "all kinds":
        return held_out_clips(2 * N_CLIPS // 3, N_CLIPS - 2 * N_CLIPS // 3, seed)
    return of_kinds(N_CLIPS, seed)


def of_kinds(n: int, seed: int) -> list[Clip]:
    """Return clips whose sounds are all of the twelve kinds."""
    found = [clip for clip in training_pairs(20 * n, seed) if DOMAIN.issuperset(clip.scene.kinds)]
    return found[:n]


def main() -> None:
    """Caption the clips in every way and print event F1 on the clips for tuning and on those for testing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("memory-benchmark"), help="folder to keep embeddings in")
    parser.add_argument("--jobs", type=int, default=2, help="processes that render sounds")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    model = trained_model(options.work, N_CAPTIONS)
    captioner, stored = Captioner.load(model, device="cpu"), load_model(model)
    bridge = Bridge(stored.config.bridge, affine=stored.affine)
    moved_already = Bridge(BridgeConfig(0.0, kind="noise"))
    end_id = stored.config.end_token_id
    plain = Captioner(captioner.backbone, stored.mapper, moved_already, end_id, torch.device("cpu"))
    encoder = captioner.backbone.text_encoder()
    captions = world_captions(options.work, N_CAPTIONS).read_text(encoding="utf-8").splitlines()
    memories = {"all kinds": captions, "12 kinds": [clip.captions[0] for clip in of_kinds(N_OF_KINDS, 6010)]}
    print("| clips | way | F1 for tuning | F1 |\n|---|---|---|---|", flush=True)
    for domain, texts in memories.items():
        memory = bridge.moved_text(encoder.encode(texts)).numpy()
        figures: dict[str, list[float]] = {}
        for role in ("tuning", "test"):
            clips = clips_of(domain, role)
            path = options.work / f"{domain.replace(' ', '-')}-{role}.npy"
            sounds = torch.from_numpy(embed_sounds(path, "tiny", clips, options.jobs)).float()
            scenes = [clip.scene for clip in clips]
            moved = bridge.audio_side(sounds).numpy()
            for share in SHARES:
                rows = remember(memory, moved, share).astype(np.float32)
                figures.setdefault(f"memory {share:g}", []).append(event_f1(first_captions(plain, rows), scenes).f1)
            for weight, chosen in reranked(captioner, sounds).items():
                figures.setdefault(f"rerank {weight:g}", []).append(event_f1(chosen, scenes).f1)
        for way, (tuning, test) in figures.items():
            kind = way.split()[0]
            best = tuning == max(several[0] for name, several in figures.items() if name.startswith(kind))
            print(f"| {domain} | {way} | {tuning:.3f}{' *' if best else ''} | {test:.3f} |", flush=True)


def first_captions(captioner: Captioner, rows: Array) -> list[str]:
    """Return the best caption of each embedding `[M, E]`."""
    return [best.caption for part in torch.from_numpy(rows).split(50) for best, *_ in captioner.candidates(part)]


def reranked(captioner: Captioner, sounds: torch.Tensor) -> dict[float, list[str]]:
    """Return the first of the candidates of each sound by weight of the similarity."""
    decoding, ranking = DecodingConfig(beam_size=BEAM, n_best=BEAM), Ranking(with_similarity=True)
    found: dict[float, list[str]] = {weight: [] for weight in WEIGHTS}
    for part in sounds.split(50):
        for several in captioner.candidates(part, decoding, ranking):
            scores, similarities = [one.score for one in several], [one.similarity or 0.0 for one in several]
            for weight in WEIGHTS:
                found[weight].append(several[rank(scores, similarities, weight)[0]].caption)
    return found


if __name__ == "__main__":
    main()
