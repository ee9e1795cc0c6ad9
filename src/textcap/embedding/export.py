"""ExportedEmbeddings of sounds and captions as a file, for whoever wants to do something else with CLAP.

Knows no mapper. Audio and text go through the same caches as training; what cannot be read becomes an error in its
place and does not stop the rest.
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
    """ExportedEmbeddings with what each is of."""

    vectors: NDArray[np.float32]  # [N, E], unit length
    names: tuple[str, ...]  # the path of a sound as it was given, or the caption itself
    kinds: tuple[str, ...]  # AUDIO or TEXT
    errors: tuple[InputError, ...] = ()
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
        paths: A file whose name ends in .txt holds a caption on each line; any other is a sound.
        progress: Told how many sounds of how many are done.

    Raises:
        DeviceError: The device's memory is too small.
        InputError: A caption is empty, or the backbone has no text side and a text was given.
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
    found: dict[int, NDArray[np.float32]] = {}
    sounds = [place for place, (kind, _) in enumerate(items) if kind == AUDIO]
    texts = [place for place, (kind, _) in enumerate(items) if kind == TEXT]
    with memory_errors(f"on {device} while embedding", hint="lower --batch-size, or use --device cpu"):
        if texts:
            vectors = backbone.text_encoder(device).encode([items[place][1] for place in texts]).numpy()
            found.update(zip(texts, vectors, strict=True))
        if sounds:
            embedded = embed_audio_files(
                [Path(items[place][1]) for place in sounds],
                backbone_hash=backbone.content_hash,
                audio=backbone.config.clap.audio,
                width=backbone.config.clap.embedding_width,
                load_encoder=lambda: backbone.audio_encoder(device),
                device=device,
                batch_size=batch_size,
                progress=progress,
            )
            found.update(zip((sounds[i] for i in embedded.readable), embedded.vectors, strict=True))
            errors += [embedded.errors[i] for i in sorted(embedded.errors)]
            warnings += embedded.warnings
    width = backbone.config.clap.embedding_width
    places = sorted(found)
    return ExportedEmbeddings(
        vectors=np.stack([found[place] for place in places]) if places else np.empty((0, width), np.float32),
        names=tuple(items[place][1] for place in places),
        kinds=tuple(items[place][0] for place in places),
        errors=tuple(errors),
        warnings=tuple(warnings),
    )


def save_embeddings(path: Path, embeddings: ExportedEmbeddings, backbone: Backbone) -> None:
    """Write embeddings as the tensor `embeddings`, with names, kinds and backbone in the metadata.

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
        raise InputError("a caption to embed is empty")
    if warning is not None:
        warnings.append(f"caption {cleaned[:20]!r}...: {warning}")
    return cleaned
