"""Small models with random weights in the form of the hub's repositories, written by transformers itself.

Language models of several families with tokenizers trained here, and a CLAP like LAION's.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from tiny_random import tiny_captions, write_tokenizer

N_ABSENT = 5  # rows of a vocabulary that the tokenizer lacks, as in padded embeddings
UNKNOWN, START, END, TURN = "<unk>", "<s>", "</s>", "<end_of_turn>"
END_OF_TEXT = "<|endoftext|>"


def save_byte_level(folder: Path) -> PreTrainedTokenizerFast:
    """Write a byte-level BPE that puts nothing before a text, like those of Qwen and GPT-NeoX."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(tiny_captions(300), trainer)
    tokenizer.add_special_tokens([END_OF_TEXT, TURN])
    return _save(tokenizer, folder, eos_token=END_OF_TEXT)


def save_metaspace(folder: Path) -> PreTrainedTokenizerFast:
    """Write a BPE with spaces as part of words and bytes for unknown characters, and a first token before all text.

    Its vocabulary is that of a SentencePiece model: special tokens, bytes, pieces.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(tiny_captions(300), trainers.BpeTrainer(vocab_size=70, show_progress=False))
    trained = json.loads(tokenizer.to_str())["model"]
    pieces = [UNKNOWN, START, END, TURN, *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    merges = [tuple(pair) for pair in trained["merges"]]
    vocab = {piece: id_ for id_, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(f"{START} $A", f"{START} $A {START} $B", [(START, 1)])
    tokenizer.add_special_tokens([UNKNOWN, START, END, TURN])
    return _save(tokenizer, folder, bos_token=START, eos_token=END, unk_token=UNKNOWN)


def _save(tokenizer: Tokenizer, folder: Path, **special: str) -> PreTrainedTokenizerFast:
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    saved.save_pretrained(folder)
    return saved


_ROTARY: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_FEWER_KEYS = {**_ROTARY, "num_key_value_heads": 2}
_SIZES_OF_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}

# Of each family what its tokenizer is like, and its configuration from the size of the vocabulary.
FAMILIES: dict[str, tuple[Callable[[Path], Any], Callable[..., Any]]] = {
    "llama": (save_metaspace, lambda **ids: LlamaConfig(**_FEWER_KEYS, **ids)),
    "qwen2": (
        save_byte_level,
        # Windows shorter than a prefix, in the second layer.
        lambda **ids: Qwen2Config(**_FEWER_KEYS, **ids, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    ),
    "qwen3": (save_byte_level, lambda **ids: Qwen3Config(**_FEWER_KEYS, **ids, head_dim=6, tie_word_embeddings=True)),
    "gpt_neox": (save_byte_level, lambda **ids: GPTNeoXConfig(**_ROTARY, **ids)),
    "opt": (
        save_metaspace,
        lambda **ids: OPTConfig(
            hidden_size=16,
            word_embed_proj_dim=12,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            **ids,
        ),
    ),
    "gemma3_text": (
        save_metaspace,
        lambda eos_token_id, **ids: Gemma3TextConfig(
            **_FEWER_KEYS,
            **ids,
            eos_token_id=[eos_token_id, 3],
            head_dim=6,
            query_pre_attn_scalar=6,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
        ),
    ),
}


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Make all tensors random and large: with initial weights, the output hardly depends on the prefix."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)  # vectors start as zeros or ones
    return model.eval()


def save_language_model(folder: Path, family: str, *, seed: int = 0, **saving: Any) -> Path:
    """Write a small language model of a family, with its tokenizer.

    Args:
        saving: Options of `save_pretrained`.
    """
    save_tokenizer, make_config = FAMILIES[family]
    tokenizer = save_tokenizer(folder)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": 0}
    config = make_config(vocab_size=len(tokenizer) + N_ABSENT, **ids)
    randomise(AutoModelForCausalLM.from_config(config), seed).save_pretrained(folder, **saving)
    return folder


def save_gpt2(folder: Path, *, seed: int = 0, n_absent: int = 0, **changes: Any) -> Path:
    """Write a small GPT-2 with the files that its tokenizer has on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "model_max_length": 64}')
    end = tokenizer.end_id
    config = GPT2Config(
        **{**_SIZES_OF_GPT2, **changes}, vocab_size=end + 1 + n_absent, bos_token_id=end, eos_token_id=end
    )
    randomise(AutoModelForCausalLM.from_config(config), seed).save_pretrained(folder)
    return folder


def save_roberta_tokenizer(folder: Path) -> int:
    """Write a small tokenizer in the form of RoBERTa's, and return the size of its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[START, "<pad>", END, UNKNOWN, "<mask>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(tiny_captions(300), trainer)
    tokenizer.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}')
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def save_clap(folder: Path, *, seed: int = 0) -> Path:
    """Write a small CLAP without fusion, with RoBERTa's tokenizer and the preprocessor of sounds."""
    text = {
        "vocab_size": save_roberta_tokenizer(folder),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 24,
        "pad_token_id": 1,
    }
    sound = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [2, 2],
        "num_attention_heads": [2, 4],
        "window_size": 4,
        "enable_fusion": False,
    }
    config = ClapConfig(text_config=text, audio_config=sound, projection_dim=20)
    randomise(ClapModel(config), seed).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=8000,
        hop_length=320,
        max_length_s=10,
        fft_window_size=512,
        frequency_min=50,
        frequency_max=4000,
        truncation="rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change values in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
