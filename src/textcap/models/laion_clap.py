"""LAION's CLAP in transformers' form, without fusion: HTSAT, and RoBERTa as transformers runs it.

The front end is ours with the numbers of its preprocessor: transformers' own crops long sounds at random. Letters:
B batch, T tokens, E embedding width.
"""

import re
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textcap.config import PADDINGS, AudioConfig, AudioTowerConfig, ClapConfig, TextTowerConfig
from textcap.errors import CheckpointError
from textcap.models.clap import AudioEncoder, ClapHalf, TextEncoder
from textcap.models.hub_folder import HubFolder
from textcap.models.loading import Checkpoint, TensorSource, load_exact, read_checkpoint

# What the audio tower has that ours runs.
_PLAIN = {
    "hidden_act": "gelu",
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "layer_norm_eps": 1e-5,
    "patch_embed_input_channels": 1,
    "enable_patch_layer_norm": True,
}
# Parts of the tower's tensor names: ours, and those of transformers.
_NAMES = (
    (r"^bn0\.", "batch_norm."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


class _Projection(nn.Module):
    def __init__(self, width: int, embedding_width: int, activation: str) -> None:
        from transformers.activations import ACT2FN

        super().__init__()
        self.linear1 = nn.Linear(width, embedding_width)
        self.linear2 = nn.Linear(embedding_width, embedding_width)
        self.activation = ACT2FN[activation]

    def forward(self, pooled: Tensor) -> Tensor:
        return self.linear2(self.activation(self.linear1(pooled)))  # type: ignore[no-any-return]


class _RobertaEncoder(TextEncoder):
    """RoBERTa, pooled at its first token, and a projection."""

    def __init__(self, config: ClapConfig, model: Any, tokenizer: Any) -> None:
        super().__init__(config)
        self.model, self._tokenizer = model, tokenizer

    def tokenize(self, captions: list[str]) -> list[list[int]]:
        """Return the token ids of each caption, between the two special tokens."""
        most = self.config.text_tower.max_tokens
        if not captions:
            return []
        rows: list[list[int]] = self._tokenizer(captions, truncation=True, max_length=most)["input_ids"]
        return rows

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed tokenised captions, see `TextEncoder.forward`."""
        is_token = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # [B, T]
        return F.normalize(self.model(tokens, attention_mask=is_token.long()).text_embeds, dim=-1)


class LaionClapHalf(ClapHalf):
    """A `ClapModel` in a folder."""

    def __init__(self, folder: HubFolder) -> None:
        from transformers import ClapConfig as TheirConfig
        from transformers import ClapFeatureExtractor

        self.name, self.licence, self._folder = folder.name, folder.licence, folder
        with self._refusing():
            self._theirs = TheirConfig.from_pretrained(folder.path, local_files_only=True)
            sound = ClapFeatureExtractor.from_pretrained(folder.path, local_files_only=True)
        tower, text = self._theirs.audio_config, self._theirs.text_config
        if tower.enable_fusion:
            problem = "fuses several views of a sound, some of them drawn at random, which textcap cannot run"
            hint = "use a CLAP without fusion, such as laion/clap-htsat-unfused"
            raise CheckpointError(f"{self.name} {problem}", hint=hint)
        differing = [name for name, plain in _PLAIN.items() if getattr(tower, name, plain) != plain]
        stride = [tower.patch_size] * 2
        usual = list(tower.patch_stride) == stride and sound.padding in PADDINGS and sound.truncation == "rand_trunc"
        if differing or not usual:
            what = ", ".join(differing) or "patch_stride, padding or truncation"
            raise CheckpointError(f"{self.name} differs from LAION's CLAP in {what}", hint="use msclap-2023")
        with self._refusing():
            self.config = ClapConfig(
                audio=AudioConfig(
                    sample_rate_hz=sound.sampling_rate,
                    window_s=float(sound.max_length_s),
                    hop_s=sound.max_length_s / 2,
                    n_fft=sound.fft_window_size,
                    stft_hop_samples=sound.hop_length,
                    n_mels=sound.feature_size,
                    mel_rate_hz=sound.sampling_rate,
                    mel_min_hz=float(sound.frequency_min),
                    mel_max_hz=float(sound.frequency_max),
                    padding=sound.padding,
                ),
                audio_tower=AudioTowerConfig(
                    spec_size=tower.spec_size,
                    patch_size=tower.patch_size,
                    patch_width=tower.patch_embeds_hidden_size,
                    depths=tuple(tower.depths),
                    n_heads=tuple(tower.num_attention_heads),
                    attention_window=tower.window_size,
                ),
                text_tower=TextTowerConfig(
                    n_layers=text.num_hidden_layers,
                    width=text.hidden_size,
                    n_heads=text.num_attention_heads,
                    n_positions=text.max_position_embeddings,
                    vocab_size=text.vocab_size,
                    max_tokens=text.max_position_embeddings - text.pad_token_id - 1,  # positions start after padding's
                ),
                embedding_width=self._theirs.projection_dim,
            )

    def _hash(self) -> str:
        return self._folder.content_hash

    def audio_encoder(self) -> AudioEncoder:
        """Return the audio encoder, see `ClapHalf`."""
        config, checkpoint = self.config, self._checkpoint
        activation = self._theirs.audio_config.projection_hidden_act
        projection = _Projection(config.audio_tower.width, config.embedding_width, activation)
        return load_exact(AudioEncoder(config, projection), checkpoint, _audio_source)

    def text_encoder(self) -> TextEncoder:
        """Return the text encoder, see `ClapHalf`."""
        from transformers import AutoTokenizer, ClapTextModelWithProjection

        with self._refusing():
            tokenizer = AutoTokenizer.from_pretrained(self._folder.path, local_files_only=True, trust_remote_code=False)
            model = ClapTextModelWithProjection(self._theirs.text_config)
        computed = (".position_ids", ".token_type_ids")
        load_exact(model, self._checkpoint, lambda name: TensorSource(name, optional=name.endswith(computed)))
        return _RobertaEncoder(self.config, model, tokenizer).eval()

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        path, *more = self._folder.weights
        if more:
            problem = "has several weight files, but must have one"
            raise CheckpointError(f"{self.name} {problem}", hint="save it as one file")
        checkpoint = read_checkpoint(path)
        names = [name for name in checkpoint.tensors if name.endswith("attention.self.query.weight")]
        joined = dict(checkpoint.tensors)
        for name in names:  # ours is one product for queries, keys and values
            for kind in ("weight", "bias"):
                parts = [name.replace("query.weight", f"{part}.{kind}") for part in ("query", "key", "value")]
                if name.startswith("audio_model.") and all(part in joined for part in parts):
                    joined[name.replace("query.weight", f"qkv.{kind}")] = torch.cat([joined[part] for part in parts])
        return Checkpoint(checkpoint.path, joined)

    def _refusing(self) -> AbstractContextManager[None]:
        return self._folder.refusing("is not a CLAP that can be read", "use a CLAP of LAION, with all of its files")


def open_half(folder: HubFolder) -> LaionClapHalf:
    """Return the CLAP in a folder.

    Raises:
        CheckpointError: It has fusion, or cannot be read.
    """
    return LaionClapHalf(folder)


def _audio_source(ours: str) -> TensorSource:
    """Return the place in a checkpoint of transformers of the tensor that our encoder calls `ours`."""
    if ours.startswith("front_end."):
        return TensorSource(ours, optional=True)  # computed, as transformers does
    if not ours.startswith("tower."):
        return TensorSource(f"audio_{ours}")
    name = ours.removeprefix("tower.")
    for pattern, theirs in _NAMES:
        name = re.sub(pattern, theirs, name)
    return TensorSource(f"audio_model.audio_encoder.{name}", optional=name.endswith("num_batches_tracked"))
