"""transformers' models of the sizes of ours: what ours are compared with, in tests and benchmarks."""

from collections.abc import Mapping

from torch import Tensor
from transformers import ClapAudioConfig, ClapAudioModel, GPT2Config

from textcap.config import ClapConfig, LanguageModelConfig

# Parts of the audio tower's tensor names: transformers' -> msclap's. The first that occurs is replaced.
_PARTS = {
    "batch_norm.": "bn0.",
    "attention.output.dense.": "attn.proj.",
    "attention.self.relative_position": "attn.relative_position",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
}
_QKV = ("query", "key", "value")


def gpt2_config(sizes: LanguageModelConfig) -> GPT2Config:
    """Return transformers' configuration of a GPT-2."""
    return GPT2Config(
        n_layer=sizes.n_layers,
        n_embd=sizes.width,
        n_head=sizes.n_heads,
        n_positions=sizes.n_positions,
        vocab_size=sizes.vocab_size,
        bos_token_id=None,
        eos_token_id=None,
    )


def clap_audio_model(config: ClapConfig, tensors: Mapping[str, Tensor]) -> ClapAudioModel:
    """Return transformers' audio tower with the given tensors under msclap's names, without a prefix."""
    tower = config.audio_tower
    model = ClapAudioModel(
        ClapAudioConfig(
            num_mel_bins=config.audio.n_mels,
            spec_size=tower.spec_size,
            patch_size=tower.patch_size,
            patch_stride=[tower.patch_size, tower.patch_size],
            patch_embeds_hidden_size=tower.patch_width,
            hidden_size=tower.width,
            depths=list(tower.depths),
            num_attention_heads=list(tower.n_heads),
            window_size=tower.attention_window,
            enable_fusion=False,
        )
    ).eval()
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith(("relative_position_index", "num_batches_tracked")):
            continue
        ours, third = _msclap_name(name)
        tensor.copy_(tensors[ours] if third is None else tensors[ours].chunk(3)[third])
    return model


def _msclap_name(name: str) -> tuple[str, int | None]:
    """Return msclap's name for a tensor of `ClapAudioModel`, and which third of that tensor it is, if not all."""
    name = name.removeprefix("audio_encoder.")
    for third, part in enumerate(_QKV):
        if f"attention.self.{part}." in name:
            return name.replace(f"attention.self.{part}.", "attn.qkv."), third
    for theirs, ours in _PARTS.items():
        if theirs in name:
            return name.replace(theirs, ours), None
    return name, None
