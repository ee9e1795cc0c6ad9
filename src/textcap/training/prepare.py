"""From what a job names to what the loop needs: sounds of pairs, the bridge, embeddings and examples.

Knows no training loop and no model folder. In a run of several processes each calls the same functions; what has to be
computed is computed by the main one and read from the cache by the others.
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

MEMORY_HINT = "end what else uses its memory, or choose another --device"

_logger = logging.getLogger("textcap")


@dataclass(frozen=True)
class TrainingData:
    """What a run is given to learn from."""

    texts: CaptionSet | None = None
    pairs: tuple[PairSet, ...] = ()
    noise_pairs: PairSet | None = None  # what the noise is measured on

    def __post_init__(self) -> None:
        if self.texts is None and not self.pairs:
            raise InputError("there is nothing to train on", hint="give a caption file, or pairs")

    @property
    def names(self) -> list[str]:
        """The files that are read, as they were given."""
        files = [*(self.texts.files if self.texts else ()), *(pairs.file for pairs in self.pairs)]
        return [file.name for file in files]


def data_to_dict(data: TrainingData) -> dict[str, Any]:
    """Return what a run learns from as plain values that JSON can hold."""
    values = asdict(data)
    for pairs in (*values["pairs"], *([values["noise_pairs"]] if data.noise_pairs else [])):
        for pair in pairs["pairs"]:
            pair["audio"] = str(pair["audio"])
    return values


def data_from_dict(values: dict[str, Any]) -> TrainingData:
    """Rebuild what a run learns from out of `data_to_dict`'s output."""
    texts = values["texts"]
    return TrainingData(
        texts and CaptionSet(texts["captions"], _files(texts["files"]), tuple(texts["warnings"])),
        tuple(_pair_set(pairs) for pairs in values["pairs"]),
        values["noise_pairs"] and _pair_set(values["noise_pairs"]),
    )


def embed_all_pairs(
    data: TrainingData, backbone: Backbone, device: torch.device, report: Report
) -> tuple[EmbeddedPairs, ...]:
    """Embed the sounds of every set of pairs; what cannot be used is reported."""
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
    """Return the bridge that a job asks for: noise as given, as measured, or as suits the backbone.

    Raises:
        CheckpointError: The adapter cannot be read, or was fitted on another backbone.
        InputError: There are too few pairs to measure the noise on.
    """
    adapter = load_job_adapter(job, backbone)
    if job.bridge is not None:
        return Bridge(job.bridge, adapter)
    # Noise on text says nothing of a run without text.
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
    """Return the adapter that a job names, if it was fitted on the job's backbone."""
    if job.adapter is None:
        return None
    adapter = load_adapter(Path(job.adapter))
    if adapter.facts.backbone_hash != backbone.content_hash:
        theirs, ours = adapter.facts.backbone_hash[:12], backbone.content_hash[:12]
        raise CheckpointError(
            f"{job.adapter} was fitted on {adapter.facts.backbone_name} with weights {theirs}, not on {ours}",
            hint="fit it again on this backbone, or choose that --backbone",
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
    """Embed the captions of text files, and put them and the pairs together."""
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
    """Return what makes a run the one it is, besides its settings, as plain values."""
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
    """Return the files of pairs as the model folder records them, with what was left of each."""
    return tuple(one.source.file for one in embedded)


def max_tokens(backbone: Backbone, mapper: MapperConfig) -> int:
    """Return how many tokens of a caption fit after the prefix; one that leaves no room is an InputError."""
    n_positions = backbone.config.language_model.n_positions
    # The end token is predicted and never read, so it needs no position.
    room = n_positions - mapper.prefix_length + 1
    if room < MIN_CAPTION_TOKENS:
        message = f"a prefix of {mapper.prefix_length} leaves no room for a caption in {n_positions} positions"
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
    _logger.info("text embeddings are kept in %s", folder)
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
