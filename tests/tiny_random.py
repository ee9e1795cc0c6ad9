"""A backbone with random weights, small enough to build in a test, as a folder for `Backbone.load`.

Its encoders and its GPT-2 are untrained, but all parts have the real classes and file formats.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as BpeTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from textcap.config import (
    AudioConfig,
    AudioTowerConfig,
    BackboneConfig,
    ClapConfig,
    LanguageModelConfig,
    MapperConfig,
    TextTowerConfig,
)
from textcap.models.backbone import Backbone
from textcap.models.gpt2 import Gpt2LanguageModel
from textcap.models.mapper import Mapper
from textcap.models.msclap import MsclapAudioEncoder, MsclapTextEncoder
from textcap.models.tokenizer import END_OF_TEXT, Tokenizer

SOUNDS = ("dog", "bell", "car", "bird", "door", "engine", "siren", "child", "kettle", "drum", "train", "horn")
VERBS = ("barks", "rings", "passes", "sings", "slams", "idles", "wails", "laughs", "whistles", "rolls")
PLACES = ("", " in the distance", " nearby", " while rain falls", " and wind blows", " again and again")


def tiny_captions(n_captions: int) -> list[str]:
    """Return distinct captions of different lengths, at most 720."""
    every = [f"a {sound} {verb}{place}" for place in PLACES for verb in VERBS for sound in SOUNDS]
    assert n_captions <= len(every)
    # A step that is coprime to the number of captions visits all of them in mixed order.
    return [every[(i * 271) % len(every)] for i in range(n_captions)]


def tiny_config(vocab_size: int = 320, noise_variance: float = 0.01) -> BackboneConfig:
    """Return the configuration of the backbone that `write_tiny_backbone` writes."""
    return BackboneConfig(
        name="tiny-random",
        clap=ClapConfig(
            audio=AudioConfig(
                sample_rate_hz=8000,
                window_s=1.0,
                hop_s=0.5,
                n_fft=256,
                stft_hop_samples=80,
                n_mels=16,
                mel_rate_hz=8000,
                mel_max_hz=4000.0,
            ),
            audio_tower=AudioTowerConfig(
                spec_size=64, patch_size=4, patch_width=8, depths=(1, 1), n_heads=(1, 2), attention_window=4
            ),
            text_tower=TextTowerConfig(
                n_layers=1, width=16, n_heads=2, n_positions=77, vocab_size=vocab_size, max_tokens=77
            ),
            embedding_width=24,
        ),
        language_model=LanguageModelConfig(n_layers=2, width=16, n_heads=2, n_positions=96, vocab_size=vocab_size),
        mapper=MapperConfig(embedding_width=24, width=16, prefix_length=4, n_layers=1, n_heads=2),
        noise_variance=noise_variance,
    )


def write_tokenizer(folder: Path, vocab_size: int = 320) -> Tokenizer:
    """Train a byte-level BPE on the tiny captions and write `vocab.json` and `merges.txt`."""
    tokenizer = BpeTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tiny_captions(720), trainer)
    vocab = {**tokenizer.get_vocab(), END_OF_TEXT: vocab_size - 1}
    assert len(vocab) == vocab_size
    tokenizer.model.save(str(folder))
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    return Tokenizer.load(folder / "vocab.json", folder / "merges.txt")


def write_tiny_backbone(folder: Path, *, seed: int = 0, noise_variance: float = 0.01) -> Path:
    """Write a complete backbone with random weights and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(noise_variance=noise_variance)
    tokenizer = write_tokenizer(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "audio_encoder": MsclapAudioEncoder(config.clap),
            "text_encoder": MsclapTextEncoder(config.clap, tokenizer),
            "language_model": Gpt2LanguageModel(config.language_model).gpt2,
        }
        with torch.no_grad():  # with GPT-2's small initial weights, the output hardly depends on the prefix
            for parameter in parts["language_model"].parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    for name, module in parts.items():
        tensors = {key: tensor.contiguous() for key, tensor in module.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(config)), encoding="utf-8")
    return folder


def recorded(backbone: Backbone) -> dict[str, Any]:
    """Return what a model folder records about a backbone."""
    clap, language_model = backbone.clap, backbone.language_model_half
    return {
        "backbone": backbone.names.absolute(),
        "clap_hash": clap.content_hash,
        "clap_licence": clap.licence,
        "language_model_hash": language_model.content_hash,
        "language_model_licence": language_model.licence,
    }


def random_mapper(config: MapperConfig) -> Mapper:
    """Return a mapper with random weights, scaled so that different sounds get different captions."""
    torch.manual_seed(0)
    mapper = Mapper(config)
    with torch.no_grad():  # as initialised, the prefix depends on the constants far more than on the embedding
        mapper.spread.weight *= 10
        mapper.constants *= 0.1
        for layer in mapper.layers:
            layer.output.weight *= 3
    return mapper
