"""The CLAP encoders at full size compared with msclap on the same weights, and correct where msclap is wrong."""

import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import GPT2Config, GPT2LMHeadModel

from full_size import (
    RATE_HZ,
    clap_tensors,
    gpt2_tensors,
    import_msclap,
    load_msclap,
    make_backbone,
    offline_msclap,
    save_gpt2,
    save_pth,
    write_sound,
    write_tokenizer,
)
from test_verify import assert_verify_finds
from textcap.audio.windows import read_windows
from textcap.errors import CheckpointError
from textcap.models.loading import Checkpoint
from textcap.models.msclap import load_audio_encoder, load_text_encoder

pytestmark = pytest.mark.full_size

TOLERANCE = 1e-5  # per coordinate of a unit-length embedding

_WHO = (
    "A dog",
    "Several birds",
    "A man in a small tiled room",
    "An old diesel engine",
    "The crowd",
    "Water",
    "A woman and two children",
    "Someone's footsteps",
    "A low-flying helicopter",
    "Rain",
)
_WHAT = (
    "can be heard.",
    "makes noise while the wind blows through tall, dry grass",
    "comes closer, passes by on the left and fades away, then 10 seconds of silence",
    "is loud at first; it stops, starts again and stops for good as a door slams",
    "hums, rattles & clicks",
)
CAPTIONS = [f"{who} {what}" for who in _WHO for what in _WHAT]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Weight files, and a backbone and msclap loaded from them."""
    import_msclap()
    folder = tmp_path_factory.mktemp("full_size_clap")
    tensors = clap_tensors(seed=1)
    gpt2 = gpt2_tensors(seed=2)
    vocab, merges = write_tokenizer(folder)
    paths = {
        "clap": save_pth(tensors, folder / "CLAP_weights_2023.pth"),
        "language_model": save_gpt2(gpt2, folder / "model.safetensors"),
        "vocab": vocab,
        "merges": merges,
    }
    backbone = make_backbone("msclap-2023", paths)
    yield SimpleNamespace(
        folder=folder,
        tensors=tensors,
        gpt2=gpt2,
        backbone=backbone,
        audio_encoder=backbone.audio_encoder(),
        text_encoder=backbone.text_encoder(),
        reference=load_msclap(paths["clap"], "2023", vocab, merges),
    )
    shutil.rmtree(folder)


def _embed_file(full: SimpleNamespace, path) -> Tensor:
    windows = [torch.from_numpy(window.samples) for window in read_windows(path, full.backbone.config.clap.audio)]
    with torch.no_grad():
        return full.audio_encoder(torch.stack(windows))


def _msclap_text(full: SimpleNamespace, captions: list[str]) -> Tensor:
    return normalize(full.reference.get_text_embeddings(captions), dim=-1)


def _text_alone(full: SimpleNamespace, ids: list[int]) -> Tensor:
    """Return the embedding of tokens without padding, computed with the reference's modules."""
    side = full.reference.clap.caption_encoder
    with torch.no_grad():
        return normalize(side.projection(side.base(torch.tensor([ids])).last_hidden_state[:, -1]), dim=-1)[0]


def _largest_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape and ours.dtype == torch.float32
    torch.testing.assert_close(ours.norm(dim=-1), torch.ones(ours.shape[:-1]), rtol=0, atol=1e-5)
    return float((ours - theirs).abs().max())


def test_audio_embeddings_equal_msclap(full):
    paths = [write_sound(full.folder / f"{s}s.wav", s, seed=s) for s in (3, 7)]
    ours = torch.cat([_embed_file(full, path) for path in paths])
    theirs = normalize(full.reference.get_audio_embeddings(paths), dim=-1)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-3  # the two sounds have different embeddings
    difference = _largest_difference(ours, theirs)
    print(f"largest difference {difference:.2e}")  # pytest -rP shows it
    assert difference <= TOLERANCE


def test_text_embeddings_equal_msclap(full):
    assert len(set(CAPTIONS)) == 50
    ours = full.text_encoder.encode(CAPTIONS, batch_size=16)
    theirs = _msclap_text(full, CAPTIONS)
    assert torch.pdist(theirs).min() > 1e-2
    difference = _largest_difference(ours, theirs)
    print(f"largest difference {difference:.2e}")  # pytest -rP shows it
    assert difference <= TOLERANCE


def test_exclamation_mark_is_a_token_not_padding(full):
    caption = "A child shouts hooray! and hooray! again"
    [ids] = full.backbone.tokenizer.encode([caption + " <|endoftext|>"])
    assert ids.count(0) == 2 and ids[-2:] == [220, 50256]
    [ours] = full.text_encoder.encode([caption])
    assert _largest_difference(ours, _text_alone(full, ids)) <= TOLERANCE
    assert _largest_difference(ours, _msclap_text(full, [caption])[0]) > 1e-3  # msclap pools two tokens early


def test_long_caption_is_cut_to_77_tokens_and_keeps_the_end_token(full):
    caption = "rain on a roof and " * 40
    [ids] = full.backbone.tokenizer.encode([caption + " <|endoftext|>"])
    assert len(ids) > 150
    ours = full.text_encoder.encode([caption, "Rain"])
    assert _largest_difference(ours[0], _text_alone(full, [*ids[:76], 50256])) <= TOLERANCE
    # The short caption in the same batch is not affected.
    assert _largest_difference(ours[1], _msclap_text(full, ["Rain"])[0]) <= TOLERANCE


def test_stereo_channels_are_averaged(full):
    left, _ = soundfile.read(write_sound(full.folder / "left.wav", 4, seed=20), dtype="float32")
    right, _ = soundfile.read(write_sound(full.folder / "right.wav", 4, seed=21), dtype="float32")
    soundfile.write(full.folder / "stereo.wav", np.stack((left, right), axis=1), RATE_HZ, subtype="FLOAT")
    soundfile.write(full.folder / "mono.wav", (left + right) / 2, RATE_HZ, subtype="FLOAT")
    ours = _embed_file(full, full.folder / "stereo.wav")
    theirs = normalize(full.reference.get_audio_embeddings([full.folder / "mono.wav"]), dim=-1)
    assert _largest_difference(ours, theirs) <= TOLERANCE
    concatenated = normalize(full.reference.get_audio_embeddings([full.folder / "stereo.wav"]), dim=-1)
    assert _largest_difference(ours, concatenated) > 1e-3  # msclap puts one channel after the other


def test_windows_of_a_long_clip_are_embedded_like_separate_clips(full):
    path = write_sound(full.folder / "long.wav", 10, seed=22)
    signal, _ = soundfile.read(path, dtype="float32")
    cuts = []
    for start_s in (0, 3):
        cuts.append(full.folder / f"from_{start_s}.wav")
        soundfile.write(cuts[-1], signal[start_s * RATE_HZ : (start_s + 7) * RATE_HZ], RATE_HZ, subtype="FLOAT")
    theirs = normalize(full.reference.get_audio_embeddings(cuts), dim=-1)
    assert _largest_difference(_embed_file(full, path), theirs) <= TOLERANCE


def test_language_model_of_the_backbone_equals_transformers(full):
    reference = GPT2LMHeadModel(GPT2Config()).eval()
    weights = {name: tensor for name, tensor in full.gpt2.items() if not name.endswith(".attn.bias")}
    reference.transformer.load_state_dict(weights)
    [ids] = full.backbone.tokenizer.encode(["A dog barks at the rain.<|endoftext|>"])
    tokens, prefix = torch.tensor([ids]), torch.randn(1, 40, 768)
    with torch.no_grad():
        embedded = torch.cat((prefix, reference.transformer.wte(tokens)), dim=1)
        logits = reference(inputs_embeds=embedded).logits[0, 39:-1]
        ours = full.backbone.language_model().loss(prefix, tokens, torch.tensor([len(ids)]))
    torch.testing.assert_close(ours, cross_entropy(logits, tokens[0]), rtol=1e-5, atol=0)


def test_all_tensors_of_the_file_are_used(full):
    assert full.backbone.unused_tensors() == []


AUDIO_BLOCK = "audio_encoder.base.htsat.layers.2.blocks.5"


@pytest.mark.parametrize(
    ("name", "load"),
    [
        (f"{AUDIO_BLOCK}.attn.qkv.weight", load_audio_encoder),
        (f"{AUDIO_BLOCK}.attn.relative_position_bias_table", load_audio_encoder),
        ("audio_encoder.base.htsat.bn0.running_var", load_audio_encoder),
        ("audio_encoder.projection.layer_norm.bias", load_audio_encoder),
        ("caption_encoder.base.h.11.mlp.c_proj.bias", load_text_encoder),
        ("caption_encoder.projection.linear2.weight", load_text_encoder),
    ],
)
def test_missing_tensor_or_wrong_shape_is_an_error_with_the_name_of_the_tensor(full, name, load):
    config, extra = full.backbone.config.clap, (full.backbone.tokenizer,) if load is load_text_encoder else ()
    without = {other: tensor for other, tensor in full.tensors.items() if other != name}
    with pytest.raises(CheckpointError, match=f"weights.pth lacks the tensor {name}$"):
        load(config, Checkpoint("weights.pth", without), *extra)
    longer = full.tensors | {name: torch.cat((full.tensors[name], full.tensors[name]))}
    with pytest.raises(CheckpointError, match=f"weights.pth: tensor {name} has shape"):
        load(config, Checkpoint("weights.pth", longer), *extra)


def test_unknown_tensor_is_reported_but_not_an_error(full):
    checkpoint = Checkpoint("weights.pth", full.tensors | {"audio_encoder.base.htsat.new_part": torch.zeros(3)})
    load_audio_encoder(full.backbone.config.clap, checkpoint)
    load_text_encoder(full.backbone.config.clap, checkpoint, full.backbone.tokenizer)
    assert checkpoint.unused == ["audio_encoder.base.htsat.new_part"]


def test_missing_front_end_is_computed_as_in_msclap(full):
    front_end = ("spectrogram_extractor.", "logmel_extractor.")
    without = {name: tensor for name, tensor in full.tensors.items() if not any(part in name for part in front_end)}
    checkpoint = Checkpoint("weights.pth", without)
    encoder = load_audio_encoder(full.backbone.config.clap, checkpoint)
    assert {"logmel_extractor.melW", "spectrogram_extractor.stft.conv_real.weight"} <= {
        name.removeprefix("audio_encoder.base.htsat.") for name in checkpoint.absent
    }
    with offline_msclap():
        from msclap.models.htsat import HTSAT_Swin_Transformer, config

        reference = HTSAT_Swin_Transformer(config=config).eval()
    sound = torch.randn(1, 7 * RATE_HZ) * 0.1
    with torch.no_grad():
        expected = reference.logmel_extractor(reference.spectrogram_extractor(sound))
        torch.testing.assert_close(encoder.front_end(sound), expected, rtol=0, atol=2e-3)  # decibels


def test_verify_agrees_and_finds_a_wrong_tensor(full, monkeypatch):
    assert_verify_finds(full, monkeypatch, "audio_encoder", "projection.linear1.weight")
