"""Prepare a training run: embed the sounds of pairs, make the bridge, and build the examples.

In a run of several processes, each calls the same functions: the main process computes the embeddings, and the others
read them from the cache.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textcap.config import BridgeConfig, MapperConfig
from textcap.data.captions import CaptionFile, CaptionSet
from textcap.data.pairs import AudioPair, PairSet, SkippedPair
from textcap.device import memory_errors
from textcap.embedding.pairs import EmbeddedPairs, embed_pairs
from textcap.embedding.store.text import default_cache_folder, embed_captions
from textcap.errors import CheckpointError, InputError
from textcap.gap.adapter import LinearAdapter, load_adapter
from textcap.gap.bridge import Bridge
from textcap.gap.calibrate import calibrate_noise
from textcap.models.backbone import Backbone
from textcap.training.data import MAX_CAPTION_TOKENS, MIN_CAPTION_TOKENS, Embeddings, Examples, make_examples
from textcap.training.events import Embedded, Report, Warned
from textcap.training.job import TrainingJob
from textcap.training.sources import AUDIO, TEXT, MixedEmbeddings, Source

MEMORY_HINT = "stop other programs that use its memory, or choose another --device"

_logger = logging.getLogger("textcap")


@dataclass(frozen=True)
class TrainingData:
    """The captions and pairs that a run learns from."""

    texts: CaptionSet | None = None  # captions to learn from their text embeddings
    pairs: tuple[PairSet, ...] = ()  # captions to learn from the embeddings of their sounds
    noise_pairs: PairSet | None = None  # pairs to measure the noise on text with

    def __post_init__(self) -> None:
        if self.texts is None and not self.pairs:
            raise InputError("there is nothing to train on", hint="give a caption file or a pairs file")

    @property
    def names(self) -> list[str]:
        """The names of the caption files and pairs files to train on, as the user gave them."""
        files = [*(self.texts.files if self.texts else ()), *(pairs.file for pairs in self.pairs)]
        return [file.name for file in files]


def data_to_dict(data: TrainingData) -> dict[str, Any]:
    """Return the captions and pairs of a run as plain values for JSON."""
    values = asdict(data)
    for pairs in (*values["pairs"], *([values["noise_pairs"]] if data.noise_pairs else [])):
        for pair in pairs["pairs"]:
            pair["audio"] = str(pair["audio"])
    return values


def data_from_dict(values: dict[str, Any]) -> TrainingData:
    """Return the captions and pairs that `data_to_dict` turned into plain values."""
    texts = values["texts"]
    return TrainingData(
        texts and CaptionSet(texts["captions"], _files(texts["files"]), tuple(texts["warnings"])),
        tuple(_pair_set(pairs) for pairs in values["pairs"]),
        values["noise_pairs"] and _pair_set(values["noise_pairs"]),
    )


def embed_all_pairs(
    data: TrainingData, backbone: Backbone, device: torch.device, report: Report
) -> tuple[EmbeddedPairs, ...]:
    """Embed the sounds of every set of pairs; sounds that cannot be used are skipped and reported."""
    embedded = []
    for pairs in data.pairs:
        one = embed_pairs(
            pairs, backbone, device, progress=lambda n_done, n_total: report(Embedded(n_done, n_total, "sounds"))
        )
        embedded.append(one)
        for warning in one.notices:
            report(Warned(warning))
    return tuple(embedded)


def make_bridge(
    job: TrainingJob, data: TrainingData, backbone: Backbone, device: torch.device, report: Report
) -> Bridge:
    """Return the bridge that a job asks for: its noise is given, measured, or the backbone's.

    Raises:
        CheckpointError: The adapter cannot be read, or was fitted on another backbone.
        InputError: There are too few pairs to measure the noise on.
    """
    adapter = load_job_adapter(job, backbone)
    if job.bridge is not None:
        return Bridge(job.bridge, adapter)
    # A run without text has no noise on text.
    config = BridgeConfig(noise_variance=backbone.config.noise_variance if data.texts else 0.0)
    if data.noise_pairs is not None:
        calibrated = calibrate_noise(
            data.noise_pairs,
            backbone,
            device,
            adapter=adapter,
            progress=lambda n_done, n_total: report(Embedded(n_done, n_total, "sounds")),
        )
        for warning in calibrated.warnings:
            report(Warned(warning))
        config = replace(config, noise_variance=calibrated.noise_variance, calibration=calibrated.calibration)
    return Bridge(replace(config, audio_noise_variance=job.audio_noise_variance), adapter)


def load_job_adapter(job: TrainingJob, backbone: Backbone) -> LinearAdapter | None:
    """Return the adapter that a job names, or None if it names none.

    Raises:
        CheckpointError: The adapter cannot be read, or was fitted on another backbone.
    """
    if job.adapter is None:
        return None
    adapter = load_adapter(Path(job.adapter))
    if adapter.facts.backbone_hash != backbone.content_hash:
        theirs, ours = adapter.facts.backbone_hash[:12], backbone.content_hash[:12]
        raise CheckpointError(
            f"{job.adapter} was fitted on {adapter.facts.backbone_name} with weights {theirs}, not {ours}",
            hint="fit it again on this backbone, or train on that --backbone",
        )
    return adapter


def make_job_examples(
    job: TrainingJob,
    data: TrainingData,
    embedded: Sequence[EmbeddedPairs],
    backbone: Backbone,
    mapper: MapperConfig,
    device: torch.device,
    report: Report,
) -> Examples:
    """Embed the captions of text files, and combine them and the embedded pairs into examples.

    Raises:
        DeviceError: The device has not enough memory to embed the captions.
        InputError: The prefix leaves no room for a caption.
    """
    captions: list[str] = list(data.texts.captions) if data.texts else []
    clips = [-1] * len(captions)
    sources = _text_sources(data.texts)
    embeddings: Embeddings | None = _embed_texts(data.texts, backbone, device, report) if data.texts else None
    if embedded:
        n_clips = 0
        owners = []
        for one in embedded:
            sources.append(Source(one.source.file.name, AUDIO, len(captions), len(captions) + len(one.captions)))
            captions += one.captions
            owners.append(one.owners + n_clips)
            n_clips += len(one.pairs)
        every_owner = np.concatenate(owners)
        clips += every_owner.tolist()
        audio = np.concatenate([one.audio for one in embedded])
        text = np.empty((0, audio.shape[1]), np.float32) if embeddings is None else embeddings
        assert isinstance(text, np.ndarray)
        embeddings = MixedEmbeddings(text, audio, every_owner)
    assert embeddings is not None
    return make_examples(
        captions,
        embeddings,
        backbone.tokenizer,
        max_tokens=max_tokens(backbone, mapper),
        held_out_captions=job.training.held_out_captions,
        seed=job.training.seed,
        sources=sources,
        clips=clips if embedded else None,
    )


def identity(data: TrainingData, embedded: Sequence[EmbeddedPairs], bridge: Bridge) -> dict[str, Any]:
    """Return hashes of the captions, weights, pairs and adapter of a run, as plain values.

    Together with its settings they identify a run: one with other values is not continued.
    """
    facts: dict[str, Any] = {}
    if data.texts:
        facts["captions"] = data.texts.content_hash
        if any(file.weight != 1 for file in data.texts.files):
            facts["weights"] = [[file.n_captions, file.weight] for file in data.texts.files]
    if embedded:
        digest = hashlib.sha256()
        for one in embedded:
            digest.update(one.audio.tobytes() + one.owners.tobytes() + "\n".join(one.captions).encode())
        facts["pairs"] = digest.hexdigest()
    if bridge.adapter is not None:
        tensors = bridge.adapter.matrix.numpy().tobytes() + bridge.adapter.bias.numpy().tobytes()
        facts["adapter"] = hashlib.sha256(tensors).hexdigest()
    return facts


def pair_files(embedded: Sequence[EmbeddedPairs]) -> tuple[CaptionFile, ...]:
    """Return the pairs files as the model folder records them, with the counts of what could be used."""
    return tuple(one.source.file for one in embedded)


def max_tokens(backbone: Backbone, mapper: MapperConfig) -> int:
    """Return the number of tokens, end token included, that a caption may have after the prefix.

    Raises:
        InputError: The prefix leaves no room for a caption.
    """
    n_positions = backbone.config.language_model.n_positions
    # The end token is predicted but is never an input, so it needs no position.
    room = n_positions - mapper.prefix_length + 1
    if room < MIN_CAPTION_TOKENS:
        message = f"a prefix of {mapper.prefix_length} vectors leaves no room for a caption in {n_positions} positions"
        raise InputError(message, hint="lower --prefix-length")
    return min(MAX_CAPTION_TOKENS, room)


def _files(values: list[dict[str, Any]]) -> tuple[CaptionFile, ...]:
    return tuple(CaptionFile(**file) for file in values)


def _pair_set(values: dict[str, Any]) -> PairSet:
    return PairSet(
        _files([values["file"]])[0],
        tuple(AudioPair(Path(pair["audio"]), tuple(pair["captions"])) for pair in values["pairs"]),
        tuple(SkippedPair(**skipped) for skipped in values["skipped"]),
        tuple(values["warnings"]),
    )


def _text_sources(texts: CaptionSet | None) -> list[Source]:
    sources, first = [], 0
    for file in texts.files if texts else ():
        sources.append(Source(file.name, TEXT, first, first + file.n_captions, file.weight))
        first += file.n_captions
    return sources


def _embed_texts(captions: CaptionSet, backbone: Backbone, device: torch.device, report: Report) -> Embeddings:
    folder = default_cache_folder()
    _logger.info("text embeddings are cached in %s", folder)
    with memory_errors(f"on {device} while embedding the captions", hint=MEMORY_HINT):
        embedded = embed_captions(
            captions.captions,
            content_hash=captions.content_hash,
            backbone_hash=backbone.content_hash,
            width=backbone.config.clap.embedding_width,
            load_encoder=lambda: backbone.text_encoder(device),
            cache_folder=folder,
            progress=lambda n_done: report(Embedded(n_done, len(captions.captions), "captions")),
        )
    for warning in embedded.warnings:
        report(Warned(warning))
    return embedded.vectors
