"""Tests of the embedded backbone: it is small enough to ship, and good enough on its sound world to show the method."""

from pathlib import Path

import numpy as np
import pytest
import torch

from textcap.demo.folder import RATE_HZ, Clip, held_out_clips
from textcap.demo.grammar import event_f1, word_scene
from textcap.demo.render import render_scene
from textcap.demo.scenes import sample_scene
from textcap.models.backbone import Backbone
from textcap.models.gpt2 import Gpt2LanguageModel
from textcap.models.tokenizer import Tokenizer
from textcap.weights import embedded_folder

_N_PAIRS = 500


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.load("tiny")


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return held_out_clips(_N_PAIRS // 2, _N_PAIRS // 2, seed=20_000_000)


@pytest.fixture(scope="module")
def embeddings(backbone: Backbone, clips: list[Clip]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return audio and text embeddings `[N, E]` of the clips, in the same order."""
    encoder = backbone.audio_encoder()
    windows = torch.from_numpy(np.stack([render_scene(c.scene, c.sound_seed, RATE_HZ) for c in clips]))
    with torch.inference_mode():
        audio = torch.cat([encoder(part) for part in windows.split(50)])
    return audio, backbone.text_encoder().encode([clip.captions[0] for clip in clips])


def test_embedded_files_are_complete_and_small() -> None:
    folder = embedded_folder()
    sizes = {path.name: path.stat().st_size for path in Path(str(folder)).iterdir()}
    assert set(sizes) == {
        "README.md",
        "audio_encoder.safetensors",
        "config.json",
        "language_model.safetensors",
        "merges.txt",
        "text_encoder.safetensors",
        "vocab.json",
    }
    assert sum(sizes.values()) <= 10_000_000


def test_end_token_has_the_last_id(backbone: Backbone) -> None:
    assert backbone.tokenizer.end_id == backbone.config.language_model.vocab_size - 1


def test_towers_find_the_caption_of_a_sound(embeddings: tuple[torch.Tensor, torch.Tensor]) -> None:
    audio, text = embeddings
    scores = audio @ text.T
    better = (scores > scores.diagonal()[:, None]).sum(1)  # number of captions nearer to the sound than its own
    assert (better < 1).float().mean() >= 0.85
    assert (better < 10).float().mean() >= 0.95


def test_towers_leave_a_modality_gap_of_which_half_is_a_shift(
    backbone: Backbone, embeddings: tuple[torch.Tensor, torch.Tensor]
) -> None:
    audio, text = embeddings
    cosine = (audio * text).sum(1).mean()
    assert 0.5 < cosine <= 0.6
    shift = (audio.mean(0) - text.mean(0)).square().sum() / (audio - text).square().sum(1).mean()
    assert 0.4 < shift < 0.6
    # The means of the config centre other pairs as well.
    means = torch.tensor(backbone.config.mean_sound), torch.tensor(backbone.config.mean_text)
    left = (audio.mean(0) - means[0]) - (text.mean(0) - means[1])
    assert left.norm() < 0.15 < 0.5 < (audio.mean(0) - text.mean(0)).norm()


def test_language_model_names_the_sounds_in_its_context(backbone: Backbone) -> None:
    model, tokenizer = backbone.language_model(), backbone.tokenizer
    rng = np.random.default_rng(20_000_001)
    scenes = [sample_scene(rng, unseen=i % 2 == 0) for i in range(60)]
    captions = [
        _continue(model, tokenizer.encode([f"rewrite: {word_scene(scene, rng)}. caption: "])[0], tokenizer)
        for scene in scenes
    ]
    assert event_f1(captions, scenes).f1 > 0.9


def _continue(model: Gpt2LanguageModel, tokens: list[int], tokenizer: Tokenizer) -> str:
    """Return the greedy continuation of a sequence of tokens, decoded."""
    state, logits = model.start(model.gpt2.wte(torch.tensor([tokens])))
    generated: list[int] = []
    while len(generated) < 40 and (token := int(logits.argmax())) != tokenizer.end_id:
        generated.append(token)
        state, logits = model.advance(state, torch.tensor([0]), torch.tensor([token]))
    return tokenizer.decode(generated)
