"""LAION's CLAP in transformers' form: its embeddings compared with transformers' own, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel
from typer.testing import CliRunner, Result

from hub_models import edit_json, save_clap, save_language_model
from textcap.audio.windows import cut_windows
from textcap.cli.app import app
from textcap.embedding.captions import embed_captions
from textcap.embedding.recordings import Recording, RecordingEmbedder
from textcap.errors import CheckpointError, InputError
from textcap.models.backbone import Backbone, BackboneNames
from textcap.models.clap import ClapHalf, open_clap
from textcap.store import store_folder
from tiny_random import tiny_captions

RATE_HZ = 8000
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clap(tmp_path_factory.mktemp("models") / "clap")


@pytest.fixture(scope="module")
def clap(folder: Path) -> ClapHalf:
    return open_clap("some/clap", folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return ClapModel.from_pretrained(folder).eval()


def _sounds() -> list[NDArray[np.float32]]:
    """Return sounds of 1, 3 and 10 s that change over time, so that their order in a window matters."""
    rng = np.random.default_rng(0)
    sounds = []
    for seconds in (1, 3, 10):
        times = np.arange(seconds * RATE_HZ) / RATE_HZ
        sound = 0.3 * np.sin(2 * np.pi * 400 * times * (1 + times / seconds)) + rng.normal(0, 0.02, len(times))
        sounds.append(sound.astype(np.float32))
    return sounds


def _units(features: Any) -> Tensor:
    """Return transformers' features, which 4 returns as they are and 5 in an output, as unit-length vectors."""
    features = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(features, dim=-1)


def _windows(clap: ClapHalf) -> Tensor:
    cut = [list(cut_windows(iter([sound]), clap.config.audio)) for sound in _sounds()]
    assert [len(windows) for windows in cut] == [1, 1, 1]
    return torch.from_numpy(np.stack([windows[0].samples for windows in cut]))


def test_audio_embeddings_equal_transformers(folder: Path, clap: ClapHalf, reference: Any) -> None:
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    features = extractor(_sounds(), sampling_rate=RATE_HZ, return_tensors="pt")
    encoder, windows = clap.audio_encoder(), _windows(clap)
    with torch.inference_mode():
        expected = _units(reference.get_audio_features(**features))
        ours = encoder(windows)
    assert (expected[0] - expected[1]).norm() > 0.01
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_spectrograms_equal_those_of_the_extractor(folder: Path, clap: ClapHalf) -> None:
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    expected = extractor(_sounds(), sampling_rate=RATE_HZ, return_tensors="pt")["input_features"]
    log_mel = clap.audio_encoder().front_end(_windows(clap))
    assert log_mel.shape == expected.shape == (3, 1, 251, 16)
    # In dB; in silence, which the sound of 3 s is padded with, both are at the floor.
    torch.testing.assert_close(log_mel, expected.float(), rtol=0, atol=1e-2)
    assert (log_mel[1, 0, 230:] == -100).all() and (log_mel[0] > -100).all()


@pytest.mark.parametrize("padding", ["repeat", "repeatpad"])
def test_windows_are_filled_as_by_the_extractor(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "clap")
    edit_json(copy / "preprocessor_config.json", padding=padding)
    extractor, filled = ClapFeatureExtractor.from_pretrained(copy), []
    monkeypatch.setattr(
        extractor, "_np_extract_fbank_features", lambda wave, *_: filled.append(wave) or np.zeros((1, 1))
    )
    extractor(_sounds(), sampling_rate=RATE_HZ)
    windows = _windows(open_clap("clap", copy))
    assert (windows[1, -2 * RATE_HZ :] == 0).any().item() is (padding == "repeatpad")
    np.testing.assert_array_equal(windows.numpy(), np.stack(filled).astype(np.float32))


def test_text_embeddings_equal_transformers(folder: Path, clap: ClapHalf, reference: Any) -> None:
    texts = ["a dog barks", "rain", *tiny_captions(5), "a dog barks and then " * 20, "Ünïcode 好 🐕", ""]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = clap.text_encoder()
    assert clap.config.text_tower.max_tokens == 22  # of 24 positions, the first of which are never used
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=22, return_tensors="pt")
    assert {int(n) for n in inputs["attention_mask"].sum(1)} >= {2, 22}
    with torch.inference_mode():
        expected = _units(reference.get_text_features(**inputs))
    for batch_size in (64, 3, 1):
        ours = encoder.encode(texts, batch_size=batch_size)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert (expected[0] - expected[1]).norm() > 0.01
    assert encoder.encode([]).shape == (0, 20)


def test_processor_of_newer_folders_is_read(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "clap")
    values = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"feature_extractor": values}))
    half = open_clap("clap", copy)
    assert half.config == open_clap("clap", folder).config and half.content_hash
    (copy / "processor_config.json").write_text(json.dumps({"feature_extractor": {**values, "padding": "repeat"}}))
    assert open_clap("clap", copy).content_hash != half.content_hash


def _refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        half = open_clap("some/clap", folder)
        half.audio_encoder()
        half.text_encoder()
    message = str(error.value)
    assert message.startswith(("some/clap", "the CLAP some/clap", str(folder))) and len(message.splitlines()) == 1
    return message


def test_fusion_is_refused_and_the_clap_without_it_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "clap")
    sound = json.loads((copy / "config.json").read_text())["audio_config"]
    edit_json(copy / "config.json", audio_config={**sound, "enable_fusion": True})
    message = _refusal(copy)
    assert "some/clap fuses several views" in message and "laion/clap-htsat-unfused" in message


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        ("preprocessor_config.json", {"padding": "pad"}, "padding"),
        ("preprocessor_config.json", {"truncation": "fusion"}, "truncation"),
        ("config.json", {"patch_stride": [2, 2]}, "patch_stride"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act"),
        ("config.json", {"mlp_ratio": 2.0}, "mlp_ratio"),
        ("config.json", {"depths": [2, 2, 2]}, "n_heads"),
        ("preprocessor_config.json", {"max_length_s": 30}, "window_s"),
        ("preprocessor_config.json", None, "preprocessor_config.json"),
    ],
)
def test_claps_that_differ_are_refused(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, Any] | None, problem: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "clap")
    if changes is None:
        (copy / file).unlink()
    elif file == "config.json":
        sound = json.loads((copy / file).read_text())["audio_config"]
        edit_json(copy / file, audio_config={**sound, **changes})
    else:
        edit_json(copy / file, **changes)
    assert problem in _refusal(copy)


def test_other_models_are_refused_by_their_kind(tmp_path: Path) -> None:
    message = _refusal(save_language_model(tmp_path / "model", "llama"))
    assert "the CLAP some/clap is of the type 'llama', but must be one of clap" in message


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ("missing", "audio_model.audio_encoder.layers.0.blocks.1.attention.self.key.weight"),
        ("missing", "audio_projection.linear1.bias"),
        ("NaN", "audio_model.audio_encoder.batch_norm.running_mean"),
        ("missing", "text_model.encoder.layer.0.output.dense.weight"),
        ("NaN", "text_projection.linear2.weight"),
    ],
)
def test_missing_and_damaged_tensors_are_refused(folder: Path, tmp_path: Path, damage: str, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "clap")
    tensors = load_file(copy / "model.safetensors")
    tensors[name][..., 0] = torch.nan
    if damage == "missing":
        del tensors[name]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    named = name.replace("key.weight", "qkv.weight")  # joined with queries and values
    assert f"tensor {named}" in _refusal(copy)


# As half of a backbone


def test_another_language_model_embeds_nothing_anew(
    folder: Path, backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = save_language_model(tmp_path / "llama", "llama")
    soundfile.write(tmp_path / "a.wav", _sounds()[1], RATE_HZ)
    captions = tiny_captions(4)

    def embed(names: BackboneNames) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        backbone = Backbone.load(names)
        (recording,) = RecordingEmbedder(backbone, CPU).embed([tmp_path / "a.wav"])
        assert isinstance(recording, Recording)
        return embed_captions(captions, backbone, CPU), recording.embedding

    first = embed(BackboneNames(str(backbone_folder), str(folder)))
    assert len(list(store_folder().glob("*.sqlite"))) == 2
    monkeypatch.chdir(folder.parent)
    with monkeypatch.context() as patch:
        for encoder in ("audio_encoder", "text_encoder"):
            patch.setattr(Backbone, encoder, lambda *_: pytest.fail("something is embedded anew"))
        again = embed(BackboneNames(str(backbone_folder), "clap", str(llama)))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    # Another CLAP, of the same sizes, has other embeddings.
    other_clap = embed(BackboneNames(str(backbone_folder), str(save_clap(tmp_path / "clap", seed=1))))
    assert np.abs(other_clap[0] - first[0]).max() > 0.01 and np.abs(other_clap[1] - first[1]).max() > 0.01


def test_neither_half_of_a_backbone_is_needed_where_both_are_replaced(folder: Path, tmp_path: Path) -> None:
    llama = save_language_model(tmp_path / "llama", "llama")
    backbone = Backbone.load(BackboneNames("msclap-2023", str(folder), str(llama)), offline=True)
    assert (backbone.config.mapper.embedding_width, backbone.config.mapper.width) == (20, 16)
    assert backbone.config.mapper.width % backbone.config.mapper.n_heads == 0
    backbone.audio_encoder()
    backbone.language_model()


def _run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_unknown_noise_is_told_in_one_line(folder: Path, backbone_folder: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(tiny_captions(40)))
    with pytest.raises(InputError, match="the noise that suits this CLAP is not known .*--noise-from"):
        Backbone.load(BackboneNames(str(backbone_folder), str(folder))).config.noise_for(None, is_measured=False)
    given = ["train", captions, "-o", tmp_path / "model", "--backbone", backbone_folder, "--clap", folder]
    result = _run(*given)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "the noise that suits this CLAP is not known" in line and "--noise-variance" in line
    result = _run(*given, "--noise-variance", "0.01", "--epochs", "1", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tmp_path}/model\n", "")
