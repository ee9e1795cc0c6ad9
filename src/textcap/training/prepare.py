"""Prepare a training run: embed the sounds of pairs, make the bridge, and build the examples.

In a run of several processes, each calls the same functions: the main process computes the embeddings, and the others
read them from the cache.
"""

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray

from textcap.config import MOVING, AudioSample, BridgeConfig, MapperConfig, TrainingConfig
from textcap.data.captions import CaptionSet, warn_of_few
from textcap.data.pairs import PairSet
from textcap.data.stored import StoredCaptions, distinct, kept, write_captions
from textcap.embedding.captions import embed_captions
from textcap.embedding.pairs import EmbeddedPairs, embed_pairs
from textcap.embedding.sample import embed_sample
from textcap.errors import InputError
from textcap.gap.adapter import LinearAdapter
from textcap.gap.bridge import Bridge
from textcap.gap.bridge.affine import centring
from textcap.gap.calibrate import calibrate_noise
from textcap.gap.compare import measure_unpaired_gap
from textcap.models.backbone import Backbone
from textcap.store import store_folder
from textcap.training.data import MAX_CAPTION_TOKENS, MIN_CAPTION_TOKENS, Examples, make_examples
from textcap.training.events import Embedded, Report
from textcap.training.sources import AUDIO, TEXT, MixedEmbeddings, Source
from textcap.training.state import CAPTIONS, WITH_PAIRS, WorkFolder

MEMORY_HINT = "stop other programs that use its memory, or choose another --device"

_MOST_CAPTIONS, _SAMPLE_SEED = 100_000, 0  # that a bridge is computed from; of more, as many drawn at random

_logger = logging.getLogger("textcap")


@dataclass(frozen=True)
class Task:
    """What a run trains and on what, read and checked; every process of a run gets the same task."""

    output: Path  # the model folder to write, absolute
    has_text: bool  # whether there are captions to learn from their text embeddings
    captions: CaptionSet | None  # they, stored in the work folder; None in a process that has not received them yet
    pairs: tuple[PairSet, ...]  # captions to learn from the embeddings of their sounds
    # what the held-out loss is measured on, in place of captions held out: the last of `captions`, or pairs
    validates_on_text: bool
    val_pairs: PairSet | None
    bridge: BridgeConfig
    audio_sample: Sequence[str]  # recordings without captions to compute the bridge from; none for the backbone's means
    audio_sample_name: str
    noise_from: PairSet | None  # pairs to measure the noise on text with, in place of the bridge's
    adapter: LinearAdapter | None
    mapper: MapperConfig
    config: TrainingConfig
    force: bool  # overwrite the output, and discard an unfinished run with other settings
    command: str  # the command line, recorded in the model folder


def embed_all_pairs(task: Task, backbone: Backbone, device: torch.device, report: Report) -> list[EmbeddedPairs]:
    """Embed the sounds of every set of pairs, those to validate on last; sounds that cannot be used are logged."""
    every = task.pairs if task.val_pairs is None else (*task.pairs, task.val_pairs)
    return [embed_pairs(pairs, backbone, device, progress=_sounds(report)) for pairs in every]


def make_bridge(task: Task, backbone: Backbone, device: torch.device, report: Report) -> Bridge:
    """Return the bridge of a task, computed from its sample of sounds, and its noise measured, if it asks for that.

    Raises:
        InputError: The sample has too few sounds that can be read, or there are too few pairs to measure the noise on.
    """
    config, affine = task.bridge, None
    if task.audio_sample:
        assert task.captions is not None
        name = task.audio_sample_name
        sounds = embed_sample(task.audio_sample, name, backbone, device, progress=_sounds(report))
        folder = WorkFolder.path_of(task.output) / CAPTIONS
        text, rows = _embed_captions(task.captions.captions, folder, backbone, device, report)
        if len(rows) > _MOST_CAPTIONS:
            rows = np.sort(np.random.default_rng(_SAMPLE_SEED).choice(rows, _MOST_CAPTIONS, replace=False))
        found = measure_unpaired_gap(sounds, text[rows], config.kind)
        sample = AudioSample(name, len(sounds), hashlib.sha256(sounds.tobytes()).hexdigest())
        config, affine = replace(config, kind=found.kind, sample=sample), found.bridge
    elif config.kind in MOVING:
        affine = centring(np.array(backbone.config.mean_sound), np.array(backbone.config.mean_text))
    bridge = Bridge(config, task.adapter, affine)
    if task.noise_from is not None:
        bridge = calibrate_noise(bridge, task.noise_from, backbone, device, progress=_sounds(report))
    return bridge


def make_task_examples(
    task: Task, embedded: Sequence[EmbeddedPairs], backbone: Backbone, device: torch.device, report: Report
) -> Examples:
    """Embed the captions of text files, and combine them and the embedded pairs into examples.

    Raises:
        DeviceError: The device has not enough memory to embed the captions.
    """
    captions: Sequence[str] = ()
    sources: list[Source] = []
    work = WorkFolder.path_of(task.output)
    audio, owners = np.empty((0, backbone.config.clap.embedding_width), np.float32), np.empty(0, np.int64)
    text, keep = audio, None
    rows: NDArray[np.integer[Any]] = owners
    if task.captions is not None:
        for file in task.captions.files:
            first = sources[-1].end if sources else 0
            sources.append(Source(file.name, TEXT, first, first + file.n_captions, file.weight))
        captions, keep = task.captions.captions, work / CAPTIONS
        _logger.info("text embeddings are kept in %s", store_folder())
        text, rows = _embed_captions(captions, keep, backbone, device, report)
    held_out = None
    if task.validates_on_text:  # its captions were stored after those of all other files
        last = sources.pop()
        held_out = np.arange(last.first, last.end)
    end = len(rows)
    for number, one in enumerate(embedded):
        place = Source(one.source.file.name, AUDIO, end, end := end + len(one.captions))
        if task.val_pairs is not None and number == len(embedded) - 1:
            held_out = np.arange(place.first, place.end)
        else:
            sources.append(place)
        owners = np.concatenate([owners, one.owners + len(audio)])
        audio = np.concatenate([audio, one.audio])
    if embedded:
        more = (caption for one in embedded for caption in one.captions)
        captions, keep = _stored_together(work / WITH_PAIRS, itertools.chain(captions, more)), work / WITH_PAIRS
    warn_of_few(len(distinct(captions)[0]))
    most = max_tokens(backbone, task.mapper)
    return make_examples(
        captions,
        MixedEmbeddings(text, rows, audio, owners),
        backbone.tokenizer,
        max_tokens=most,
        held_out_captions=task.config.held_out_captions,
        seed=task.config.seed,
        sources=sources,
        clips=np.concatenate([np.full(len(rows), -1), owners]) if len(owners) else None,
        n_text=len(rows),
        held_out=held_out,
        keep=keep and keep / f"tokens-{backbone.language_model_half.content_hash[:16]}-{most}.npy",
    )


def identity(task: Task, embedded: Sequence[EmbeddedPairs]) -> dict[str, Any]:
    """Return hashes of the captions, weights, pairs and adapter of a run, as plain values.

    Together with its settings they identify a run: one with other values is not continued.
    """
    files = task.captions.files if task.captions else ()
    pairs, adapter = hashlib.sha256(), task.adapter
    for one in embedded:
        pairs.update(one.audio.tobytes() + one.owners.tobytes() + "\n".join(one.captions).encode())
    tensors = adapter.matrix.numpy().tobytes() + adapter.bias.numpy().tobytes() if adapter else b""
    return {
        "captions": task.captions.content_hash if task.captions else None,
        # Several files of weight 1 are the same as one file.
        "weights": [[f.n_captions, f.weight] for f in files] if any(f.weight != 1 for f in files) else None,
        "pairs": pairs.hexdigest() if embedded else None,
        "adapter": hashlib.sha256(tensors).hexdigest() if adapter else None,
        "validation": [files[-1].n_captions if task.validates_on_text else 0, task.val_pairs is not None],
    }


def max_tokens(backbone: Backbone, mapper: MapperConfig) -> int:
    """Return the number of tokens, end token included, that a caption may have after the prefix.

    Raises:
        InputError: The mapper does not fit between the backbone's models, or its prefix leaves no room for a caption.
    """
    replace(backbone.config, mapper=mapper)  # checks that their widths agree
    n_positions = backbone.config.language_model.n_positions
    # The end token is predicted but is never an input, so it needs no position.
    room = n_positions - mapper.prefix_length + 1
    if room < MIN_CAPTION_TOKENS:
        message = f"a prefix of {mapper.prefix_length} vectors leaves no room for a caption in {n_positions} positions"
        raise InputError(message, hint="lower --prefix-length")
    return min(MAX_CAPTION_TOKENS, room)


def _stored_together(folder: Path, captions: Iterable[str]) -> StoredCaptions:
    """Return captions stored in a folder, which the first process of a machine writes."""
    if PartialState().is_local_main_process:
        write_captions(captions, folder)
    return StoredCaptions(folder)


def _embed_captions(
    captions: Sequence[str], folder: Path, backbone: Backbone, device: torch.device, report: Report
) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]]:
    """Return the embeddings `[M, E]` of the different captions, and which of them each caption has, `[N]`."""
    different, rows = distinct(captions)
    n = len(different)

    def embed() -> NDArray[np.float32]:
        return embed_captions(different, backbone, device, progress=lambda done: report(Embedded(done, n)))

    return kept(folder / f"text-{backbone.clap.content_hash[:16]}.npy", embed), rows


def _sounds(report: Report) -> Callable[[int, int], None]:
    return lambda n_done, n_total: report(Embedded(n_done, n_total, "sounds"))
