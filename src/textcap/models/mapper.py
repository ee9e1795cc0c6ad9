"""The mapper, the only trained part: it turns a CLAP embedding into the prefix that GPT-2 continues.

The embedding comes from text during training and from audio during captioning; the mapper treats both the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textcap.config import MapperConfig
from textcap.models.loading import Checkpoint, TensorSource, load_exact

# Our tensor names -> those of the released captioner. Within a layer, both follow `layers.N.`.
_OUTER_PARTS = {"spread.weight": "linear.weight", "spread.bias": "linear.bias", "constants": "prefix_const"}
_LAYER_PARTS = {
    "attention_norm.weight": "norm1.weight",
    "attention_norm.bias": "norm1.bias",
    "queries.weight": "attn.to_queries.weight",
    "keys_values.weight": "attn.to_keys_values.weight",
    "output.weight": "attn.project.weight",
    "output.bias": "attn.project.bias",
    "hidden_norm.weight": "norm2.weight",
    "hidden_norm.bias": "norm2.bias",
    "hidden_in.weight": "mlp.fc1.weight",
    "hidden_in.bias": "mlp.fc1.bias",
    "hidden_out.weight": "mlp.fc2.weight",
    "hidden_out.bias": "mlp.fc2.bias",
}


class Mapper(nn.Module):
    """Turns unit-length CLAP embeddings into prefixes.

    One linear layer spreads the embedding over P tokens, to which P learned constants are appended. A transformer
    without a mask mixes all 2P of them, and its output at the constants is the prefix. Weights start from torch's
    default initialisation and the constants from N(0, 1), so seed torch before building a mapper to repeat a run.
    """

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        self.config = config
        self.spread = nn.Linear(config.embedding_width, config.prefix_length * config.width)
        self.constants = nn.Parameter(torch.empty(config.prefix_length, config.width))
        if not self.constants.is_meta:  # for which drawing numbers would take torch half a second of imports
            nn.init.normal_(self.constants)
        self.layers = nn.ModuleList(_MapperLayer(config) for _ in range(config.n_layers))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the prefixes [B, P, D] of unit-length embeddings [B, E]."""
        n_prefix, width = self.constants.shape
        spread = self.spread(embeddings).view(-1, n_prefix, width)
        constants = self.constants.to(spread.dtype).expand(len(spread), -1, -1)
        hidden = torch.cat((spread, constants), dim=1)  # [B, 2P, D]
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, n_prefix if number == last else 2 * n_prefix)
        return hidden


class _MapperLayer(nn.Module):
    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        width, hidden_width = config.width, config.hidden_width
        self.n_heads = config.n_heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries = nn.Linear(width, width, bias=False)
        self.keys_values = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.hidden_in = nn.Linear(width, hidden_width)
        self.hidden_out = nn.Linear(hidden_width, width)

    def forward(self, hidden: Tensor, n_last: int) -> Tensor:
        """Return the hidden states after this layer of the last `n_last` tokens of [B, T, D]."""
        normed = self.attention_norm(hidden)
        hidden = hidden[:, -n_last:]
        keys, values = self.keys_values(normed).chunk(2, dim=-1)
        queries, keys, values = (self._by_head(x) for x in (self.queries(normed[:, -n_last:]), keys, values))
        mixed: Tensor = F.scaled_dot_product_attention(queries, keys, values)  # [B, heads, T, D / heads]
        hidden = hidden + self.output(mixed.transpose(1, 2).flatten(2))
        widened = F.relu(self.hidden_in(self.hidden_norm(hidden)))
        return hidden + self.hidden_out(widened)  # type: ignore[no-any-return]

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)  # [B, heads, T, D / heads]


def load_clapcap_mapper(config: MapperConfig, checkpoint: Checkpoint, prefix: str = "clap_project.") -> Mapper:
    """Build the mapper of the released captioner from its checkpoint.

    Args:
        prefix: The prefix of the mapper's tensor names in the checkpoint.

    Raises:
        CheckpointError: A tensor is missing or has another shape; the message names it.
    """
    return load_exact(Mapper(config), checkpoint, lambda name: TensorSource(prefix + _clapcap_name(name)))


def _clapcap_name(name: str) -> str:
    if name in _OUTER_PARTS:
        return _OUTER_PARTS[name]
    layers, number, part = name.split(".", 2)
    return f"transformer.{layers}.{number}.{_LAYER_PARTS[part]}"
