"""Caption sound files: load a `Captioner` once, then caption many files, with one result per file in the given order.

A sound passes through windows, audio embedding, bridge, mapper and beam search. Printing the results is left to `cli`.
"""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from textcap.config import CAPTION_BATCH_SIZE, BridgeConfig, DecodingConfig, require
from textcap.data.text import counted
from textcap.device import memory_errors, resolve_device
from textcap.embedding.recordings import Recording, RecordingEmbedder
from textcap.errors import CheckpointError, InputError
from textcap.gap.bridge import Bridge
from textcap.model_folder import StoredModel, load_model
from textcap.models.backbone import CLAPCAP, EMBEDDED, Backbone, kind_of
from textcap.models.beam_search import Hypothesis, beam_search
from textcap.models.mapper import Mapper
from textcap.weights import WEIGHT_SETS, DownloadProgress

DEFAULT_MODEL = Path("textcap-model")
_LOAD_MEMORY_HINT = "close other programs that use the device, or use --device cpu"


@dataclass(frozen=True)
class CaptionResult:
    """The result for one file: a caption, or an error.

    Attributes:
        path: The file as it was given.
        caption: The caption; empty if there is an error.
        score: Mean log probability per token in nats, at most 0; NaN if there is an error.
        duration_s: Length of the recording in seconds; NaN if there is an error.
        error: Why the file could not be captioned; None if it was.
    """

    path: Path
    caption: str = ""
    score: float = float("nan")
    duration_s: float = float("nan")
    error: InputError | None = None


@dataclass(frozen=True)
class CaptionedEmbedding:
    """A caption and its score."""

    caption: str
    score: float  # mean log probability per token in nats, at most 0


class Captioner:
    """Captions sound files with a trained mapper, or with the released clapcap.

    Create one with `Captioner.load`.

    Attributes:
        backbone: The frozen encoders and language model.
        device: The device that everything runs on.
        name: The model folder, or the name of the released captioner, for messages.
    """

    def __init__(
        self,
        backbone: Backbone,
        mapper: Mapper,
        bridge: Bridge,
        end_id: int,
        device: torch.device,
        *,
        name: str = "the model",
    ) -> None:
        self.backbone, self.device, self.name = backbone, device, name
        self._capitalise = backbone.kind.mapper is not None  # for clapcap, whose captions msclap capitalises
        self._end_id = end_id
        self._bridge = bridge
        self._mapper = mapper.to(device).eval()
        self._recordings = RecordingEmbedder(backbone, device)
        self._recordings.encoder.eval()  # loaded now, so that an error of the weights comes now
        self._language_model = backbone.language_model(device)

    def __repr__(self) -> str:
        return f"Captioner(model={self.name!r}, backbone={self.backbone.name!r}, device={str(self.device)!r})"

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        offline: bool | None = None,
        progress: DownloadProgress | None = None,
    ) -> "Captioner":
        """Load a captioner from a model folder, or a released one by name.

        Args:
            model: A folder that `textcap train` wrote, or "clapcap" for the captioner that the paper's authors
                released. By default the folder `textcap-model` if it exists, else "clapcap".
            device: A torch device, or "auto", "cpu", "mps", "cuda", "cuda:1" and so on; see `device.resolve_device`.
            offline: Whether to work without the network; by default the environment variable HF_HUB_OFFLINE decides.
            progress: Called while weights are downloaded with a file's name, its bytes so far and the total.

        Raises:
            CheckpointError: The model folder or its backbone folder does not exist or is damaged, or the mapper was
                trained on other weights than those on disk.
            DownloadError: The backbone's weights are not on disk and cannot be downloaded.
            DeviceError: The device does not work on this machine, or has too little memory.
        """
        if model is None:
            model = DEFAULT_MODEL if DEFAULT_MODEL.is_dir() else CLAPCAP
        chosen = resolve_device(device)
        if kind_of(str(model)).mapper is not None:
            return cls.released(Backbone.load(str(model), offline=offline, progress=progress), chosen)
        stored = load_model(Path(model))
        backbone = _load_backbone_of(stored, offline, progress)
        stored.check_backbone(backbone)
        with memory_errors(f"while loading {model} on {chosen}", hint=_LOAD_MEMORY_HINT):
            bridge = Bridge(stored.config.bridge)
            return cls(backbone, stored.mapper, bridge, stored.config.end_token_id, chosen, name=str(model))

    @classmethod
    def released(cls, backbone: Backbone, device: torch.device) -> "Captioner":
        """Return a captioner whose mapper comes with its backbone, such as clapcap.

        Raises:
            CheckpointError: A tensor is missing from the weights.
            DeviceError: The device has too little memory.
        """
        with memory_errors(f"while loading {backbone.name} on {device}", hint=_LOAD_MEMORY_HINT):
            mapper, bridge = backbone.released_mapper(), Bridge(BridgeConfig(noise_variance=0.0))
            end_id = backbone.kind.end_token_id
            end_id = backbone.tokenizer.end_id if end_id is None else end_id
            return cls(backbone, mapper, bridge, end_id, device, name=backbone.name)

    def caption(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        decoding: DecodingConfig | None = None,
        batch_size: int = CAPTION_BATCH_SIZE,
    ) -> Iterator[CaptionResult]:
        """Caption sound files of any length, lazily.

        The embeddings of the sounds are kept in the cache folder, so a file that is captioned again is not embedded
        again.

        Args:
            paths: Sound files in any format that libsndfile can read, or one of them.
            decoding: Settings of the beam search.
            batch_size: Number of files to caption and number of windows to embed at once; captions do not depend on it.

        Yields:
            One result per file in the given order, as soon as its batch is done. A file that cannot be read
            gives a result with an error and does not stop the others.

        Raises:
            DeviceError: The device has too little memory for the batch.
            CheckpointError: The weights of the mapper or of the language model are damaged.
            InputError: `batch_size` or a setting of the beam search is out of range.
        """
        require(batch_size >= 1, "batch_size", batch_size, "at least 1")
        decoding = decoding or DecodingConfig()
        remaining = iter([paths] if isinstance(paths, str | os.PathLike) else paths)
        while group := [Path(path) for path in itertools.islice(remaining, batch_size)]:
            message = f"on {self.device} while captioning {counted(batch_size, 'file')} at once"
            with memory_errors(message, hint="lower --batch-size, or use --device cpu"):
                results = self._caption_group(group, decoding, batch_size)
            yield from results

    @torch.inference_mode()
    def caption_embeddings(
        self, embeddings: Tensor, decoding: DecodingConfig | None = None
    ) -> list[CaptionedEmbedding]:
        """Return one caption for each audio embedding.

        Args:
            embeddings: Audio embeddings, `[B, E]`, of any length, on any device.
            decoding: Settings of the beam search.

        Raises:
            CheckpointError: The weights of the mapper or of the language model are damaged.
            InputError: A setting of the beam search is out of range, or an embedding is NaN or infinite.
        """
        decoding = decoding or DecodingConfig()
        if not embeddings.isfinite().all():
            raise InputError("the embeddings to caption contain NaN or infinite values")
        prefixes = self._mapper(self._bridge.audio_side(embeddings.to(self.device)))
        if not prefixes.isfinite().all():
            raise self._damaged("mapper")
        found = beam_search(self._language_model, prefixes, decoding, end_id=self._end_id)
        if not all(math.isfinite(beams[0].score) for beams in found):
            raise self._damaged("language model")
        return [CaptionedEmbedding(self._text(beams[0]), beams[0].score) for beams in found]

    def _caption_group(self, paths: Sequence[Path], decoding: DecodingConfig, batch_size: int) -> list[CaptionResult]:
        recordings = self._recordings.embed(paths, batch_size=batch_size)
        embeddings = [r.embedding for r in recordings if isinstance(r, Recording)]
        found = self.caption_embeddings(torch.from_numpy(np.stack(embeddings)), decoding) if embeddings else []
        captions = iter(found)
        return [
            CaptionResult(path, error=recording)
            if isinstance(recording, InputError)
            else CaptionResult(path, **vars(next(captions)), duration_s=recording.duration_s)
            for path, recording in zip(paths, recordings, strict=True)
        ]

    def _damaged(self, part: str) -> CheckpointError:
        message = f"the {part} of {self.name} gives values that are NaN or infinite"
        return CheckpointError(message, hint="its weights are damaged; train it again, or copy or download it again")

    def _text(self, hypothesis: Hypothesis) -> str:
        text = self.backbone.tokenizer.decode(list(hypothesis.token_ids))
        if self._capitalise:
            text = text.capitalize()  # before stripping: like msclap, leaves a word after a leading space in lower case
        return " ".join(text.split())


def _load_backbone_of(stored: StoredModel, offline: bool | None, progress: DownloadProgress | None) -> Backbone:
    name = stored.config.backbone_name
    try:
        return Backbone.load(name, offline=offline, progress=progress)
    except InputError as error:
        if name in (*WEIGHT_SETS, EMBEDDED):
            raise
        message = f"{stored.path} was trained on the backbone {name}, but {error.message}"
        raise CheckpointError(message, hint="put the backbone folder back, or train again") from error
