"""The two CLAP encoders, which turn windows of sound and captions into unit-length embeddings.

This module finds their tensors in msclap's checkpoints. `textcap.audio` decodes sound files and cuts them into windows.
Letters: N captions, W windows, S samples, F frames, M mel bins, E embedding width.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textcap.config import AudioConfig, ClapConfig
from textcap.models.gpt2 import Gpt2, attend_to, causal
from textcap.models.htsat import Htsat
from textcap.models.loading import Checkpoint, TensorSource, load_exact
from textcap.models.tokenizer import Tokenizer

_MOST_WINDOWS = 256  # at once; CUDA's attention takes 65,535 attention windows, and a window of sound has 64 or more
_POWER_FLOOR = 1e-10  # -100 dB; msclap calls it amin


class FrontEnd(nn.Module):
    """Computes msclap's log-mel spectrogram, with the window and the mel matrix from the checkpoint."""

    window: Tensor  # [n_fft]
    mel: Tensor  # [n_fft // 2 + 1, M]

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.n_fft))
        self.register_buffer("mel", mel_matrix(config))

    def forward(self, windows: Tensor) -> Tensor:
        """Return the log-mel spectrogram `[W, 1, F, M]` in dB of windows `[W, S]` in the range -1 to 1."""
        spectrum = torch.stft(
            windows,
            self.config.n_fft,
            self.config.stft_hop_samples,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1).transpose(1, 2)  # [W, F, n_fft // 2 + 1]
        return 10 * torch.log10(torch.clamp(power @ self.mel, min=_POWER_FLOOR))[:, None]


class Projection(nn.Module):
    """Projects the output of a tower into the shared space; the result is not unit length."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, embedding_width, bias=False)
        self.linear2 = nn.Linear(embedding_width, embedding_width, bias=False)
        self.layer_norm = nn.LayerNorm(embedding_width)

    def forward(self, pooled: Tensor) -> Tensor:
        """Project pooled tower outputs `[B, width]` to `[B, E]`."""
        first = self.linear1(pooled)
        return self.layer_norm(first + self.linear2(F.gelu(first)))  # type: ignore[no-any-return]


class AudioEncoder(nn.Module):
    """CLAP's audio encoder: front end, HTSAT and projection."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.config = config
        self.front_end = FrontEnd(config.audio)
        self.tower = Htsat(config.audio_tower, config.audio.n_mels)
        self.projection = Projection(config.audio_tower.width, config.embedding_width)

    def compute_in(self, dtype: torch.dtype) -> "AudioEncoder":
        """Let the tower compute in a type; the spectrogram, its normalisation and the projection stay in float32."""
        self.tower.to(dtype)
        self.tower.bn0.float()
        return self

    def forward(self, windows: Tensor) -> Tensor:
        """Embed windows.

        Args:
            windows: `[W, S]` with values from -1 to 1, where S is the window length of the configuration.

        Returns:
            `[W, E]`, unit length.
        """
        n_at_once = _MOST_WINDOWS
        if windows.device.type == "cpu":
            n_at_once = self.config.audio_tower.n_in_cache * torch.get_num_threads()
        return torch.cat([self.embed_log_mel(self.front_end(part)) for part in windows.split(n_at_once)])

    def embed_log_mel(self, log_mel: Tensor) -> Tensor:
        """Return the unit-length embeddings `[W, E]` of log-mel spectrograms `[W, 1, F, M]` in dB."""
        pooled = self.tower(log_mel).to(log_mel.dtype)  # [W, width]
        return F.normalize(self.projection(pooled), dim=-1)


class TextEncoder(nn.Module):
    """CLAP's text encoder: GPT-2, pooled at the last token, and projection."""

    def __init__(self, config: ClapConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.tower = Gpt2(config.text_tower)
        self.projection = Projection(config.text_tower.width, config.embedding_width)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed tokenised captions.

        Attention is causal and padding is on the right, so padding has no effect and needs no mask. The position to
        pool is taken from the length; msclap counts ids other than 0, but id 0 is the token "!".

        Args:
            tokens: `[B, T]`, int64, each row with the end token last, followed by any padding.
            lengths: `[B]`, int64, tokens of each row including the end token but not the padding.

        Returns:
            `[B, E]`, unit length.
        """
        return F.normalize(self.projection(self.pooled(tokens, lengths)), dim=-1)

    def pooled(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the tower's outputs `[B, width]` at the last tokens, before the projection."""
        is_token = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # [B, T]
        rows = torch.arange(len(tokens), device=tokens.device)

        def attend(_: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            if queries.shape[-2] == keys.shape[-2]:
                return causal(queries, keys, values)
            return attend_to(queries, keys, values, is_token[:, None, None])

        hidden: Tensor = self.tower(self.tower.wte(tokens), attend, pick=lambda x: x[rows, lengths - 1][:, None])
        return hidden[:, 0]

    @torch.inference_mode()
    def encode(self, captions: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Embed captions, in batches of similar length.

        Args:
            batch_size: Captions embedded at once.

        Returns:
            `[N, E]`, float32, unit length, on the CPU, in the order of the captions.
        """
        rows = self.tokenizer.encode_for_clap(list(captions), self.config.text_tower.max_tokens)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        device = self.projection.linear1.weight.device
        embeddings = torch.empty(len(rows), self.config.embedding_width)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            lengths = torch.tensor([len(rows[i]) for i in batch])
            padded = torch.full((len(batch), int(lengths.max())), self.tokenizer.end_id)
            for row, i in enumerate(batch):
                padded[row, : len(rows[i])] = torch.tensor(rows[i])
            embeddings[batch] = self(padded.to(device), lengths.to(device)).float().cpu()
        return embeddings


def load_audio_encoder(config: ClapConfig, checkpoint: Checkpoint, prefix: str = "audio_encoder.") -> AudioEncoder:
    """Build the frozen audio encoder from an msclap checkpoint.

    If the file lacks a buffer of the front end, the buffer is computed as in msclap and listed in `checkpoint.absent`.

    Args:
        prefix: "audio_encoder." in the CLAP checkpoint, "clap." in the clapcap checkpoint.

    Raises:
        CheckpointError: A tensor is missing or has another shape; the message names it.
    """
    return load_exact(AudioEncoder(config), checkpoint, lambda ours: _audio_source(ours, prefix))


def load_text_encoder(
    config: ClapConfig, checkpoint: Checkpoint, tokenizer: Tokenizer, prefix: str = "caption_encoder."
) -> TextEncoder:
    """Build the frozen text encoder from an msclap CLAP checkpoint.

    Args:
        prefix: The prefix of the encoder's tensor names in the checkpoint.

    Raises:
        CheckpointError: A tensor is missing or has another shape; the message names it.
    """
    encoder = TextEncoder(config, tokenizer)
    return load_exact(encoder, checkpoint, lambda ours: TensorSource(prefix + ours.replace("tower.", "base.", 1)))


def _audio_source(ours: str, prefix: str) -> TensorSource:
    """Return the place in an msclap checkpoint of the tensor that our encoder calls `ours`."""
    htsat = f"{prefix}base.htsat."
    if ours == "front_end.mel":
        return TensorSource(f"{htsat}logmel_extractor.melW", optional=True)
    if ours == "front_end.window":
        # Recover the window from the Fourier kernels: they are cosines times the window, and cos(0) is 1.
        kernels = f"{htsat}spectrogram_extractor.stft.conv_real.weight"
        return TensorSource(kernels, lambda kernel: kernel[0, 0], optional=True)
    if not ours.startswith("tower."):
        return TensorSource(prefix + ours)
    return TensorSource(htsat + ours.removeprefix("tower."), optional=ours.endswith("num_batches_tracked"))


def mel_matrix(config: AudioConfig) -> Tensor:
    """Return the filters of Slaney's mel scale with equal areas, `[n_fft // 2 + 1, M]`, as librosa computes them."""
    corner_hz, corner_mel, step = 1000.0, 15.0, math.log(6.4) / 27  # linear below the corner, logarithmic above

    def to_mel(hz: float) -> float:
        return corner_mel + math.log(hz / corner_hz) / step if hz >= corner_hz else hz * corner_mel / corner_hz

    mels = np.linspace(to_mel(config.mel_min_hz), to_mel(config.mel_max_hz), config.n_mels + 2)
    above = corner_hz * np.exp(np.maximum(mels - corner_mel, 0) * step)
    edges = np.where(mels >= corner_mel, above, mels * corner_hz / corner_mel)  # in Hz, [M + 2]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    hz = np.linspace(0, config.mel_rate_hz // 2, config.n_fft // 2 + 1)[:, None]
    triangles = np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle))
    return torch.from_numpy(np.maximum(triangles, 0) * 2 / (high - low)).float()
