"""Measure a mapper on held-out captions while it is being trained.

For captions without a sound, noisy text embeddings stand in for audio embeddings.
"""

from dataclasses import dataclass

import torch

from textcap.config import DecodingConfig
from textcap.device import seeded_generator
from textcap.gap.bridge import Bridge
from textcap.models.beam_search import beam_search
from textcap.models.language_model import CaptionTokenizer, LanguageModel
from textcap.models.mapper import Mapper
from textcap.training.data import HELD_OUT_STREAM, Examples
from textcap.training.events import Sample

N_SAMPLES = 3

_MAX_CAPTIONS = 50  # generated at the end of an epoch
_COLLAPSED_SHARE = 0.2  # a smaller share of different captions counts as a collapse
_MIN_REFERENCES = 10  # with fewer different references, few different captions are to be expected
_BATCH_SIZE, _MOST_VALUES = 64, 2**26  # captions whose loss is measured at once; see `LanguageModel.n_values`


@dataclass(frozen=True)
class HeldOutResult:
    """The loss and the captions of a mapper on held-out captions."""

    loss: float  # nats per token
    captions: tuple[str, ...]  # generated from some of the held-out embeddings
    references: tuple[str, ...]  # the held-out caption for each of `captions`

    @property
    def distinct_share(self) -> float:
        """The number of different captions divided by the number of captions, 0 to 1."""
        return len(set(self.captions)) / len(self.captions)

    @property
    def collapsed(self) -> bool:
        """Whether the model generates nearly the same captions for everything, although the references differ."""
        return self.distinct_share < _COLLAPSED_SHARE and len(set(self.references)) >= _MIN_REFERENCES

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The first few references with the captions generated for them."""
        pairs = list(zip(self.references, self.captions, strict=True))[:N_SAMPLES]
        return tuple(Sample(reference, caption) for reference, caption in pairs)


@torch.no_grad()
def evaluate_held_out(
    examples: Examples,
    mapper: Mapper,
    bridge: Bridge,
    language_model: LanguageModel,
    tokenizer: CaptionTokenizer,
    seed: int,
) -> HeldOutResult:
    """Measure the loss on all held-out captions, and generate captions from some of their embeddings.

    The noise is the same in every call with the same seed, so that epochs can be compared. There must be held-out
    captions.
    """
    device = mapper.constants.device
    generator = seeded_generator(seed, HELD_OUT_STREAM)
    order = torch.randperm(len(examples.held_out), generator=generator).numpy()
    noisy = examples.bridged(examples.held_out[order], bridge, generator).to(device)  # [N, E]

    loss_sum, n_tokens = 0.0, 0
    longest = int(examples.tokens.lengths[examples.held_out].max())
    size = max(1, min(_BATCH_SIZE, _MOST_VALUES // language_model.n_values(mapper.config.prefix_length, longest)))
    for start in range(0, len(order), size):
        tokens, lengths = examples.tokens.padded(examples.held_out[order[start : start + size]])
        prefixes = mapper(noisy[start : start + size])
        mean = language_model.loss(prefixes, tokens.to(device), lengths.to(device))
        loss_sum += float(mean) * int(lengths.sum())
        n_tokens += int(lengths.sum())

    prefix_length, chosen = mapper.config.prefix_length, order[:_MAX_CAPTIONS]
    room = language_model.config.n_positions - prefix_length
    decoding = DecodingConfig(max_tokens=min(DecodingConfig.max_tokens, room))
    found = beam_search(language_model, mapper(noisy[: len(chosen)]), decoding, end_id=tokenizer.end_id)
    captions = tuple(tokenizer.decode(list(best[0].token_ids)).strip() for best in found)
    return HeldOutResult(loss_sum / n_tokens, captions, tuple(examples.held_out_captions[i] for i in chosen))
