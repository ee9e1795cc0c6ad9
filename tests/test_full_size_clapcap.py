"""Captioning at full size: captions are equal to those of msclap's captioner on the same weights."""

import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from full_size import (
    STOP_TOKEN,
    clapcap_tensors,
    import_msclap,
    load_msclap,
    make_backbone,
    save_pth,
    write_sound,
    write_tokenizer,
)
from test_verify import assert_verify_finds
from textcap.audio.windows import read_windows
from textcap.captioner import Captioner
from textcap.config import BridgeConfig, DecodingConfig
from textcap.errors import CheckpointError
from textcap.gap.bridge import Bridge
from textcap.models.beam_search import beam_search
from textcap.models.gpt2 import load_gpt2
from textcap.models.loading import Checkpoint
from textcap.models.mapper import load_clapcap_mapper
from textcap.models.weight_files import CLAPCAP, kind_of

END_TOKEN_ID = kind_of(CLAPCAP).end_token_id

pytestmark = pytest.mark.full_size

DURATIONS_S = (1.3, 2, 3, 4.5, 5, 6.2, 7, 7)
MAX_TOKENS = 20


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Weight files, our captioner loaded from them, eight sounds, and msclap's captions of these."""
    import_msclap()
    folder = tmp_path_factory.mktemp("full_size_clapcap")
    tensors = clapcap_tensors(seed=3)
    vocab, merges = write_tokenizer(folder)
    weights = save_pth(tensors, folder / "clapcap_weights_2023.pth")
    sounds = [write_sound(folder / f"{n}.wav", s, seed=30 + n) for n, s in enumerate(DURATIONS_S)]
    reference = load_msclap(weights, CLAPCAP, vocab, merges)
    captions = reference.generate_caption(sounds, beam_size=5, entry_length=MAX_TOKENS)
    del reference
    backbone = make_backbone(CLAPCAP, {CLAPCAP: weights, "vocab": vocab, "merges": merges})
    mapper, bridge = backbone.released_mapper(), Bridge(BridgeConfig(noise_variance=0.0))
    captioner = Captioner(backbone, mapper, bridge, END_TOKEN_ID, torch.device("cpu"))
    yield SimpleNamespace(
        tensors=tensors,
        backbone=backbone,
        mapper=mapper,
        captioner=captioner,
        sounds=sounds,
        captions=captions,
    )
    shutil.rmtree(folder)


def test_captions_equal_msclap_exactly(full):
    """Compare captions including white space; calls each part itself, to check where every beam ends."""
    assert END_TOKEN_ID == STOP_TOKEN == full.backbone.tokenizer.encode([" <|endoftext|>"])[0][0]
    encoder, language_model = full.backbone.audio_encoder(), full.backbone.language_model()
    windows = [next(read_windows(path, full.backbone.config.clap.audio)).samples for path in full.sounds]
    with torch.inference_mode():
        prefixes = full.mapper(encoder(torch.stack([torch.from_numpy(samples) for samples in windows])))
    found = beam_search(language_model, prefixes, DecodingConfig(5, MAX_TOKENS, n_best=5), end_id=STOP_TOKEN)

    # msclap also decodes the stop token, a space.
    token_ids = [[*beams[0].token_ids, *[STOP_TOKEN] * beams[0].finished] for beams in found]
    assert [full.backbone.tokenizer.decode(ids).capitalize() for ids in token_ids] == full.captions

    assert len(set(full.captions)) == len(DURATIONS_S)
    lengths = [[len(beam.token_ids) if beam.finished else None for beam in beams] for beams in found]
    assert sum(len(set(clip) - {None}) > 1 for clip in lengths) >= 4  # beams of one clip end at different steps
    assert len({max(clip) for clip in lengths if None not in clip}) >= 3  # and so do the clips
    assert any(beams[0].finished for beams in found) and not all(beams[0].finished for beams in found)


@pytest.mark.parametrize("batch_size", [8, 3])
def test_captions_of_the_captioner_are_independent_of_the_batch(full, batch_size):
    decoding = DecodingConfig(max_tokens=MAX_TOKENS)
    results = list(full.captioner.caption(full.sounds, decoding=decoding, batch_size=batch_size))
    assert [result.path for result in results] == list(map(str, full.sounds))
    assert [result.caption for result in results] == [" ".join(caption.split()) for caption in full.captions]
    assert [result.duration_s for result in results] == pytest.approx(DURATIONS_S)


def test_all_tensors_of_the_file_are_used(full):
    full.backbone.language_model()
    full.backbone.audio_encoder()
    assert full.backbone.unused_tensors() == []


@pytest.mark.parametrize(
    "name",
    ["clap_project.prefix_const", "clap_project.transformer.layers.7.attn.to_keys_values.weight"],
)
def test_missing_tensor_or_wrong_shape_in_the_mapper_is_an_error(full, name):
    without = {other: tensor for other, tensor in full.tensors.items() if other != name}
    with pytest.raises(CheckpointError, match=f"clapcap.pth lacks the tensor {name}$"):
        load_clapcap_mapper(full.backbone.config.mapper, Checkpoint("clapcap.pth", without))
    longer = full.tensors | {name: torch.cat((full.tensors[name], full.tensors[name]))}
    with pytest.raises(CheckpointError, match=f"clapcap.pth: tensor {name} has shape"):
        load_clapcap_mapper(full.backbone.config.mapper, Checkpoint("clapcap.pth", longer))


def test_missing_tensor_of_the_language_model_is_an_error(full):
    name = "gpt.transformer.h.11.mlp.c_fc.bias"
    without = {other: tensor for other, tensor in full.tensors.items() if other != name}
    with pytest.raises(CheckpointError, match=f"clapcap.pth lacks the tensor {name}$"):
        load_gpt2(full.backbone.config.language_model, Checkpoint("clapcap.pth", without), "gpt.transformer.")


def test_verify_agrees_and_finds_a_wrong_tensor(full, monkeypatch):
    assert_verify_finds(full, monkeypatch, "language_model", "gpt2.h.11.mlp.c_fc.weight")
