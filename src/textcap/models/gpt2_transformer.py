"""GPT-2's transformer, for the language model and for CLAP's text tower; tensors have the names of its checkpoint.

Letters: R rows, T positions, O of them whose output is needed, D width, V vocabulary.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textcap.config import LanguageModelConfig

# Attention of one layer: takes its number, queries [R, heads, O, d], and keys and values [R, heads, T, d]; returns
# [R, heads, O, d].
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
# Takes [R, T, D] and returns [R, O, D], the positions whose output is needed.
Pick = Callable[[Tensor], Tensor]

_INITIAL_STD = 0.02  # of weights, as in GPT-2


class Gpt2(nn.Module):
    """GPT-2 without its output layer and without dropout.

    The same numbers as transformers' GPT2Model: a block adds attention and a hidden layer with GELU, each after a layer
    norm, and a last norm follows.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.width)
        self.wpe = nn.Embedding(config.n_positions, config.width)
        self.h = nn.ModuleList(_Block(config) for _ in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.width)
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=_INITIAL_STD)

    def forward(self, embedded: Tensor, attend: Attend, *, position: int = 0, pick: Pick = lambda x: x) -> Tensor:
        """Return the hidden states [R, O, D] after the last norm.

        Args:
            embedded: [R, T, D], tokens or prefixes, without their positions.
            position: The position of the first of them.
            pick: Selects the positions that are needed; for the others, the last block only computes what these attend
                to.
        """
        hidden = embedded + self.wpe.weight[position : position + embedded.shape[1]]
        last = len(self.h) - 1
        for layer, block in enumerate(self.h):
            hidden = block(hidden, partial(attend, layer), pick if layer == last else None)
        normed: Tensor = self.ln_f(hidden)
        return normed


class _Block(nn.Module):
    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        width = config.width
        self.n_heads = config.n_heads
        # Small enough for the sum of all blocks to keep the scale of one.
        std = _INITIAL_STD / (2 * config.n_layers) ** 0.5
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": Conv1D(width, 3 * width), "c_proj": Conv1D(width, width, std)})
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": Conv1D(width, 4 * width), "c_proj": Conv1D(4 * width, width, std)})

    def forward(self, hidden: Tensor, attend: Callable[..., Tensor], pick: Pick | None) -> Tensor:
        projected = self.attn["c_attn"](self.ln_1(hidden)).chunk(3, dim=-1)
        if pick is not None:
            hidden, projected = pick(hidden), (pick(projected[0]), *projected[1:])
        mixed = attend(*(self._by_head(x) for x in projected)).transpose(1, 2).flatten(2)  # [R, O, D]
        hidden = hidden + self.attn["c_proj"](mixed)
        wide = F.gelu(self.mlp["c_fc"](self.ln_2(hidden)), approximate="tanh")
        return hidden + self.mlp["c_proj"](wide)  # type: ignore[no-any-return]

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)  # [R, heads, T, d]


class Conv1D(nn.Module):
    """A linear layer whose weight is [in, out], as GPT-2's checkpoints have it under this name."""

    def __init__(self, n_in: int, n_out: int, std: float = _INITIAL_STD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out).normal_(std=std))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] of [..., in]."""
        product: Tensor = torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], -1)
        return product


def causal(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend from the last O of T positions to all positions up to each, [R, heads, O, d]."""
    n_queries, n_keys = queries.shape[-2], keys.shape[-2]
    if n_queries == n_keys:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    is_seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=keys.device).tril(n_keys - n_queries)
    return attend_to(queries, keys, values, is_seen)


def attend_to(queries: Tensor, keys: Tensor, values: Tensor, is_seen: Tensor) -> Tensor:
    """Attend from few positions to those that they may see, [R, heads, O, d].

    Written out, because the fused kernel for few queries is wrong on Apple's MPS in several versions of torch.

    Args:
        is_seen: bool, broadcast to [R, heads, O, T].
    """
    scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
    weights = scores.masked_fill(~is_seen, -torch.inf).softmax(dim=-1)
    mixed: Tensor = weights.to(values.dtype) @ values
    return mixed
