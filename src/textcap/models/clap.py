"""What textcap uses of a CLAP: an encoder of sound and one of captions, which share one space of embeddings.

`msclap` and `laion_clap` load them; what both have of the audio side is here. `textcap.audio` decodes sound files and
cuts them into windows. Letters: N captions, W windows, S samples, F frames, M mel bins, E embedding width.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textcap.config import AudioConfig, ClapConfig
from textcap.errors import CheckpointError
from textcap.models.htsat import Htsat
from textcap.models.hub_folder import HubFolder
from textcap.models.weight_files import Half

_MOST_WINDOWS = 256  # at once; CUDA's attention takes 65,535 attention windows, and a window of sound has 64 or more
_KINDS = {"clap": "textcap.models.laion_clap"}  # by the model type of config.json
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


class AudioEncoder(nn.Module):
    """CLAP's audio encoder: front end, HTSAT and projection."""

    def __init__(self, config: ClapConfig, projection: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.front_end = FrontEnd(config.audio)
        self.tower = Htsat(config.audio_tower, config.audio.n_mels)
        self.projection = projection

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


class TextEncoder(nn.Module, ABC):
    """CLAP's text encoder: a tower and a projection."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def tokenize(self, captions: list[str]) -> list[list[int]]:
        """Return the token ids of each caption as the tower takes them, cut to its most tokens."""

    @abstractmethod
    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed tokenised captions.

        Args:
            tokens: `[B, T]`, int64, each row followed by any padding, which has no effect.
            lengths: `[B]`, int64, tokens of each row without the padding.

        Returns:
            `[B, E]`, unit length.
        """

    @torch.inference_mode()
    def encode(self, captions: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Embed captions, in batches of similar length.

        Args:
            batch_size: Captions embedded at once.

        Returns:
            `[N, E]`, float32, unit length, on the CPU, in the order of the captions.
        """
        rows = self.tokenize(list(captions))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        device = next(self.parameters()).device
        embeddings = torch.empty(len(rows), self.config.embedding_width)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            lengths = torch.tensor([len(rows[i]) for i in batch])
            padded = torch.zeros(len(batch), int(lengths.max()), dtype=torch.int64)
            for row, i in enumerate(batch):
                padded[row, : len(rows[i])] = torch.tensor(rows[i])
            embeddings[batch] = self(padded.to(device), lengths.to(device)).float().cpu()
        return embeddings


class ClapHalf(Half, ABC):
    """A CLAP on disk, whose encoders are loaded when they are needed.

    Attributes:
        config: The sizes of its parts.
        has_text: Whether it has a text encoder.
    """

    config: ClapConfig
    has_text: bool = True

    @abstractmethod
    def audio_encoder(self) -> AudioEncoder:
        """Return the audio encoder, frozen, on the CPU.

        Raises:
            CheckpointError: A tensor is missing, has another shape, or is damaged; the message names it.
        """

    @abstractmethod
    def text_encoder(self) -> TextEncoder:
        """Return the text encoder, frozen, on the CPU.

        Raises:
            CheckpointError: As for the audio encoder.
            InputError: There is none.
        """


def open_clap(name: str, folder: Path) -> ClapHalf:
    """Return the CLAP in a folder of transformers' form.

    Raises:
        CheckpointError: The folder has no CLAP of a known kind.
    """
    hub = HubFolder(name, folder)
    if hub.model_type not in _KINDS:
        problem = f"is of the type {hub.model_type!r}, but must be one of {', '.join(_KINDS)}"
        raise CheckpointError(f"the CLAP {name} {problem}", hint="use laion/clap-htsat-unfused, or msclap-2023")
    half: ClapHalf = import_module(_KINDS[hub.model_type]).open_half(hub)
    return half


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
