"""Find sounds by words, or by a sound, and words by sounds: exact products with all embeddings, a block at a time.

Embeddings come from sounds, which are embedded through the store, from a file of `textcap embed` or `textcap caption`,
or from a corpus.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.embedding.export import AUDIO
from textcap.embedding.recordings import Recording, RecordingEmbedder
from textcap.errors import CheckpointError, FileError, InputError
from textcap.models.backbone import Backbone
from textcap.models.loading import read_tensors

_BLOCK = 1 << 12  # rows that are multiplied at once; more of them do not stay in the cache


@dataclass(frozen=True)
class Collection:
    """Embeddings of sounds, or of pieces of them.

    Attributes:
        vectors: `[N, E]`, unit length, float16 or float32; may be a memory map.
        line: Returns what is known of one, by its number: its path, and perhaps start, end and caption.
        facts: The name and the hash of the CLAP, as `Half.facts` has them.
        hidden: The numbers of those that are not to be found.
        errors: Why sounds are missing.
    """

    vectors: NDArray[np.generic]
    line: Callable[[int], dict[str, Any]]
    facts: Mapping[str, str]
    hidden: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    errors: list[InputError] = field(default_factory=list)

    def check(self, backbone: Backbone) -> None:
        """Check that queries of a backbone are in the same space.

        Raises:
            CheckpointError: The embeddings are those of another CLAP.
        """
        if self.facts.get("clap_hash") != backbone.clap.content_hash:
            message = f"the sounds were embedded with another CLAP ({self.facts.get('clap')}) than {backbone.clap.name}"
            raise CheckpointError(message, hint="name it with --backbone or --clap, or embed them again")

    def best(self, queries: NDArray[np.float32], k: int) -> list[list[tuple[float, int]]]:
        """Return the similarity and the number of the k embeddings nearest to each query `[Q, E]`, nearest first."""
        found = [list[tuple[float, int]]() for _ in queries]
        for start, similarities in self._products(queries):
            similarities[:, self._hidden_in(start, similarities.shape[1])] = -torch.inf
            values, numbers = similarities.topk(min(k, similarities.shape[1]))
            for several, row, places in zip(found, values.tolist(), (numbers + start).tolist(), strict=True):
                several += [pair for pair in zip(row, places, strict=True) if pair[0] > -torch.inf]
                several.sort(key=lambda pair: (-pair[0], pair[1]))
                del several[k:]
        return found

    def labels(self, labels: NDArray[np.float32], k: int) -> Iterator[tuple[int, list[tuple[float, int]]]]:
        """Yield the number of each embedding, with the similarities and the numbers of its nearest labels `[L, E]`."""
        for start, similarities in self._products(labels):
            values, numbers = similarities.T.sort(descending=True, stable=True)
            hidden = set(self._hidden_in(start, len(values)).tolist())
            for row in sorted(set(range(len(values))) - hidden):
                nearest = zip(values[row, :k].tolist(), numbers[row, :k].tolist(), strict=True)
                yield start + row, list(nearest)

    def _products(self, queries: NDArray[np.float32]) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the number of the first embedding of each block, and the products with it, `[Q, block]`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of arrays that are read-only; nothing is written to them
            wanted, vectors = torch.from_numpy(queries), torch.from_numpy(self.vectors)
        for start in range(0, len(vectors), _BLOCK):
            yield start, wanted @ vectors[start : start + _BLOCK].float().T

    def _hidden_in(self, start: int, n: int) -> torch.Tensor:
        first, after = np.searchsorted(self.hidden, (start, start + n))
        return torch.from_numpy(self.hidden[first:after] - start)


def collection_of_sounds(
    paths: Sequence[str], backbone: Backbone, device: torch.device, progress: Callable[[int, int], None]
) -> Collection:
    """Return the embeddings of sound files, without the silent ones; they are kept in the store.

    Raises:
        DeviceError: The device has too little memory.
    """
    recordings = RecordingEmbedder(backbone, device).embed(paths, progress=progress)
    heard = [
        (path, one.embedding)
        for path, one in zip(paths, recordings, strict=True)
        if isinstance(one, Recording) and not one.is_silent
    ]
    vectors = np.stack([vector for _, vector in heard]) if heard else np.zeros((0, 1), np.float32)
    errors = [one for one in recordings if isinstance(one, InputError)]
    return Collection(vectors, lambda number: {"path": heard[number][0]}, backbone.clap.facts, errors=errors)


def collection_of_file(path: Path) -> Collection:
    """Return the embeddings in a safetensors or Parquet file of textcap.

    Raises:
        FileError: The file cannot be read, or is damaged.
        CheckpointError: The same, of a safetensors file.
    """
    if path.suffix.lower() == ".parquet":
        from textcap.data.parquet import SOUNDS, matrix_of, read_table

        table = read_table(path, schema=SOUNDS)
        if "kind" in table.column_names:  # of textcap embed, which may hold captions, too
            table = table.filter([kind == AUDIO for kind in table["kind"].to_pylist()])
        matrix, lines = matrix_of(table)
        rest = table.drop_columns(["embedding"])
        facts = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
        return Collection(matrix, lambda number: rest.slice(lines[number], 1).to_pylist()[0], facts)
    tensors, metadata = read_tensors(path, hint="write it again with textcap embed")
    if not {"names", "kinds"} <= metadata.keys():
        raise FileError(path, "is not a file of textcap embed")
    names, kinds = json.loads(metadata["names"]), json.loads(metadata["kinds"])
    sounds = np.array([number for number, kind in enumerate(kinds) if kind == AUDIO], np.int64)
    return Collection(tensors["embeddings"].numpy()[sounds], lambda n: {"path": names[sounds[n]]}, metadata)
