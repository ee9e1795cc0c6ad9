"""Beam search over the frozen language model: find the token ids of the best captions for each prefix.

Beams are ranked by mean log probability per token, as in the released captioner, and all clips of a batch are searched
at once. Letters: B clips, C of them not yet done, K beams, R language model rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from textcap.config import DecodingConfig
from textcap.errors import InputError
from textcap.models.language_model import LanguageModel


@dataclass(frozen=True)
class Hypothesis:
    """One possible caption of a clip.

    Attributes:
        token_ids: The tokens of the caption, without the end token.
        score: Mean log probability per token in nats, including the end token, after the temperature; at most 0.
        finished: Whether the caption has an end token; if not, the search reached `max_tokens`.
    """

    token_ids: tuple[int, ...]
    score: float
    finished: bool


@dataclass(frozen=True)
class _Beams:
    """The beams of all clips that are not done."""

    clips: Tensor  # [C], int64, the index of the clip in the batch
    tokens: Tensor  # [C, K, t], int64; values after the end token of a beam are arbitrary
    sums: Tensor  # [C, K], summed log probabilities in nats
    lengths: Tensor  # [C, K], int64, number of tokens including the end token
    ended: Tensor  # [C, K], bool, whether the beam has its end token
    rows: Tensor  # [C, K], int64, the language model row that the beam continues; arbitrary once it has ended


@torch.inference_mode()
def beam_search(
    language_model: LanguageModel, prefixes: Tensor, config: DecodingConfig, *, end_id: int
) -> list[list[Hypothesis]]:
    """Find the best captions for every prefix.

    A beam that has its end token keeps its score and competes with the beams that continue. A clip is done, and leaves
    the batch, when all its beams have ended or reached `max_tokens`.

    Args:
        prefixes: [B, P, D].
        end_id: The id of the token that ends a caption.

    Returns:
        The `n_best` hypotheses of each clip, best first.

    Raises:
        InputError: The language model has fewer tokens than beams, or too few positions for `max_tokens`.
    """
    if len(prefixes) == 0:
        return []
    _check_sizes(language_model, prefixes, config)
    results: list[list[Hypothesis]] = [[] for _ in range(len(prefixes))]
    state, logits = language_model.start(prefixes)
    beams = _first_beams(_log_probabilities(logits, config, 0, end_id), config, end_id)
    while True:
        done = beams.ended.all(dim=1) | (beams.tokens.shape[-1] == config.max_tokens)
        for place in done.nonzero()[:, 0].tolist():
            results[int(beams.clips[place])] = _hypotheses(beams, place, config.n_best)
        if done.all():
            return results
        beams = _Beams(*(part[~done] for part in vars(beams).values()))
        # Only beams that have not ended are rows of the language model.
        last_tokens = beams.tokens[:, :, -1][~beams.ended]
        state, logits = language_model.advance(state, beams.rows[~beams.ended], last_tokens)
        n_tokens = beams.tokens.shape[-1]
        beams = _next_beams(beams, _log_probabilities(logits, config, n_tokens, end_id), end_id)


def _first_beams(log_probabilities: Tensor, config: DecodingConfig, end_id: int) -> _Beams:
    """Start K beams per clip with its K best first tokens.

    Args:
        log_probabilities: [B, V], of the first token.
    """
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
        log_probabilities: [R, V], of the next token of each beam that has not ended, in order.
    """
    n_clips, n_beams = beams.sums.shape
    # No more than K continuations of a beam can be among the best K of the clip.
    best, best_tokens = log_probabilities.topk(n_beams, dim=-1)  # [R, K]
    gains = beams.sums.new_full((n_clips, n_beams, n_beams), -torch.inf)
    gains[~beams.ended] = best
    gains[..., 0].masked_fill_(beams.ended, 0.0)  # an ended beam has one continuation: itself, unchanged
    tokens = beams.tokens.new_zeros(gains.shape)
    tokens[~beams.ended] = best_tokens

    lengths = beams.lengths + ~beams.ended
    sums = beams.sums[:, :, None] + gains  # [C, K, K]
    chosen = (sums / lengths[:, :, None]).flatten(1).topk(n_beams, dim=-1).indices  # [C, K]
    parents = chosen // n_beams
    earlier_tokens = beams.tokens.gather(1, parents[:, :, None].expand_as(beams.tokens))
    new_tokens = tokens.flatten(1).gather(1, chosen)
    # Ended beams get arbitrary rows, because they are never continued.
    rows = (~beams.ended).flatten().cumsum(0).view_as(beams.ended) - 1
    return _Beams(
        clips=beams.clips,
        tokens=torch.cat((earlier_tokens, new_tokens[:, :, None]), dim=-1),
        sums=sums.flatten(1).gather(1, chosen),
        lengths=lengths.gather(1, parents),
        ended=beams.ended.gather(1, parents) | (new_tokens == end_id),
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


def _log_probabilities(logits: Tensor, config: DecodingConfig, n_tokens: int, end_id: int) -> Tensor:
    """Return the log probabilities of the token after the first `n_tokens`; too early, a caption cannot end."""
    log_probabilities = torch.log_softmax(logits / config.temperature, dim=-1)
    if n_tokens < config.min_tokens:
        log_probabilities[..., end_id] = -torch.inf
    return log_probabilities


def _check_sizes(language_model: LanguageModel, prefixes: Tensor, config: DecodingConfig) -> None:
    sizes = language_model.config
    if config.beam_size > sizes.vocab_size - (config.min_tokens > 0):
        limit = f"{sizes.vocab_size}, the size of the language model's vocabulary"
        raise InputError(f"beam_size is {config.beam_size}, but must be at most {limit}")
    room = sizes.n_positions - prefixes.shape[1] + 1  # the last token is never an input
    if config.max_tokens > room:
        raise InputError(f"max_tokens is {config.max_tokens}, but must be at most {room} for this language model")
