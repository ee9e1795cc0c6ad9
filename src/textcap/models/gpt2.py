"""GPT-2 as the frozen language model: no logits are kept for the loss, and clips share the cache of their prefix."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textcap.config import LanguageModelConfig
from textcap.errors import CheckpointError
from textcap.models.gpt2_transformer import Gpt2, causal
from textcap.models.hub_folder import HubFolder
from textcap.models.language_model import LanguageModel, LanguageModelHalf
from textcap.models.loading import Checkpoint, TensorSource, load_exact
from textcap.models.tokenizer import Tokenizer
from textcap.models.weight_files import FOLDER_KIND, WeightFiles

_LOSS_ROWS = 256  # positions whose logits are held at once


@dataclass(frozen=True)
class DecodingState:
    """Cached keys and values of R rows that belong to C clips.

    The prefix is kept once per clip, however many rows continue it; only the tokens after it are kept per row.

    Attributes:
        clips: [R], int64, the index in the prefix cache of each row's clip.
        prefix_cache: [2, C, heads, P, d] for each layer, keys and values of the prefixes.
        row_cache: [2, R, heads, t, d] for each layer, keys and values of the t tokens after the prefix.
    """

    clips: Tensor
    prefix_cache: tuple[Tensor, ...]
    row_cache: tuple[Tensor, ...]

    @property
    def n_positions(self) -> int:
        """Number of positions used so far, including the prefix."""
        return self.prefix_cache[0].shape[-2] + self.row_cache[0].shape[-2]


class Gpt2LanguageModel(LanguageModel):
    """GPT-2 with its output layer, which is the token embedding."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__(config)
        self.gpt2 = Gpt2(config)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False, device="meta")
        self.head.weight = self.gpt2.wte.weight
        self.requires_grad_(False)
        self.eval()

    def loss(self, prefixes: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean cross-entropy, see `LanguageModel.loss`."""
        n_prefix = prefixes.shape[1]
        self.check_positions(n_prefix + tokens.shape[1] - 1)
        # The last token is only predicted, never an input.
        embedded = torch.cat((prefixes, self.gpt2.wte(tokens[:, :-1])), dim=1)
        hidden = self.gpt2(embedded, lambda _, *qkv: causal(*qkv), pick=lambda x: x[:, n_prefix - 1 :])  # [B, T, D]
        is_target = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        loss: Tensor = _FrozenHeadLoss.apply(hidden[is_target], self.head.weight, tokens[is_target])  # type: ignore[no-untyped-call]
        return loss

    @torch.inference_mode()
    def start(self, prefixes: Tensor) -> tuple[DecodingState, Tensor]:
        """Run the prefixes, see `LanguageModel.start`."""
        self.check_positions(prefixes.shape[1])
        cache: list[Tensor] = []

        def attend(_: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            cache.append(torch.stack((keys, values)))
            return causal(queries, keys, values)

        hidden = self.gpt2(prefixes.to(self.gpt2.wte.weight.dtype), attend, pick=lambda x: x[:, -1:])  # [B, 1, D]
        clips = torch.arange(len(prefixes), device=prefixes.device)
        state = DecodingState(clips, tuple(cache), tuple(layer[..., :0, :] for layer in cache))
        return state, self._logits(hidden)

    @torch.inference_mode()
    def advance(self, state: DecodingState, rows: Tensor, tokens: Tensor) -> tuple[DecodingState, Tensor]:
        """Continue rows by one token each, and drop clips without rows from the cache; see `LanguageModel.advance`."""
        self.check_positions(state.n_positions + 1)
        state = _select_rows(state, rows)
        grid = _RowGrid(state.clips, state.prefix_cache[0].shape[1])
        cache: list[Tensor] = []

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            rows_so_far = torch.cat((state.row_cache[layer], torch.stack((keys, values))), dim=-2)
            cache.append(rows_so_far)
            return _attend_to_both(queries, state.prefix_cache[layer], rows_so_far, grid)

        hidden = self.gpt2(self.gpt2.wte(tokens)[:, None], attend, position=state.n_positions)  # [R, 1, D]
        return DecodingState(state.clips, state.prefix_cache, tuple(cache)), self._logits(hidden)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden[:, -1])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def load_gpt2(config: LanguageModelConfig, checkpoint: Checkpoint, prefix: str | None = None) -> Gpt2LanguageModel:
    """Build the frozen GPT-2 from a weight file.

    Args:
        prefix: The prefix of GPT-2's tensor names in the checkpoint: "gpt.transformer." in that of clapcap. By default
            "transformer." or none, depending on the file: both occur for the same weights.

    Raises:
        CheckpointError: A tensor is missing or has another shape, or the output layer differs from the token
            embedding, which GPT-2 shares with it; the message names the tensor.
    """
    if prefix is None:
        prefix = "transformer." if "transformer.wte.weight" in checkpoint.tensors else ""
    model = Gpt2LanguageModel(config)
    gpt2 = model.gpt2
    load_exact(gpt2, checkpoint, lambda name: TensorSource(prefix + name))
    head = prefix.removesuffix("transformer.") + "lm_head.weight"
    if head in checkpoint.tensors and not torch.equal(checkpoint.tensors[head].to(gpt2.wte.weight), gpt2.wte.weight):
        raise CheckpointError(f"{checkpoint.path}: {head} differs from the token embedding {prefix}wte.weight")
    return model


class Gpt2Half(LanguageModelHalf):
    """The GPT-2 of a named backbone, or in a folder."""

    def __init__(self, name: str, config: LanguageModelConfig, files: WeightFiles, licence: str) -> None:
        self.name, self.config, self.licence, self._files = name, config, licence, files

    def _hash(self) -> str:
        return self._files.content_hash([self._files.kind.language_model], self.config)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """GPT-2's tokenizer, see `LanguageModelHalf`."""
        return self._files.tokenizer(self.config.vocab_size)

    def load(self) -> Gpt2LanguageModel:
        """Return the model, see `LanguageModelHalf`."""
        part = self._files.kind.language_model
        prefix = f"{part.prefix}transformer." if part.prefix else None
        return self._files.load(part, self.config.n_parameters, lambda file: load_gpt2(self.config, file, prefix))


# What a GPT-2 has that this code runs; any other is left to `causal_lm`.
_PLAIN = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def open_half(folder: HubFolder) -> Gpt2Half | None:
    """Return the GPT-2 in a folder, or None if more than its sizes differ from that of the paper."""
    values, path = folder.config, folder.path
    paths = {"language_model": folder.weights[0], "vocab": path / "vocab.json", "merges": path / "merges.txt"}
    width = values.get("n_embd")
    n_inner = values.get("n_inner") or (4 * width if isinstance(width, int) else None)
    is_plain = all(values.get(name, plain) == plain for name, plain in _PLAIN.items())
    if len(folder.weights) > 1 or not is_plain or n_inner != 4 * (width or 0):
        return None
    if not all(path.is_file() for path in paths.values()):
        return None
    names = {"n_layers": "n_layer", "width": "n_embd", "n_heads": "n_head", "n_positions": "n_positions"}
    sizes = {ours: values.get(theirs) for ours, theirs in {**names, "vocab_size": "vocab_size"}.items()}
    files = WeightFiles(FOLDER_KIND, paths)
    config = folder.sizes(LanguageModelConfig, sizes)
    try:
        tokenizer = Tokenizer.load(paths["vocab"], paths["merges"])
    except CheckpointError:  # such as one that ends a text with another token
        return None
    # Rows of the vocabulary that the tokenizer lacks must never be said.
    if tokenizer.vocab_size != config.vocab_size or values.get("eos_token_id") not in (None, tokenizer.end_id):
        return None
    return Gpt2Half(folder.name, config, files, folder.licence)


class _FrozenHeadLoss(torch.autograd.Function):
    """Mean cross-entropy of targets [N] after a frozen output layer, of hidden states [N, D] and its weight [V, D].

    Logits are computed a few rows at a time, and the gradient with them, so that neither is kept for all rows.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        needs_gradient, device_type = ctx.needs_input_grad[0], hidden.device.type
        if torch.is_autocast_enabled(device_type):
            weight = weight.to(torch.get_autocast_dtype(device_type))  # once: autocast would do it for each part
        total = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden) if needs_gradient else None
        for start in range(0, len(targets), _LOSS_ROWS):
            rows = slice(start, start + _LOSS_ROWS)
            log_probabilities = F.linear(hidden[rows].to(weight.dtype), weight).float().log_softmax(dim=-1)  # [rows, V]
            total -= log_probabilities.gather(1, targets[rows, None]).sum()
            if gradient is not None:
                errors = log_probabilities.exp_()
                # Before rounding: of a likely target little is left.
                errors.scatter_add_(1, targets[rows, None], errors.new_full((len(errors), 1), -1.0))
                gradient[rows] = errors.to(weight.dtype) @ weight / len(targets)
        ctx.save_for_backward(gradient)
        return total / len(targets)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0].to(gradient.dtype), None, None


class _RowGrid:
    """Arranges rows in a grid of clips and slots, so that the rows of a clip share one product with its prefix."""

    def __init__(self, clips: Tensor, n_clips: int) -> None:
        earlier = torch.tril(clips[:, None] == clips, diagonal=-1)
        self.clips, self.slots = clips, earlier.sum(dim=1)
        self.shape = (n_clips, int(self.slots.max()) + 1)

    def spread(self, rows: Tensor) -> Tensor:
        """Arrange rows [R, ...] as [C, slots, ...], with zeros in empty slots."""
        grid = rows.new_zeros(self.shape + rows.shape[1:])
        grid[self.clips, self.slots] = rows
        return grid

    def collect(self, grid: Tensor) -> Tensor:
        """Return the rows [R, ...] of a grid [C, slots, ...]."""
        return grid[self.clips, self.slots]


def _attend_to_both(queries: Tensor, prefix: Tensor, row: Tensor, grid: _RowGrid) -> Tensor:
    """Attend from one token per row to the prefix of its clip and to the row's own tokens, with one softmax over both.

    Args:
        queries: [R, heads, 1, d].
        prefix: [2, C, heads, P, d], keys and values.
        row: [2, R, heads, t, d], keys and values, with the token itself last.

    Returns:
        [R, heads, 1, d].
    """
    n_prefix = prefix.shape[-2]
    queries = queries * queries.shape[-1] ** -0.5
    by_clip = grid.spread(queries[:, :, 0]).transpose(1, 2)  # [C, heads, slots, d]
    to_prefix = grid.collect((by_clip @ prefix[0].transpose(-1, -2)).transpose(1, 2))  # [R, heads, P]
    to_row = (queries @ row[0].transpose(-1, -2))[:, :, 0]  # [R, heads, t]
    weights = torch.cat((to_prefix, to_row), dim=-1).softmax(dim=-1).to(queries.dtype)
    from_prefix = grid.spread(weights[..., :n_prefix]).transpose(1, 2) @ prefix[1]  # [C, heads, slots, d]
    from_row = weights[:, :, None, n_prefix:] @ row[1]  # [R, heads, 1, d]
    return grid.collect(from_prefix.transpose(1, 2))[:, :, None] + from_row


def _select_rows(state: DecodingState, rows: Tensor) -> DecodingState:
    clips = state.clips[rows]
    kept, clips = torch.unique(clips, return_inverse=True)
    prefix_cache = state.prefix_cache
    if len(kept) < prefix_cache[0].shape[1]:
        prefix_cache = tuple(layer.index_select(1, kept) for layer in prefix_cache)
    return DecodingState(clips, prefix_cache, tuple(layer.index_select(1, rows) for layer in state.row_cache))
