"""HTSAT, the audio tower of CLAP: a Swin transformer on log-mel spectrograms; its tensors have msclap's names.

The tokens of a stage stand in the order of attention windows. One gather takes them from the order of one block to that
of the next, or to the next stage. Letters: W windows of sound, F frames, M mel bins, N tokens of a spectrogram,
C channels, A attention windows of a spectrogram, L tokens in each.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textcap.config import AudioTowerConfig

_FAR = -100.0  # added to the attention between tokens that are neighbours by the cyclic shift only, as in msclap


class Htsat(nn.Module):
    """Turns log-mel spectrograms into pooled vectors: the same numbers as transformers' ClapAudioModel without fusion.

    The time axis is stretched and folded, so that a spectrogram becomes a square image. Later stages have half as many
    tokens in both directions, and twice as many channels.
    """

    def __init__(self, config: AudioTowerConfig, n_mels: int) -> None:
        super().__init__()
        self.image_size, self.n_folds = config.spec_size, config.spec_size // n_mels
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.patch_embed = _PatchEmbedding(config.patch_size, config.patch_width)
        side, window = config.spec_size // config.patch_size, config.attention_window
        sides = [side // 2**stage for stage in range(len(config.depths))]
        first_orders = [_order(side, window, 0) for side in sides]
        self.register_buffer("first_order", first_orders[0], persistent=False)
        self.layers = nn.ModuleList()
        for stage, (depth, n_heads, side) in enumerate(zip(config.depths, config.n_heads, sides, strict=True)):
            next_order = first_orders[stage + 1] if stage + 1 < len(sides) else None
            self.layers.append(_Stage(config.patch_width * 2**stage, side, depth, n_heads, window, next_order))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return the pooled vectors [W, C] of log-mel spectrograms [W, 1, F, M] in dB."""
        normed = self.bn0(log_mel.transpose(1, 3)).transpose(1, 3)
        hidden = self.patch_embed(self._image(normed).to(self.norm.weight.dtype), self.first_order)
        for stage in self.layers:
            hidden = stage(hidden)
        pooled: Tensor = self.norm(hidden).mean(dim=1)
        return pooled

    def _image(self, normed: Tensor) -> Tensor:
        """Stretch the time axis, fold it, and stack the folds along the axis of mel bins: [W, side, side]."""
        n_mels = normed.shape[-1]
        size = (self.image_size * self.n_folds, n_mels)
        if normed.shape[2] != size[0]:
            # Older versions of torch lack the bicubic stretch on Apple's MPS.
            source = normed.cpu() if normed.device.type == "mps" else normed
            normed = F.interpolate(source, size, mode="bicubic", align_corners=True).to(normed.device)
        return normed.reshape(-1, self.n_folds, self.image_size, n_mels).transpose(2, 3).flatten(1, 2)


class _PatchEmbedding(nn.Module):
    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.proj = nn.Conv2d(1, width, size, size)
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor, order: Tensor) -> Tensor:
        """Return the tokens [W, N, C] of images [W, side, side] in an order [N] of their places, row by row."""
        n_patches = image.shape[-1] // self.size
        patches = image.view(-1, n_patches, self.size, n_patches, self.size).transpose(2, 3).flatten(3).flatten(1, 2)
        # The patches do not overlap, so the convolution is a product.
        weight = self.proj.weight.flatten(1)
        return self.norm(F.linear(patches[:, order], weight, self.proj.bias))  # type: ignore[no-any-return]


class _Stage(nn.Module):
    """Blocks on side by side tokens; the windows of every second one are shifted by half a window."""

    def __init__(self, width: int, side: int, depth: int, n_heads: int, window: int, next_order: Tensor | None) -> None:
        super().__init__()
        shifts = [window // 2 if number % 2 and side > window else 0 for number in range(depth)]
        orders = [_order(side, window, shift) for shift in shifts]
        moves = [None, *(before.argsort()[after] for before, after in itertools.pairwise(orders))]
        self.blocks = nn.ModuleList(
            _Block(width, side, n_heads, window, shift, move) for shift, move in zip(shifts, moves, strict=True)
        )
        self.downsample = None if next_order is None else _Merging(width, orders[-1], next_order)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the tokens [W, N / 4, 2 C] for the next stage, or if there is none [W, N, C], of tokens [W, N, C]."""
        for block in self.blocks:
            hidden = block(hidden)
        return hidden if self.downsample is None else self.downsample(hidden)


class _Block(nn.Module):
    move: Tensor | None  # [N], the places of the tokens of this block's windows in the order of the block before

    def __init__(self, width: int, side: int, n_heads: int, window: int, shift: int, move: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("move", move, persistent=False)
        self.norm1 = nn.LayerNorm(width)
        self.attn = _WindowAttention(width, side, n_heads, window, shift)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, hidden: Tensor) -> Tensor:
        if self.move is not None:
            hidden = hidden.index_select(1, self.move)
        hidden = hidden + self.attn(self.norm1(hidden))
        wide = F.gelu(self.mlp["fc1"](self.norm2(hidden)))
        return hidden + self.mlp["fc2"](wide)  # type: ignore[no-any-return]


class _WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each offset between two tokens."""

    position_index: Tensor  # [L, L], the row of the table for each pair of tokens
    shift_mask: Tensor | None  # [A, 1, L, L]

    def __init__(self, width: int, side: int, n_heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, n_heads))
        rows, columns = torch.arange(window**2) // window, torch.arange(window**2) % window
        offsets = [x[:, None] - x + window - 1 for x in (rows, columns)]
        self.register_buffer("position_index", offsets[0] * (2 * window - 1) + offsets[1], persistent=False)
        mask = _shift_mask(side, window, shift)[:, None] if shift else None
        self.register_buffer("shift_mask", mask, persistent=False)

    def forward(self, normed: Tensor) -> Tensor:
        n_sounds, _, width = normed.shape
        n_tokens = len(self.position_index)
        qkv = self.qkv(normed).view(-1, n_tokens, 3, self.n_heads, width // self.n_heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # each [W A, heads, L, d]
        bias = self.relative_position_bias_table[self.position_index].permute(2, 0, 1)  # [heads, L, L]
        if self.shift_mask is None:
            bias = bias.expand(len(queries), -1, -1, -1)
        else:
            bias = (bias + self.shift_mask).repeat(n_sounds, 1, 1, 1)  # [W A, heads, L, L]
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
        return self.proj(mixed.transpose(1, 2).reshape(normed.shape))  # type: ignore[no-any-return]


class _Merging(nn.Module):
    """Merges each 2 by 2 tokens into one with twice the channels."""

    sources: Tensor  # [N], the places of the tokens of each four

    def __init__(self, width: int, order: Tensor, next_order: Tensor) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        half = int(len(next_order) ** 0.5)
        # msclap takes the four column by column.
        fours = torch.arange(len(order)).view(half, 2, half, 2).permute(0, 2, 3, 1).reshape(-1, 4)
        self.register_buffer("sources", order.argsort()[fours[next_order]].flatten(), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [W, N / 4, 2 C] of [W, N, C]."""
        fours = hidden.index_select(1, self.sources).view(len(hidden), -1, 4 * hidden.shape[-1])
        return self.reduction(self.norm(fours))  # type: ignore[no-any-return]


def _cut(square: Tensor, window: int) -> Tensor:
    """Cut [side, side] into attention windows, [A, L]."""
    n = len(square) // window
    return square.view(n, window, n, window).transpose(1, 2).reshape(n * n, window * window)


def _order(side: int, window: int, shift: int) -> Tensor:
    """Return the places of tokens, counted row by row, in the order of cyclically shifted windows, [N]."""
    return _cut(torch.arange(side**2).view(side, side).roll((-shift, -shift), (0, 1)), window).flatten()


def _shift_mask(side: int, window: int, shift: int) -> Tensor:
    """Return what keeps apart tokens that were not neighbours before the shift, [A, L, L]."""
    place = torch.arange(side)
    part = (place >= side - window).long() + (place >= side - shift).long()
    regions = _cut(3 * part[:, None] + part, window)
    return (regions[:, None] != regions[:, :, None]) * _FAR
