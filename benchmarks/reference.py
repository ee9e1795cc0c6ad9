"""The same models in transformers, with msclap's tensors: what textcap is compared with, written without textcap.

Only the mapper is textcap's own, because transformers has none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2LMHeadModel, GPT2Model

from benchmarks.weights import CLAPCAP, Weights
from reference_models import clap_audio_model, gpt2_config
from textcap.config import ClapConfig

Tensors = Mapping[str, Tensor]


class AudioTower:
    """CLAP's audio side: log-mel spectrogram, `ClapAudioModel`, projection.

    Args:
        prefix: Of the side's tensors: "audio_encoder." in CLAP, "clap." in clapcap.
    """

    def __init__(self, config: ClapConfig, tensors: Tensors, prefix: str) -> None:
        self.audio, htsat = config.audio, f"{prefix}base.htsat."
        own = {name.removeprefix(htsat): tensor for name, tensor in tensors.items() if name.startswith(htsat)}
        self.model = clap_audio_model(config, own)
        self.mel = tensors[f"{htsat}logmel_extractor.melW"]  # [n_fft // 2 + 1, M]
        self.window = torch.hann_window(config.audio.n_fft)
        self.project = Projection(tensors, f"{prefix}projection.")

    def read(self, paths: Sequence[Path]) -> Tensor:
        """Return mono sounds at the model's rate that are one window long, `[B, S]`."""
        return torch.from_numpy(np.stack([soundfile.read(path, dtype="float32")[0] for path in paths]))

    @torch.inference_mode()
    def __call__(self, windows: Tensor) -> Tensor:
        """Return the unit-length embeddings `[B, E]` of windows `[B, S]`."""
        hop = self.audio.stft_hop_samples
        spectrum = torch.stft(windows, self.audio.n_fft, hop, window=self.window, return_complex=True)
        power = spectrum.abs().square().transpose(1, 2)  # [B, F, n_fft // 2 + 1]
        log_mel = 10 * torch.log10(torch.clamp(power @ self.mel, min=1e-10))
        return self.project(self.model(input_features=log_mel[:, None]).pooler_output)


class Projection:
    """Projects the output of a tower into CLAP's space, unit length."""

    def __init__(self, tensors: Tensors, prefix: str) -> None:
        names = ("linear1.weight", "linear2.weight", "layer_norm.weight", "layer_norm.bias")
        self.first, self.second, self.scale, self.shift = (tensors[prefix + name] for name in names)

    def __call__(self, pooled: Tensor) -> Tensor:
        """Return embeddings `[B, E]` of the outputs `[B, width]` of a tower."""
        first = F.linear(pooled, self.first)
        summed = first + F.linear(F.gelu(first), self.second)
        return F.normalize(F.layer_norm(summed, summed.shape[-1:], self.scale, self.shift), dim=-1)


class TextTower:
    """CLAP's text side as msclap runs it: all captions padded to the same length."""

    def __init__(self, config: ClapConfig, tensors: Tensors, prefix: str = "caption_encoder.") -> None:
        self.model = GPT2Model(gpt2_config(config.text_tower)).eval()
        load_gpt2(self.model, tensors, f"{prefix}base.")
        self.project = Projection(tensors, f"{prefix}projection.")

    @torch.no_grad()
    def __call__(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the unit-length embeddings `[B, E]` of padded token ids `[B, T]` with their end tokens."""
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        hidden = self.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return self.project(hidden[torch.arange(len(tokens)), lengths - 1])


class Captioner:
    """Audio tower, mapper, and `generate` with five beams."""

    def __init__(self, weights: Weights, n_tokens: int) -> None:
        tensors = weights.tensors(CLAPCAP)
        self.tower = AudioTower(weights.config.clap, tensors, "clap.")
        self.mapper = weights.mapper
        self.gpt2 = GPT2LMHeadModel(gpt2_config(weights.config.language_model)).eval()
        load_gpt2(self.gpt2.transformer, tensors, "gpt.transformer.")
        self.tokenizer, self.n_tokens = weights.clapcap.tokenizer, n_tokens

    @torch.inference_mode()
    def __call__(self, paths: Sequence[Path]) -> list[str]:
        """Return captions of sounds, in one batch."""
        prefixes = self.mapper(self.tower(self.tower.read(paths)))
        # Scores are sums divided by the length, as in textcap; no caption ends before it has all its tokens.
        found = self.gpt2.generate(
            inputs_embeds=prefixes,
            attention_mask=torch.ones(prefixes.shape[:2], dtype=torch.long),
            num_beams=5,
            do_sample=False,
            length_penalty=1.0,
            max_new_tokens=self.n_tokens,
            pad_token_id=0,
        )
        return [" ".join(self.tokenizer.decode(ids).capitalize().split()) for ids in found.tolist()]


def load_gpt2(model: GPT2Model, tensors: Tensors, prefix: str) -> None:
    """Load tensors of GPT-2 whose names have a prefix."""
    model.load_state_dict({name: tensors[prefix + name] for name in model.state_dict()})
