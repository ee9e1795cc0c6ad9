"""What the training loop reads: tokenised captions with their embeddings, split and put into batches.

Knows no models and no devices; every choice follows from the seed, so any batch of any epoch can be made
again alone. Letters: N captions, B batch, T tokens, E embedding width.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textcap.device import seeded_generator
from textcap.errors import InputError
from textcap.gap.bridge import Bridge
from textcap.models.tokenizer import Tokenizer
from textcap.training.sources import (
    AUDIO,
    TEXT,
    Indices,
    MixedEmbeddings,
    Source,
    SourceCount,
    count_sources,
    draw_epoch,
    group_captions,
)

Embeddings = NDArray[np.float32] | MixedEmbeddings

MAX_CAPTION_TOKENS = 77  # with the end token, as CLAP's text tower cuts
MIN_CAPTION_TOKENS = 2

# Names of the streams of random numbers that a seed opens; part of what makes a run repeatable.
SPLIT_STREAM, ORDER_STREAM, NOISE_STREAM, MAPPER_STREAM, HELD_OUT_STREAM = range(5)

_TOKENIZE_AT_ONCE = 4096
_BATCHES_PER_SORTED_CHUNK = 50


@dataclass(frozen=True)
class TokenTable:
    """The token ids of many captions in one flat array."""

    ids: NDArray[np.int32]  # [all tokens], int32
    offsets: NDArray[np.int64]  # [N + 1], int64: caption i is ids[offsets[i]:offsets[i + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Indices:
        """Tokens of each caption, the end token included, [N], int64."""
        return np.diff(self.offsets)

    def padded(self, indices: Sequence[int] | Indices) -> tuple[Tensor, Tensor]:
        """Return the captions' ids [B, T], int64, padded with 0 to the longest, and their lengths [B]."""
        rows = [self.ids[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        tokens = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.int64)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = torch.from_numpy(row.astype(np.int64))
        return tokens, torch.tensor([len(row) for row in rows])


def tokenize_captions(captions: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> TokenTable:
    """Return the ids of each caption followed by the end token, at most `max_tokens` in all.

    A caption that spells the end token out has it taken away: it may only stand at the end.

    Raises:
        InputError: There is no room for a single word.
    """
    if max_tokens < MIN_CAPTION_TOKENS:
        raise InputError("the prefix leaves no room for a caption", hint="use a shorter prefix")
    flat = array("i")
    offsets = [0]
    for start in range(0, len(captions), _TOKENIZE_AT_ONCE):
        for ids in tokenizer.encode(list(captions[start : start + _TOKENIZE_AT_ONCE])):
            flat.extend([i for i in ids if i != tokenizer.end_id][: max_tokens - 1])
            flat.append(tokenizer.end_id)
            offsets.append(len(flat))
    return TokenTable(np.array(flat, dtype=np.int32), np.array(offsets))


def split_held_out(captions: Sequence[str], wanted: int, seed: int, clips: Sequence[int] | None = None) -> Indices:
    """Choose captions that are never trained on.

    All copies of a caption go to the same side, or the held-out loss would be of captions learned by heart; so do all
    captions of a clip.

    Args:
        wanted: At most so many, and at most a tenth of the captions.
        clips: For each caption the clip it is of, or -1; by default none is of a clip.

    Returns:
        Indices in rising order, int64; none when there are fewer than ten captions.
    """
    limit = min(wanted, len(captions) // 10)
    groups = group_captions(captions, clips)
    sizes = np.bincount(groups)
    chosen: set[int] = set()
    n_held_out = 0
    for i in torch.randperm(len(captions), generator=seeded_generator(seed, SPLIT_STREAM)).tolist():
        if n_held_out == limit:
            break
        group = int(groups[i])
        if group not in chosen and n_held_out + sizes[group] <= limit:
            chosen.add(group)
            n_held_out += int(sizes[group])
    return np.flatnonzero(np.isin(groups, list(chosen)))


@dataclass(frozen=True)
class Examples:
    """Captions with the embeddings they are to be said from, split in two."""

    embeddings: Embeddings  # [N, E], float32; a memory map may do
    tokens: TokenTable
    training: Indices  # indices, int64, rising
    held_out: Indices  # indices, int64
    held_out_captions: tuple[str, ...]
    sources: tuple[Source, ...]  # in order, together all N

    @property
    def training_lengths(self) -> Indices:
        """Tokens of each caption that is trained on, int64."""
        lengths: Indices = self.tokens.lengths[self.training]
        return lengths

    @property
    def counts(self) -> tuple[SourceCount, ...]:
        """What an epoch takes from each source."""
        return count_sources(self.sources, self.training)

    @property
    def n_per_epoch(self) -> int:
        """Captions that an epoch learns from."""
        return sum(count.n_per_epoch for count in self.counts)

    def epoch_batches(self, batch_size: int, seed: int, epoch: int) -> list[Indices]:
        """Return the batches of an epoch as indices of captions, see `draw_epoch` and `epoch_batches`."""
        places = draw_epoch(self.sources, self.training, seed, epoch)
        indices = self.training[places]
        return [indices[batch] for batch in epoch_batches(self.tokens.lengths[indices], batch_size, seed, epoch)]

    def bridged(self, indices: Indices, bridge: Bridge, generator: torch.Generator) -> Tensor:
        """Return what the mapper is given for captions `[B]`: `[B, E]`, unit length, on the CPU."""
        embeddings = torch.from_numpy(np.array(self.embeddings[indices]))
        of_audio = np.zeros(len(indices), bool)
        for source in self.sources:
            if source.kind == AUDIO:
                of_audio |= (indices >= source.first) & (indices < source.end)
        if not of_audio.any():
            return bridge.text_side(embeddings, generator)
        bridged = torch.empty_like(embeddings)
        if not of_audio.all():
            bridged[~of_audio] = bridge.text_side(embeddings[~of_audio], generator)
        bridged[of_audio] = bridge.audio_training_side(embeddings[of_audio], generator)
        return bridged


def make_examples(
    captions: Sequence[str],
    embeddings: Embeddings,
    tokenizer: Tokenizer,
    *,
    max_tokens: int = MAX_CAPTION_TOKENS,
    held_out_captions: int = 0,
    seed: int = 0,
    sources: Sequence[Source] = (),
    clips: Sequence[int] | None = None,
) -> Examples:
    """Put captions and embeddings together.

    Args:
        embeddings: [N, E], float32, row i for caption i; of text, or of the audio that a caption describes.
        max_tokens: Longer captions are cut; the end token counts.
        held_out_captions: How many to keep from training, see `split_held_out`.
        sources: Which captions are of which file, in order; by default all are text of one.
        clips: See `split_held_out`.

    Raises:
        ValueError: Captions and embeddings differ in number, or there are none.
    """
    if len(captions) != len(embeddings) or not len(captions):
        raise ValueError(f"{len(captions)} captions and {len(embeddings)} embeddings make no examples")
    held_out = split_held_out(captions, held_out_captions, seed, clips)
    training = np.setdiff1d(np.arange(len(captions)), held_out)
    tokens = tokenize_captions(captions, tokenizer, max_tokens)
    return Examples(
        embeddings=embeddings,
        tokens=tokens,
        training=training,
        held_out=held_out,
        held_out_captions=tuple(captions[i] for i in held_out),
        sources=tuple(sources) or (Source("captions", TEXT, 0, len(captions)),),
    )


def epoch_batches(lengths: Indices, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Put all captions into batches of similar length, in another order every epoch.

    Captions are shuffled and sorted by length within chunks of many batches: nearly as little padding as with
    all of them sorted, and still other neighbours in every epoch. Then the batches are shuffled.

    Args:
        lengths: [N], tokens of each caption.

    Returns:
        Places in `lengths`, each exactly once; all batches but one have `batch_size` of them.
    """
    generator = seeded_generator(seed, ORDER_STREAM, epoch)
    order = torch.randperm(len(lengths), generator=generator).numpy()
    chunk = batch_size * _BATCHES_PER_SORTED_CHUNK
    batches: list[Indices] = []
    for start in range(0, len(order), chunk):
        places = order[start : start + chunk]
        places = places[np.argsort(lengths[places], kind="stable")]
        batches += [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def n_steps(n_captions: int, batch_size: int, epochs: int) -> int:
    """Return the number of batches in all epochs."""
    return -(-n_captions // batch_size) * epochs


def scaled_warmup(warmup_steps: int, total_steps: int) -> int:
    """Return the warm-up steps that suit a run: at most a fifth of a run of fewer than 10,000 steps.

    The paper's 2,000 steps are meant for its 15,000; in a short run the rate would never reach its base.
    """
    return min(warmup_steps, total_steps // 5 if total_steps < 10_000 else total_steps)


def rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the factor on the base rate at a step counted from 0: linear up, then linear down, never 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (total_steps - step) / (total_steps - warmup_steps)
