"""Backbones with other halves, as commands: training, captioning, folders that have moved, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from hub_models import save_clap, save_gpt2, save_language_model
from textcap.captioner import Captioner
from textcap.cli.app import app
from textcap.config import DecodingConfig
from textcap.errors import CheckpointError
from textcap.model_folder import load_model
from textcap.models.clap import open_clap
from tiny_random import tiny_captions

QUICK = ["--epochs", "2", "--batch-size", "40", "--learning-rate", "5e-3", "--device", "cpu"]
SHORT = ["--max-length", "8", "--device", "cpu"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two language models of the same sizes, another of another width, and a CLAP."""
    folder = tmp_path_factory.mktemp("models")
    save_language_model(folder / "llama", "llama")
    save_language_model(folder / "other", "llama", seed=1)
    save_language_model(folder / "opt", "opt")
    save_clap(folder / "clap")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with captions, and two sounds of 1.3 s and 3 s."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "captions.txt").write_text("\n".join(tiny_captions(120)), encoding="utf-8")
    rng = np.random.default_rng(0)
    for i, seconds in enumerate((1.3, 3.0)):
        times = np.arange(int(seconds * 8000)) / 8000
        sound = 0.3 * np.sin(2 * np.pi * (300 + 900 * i) * times) + rng.normal(0, 0.02, len(times))
        soundfile.write(folder / f"{i}.wav", sound, 8000)
    return folder


@pytest.fixture(scope="module")
def trained(models: Path, data: Path, backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that was trained on the language model of a folder."""
    output = tmp_path_factory.mktemp("trained") / "model"
    result = run(*_training(data, output, backbone_folder), "--language-model", models / "llama")
    assert (result.exit_code, result.stdout) == (0, f"{output}\n")
    lines = result.stderr.splitlines()
    assert f"backbone {backbone_folder} with language model {models / 'llama'} on cpu, float32" in lines
    assert len([line for line in lines if line.startswith("epoch ")]) == 2
    assert not any("%|" in line or "transformers" in line for line in lines)
    return output


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _training(data: Path, output: Path, backbone: Path | str) -> list[object]:
    return ["train", data / "captions.txt", "-o", output, "--backbone", backbone, *QUICK]


def _caption(data: Path, model: Path, *more: object) -> Result:
    return run("caption", data / "0.wav", data / "1.wav", "-m", model, *SHORT, *more)


def test_training_lowers_the_loss_and_records_the_halves(trained: Path, models: Path, backbone_folder: Path) -> None:
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert records[1]["loss"] < records[0]["loss"]
    config = load_model(trained).config
    assert vars(config.backbone) == {
        "backbone": str(backbone_folder),
        "clap": None,
        "language_model": str(models / "llama"),
    }
    assert config.end_token_id == 2
    assert (config.mapper.embedding_width, config.mapper.width, config.language_model_licence) == (24, 16, "unknown")


def test_captions_do_not_depend_on_the_batch_and_end_in_text(trained: Path, data: Path) -> None:
    captioner = Captioner.load(trained, device="cpu")
    sounds, decoding = [data / "0.wav", data / "1.wav"] * 2, DecodingConfig(max_tokens=8, n_best=3)
    together, alone = (list(captioner.caption(sounds, decoding=decoding, batch_size=n)) for n in (4, 1))
    assert [one.candidates for one in together[:2]] == [one.candidates for one in together[2:]]
    for one, other in zip(together, alone, strict=True):
        assert [c.caption for c in one.candidates] == [c.caption for c in other.candidates]
        assert len(one.candidates) == 3
        assert not any(mark in c.caption for c in one.candidates for mark in ("<s>", "</s>", "▁", "<0x"))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_command_captions_and_prints_nothing_else(trained: Path, data: Path, precision: str) -> None:
    result = _caption(data, trained, "-q", "--precision", precision)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(data / "0.wav"), str(data / "1.wav")] and all(row[1] for row in rows)


def test_moved_language_model_is_found_by_its_option(trained: Path, data: Path, models: Path, tmp_path: Path) -> None:
    before = _caption(data, trained, "--json")
    moved = shutil.move(models / "llama", tmp_path / "elsewhere")
    try:
        result = _caption(data, trained)
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert f"{models / 'llama'} is not a folder" in line and "with --clap or --language-model" in line
        after = _caption(data, trained, "--json", "--language-model", moved)
        assert (after.exit_code, after.stdout) == (0, before.stdout) and before.exit_code == 0
    finally:
        shutil.move(moved, models / "llama")


def test_other_weights_are_refused_by_name(trained: Path, data: Path, models: Path, backbone_folder: Path) -> None:
    for other in (models / "other", models / "opt", backbone_folder):
        result = _caption(data, trained, "--language-model", other)
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        if other != backbone_folder:
            assert f"{trained} was trained on {backbone_folder} with language model {models / 'llama'}" in line
            assert "its language model with weights" in line
        else:
            assert f"{backbone_folder} has no weights" in line
    result = _caption(data, trained, "--clap", models / "clap")
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1 and "its CLAP with weights" in line
    result = _caption(data, Path("clapcap"), "--clap", models / "clap")
    assert result.exit_code == 1 and "clapcap has both of its halves" in result.stderr


def test_changed_tensor_in_place_is_refused(trained: Path, models: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(models / "llama", tmp_path / "llama")
    Captioner.load(trained, device="cpu", language_model=str(copy))
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][0] += 0.1
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="but those on disk are"):
        Captioner.load(trained, device="cpu", language_model=str(copy))


def test_both_halves_of_folders_train_and_caption(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With relative names, which hold from any working folder; nothing of the named backbone is on disk."""
    monkeypatch.chdir(models)
    halves = ["--clap", "clap", "--language-model", "opt", "--noise-variance", "0.01"]
    model = tmp_path / "model"
    result = run(*_training(data, model, "msclap-2023"), *halves, "-q", "--offline")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{model}\n", "")
    config = load_model(model).config
    assert (config.backbone.clap, config.backbone.language_model) == (str(models / "clap"), str(models / "opt"))
    assert (config.mapper.embedding_width, config.mapper.width) == (20, 12)
    monkeypatch.chdir(tmp_path)
    result = _caption(data, model, "--json", "--similarity", "--num-captions", "2")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(-1 <= row["candidates"][0]["similarity"] <= 1 for row in rows)


def test_prefix_and_first_token_must_leave_room(
    models: Path, data: Path, backbone_folder: Path, tmp_path: Path
) -> None:
    given = [*_training(data, tmp_path / "model", backbone_folder), "--language-model", models / "llama"]
    result = run(*given, "--prefix-length", "63")  # of 64 positions one is the first token's
    assert result.exit_code == 1
    assert "a prefix of 63 vectors leaves no room for a caption in 63 positions" in result.stderr.splitlines()[-1]


def test_embeddings_are_exported_with_the_clap_that_made_them(
    models: Path, data: Path, backbone_folder: Path, tmp_path: Path
) -> None:
    found = []
    for more in ([], ["--clap", models / "clap"]):
        output = tmp_path / f"{len(more)}.safetensors"
        result = run("embed", data / "1.wav", "--text", "rain", "--backbone", backbone_folder, *more, "-o", output)
        assert result.exit_code == 0, result.stderr
        with safe_open(output, "pt") as file:
            found.append((file.metadata(), file.get_tensor("embeddings")))
    (own, first), (other, second) = found
    assert (first.shape, second.shape) == ((2, 24), (2, 20))
    clap = open_clap(str(models / "clap"), models / "clap")
    assert (other["clap"], other["clap_hash"]) == (clap.name, clap.content_hash) and own["clap"] == "tiny-random"
    torch.testing.assert_close(second[1:], clap.text_encoder().encode(["rain"]), rtol=0, atol=1e-6)


def test_gpt2_of_a_folder_trains_like_the_same_one_of_the_backbone(
    data: Path, backbone_folder: Path, tmp_path: Path
) -> None:
    folder = save_gpt2(tmp_path / "gpt2", n_positions=96)
    shutil.copy(backbone_folder / "language_model.safetensors", folder / "model.safetensors")
    mappers = []
    for name, more in (("own", []), ("other", ["--language-model", folder])):
        result = run(*_training(data, tmp_path / name, backbone_folder), *more)
        assert result.exit_code == 0, result.stderr
        mappers.append(load_model(tmp_path / name).mapper.state_dict())
    for name, tensor in mappers[0].items():
        assert torch.equal(tensor, mappers[1][name]), name
    own, other = (_caption(data, tmp_path / name) for name in ("own", "other"))
    assert (own.exit_code, own.stdout) == (0, other.stdout)
