"""Prepare what the training loop reads: tokenised captions with their embeddings, split and put into batches.

Needs no models and no devices. Every choice follows from the seed, so any batch of any epoch can be recreated on its
own. Letters: N captions, B batch, T tokens, E embedding width.
"""

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textcap.data.stored import distinct, kept
from textcap.data.text import counted
from textcap.device import seeded_generator
from textcap.errors import InputError
from textcap.gap.bridge import Bridge
from textcap.models.language_model import CaptionTokenizer
from textcap.training.sources import (
    AUDIO,
    TEXT,
    Indices,
    MixedEmbeddings,
    Source,
    SourceCount,
    count_source,
    draw_epoch,
    group_captions,
)

Embeddings = NDArray[np.float32] | MixedEmbeddings

MAX_CAPTION_TOKENS = 77  # end token included; CLAP's text tower truncates at the same length
MIN_CAPTION_TOKENS = 2

# Each number selects one stream of random numbers derived from the seed; another number changes the result of a run.
SPLIT_STREAM, ORDER_STREAM, NOISE_STREAM, MAPPER_STREAM, HELD_OUT_STREAM = range(5)

_TOKENIZER_BATCH_SIZE = 4096
_BATCHES_PER_SORTED_CHUNK = 50

_logger = logging.getLogger("textcap")


@dataclass(frozen=True)
class TokenTable:
    """The token ids of many captions in one flat array, those of equal captions once."""

    ids: Indices  # [all tokens], int64; may be a memory map
    offsets: Indices  # [M + 1], int64: different caption m is ids[offsets[m]:offsets[m + 1]]
    rows: NDArray[np.integer[Any]]  # [N], which of the M each caption is

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The number of tokens of each caption, end token included, [N], int32."""
        lengths: NDArray[np.int32] = np.diff(self.offsets).astype(np.int32)[self.rows]
        return lengths

    def padded(self, indices: Sequence[int] | Indices) -> tuple[Tensor, Tensor]:
        """Return token ids [B, T], int64, padded with 0 to the longest caption, and lengths [B], int64."""
        rows = [self.ids[self.offsets[row] : self.offsets[row + 1]] for row in self.rows[indices]]
        tokens = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.from_numpy(np.array(row))
        return tokens, torch.tensor([len(row) for row in rows])


def tokenize_captions(
    captions: Sequence[str], tokenizer: CaptionTokenizer, max_tokens: int, keep: Path | None = None
) -> TokenTable:
    """Return the token ids of each caption followed by the end token, cut to `max_tokens` in all.

    If a caption spells out the end token, it is removed there: it may only stand at the end.

    Args:
        keep: Where to keep the tokens. If they are there, they must be of the same captions, tokenizer and limit.
    """
    different, rows = distinct(captions)
    both = kept(keep, lambda: _tokens(different, tokenizer, max_tokens))
    return TokenTable(both[len(different) + 1 :], both[: len(different) + 1], rows)


def _tokens(captions: Sequence[str], tokenizer: CaptionTokenizer, max_tokens: int) -> Indices:
    """Return the M + 1 offsets of a `TokenTable`, followed by its ids."""
    flat, offsets, n_cut = array("i"), array("q", [0]), 0
    for start in range(0, len(captions), _TOKENIZER_BATCH_SIZE):
        for ids in tokenizer.encode(list(captions[start : start + _TOKENIZER_BATCH_SIZE])):
            caption = [i for i in ids if i != tokenizer.end_id]
            n_cut += len(caption) >= max_tokens
            flat.extend(caption[: max_tokens - 1])
            flat.append(tokenizer.end_id)
            offsets.append(len(flat))
    if n_cut:
        _logger.warning("%s cut to %d tokens", counted(n_cut, "caption"), max_tokens)
    return np.concatenate([np.frombuffer(offsets, np.int64), np.frombuffer(flat, np.int32)])


def split_held_out(
    captions: Sequence[str], wanted: int, seed: int, clips: Sequence[int] | Indices | None = None
) -> Indices:
    """Choose the captions that are held out from training.

    All copies of a caption stay on the same side; otherwise the held-out loss would be measured on memorised captions.
    All captions of a clip stay on the same side, too.

    Args:
        captions: All captions.
        wanted: The number of captions to hold out. At most a tenth of all captions is held out.
        seed: Seed of the choice.
        clips: For each caption the number of its clip, or -1 if it has none; by default no caption has one.

    Returns:
        Indices in ascending order, int64; empty if there are fewer than ten captions.
    """
    limit = min(wanted, len(captions) // 10)
    groups = group_captions(captions, clips)
    sizes = np.bincount(groups)
    chosen: set[int] = set()
    n_held_out = 0
    for i in torch.randperm(len(captions), generator=seeded_generator(seed, SPLIT_STREAM)).numpy():
        if n_held_out == limit:
            break
        group = int(groups[i])
        if group not in chosen and n_held_out + sizes[group] <= limit:
            chosen.add(group)
            n_held_out += int(sizes[group])
    return np.flatnonzero(np.isin(groups, list(chosen)))


@dataclass(frozen=True)
class Examples:
    """Captions with the embeddings to generate them from, split into training and held-out captions."""

    embeddings: Embeddings  # [N, E], float32; may be a memory map
    tokens: TokenTable  # of all N captions
    training: Indices  # indices of the captions to train on, int64, ascending
    held_out: Indices  # indices of the captions held out, int64
    held_out_captions: tuple[str, ...]  # the text of the captions in `held_out`
    sources: tuple[Source, ...]  # in order, text before audio
    n_text: int  # captions with a text embedding; the others, which follow, have that of a sound

    @property
    def counts(self) -> tuple[SourceCount, ...]:
        """How many captions an epoch draws from each source."""
        return tuple(count_source(source, self.training) for source in self.sources)

    @property
    def n_per_epoch(self) -> int:
        """The number of captions that an epoch trains on."""
        return sum(count.n_per_epoch for count in self.counts)

    def epoch_batches(self, batch_size: int, seed: int, epoch: int) -> list[Indices]:
        """Return the batches of an epoch as indices of captions; see `draw_epoch` and the function `epoch_batches`."""
        indices = self.training[draw_epoch(self.sources, self.training, seed, epoch)]
        return [indices[batch] for batch in epoch_batches(self.tokens.lengths[indices], batch_size, seed, epoch)]

    def bridged(self, indices: Indices, bridge: Bridge, generator: torch.Generator) -> Tensor:
        """Return the mapper's input for caption indices `[B]`: bridged embeddings `[B, E]`, unit length, on the CPU."""
        embeddings = torch.from_numpy(np.array(self.embeddings[indices]))
        is_text, bridged = indices < self.n_text, torch.empty_like(embeddings)
        for rows, side in ((is_text, bridge.text_side), (~is_text, bridge.audio_training_side)):
            if rows.any():
                bridged[rows] = side(embeddings[rows], generator)
        return bridged


def make_examples(
    captions: Sequence[str],
    embeddings: Embeddings,
    tokenizer: CaptionTokenizer,
    *,
    max_tokens: int = MAX_CAPTION_TOKENS,
    held_out_captions: int = 0,
    seed: int = 0,
    sources: Sequence[Source] = (),
    clips: Sequence[int] | Indices | None = None,
    keep: Path | None = None,
    n_text: int | None = None,
    held_out: Indices | None = None,
) -> Examples:
    """Combine captions and their embeddings into examples.

    Args:
        captions: All N captions.
        embeddings: [N, E], float32; row i is the embedding of caption i, or of the sound that it describes.
        tokenizer: The tokenizer of the language model.
        max_tokens: Longer captions are cut to this length, end token included.
        held_out_captions: The number of captions to hold out from training; see `split_held_out`.
        seed: Seed of the split.
        sources: The files that the captions belong to, in order; by default all are text from one file.
        clips: See `split_held_out`.
        keep: See `tokenize_captions`.
        n_text: How many captions, the first ones, have a text embedding; by default those of text sources.
        held_out: Indices of captions to hold out in place of a random choice; all copies of them are left out.

    Raises:
        InputError: Nothing is left to train on.
        ValueError: There are not as many embeddings as captions, or there are none.
    """
    if len(captions) != len(embeddings) or not len(captions):
        numbers = f"{len(captions)} captions and {len(embeddings)} embeddings"
        raise ValueError(f"got {numbers}, but need as many of both, and at least one")
    tokens = tokenize_captions(captions, tokenizer, max_tokens, keep)
    sources = tuple(sources) or (Source("captions", TEXT, 0, len(captions)),)
    if held_out is None:
        held_out = split_held_out(captions, held_out_captions, seed, clips)
        is_training = np.ones(len(captions), bool)
        is_training[held_out] = False
    else:
        is_training = ~np.isin(tokens.rows, np.unique(tokens.rows[held_out]))
        if n_left_out := int((~is_training).sum()) - len(held_out):
            _logger.warning("%s left out, which also stand in the validation file", counted(n_left_out, "caption"))
        if not is_training.any():
            raise InputError("every caption to train on also stands in the validation file", hint="give another --val")
    if n_text is None:
        n_text = min((source.first for source in sources if source.kind == AUDIO), default=len(captions))
    return Examples(
        embeddings=embeddings,
        tokens=tokens,
        training=np.flatnonzero(is_training),
        held_out=held_out,
        held_out_captions=tuple(captions[int(i)] for i in held_out),
        sources=sources,
        n_text=n_text,
    )


def epoch_batches(lengths: NDArray[np.integer[Any]], batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Put all captions into batches of similar length, in a different order every epoch.

    Captions are shuffled, then sorted by length within chunks of many batches. This needs nearly as little padding as
    sorting all captions, and each caption still gets different neighbours every epoch. Then the batches are shuffled.

    Args:
        lengths: The number of tokens of each caption, [N].
        batch_size: The number of captions in a batch.
        seed: Seed of the order.
        epoch: The epoch, counted from 0.

    Returns:
        Batches of positions in `lengths`, each position exactly once; at most one batch is smaller than `batch_size`.
    """
    generator = seeded_generator(seed, ORDER_STREAM, epoch)
    order = torch.randperm(len(lengths), generator=generator).numpy()
    chunk = batch_size * _BATCHES_PER_SORTED_CHUNK
    batches: list[Indices] = []
    for start in range(0, len(order), chunk):
        positions = order[start : start + chunk]
        positions = positions[np.argsort(lengths[positions], kind="stable")]
        batches += [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def n_steps(n_captions: int, batch_size: int, epochs: int) -> int:
    """Return the number of training steps (batches) in all epochs together."""
    return -(-n_captions // batch_size) * epochs


def scaled_warmup(warmup_steps: int, total_steps: int) -> int:
    """Return the number of warm-up steps of a run: at most a fifth of a run with fewer than 10,000 steps.

    The paper's 2,000 steps are meant for its 15,000. In a short run the learning rate would never reach its base value.
    """
    return min(warmup_steps, total_steps // 5 if total_steps < 10_000 else total_steps)


def rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the factor on the base learning rate at a step counted from 0.

    It rises linearly during the warm-up, then falls linearly, and is always above 0.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (total_steps - step) / (total_steps - warmup_steps)
