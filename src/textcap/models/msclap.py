"""msclap's CLAP of 2023: its projections, its text tower, and where its tensors are in msclap's checkpoints.

Letters: N captions, B batch, T tokens, E embedding width.
"""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textcap.config import ClapConfig
from textcap.errors import InputError
from textcap.models.clap import AudioEncoder, ClapHalf, TextEncoder
from textcap.models.gpt2_transformer import Gpt2, attend_to, causal
from textcap.models.loading import Checkpoint, TensorSource, load_exact
from textcap.models.tokenizer import Tokenizer
from textcap.models.weight_files import WeightFiles, load_own

_logger = logging.getLogger("textcap")


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


class MsclapAudioEncoder(AudioEncoder):
    """The audio encoder of msclap's CLAP."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__(config, Projection(config.audio_tower.width, config.embedding_width))


class MsclapTextEncoder(TextEncoder):
    """CLAP's text encoder: GPT-2, pooled at the last token, and projection."""

    def __init__(self, config: ClapConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config)
        self.tokenizer = tokenizer
        self.tower = Gpt2(config.text_tower)
        self.projection = Projection(config.text_tower.width, config.embedding_width)

    def tokenize(self, captions: list[str]) -> list[list[int]]:
        """Return the token ids of each caption, the end token last."""
        return self.tokenizer.encode_for_clap(captions, self.config.text_tower.max_tokens)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed tokenised captions, see `TextEncoder.forward`.

        Attention is causal and padding is on the right, so padding has no effect and needs no mask. The position to
        pool is taken from the length; msclap counts ids other than 0, but id 0 is the token "!".
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


def load_audio_encoder(
    config: ClapConfig, checkpoint: Checkpoint, prefix: str = "audio_encoder."
) -> MsclapAudioEncoder:
    """Build the frozen audio encoder from an msclap checkpoint.

    If the file lacks a buffer of the front end, the buffer is computed as in msclap and listed in `checkpoint.absent`.

    Args:
        prefix: "audio_encoder." in the CLAP checkpoint, "clap." in the clapcap checkpoint.

    Raises:
        CheckpointError: A tensor is missing or has another shape; the message names it.
    """
    return load_exact(MsclapAudioEncoder(config), checkpoint, lambda ours: _audio_source(ours, prefix))


def load_text_encoder(
    config: ClapConfig, checkpoint: Checkpoint, tokenizer: Tokenizer, prefix: str = "caption_encoder."
) -> MsclapTextEncoder:
    """Build the frozen text encoder from an msclap CLAP checkpoint.

    Args:
        prefix: The prefix of the encoder's tensor names in the checkpoint.

    Raises:
        CheckpointError: A tensor is missing or has another shape; the message names it.
    """
    encoder = MsclapTextEncoder(config, tokenizer)
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


class MsclapHalf(ClapHalf):
    """The CLAP of a named backbone, or of a folder with the same files as the built-in one."""

    def __init__(self, name: str, config: ClapConfig, files: WeightFiles) -> None:
        self.name, self.config, self._files = name, config, files
        self.licence, self.has_text = files.kind.licences[0], files.kind.text_encoder is not None

    def _hash(self) -> str:
        kind = self._files.kind
        return self._files.content_hash([kind.audio_encoder, kind.text_encoder], self.config)

    def audio_encoder(self) -> AudioEncoder:
        """Return the audio encoder, see `ClapHalf`."""
        config, part = self.config, self._files.kind.audio_encoder

        def load(checkpoint: Checkpoint) -> AudioEncoder:
            if not self._files.kind.is_msclap:
                return load_own(lambda: MsclapAudioEncoder(config), checkpoint)
            encoder = load_audio_encoder(config, checkpoint, part.prefix)
            for name in sorted(checkpoint.absent):
                if "extractor" in name:
                    _logger.warning("%s lacks %s, which is computed as in msclap instead", checkpoint.path, name)
            return encoder

        return self._files.load(part, config.audio_tower.least_parameters, load)

    def text_encoder(self) -> TextEncoder:
        """Return the text encoder, see `ClapHalf`."""
        config, part = self.config, self._files.kind.text_encoder
        if part is None:
            problem = f"{self.name} has no text encoder, so no model can be trained on it"
            raise InputError(problem, hint="use msclap-2023")
        tokenizer = self._files.tokenizer(config.text_tower.vocab_size)

        def load(checkpoint: Checkpoint) -> TextEncoder:
            if self._files.kind.is_msclap:
                return load_text_encoder(config, checkpoint, tokenizer, part.prefix)
            return load_own(lambda: MsclapTextEncoder(config, tokenizer), checkpoint)

        return self._files.load(part, config.text_tower.n_parameters, load)
