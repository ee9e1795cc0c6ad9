"""Caption sounds: load a `Captioner` once, then caption many, with one result per sound in the given order.

A sound passes through windows, audio embedding, bridge, mapper and beam search. Printing the results is left to `cli`.
"""

import hashlib
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textcap.audio.sources import Sound, SoundSource, name_of
from textcap.config import BridgeConfig, DecodingConfig, require
from textcap.data.text import counted
from textcap.device import memory_errors, resolve_device
from textcap.embedding.captions import embed_captions
from textcap.embedding.recordings import Reading, Recording, RecordingEmbedder, renumbered
from textcap.errors import CheckpointError, DeviceError, InputError
from textcap.gap.bridge import Bridge
from textcap.model_folder import StoredModel, load_model
from textcap.models.backbone import CLAPCAP, Backbone, BackboneNames
from textcap.models.beam_search import Hypothesis, beam_search
from textcap.models.mapper import Mapper
from textcap.models.precision import check_precision, prepare
from textcap.models.similarity import rank, with_text_encoder
from textcap.models.weight_files import kind_of
from textcap.results import Candidate, CaptionResult, Piece
from textcap.timeline import find_pieces, join_equal
from textcap.weights import DownloadProgress, model_folder
from textcap.weights.repository import is_repository

DEFAULT_MODEL = Path("textcap-model")
_LOAD_MEMORY_HINT = "close other programs that use the device, or use --device cpu"

_logger = logging.getLogger("textcap")


@dataclass(frozen=True)
class Ranking:
    """What decides the order of the captions of a sound.

    Attributes:
        weight: Weight of the similarity against the score, from 0 to 1; see `models.similarity.rank`. None: the score
            alone decides.
        with_similarity: Whether candidates get their similarity even if it does not decide.
    """

    weight: float | None = None
    with_similarity: bool = False

    def __post_init__(self) -> None:
        require(self.weight is None or 0 <= self.weight <= 1, "weight", self.weight, "between 0 and 1")


class Captioner:
    """Captions sound files with a trained mapper, or with the released clapcap.

    Create one with `Captioner.load`.

    Attributes:
        backbone: The frozen encoders and language model.
        device: The device that everything runs on.
        name: The model folder, or the name of the released captioner, for messages.
        precision: The precision that it computes in; see `Captioner.load`.
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
        precision: str = "float32",
        keeps_embeddings: bool = True,
    ) -> None:
        self.backbone, self.device, self.name, self.precision = backbone, device, name, precision
        self._capitalise = backbone.kind.mapper is not None  # for clapcap, whose captions msclap capitalises
        self._end_id = end_id
        self._bridge = bridge
        self._mapper = mapper.to(device).eval()
        self._recordings = RecordingEmbedder(backbone, device, precision, keeps=keeps_embeddings)
        self._recordings.encoder.eval()  # loaded now, so that an error of the weights comes now
        self._language_model = prepare(backbone.language_model(device), precision)

    def __repr__(self) -> str:
        where = f"device={str(self.device)!r}, precision={self.precision!r}"
        return f"Captioner(model={self.name!r}, backbone={self.backbone.name!r}, {where})"

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        precision: str = "float32",
        clap: str | None = None,
        language_model: str | None = None,
        offline: bool | None = None,
        keeps_embeddings: bool = True,
        progress: DownloadProgress | None = None,
    ) -> "Captioner":
        """Load a captioner from a model folder, or a released one by name.

        Args:
            model: A folder that `textcap train` wrote, a repository of the hub that holds one, or "clapcap" for the
                captioner that the paper's authors released. By default the folder `textcap-model` if it exists, else
                "clapcap".
            device: A torch device, or "auto", "cpu", "mps", "cuda", "cuda:1" and so on.
            precision: "int8" for 8-bit products of the decoder on the CPU, "bf16" or "float16" for the tower and the
                decoder where the device has them. Captions differ a little from those in "float32".
            clap: Where the CLAP that the model was trained on lies now: a folder or a repository of the hub.
            language_model: Where its language model lies now.
            offline: Whether to work without the network; by default the environment variable HF_HUB_OFFLINE decides.
            keeps_embeddings: Whether the embeddings of sounds are read from the cache folder and written there.
            progress: Called while weights are downloaded with a file's name, its bytes so far, the total and a note.

        Raises:
            CheckpointError: The model folder or its backbone folder does not exist or is damaged, or the mapper was
                trained on other weights than those on disk.
            DownloadError: The backbone's weights are not on disk and cannot be downloaded.
            DeviceError: The device does not work on this machine, has too little memory, or cannot compute in the
                precision.
            SettingError: No such precision exists.
        """
        if model is None:
            model = DEFAULT_MODEL if DEFAULT_MODEL.is_dir() else CLAPCAP
        chosen = resolve_device(device)
        check_precision(precision, chosen)
        how: dict[str, Any] = {"precision": precision, "keeps_embeddings": keeps_embeddings}
        if kind_of(str(model)).mapper is not None:
            if clap or language_model:
                raise InputError(f"{model} has both of its halves", hint="leave out --clap and --language-model")
            backbone = Backbone.load(str(model), offline=offline, progress=progress)
            return cls.released(backbone, chosen, **how)
        is_remote = not os.path.isdir(model) and is_repository(str(model))
        folder = model_folder(str(model), offline=offline, progress=progress) if is_remote else Path(model)
        stored = load_model(folder)
        if is_remote and not (clap or language_model):
            stored.config.backbone.check_public(str(model))
        names = stored.config.backbone
        names = replace(names, clap=clap or names.clap, language_model=language_model or names.language_model)
        backbone = _load_backbone_of(stored, names, offline, progress)
        stored.check_backbone(backbone)
        with memory_errors(f"while loading {model} on {chosen}", hint=_LOAD_MEMORY_HINT):
            bridge = Bridge(stored.config.bridge, affine=stored.affine)
            return cls(backbone, stored.mapper, bridge, stored.config.end_token_id, chosen, name=str(model), **how)

    @classmethod
    def released(
        cls, backbone: Backbone, device: torch.device, precision: str = "float32", *, keeps_embeddings: bool = True
    ) -> "Captioner":
        """Return a captioner whose mapper comes with its backbone, such as clapcap.

        Raises:
            CheckpointError: A tensor is missing from the weights.
            DeviceError: The device has too little memory.
        """
        with memory_errors(f"while loading {backbone.name} on {device}", hint=_LOAD_MEMORY_HINT):
            mapper, bridge = backbone.released_mapper(), Bridge(BridgeConfig(noise_variance=0.0))
            end_id = backbone.kind.end_token_id
            end_id = backbone.tokenizer.end_id if end_id is None else end_id
            return cls(
                backbone,
                mapper,
                bridge,
                end_id,
                device,
                name=backbone.name,
                precision=precision,
                keeps_embeddings=keeps_embeddings,
            )

    def caption(
        self,
        sources: SoundSource | Iterable[SoundSource],
        *,
        decoding: DecodingConfig | None = None,
        ranking: Ranking | None = None,
        caption_silence: bool = False,
        batch_size: int | None = None,
        reading: Reading = lambda index: None,
    ) -> Iterator[CaptionResult]:
        """Caption sounds of any length, lazily.

        The embeddings of files are kept in the cache folder, so a file that is captioned again is not embedded again.

        Args:
            sources: Paths of sound files, open files and `Sound`s, or one of them.
            decoding: Settings of the beam search.
            ranking: What decides the order of the captions of a sound, if not their score alone.
            caption_silence: Whether a silent sound gets a caption like any other.
            batch_size: Number of sounds to caption and number of windows to embed at once, by default
                what suits the backbone; captions do not depend on it. It is halved, with a warning, each time that
                a CUDA device runs out of memory.
            reading: Called with the index of each source before it is read, and with None when no other is read for
                now; perhaps from another thread.

        Yields:
            One result per source in the given order, as soon as its batch is done. A sound that cannot be read gives a
            result with an error and does not stop the others.

        Raises:
            DeviceError: The device has too little memory for a single sound.
            CheckpointError: The weights of the mapper or of the language model are damaged, or no text encoder fits.
            DownloadError: Similarities need a text encoder that is not on disk.
            InputError: `batch_size` or a setting of the beam search is out of range.
        """

        def is_heard(recording: Recording) -> bool:
            return caption_silence or not recording.is_silent

        def caption_group(group: Sequence[SoundSource], size: int, told: Reading) -> list[CaptionResult]:
            recordings = self._recordings.embed(group, batch_size=size, reading=told)
            heard = [r.embedding for r in recordings if isinstance(r, Recording) and is_heard(r)]
            found = iter(self.candidates(_stack(heard), decoding, ranking) if heard else [])
            results = []
            for name, r in zip(map(name_of, group), recordings, strict=True):
                if isinstance(r, InputError):
                    results.append(CaptionResult(name, error=r))
                else:
                    several = next(found) if is_heard(r) else ()
                    own = None if r.is_silent else r.embedding
                    results.append(
                        CaptionResult(name, several, None, r.duration_s, not is_heard(r), r.notes, embedding=own)
                    )
            return results

        return self._in_groups(sources, batch_size, reading, caption_group)

    def timeline(
        self,
        sources: SoundSource | Iterable[SoundSource],
        *,
        hop_s: float | None = None,
        decoding: DecodingConfig | None = None,
        ranking: Ranking | None = None,
        caption_silence: bool = False,
        batch_size: int | None = None,
        reading: Reading = lambda index: None,
    ) -> Iterator[CaptionResult]:
        """Say what is heard when: cut each sound where it changes, and caption each piece once.

        Args:
            sources: As in `caption`.
            hop_s: Seconds between the starts of neighbouring windows; by default half a window.
            caption_silence: Whether silent pieces get a caption; otherwise they have no line.
            decoding, ranking, batch_size, reading: As in `caption`.

        Yields:
            One result with `pieces` per source, in the given order.

        Raises:
            The same as `caption`.
        """
        self._recordings.with_hop(hop_s)  # checked now, and not for each source

        def caption_group(group: Sequence[SoundSource], size: int, told: Reading) -> list[CaptionResult]:
            (source,) = group
            try:
                windows = self._recordings.windows(source, hop_s=hop_s, batch_size=size, reading=told)
            except InputError as error:
                return [CaptionResult(name_of(source), error=error)]
            heard = [span for span in find_pieces(windows) if caption_silence or not span.is_silent]
            pieces = []
            for start in range(0, len(heard), size):
                spans = heard[start : start + size]
                found = self.candidates(_stack([span.embedding for span in spans]), decoding, ranking)
                for span, (best, *_) in zip(spans, found, strict=True):
                    pieces.append(Piece(span.start_s, span.end_s, best.caption, best.score, span.embedding))
            joined, is_silent = tuple(join_equal(pieces)), bool(windows.is_silent.all()) and not pieces
            return [CaptionResult(name_of(source), (), joined, windows.duration_s, is_silent, windows.notes)]

        return self._in_groups(sources, batch_size, reading, caption_group, group_size=1)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything in the model that decides a caption, in hexadecimal."""
        digest = hashlib.sha256(f"{self.backbone.content_hash} {self._end_id} {self._bridge.config}".encode())
        tensors = {**self._mapper.state_dict(), **(self._bridge.affine.tensors() if self._bridge.affine else {})}
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def identities(self, paths: Sequence[str]) -> list[str | None]:
        """Return the SHA-256 of files in hexadecimal; None for what is not a file, or cannot be read.

        A file that is known to the store and has not changed is not read.
        """
        keys = self._recordings.store.file_keys([Path(path) for path in paths])
        return [key.hex() if key else None for key in keys]

    def embed(
        self, sources: SoundSource | Iterable[SoundSource], *, batch_size: int | None = None
    ) -> list[Recording | InputError]:
        """Return CLAP's embedding of each sound, before any bridge, or the error why it cannot be read.

        Raises:
            DeviceError: The device has too little memory.
        """
        return self._recordings.embed(list(_several(sources)), batch_size=batch_size)

    @torch.inference_mode()
    def candidates(
        self, embeddings: Tensor, decoding: DecodingConfig | None = None, ranking: Ranking | None = None
    ) -> list[tuple[Candidate, ...]]:
        """Return the best captions of each audio embedding, best first, without duplicates.

        Args:
            embeddings: Audio embeddings, `[B, E]`, of any length, on any device.
            decoding: Settings of the beam search; `n_best` is how many captions there are at most.
            ranking: What decides their order, if not their score alone.

        Raises:
            CheckpointError: The weights of the mapper or of the language model are damaged, or no text encoder fits.
            DownloadError: Similarities need a text encoder that is not on disk.
            InputError: A setting of the beam search is out of range, or an embedding is NaN or infinite.
        """
        decoding, ranking = decoding or DecodingConfig(), ranking or Ranking()
        if not embeddings.isfinite().all():
            raise InputError("the embeddings to caption contain NaN or infinite values")
        prefixes = self._mapper(self._bridge.audio_side(embeddings.to(self.device)))
        if not prefixes.isfinite().all():
            raise self._damaged("mapper")
        # Two beams may differ in their tokens and not in their text, so all of them are looked at.
        wide = replace(decoding, n_best=decoding.beam_size if decoding.n_best > 1 else 1)
        beams = beam_search(self._language_model, prefixes, wide, end_id=self._end_id)
        if not all(math.isfinite(best.score) for best, *_ in beams):
            raise self._damaged("language model")
        found = []
        for several in beams:
            distinct = {self._text(beam): beam.score for beam in reversed(several)}  # the best of equal texts
            best = sorted(distinct.items(), key=lambda item: -item[1])[: decoding.n_best]
            found.append([Candidate(text, score) for text, score in best])
        if ranking.with_similarity or ranking.weight is not None:
            found = self._ranked(embeddings, found, ranking)
        return [tuple(several) for several in found]

    def _ranked(self, embeddings: Tensor, found: list[list[Candidate]], ranking: Ranking) -> list[list[Candidate]]:
        """Add the similarities, and put candidates in their order."""
        captions = list({one.caption: None for several in found for one in several})
        vectors = embed_captions(captions, self._with_text, self.device)
        rows = dict(zip(captions, vectors, strict=True))
        units = torch.nn.functional.normalize(embeddings.float().cpu(), dim=-1).numpy()
        ranked = []
        for unit, several in zip(units, found, strict=True):
            several = [replace(one, similarity=float(rows[one.caption] @ unit)) for one in several]
            if ranking.weight is not None:
                similarities = [one.similarity or 0.0 for one in several]
                order = rank([one.score for one in several], similarities, ranking.weight)
                several = [several[index] for index in order]
            ranked.append(several)
        return ranked

    @cached_property
    def _with_text(self) -> Backbone:
        return with_text_encoder(self.backbone)

    def _in_groups(
        self,
        sources: SoundSource | Iterable[SoundSource],
        batch_size: int | None,
        reading: Reading,
        caption_group: Callable[[Sequence[SoundSource], int, Reading], list[CaptionResult]],
        group_size: int | None = None,
    ) -> Iterator[CaptionResult]:
        """Yield the results of a function for groups of sources, smaller ones where CUDA's memory does not suffice.

        Args:
            reading: Called with the indices of sources, see `caption`.
            caption_group: Called with a group, a batch size, and what to call with the indices in the group.
            group_size: Most sources in a group, if that is not the batch size.
        """
        batch_size = self.backbone.config.batch_size(batch_size)
        remaining, size, n_before = iter(_several(sources)), batch_size, 0
        hint = "lower --batch-size, or use --device cpu"
        while group := list(itertools.islice(remaining, group_size or batch_size)):
            done: list[CaptionResult] = []
            while len(done) < len(group):
                message = f"on {self.device} while captioning {counted(size, 'sound')} at once"
                try:
                    with memory_errors(message, hint=hint):
                        first = n_before + len(done)
                        told = renumbered(reading, range(first, first + size))
                        done += caption_group(group[len(done) :][:size], size, told)
                    continue
                except DeviceError as error:
                    if size == 1 or not isinstance(error.__cause__, torch.OutOfMemoryError):
                        raise
                # Out here, where the error no longer holds on to what was being computed.
                torch.cuda.empty_cache()
                size //= 2
                _logger.warning("%s is out of memory: captioning %s at once from here on", self.device, size)
            yield from done
            n_before += len(done)

    def _damaged(self, part: str) -> CheckpointError:
        message = f"the {part} of {self.name} gives values that are NaN or infinite"
        return CheckpointError(message, hint="its weights are damaged; train it again, or copy or download it again")

    def _text(self, hypothesis: Hypothesis) -> str:
        text = self.backbone.tokenizer.decode(list(hypothesis.token_ids))
        if self._capitalise:
            text = text.capitalize()  # before stripping: like msclap, leaves a word after a leading space in lower case
        return " ".join(text.split())


def _several(sources: SoundSource | Iterable[SoundSource]) -> Iterable[SoundSource]:
    # An open file can be iterated over, too.
    is_one = isinstance(sources, str | os.PathLike | Sound) or hasattr(sources, "read")
    return [cast(SoundSource, sources)] if is_one else cast(Iterable[SoundSource], sources)


def _stack(embeddings: list[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(embeddings))


def _load_backbone_of(
    stored: StoredModel, names: BackboneNames, offline: bool | None, progress: DownloadProgress | None
) -> Backbone:
    try:
        return Backbone.load(names, offline=offline, progress=progress)
    except InputError as error:
        message = f"{stored.path} was trained on the backbone {stored.config.backbone}, but {error.message}"
        hint = "put the folder back, say where it lies with --clap or --language-model, or train again"
        raise CheckpointError(message, hint=hint) from error
