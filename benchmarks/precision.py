"""What 8-bit products of the decoder gain at full size, and what they change in captions of the sound world."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.processes import made
from benchmarks.score import words_of
from benchmarks.sound_world import render
from benchmarks.sounds import trained_model
from benchmarks.weights import weights_in
from textcap.captioner import Captioner
from textcap.config import DecodingConfig
from textcap.demo.folder import Clip, held_out_clips
from textcap.demo.grammar import event_f1
from textcap.models.beam_search import beam_search
from textcap.models.gpt2 import Gpt2LanguageModel
from textcap.models.precision import prepare
from textcap.scoring.words import cider_d

_WORLD_SEED = 1000  # as in the benchmark of the sound world


@dataclass(frozen=True)
class Sizes:
    """How much to decode."""

    tokens: int = option(20, "tokens of each caption at full size")
    batches: tuple[int, ...] = option((1, 8, 16), "batch sizes at full size")
    captions: int = option(9000, "captions of the sound world to train on")
    clips: int = option(300, "held-out clips of the sound world")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure decoding at full size, then compare captions of a trained model in both precisions."""
    weights = weights_in(bench.work)
    config = weights.config
    models = {name: prepare(weights.msclap_2023.language_model(), name) for name in ("float32", "int8")}
    for n_clips in sizes.batches:
        prefixes = torch.randn(n_clips, config.mapper.prefix_length, config.mapper.width)
        contenders = [
            Contender(name, partial(decode, model, prefixes, sizes.tokens), n_clips) for name, model in models.items()
        ]
        found = bench.compare(f"decoding, batch of {n_clips}", contenders, lambda ours, theirs: "")
        bench.note(f"batch of {n_clips}: {found['float32'].median_s / found['int8'].median_s:.2f} times as fast")
    model = trained_model(bench.work, sizes.captions)
    clips = held_out_clips(sizes.clips * 2 // 3, sizes.clips - sizes.clips * 2 // 3, _WORLD_SEED)
    embeddings = made(bench.work / f"held-out-{sizes.clips}.npy", lambda path: embed(model, clips, path))
    captions = {name: caption(model, name, np.load(embeddings)) for name in models}
    for name, texts in captions.items():
        bench.note(f"{name}: {describe(texts, clips)}")
    n_equal = sum(a == b for a, b in zip(captions["float32"], captions["int8"], strict=True))
    bench.note(f"captions that are equal: {n_equal / len(clips):.1%}")


def decode(model: Gpt2LanguageModel, prefixes: Tensor, n_tokens: int) -> None:
    """Decode with five beams; no token ends a caption."""
    beam_search(model, prefixes, DecodingConfig(max_tokens=n_tokens), end_id=-1)


def embed(model: Path, clips: list[Clip], path: Path) -> None:
    """Write the audio embeddings `[N, E]` of clips."""
    encoder = Captioner.load(model, device="cpu").backbone.audio_encoder()
    with torch.inference_mode():
        parts = [encoder(torch.from_numpy(render(clip))[None]).numpy() for clip in clips]
    with open(path, "wb") as file:  # np.save would add an ending to a name
        np.save(file, np.concatenate(parts))


def caption(model: Path, precision: str, embeddings: np.ndarray) -> list[str]:
    """Return the captions of audio embeddings `[N, E]`."""
    captioner = Captioner.load(model, device="cpu", precision=precision)
    batches = torch.from_numpy(embeddings).split(50)
    return [best.caption for batch in batches for best, *_ in captioner.candidates(batch)]


def describe(captions: list[str], clips: list[Clip]) -> str:
    """Return event F1 and CIDEr-D of captions, without Java."""
    tokens = [words_of(text) for text in captions]
    references = [[words_of(text) for text in clip.captions] for clip in clips]
    (scores,) = cider_d([tokens], references)
    return f"event F1 {event_f1(captions, [clip.scene for clip in clips]).f1:.3f}, CIDEr-D {scores.mean():.3f}"
