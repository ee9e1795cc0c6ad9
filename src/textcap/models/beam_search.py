"""Beam search over the frozen GPT-2: prefixes in, ranked token ids out.

Knows no CLAP and no tokenizer. Beams are ranked by their mean log probability per token, as the released
captioner ranks them; a batch of clips is searched at once. Letters: B clips, C of them not yet done, K beams.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from textcap.config import DecodingConfig
from textcap.errors import InputError
from textcap.models.language_model import LanguageModel


@dataclass(frozen=True)
class Hypothesis:
    """One way to caption a clip.

    Attributes:
        token_ids: The tokens it says, without the end token.
        score: Mean log probability per token in nats, with the end token, after the temperature; at most 0.
        finished: Whether it said the end token; if not, the search ran out of steps.
    """

    token_ids: tuple[int, ...]
    score: float
    finished: bool


@dataclass(frozen=True)
class _Beams:
    """The beams of the clips still searched; `sums` are summed log probabilities."""

    clips: Tensor  # [C], the clip's place in the batch
    tokens: Tensor  # [C, K, t]; what follows a beam's end token means nothing
    sums: Tensor  # [C, K]
    lengths: Tensor  # [C, K], int64, tokens up to and with the end token
    ended: Tensor  # [C, K], bool
    rows: Tensor  # [C, K], int64, the language model's row that the beam continues


@torch.inference_mode()
def beam_search(
    language_model: LanguageModel, prefixes: Tensor, config: DecodingConfig, *, end_id: int
) -> list[list[Hypothesis]]:
    """Find the best captions of every prefix.

    A beam that said the end token keeps its score, and competes with it, while the others go on. A clip is
    done, and leaves the batch, when all its beams have ended.

    Args:
        prefixes: [B, P, D].
        end_id: The token that ends a caption.

    Returns:
        For each clip its `n_best` hypotheses, best first.

    Raises:
        InputError: The language model has fewer tokens than beams, or too few positions for `max_tokens`.
    """
    if len(prefixes) == 0:
        return []
    _check_sizes(language_model, prefixes, config)
    results: list[list[Hypothesis]] = [[] for _ in range(len(prefixes))]
    state, logits = language_model.start(prefixes)
    beams = _first_beams(_log_probabilities(logits, config), config, end_id)
    while True:
        done = beams.ended.all(dim=1) | (beams.tokens.shape[-1] == config.max_tokens)
        for place in done.nonzero()[:, 0].tolist():
            results[int(beams.clips[place])] = _hypotheses(beams, place, config.n_best)
        if done.all():
            return results
        beams = _Beams(*(part[~done] for part in vars(beams).values()))
        # Only beams that have not ended are rows of the language model.
        said = beams.tokens[:, :, -1][~beams.ended]
        state, logits = language_model.advance(state, beams.rows[~beams.ended], said)
        beams = _next_beams(beams, _log_probabilities(logits, config), end_id)


def _first_beams(log_probabilities: Tensor, config: DecodingConfig, end_id: int) -> _Beams:
    """Open K beams per clip with its K best first tokens, from [B, V]."""
    sums, tokens = log_probabilities.topk(config.beam_size, dim=-1)  # [B, K]
    clips = torch.arange(len(sums), device=sums.device)
    return _Beams(
        clips,
        tokens[:, :, None],
        sums,
        torch.ones_like(tokens),
        tokens == end_id,
        clips[:, None].expand_as(tokens),
    )


def _next_beams(beams: _Beams, log_probabilities: Tensor, end_id: int) -> _Beams:
    """Continue the beams by one token.

    Args:
        log_probabilities: [R, V], of the beams that have not ended, in order.
    """
    n_clips, n_beams = beams.sums.shape
    # More than K continuations of one beam cannot be among the best K of the clip.
    best, best_tokens = log_probabilities.topk(n_beams, dim=-1)  # [R, K]
    gains = beams.sums.new_full((n_clips, n_beams, n_beams), -torch.inf)
    gains[~beams.ended] = best
    gains[..., 0].masked_fill_(beams.ended, 0.0)  # the one way on for an ended beam is to stay as it is
    tokens = beams.tokens.new_zeros(gains.shape)
    tokens[~beams.ended] = best_tokens

    lengths = beams.lengths + ~beams.ended
    sums = beams.sums[:, :, None] + gains  # [C, K, K]
    chosen = (sums / lengths[:, :, None]).flatten(1).topk(n_beams, dim=-1).indices  # [C, K]
    parents = chosen // n_beams
    said = beams.tokens.gather(1, parents[:, :, None].expand_as(beams.tokens))
    new = tokens.flatten(1).gather(1, chosen)
    # Rows of ended beams mean nothing: they are never continued.
    rows = (~beams.ended).flatten().cumsum(0).view_as(beams.ended) - 1
    return _Beams(
        clips=beams.clips,
        tokens=torch.cat((said, new[:, :, None]), dim=-1),
        sums=sums.flatten(1).gather(1, chosen),
        lengths=lengths.gather(1, parents),
        ended=beams.ended.gather(1, parents) | (new == end_id),
        rows=rows.gather(1, parents),
    )


def _hypotheses(beams: _Beams, place: int, n_best: int) -> list[Hypothesis]:
    scores = beams.sums[place] / beams.lengths[place]
    order = scores.argsort(descending=True, stable=True)[:n_best].tolist()
    found = []
    for beam in order:
        finished = bool(beams.ended[place, beam])
        n_tokens = int(beams.lengths[place, beam]) - finished
        tokens = beams.tokens[place, beam, :n_tokens].tolist()
        found.append(Hypothesis(tuple(tokens), float(scores[beam]), finished))
    return found


def _log_probabilities(logits: Tensor, config: DecodingConfig) -> Tensor:
    return torch.log_softmax(logits / config.temperature, dim=-1)


def _check_sizes(language_model: LanguageModel, prefixes: Tensor, config: DecodingConfig) -> None:
    sizes = language_model.config
    if config.beam_size > sizes.vocab_size:
        raise InputError(f"beam_size is {config.beam_size}, but the language model has {sizes.vocab_size} tokens")
    room = sizes.n_positions - prefixes.shape[1] + 1  # the last token is said and never read
    if config.max_tokens > room:
        raise InputError(f"max_tokens is {config.max_tokens}, but the language model has room for {room}")
