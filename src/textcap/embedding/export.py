"""Embed sounds and captions and write the embeddings to a file, for use outside textcap.

Everything goes through the same store as in training. An input that cannot be read is reported as an error; the
others are still embedded. Silent sounds are left out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.data.captions import clean_caption, load_captions
from textcap.embedding.captions import embed_captions
from textcap.embedding.recordings import Recording, RecordingEmbedder, log_findings
from textcap.errors import InputError
from textcap.models.backbone import Backbone
from textcap.models.loading import write_tensors

AUDIO, TEXT = "audio", "text"
TEXT_SUFFIX = ".txt"


@dataclass(frozen=True)
class ExportedEmbeddings:
    """Embeddings, each with the name and the kind of its input."""

    vectors: NDArray[np.float32]  # [N, E], unit length
    names: tuple[str, ...]  # for each row: the path of the sound as it was given, or the caption itself
    kinds: tuple[str, ...]  # for each row: AUDIO or TEXT
    errors: tuple[InputError, ...] = ()  # one for each input that could not be read
    silent: tuple[str, ...] = ()  # the paths of the sounds that are left out because they are silent


def embed_inputs(
    paths: Sequence[str | Path],
    captions: Sequence[str],
    backbone: Backbone,
    device: torch.device,
    *,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> ExportedEmbeddings:
    """Embed sounds, the lines of text files, and captions, in the order given; captions come last.

    Args:
        paths: Sound files, and text files with one caption per line, whose names end in .txt.
        captions: Captions to embed, besides those in text files.
        batch_size: Number of audio windows to embed at once; by default what suits the backbone.
        progress: Called with the number of sounds done and the total.

    Raises:
        DeviceError: The device has too little memory.
        InputError: A caption is empty, or captions were given and the backbone has no text encoder.
    """
    errors: list[InputError] = []
    items: list[tuple[str, str]] = []  # kind and name
    for path in paths:
        if str(path).lower().endswith(TEXT_SUFFIX):
            try:
                items += [(TEXT, caption) for caption in load_captions([path]).captions]
            except InputError as error:
                errors.append(error)
        else:
            items.append((AUDIO, str(path)))
    items += [(TEXT, _cleaned(caption)) for caption in captions]
    embedder = RecordingEmbedder(backbone, device)
    texts = embed_captions([name for kind, name in items if kind == TEXT], backbone, device)
    sounds = [name for kind, name in items if kind == AUDIO]
    recordings = embedder.embed(sounds, batch_size=batch_size, progress=progress)
    log_findings(sounds, recordings)
    recordings_left, captions_left = iter(recordings), iter(texts)
    vectors: list[NDArray[np.float32]] = []
    kept: list[tuple[str, str]] = []
    silent: list[str] = []
    for kind, name in items:
        result = next(recordings_left) if kind == AUDIO else next(captions_left)
        if isinstance(result, InputError):
            errors.append(result)
        elif isinstance(result, Recording) and result.is_silent:
            silent.append(name)
        else:
            vectors.append(result.embedding if isinstance(result, Recording) else result)
            kept.append((kind, name))
    return ExportedEmbeddings(
        vectors=np.stack(vectors) if vectors else np.empty((0, backbone.config.clap.embedding_width), np.float32),
        names=tuple(name for _, name in kept),
        kinds=tuple(kind for kind, _ in kept),
        errors=tuple(errors),
        silent=tuple(silent),
    )


def save_embeddings(path: Path, embeddings: ExportedEmbeddings, backbone: Backbone) -> None:
    """Write embeddings to a safetensors file as the tensor `embeddings`, or to Parquet if its name ends so.

    Parquet has the columns path, kind and embedding, in float16. The metadata of safetensors holds the names and kinds
    of the inputs and the checksums of `write_tensors`; that of both the name and content hash of the CLAP and the
    version of textcap.

    Raises:
        InputError: The file cannot be written.
    """
    if path.suffix.lower() == ".parquet":
        from textcap.data.parquet import write_embeddings

        return write_embeddings(path, embeddings.names, embeddings.kinds, embeddings.vectors, backbone.clap.facts)
    metadata = {
        "names": json.dumps(embeddings.names),
        "kinds": json.dumps(embeddings.kinds),
        **backbone.clap.facts,
        "textcap": version("textcap"),
    }
    write_tensors(path, {"embeddings": torch.from_numpy(embeddings.vectors.copy())}, metadata)


def _cleaned(caption: str) -> str:
    cleaned = clean_caption(caption, f"caption {caption[:20]!r}...")
    if not cleaned:
        raise InputError("a caption to embed is empty", hint="give every --text a caption")
    return cleaned
