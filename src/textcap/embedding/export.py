"""Embed sounds and captions and write the embeddings to a file, for use outside textcap.

Sounds go through the same cache as in training. An input that cannot be read is reported as an error; the others are
still embedded.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from textcap.config import CAPTION_BATCH_SIZE
from textcap.data.captions import clean_caption, load_captions
from textcap.device import memory_errors
from textcap.embedding.store.audio import embed_audio_files
from textcap.errors import InputError
from textcap.files import atomic_write_bytes
from textcap.models.backbone import Backbone

AUDIO, TEXT = "audio", "text"
TEXT_SUFFIX = ".txt"


@dataclass(frozen=True)
class ExportedEmbeddings:
    """Embeddings, each with the name and the kind of its input."""

    vectors: NDArray[np.float32]  # [N, E], unit length
    names: tuple[str, ...]  # for each row: the path of the sound as it was given, or the caption itself
    kinds: tuple[str, ...]  # for each row: AUDIO or TEXT
    errors: tuple[InputError, ...] = ()  # one for each input that could not be read
    warnings: tuple[str, ...] = ()


def embed_inputs(
    paths: Sequence[str | Path],
    captions: Sequence[str],
    backbone: Backbone,
    device: torch.device,
    *,
    batch_size: int = CAPTION_BATCH_SIZE,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> ExportedEmbeddings:
    """Embed sounds, the lines of text files, and captions, in the order given; captions come last.

    Args:
        paths: Sound files, and text files with one caption per line, whose names end in .txt.
        captions: Captions to embed, besides those in text files.
        batch_size: Number of audio windows to embed at once.
        progress: Called with the number of sounds done and the total.

    Raises:
        DeviceError: The device has too little memory.
        InputError: A caption is empty, or captions were given and the backbone has no text encoder.
    """
    errors: list[InputError] = []
    warnings: list[str] = []
    items: list[tuple[str, str]] = []  # kind and name
    for path in paths:
        if str(path).lower().endswith(TEXT_SUFFIX):
            try:
                loaded = load_captions([path])
            except InputError as error:
                errors.append(error)
                continue
            warnings += loaded.warnings
            items += [(TEXT, caption) for caption in loaded.captions]
        else:
            items.append((AUDIO, str(path)))
    items += [(TEXT, _cleaned(caption, warnings)) for caption in captions]
    by_index: dict[int, NDArray[np.float32]] = {}
    sounds = [index for index, (kind, _) in enumerate(items) if kind == AUDIO]
    texts = [index for index, (kind, _) in enumerate(items) if kind == TEXT]
    with memory_errors(f"on {device} while embedding", hint="lower --batch-size, or use --device cpu"):
        if texts:
            vectors = backbone.text_encoder(device).encode([items[index][1] for index in texts]).numpy()
            by_index.update(zip(texts, vectors, strict=True))
        if sounds:
            embedded = embed_audio_files(
                [Path(items[index][1]) for index in sounds],
                backbone_hash=backbone.content_hash,
                audio=backbone.config.clap.audio,
                width=backbone.config.clap.embedding_width,
                load_encoder=lambda: backbone.audio_encoder(device),
                device=device,
                batch_size=batch_size,
                progress=progress,
            )
            by_index.update(zip((sounds[i] for i in embedded.readable), embedded.vectors, strict=True))
            errors += [embedded.errors[i] for i in sorted(embedded.errors)]
            warnings += embedded.warnings
    width = backbone.config.clap.embedding_width
    indices = sorted(by_index)
    return ExportedEmbeddings(
        vectors=np.stack([by_index[index] for index in indices]) if indices else np.empty((0, width), np.float32),
        names=tuple(items[index][1] for index in indices),
        kinds=tuple(items[index][0] for index in indices),
        errors=tuple(errors),
        warnings=tuple(warnings),
    )


def save_embeddings(path: Path, embeddings: ExportedEmbeddings, backbone: Backbone) -> None:
    """Write embeddings to a safetensors file as the tensor `embeddings`.

    The metadata holds the names and kinds of the inputs, the name and content hash of the backbone, and the version of
    textcap.

    Raises:
        InputError: The file cannot be written.
    """
    metadata = {
        "names": json.dumps(embeddings.names),
        "kinds": json.dumps(embeddings.kinds),
        "backbone": backbone.config.name,
        "backbone_hash": backbone.content_hash,
        "textcap": version("textcap"),
    }
    atomic_write_bytes(path, save({"embeddings": np.ascontiguousarray(embeddings.vectors)}, metadata))


def _cleaned(caption: str, warnings: list[str]) -> str:
    cleaned, warning = clean_caption(caption)
    if not cleaned:
        raise InputError("a caption to embed is empty", hint="give every --text a caption")
    if warning is not None:
        warnings.append(f"caption {cleaned[:20]!r}...: {warning}")
    return cleaned
