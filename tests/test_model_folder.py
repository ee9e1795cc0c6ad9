"""Model folders: a saved model loads unchanged, and an invalid one is refused with a message that names the reason."""

import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from textcap.config import BridgeConfig, MapperConfig, TrainingConfig
from textcap.data.captions import CaptionFile
from textcap.errors import CheckpointError, InputError
from textcap.model_folder import ModelConfig, load_model, model_card, package_versions, save_model
from textcap.models.mapper import Mapper

SIZES = MapperConfig(embedding_width=6, width=8, prefix_length=2, n_layers=1, n_heads=2)
CONFIG = ModelConfig(
    backbone_name="tiny",
    backbone_hash="ab" * 32,
    bridge=BridgeConfig(noise_variance=0.04),
    mapper=SIZES,
    training=TrainingConfig(epochs=3, seed=2**62),
    end_token_id=319,
    n_training_captions=1234,
    n_held_out_captions=20,
    caption_files=(CaptionFile("captions.txt", "cd" * 32, 1254), CaptionFile("蝉.txt", "ef" * 32, 1)),
    packages=package_versions(),
    command="textcap train captions.txt",
    device="cuda",
    precision="bfloat16",
    n_processes=2,
)
METRICS = [
    {
        "epoch": 3,
        "loss": 1.5,
        "held_out_loss": 1.75,
        "distinct_share": 0.62,
        "samples": [{"reference": "a dog barks", "caption": "a | <b>dog</b>\n# barks `"}],
    }
]


@pytest.fixture
def mapper() -> Mapper:
    return Mapper(SIZES)


@pytest.fixture
def folder(tmp_path: Path, mapper: Mapper) -> Path:
    save_model(tmp_path / "model", CONFIG, mapper, METRICS)
    return tmp_path / "model"


def test_saved_model_loads_unchanged(folder: Path, mapper: Mapper) -> None:
    stored = load_model(folder)
    assert stored.config == CONFIG and stored.path == folder
    assert (stored.backbone_name, stored.backbone_hash, stored.end_token_id) == ("tiny", "ab" * 32, 319)
    assert stored.bridge.noise_std == pytest.approx(0.2)
    embeddings = torch.randn(3, 6)
    torch.testing.assert_close(stored.mapper(embeddings), mapper(embeddings).detach(), rtol=0, atol=0)
    assert not stored.mapper.training and not any(p.requires_grad for p in stored.mapper.parameters())


def test_folder_has_four_readable_files(folder: Path, mapper: Mapper) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "mapper.safetensors",
        "metrics.jsonl",
    ]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["format_version"] == 1
    assert config["bridge"] == {
        "noise_variance": 0.04,
        "noise_std": pytest.approx(0.2),
        "audio_noise_variance": 0.0,
        "calibration": None,
    }
    assert config["caption_files"][1] == {"name": "蝉.txt", "sha256": "ef" * 32, "n_captions": 1, "weight": 1.0}
    assert (config["pair_files"], config["adapter"]) == ([], None)
    assert config["packages"]["torch"] == torch.__version__
    assert config["packages"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (config["device"], config["precision"], config["n_processes"]) == ("cuda", "bfloat16", 2)
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == METRICS
    assert load_file(folder / "mapper.safetensors").keys() == mapper.state_dict().keys()


def test_same_model_gives_the_same_bytes(folder: Path, mapper: Mapper, tmp_path: Path) -> None:
    save_model(tmp_path / "again" / "model", CONFIG, mapper, METRICS)
    for path in folder.iterdir():
        assert (tmp_path / "again" / "model" / path.name).read_bytes() == path.read_bytes()


def test_existing_folder_is_overwritten_only_with_force(folder: Path, mapper: Mapper) -> None:
    other = replace(CONFIG, end_token_id=7)
    with pytest.raises(InputError, match="--force"):
        save_model(folder, other, mapper)
    assert load_model(folder).end_token_id == 319
    save_model(folder, other, mapper, force=True)
    assert load_model(folder).end_token_id == 7


def test_folder_that_is_not_a_model_is_never_overwritten(tmp_path: Path, mapper: Mapper) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="already exists and was not written by textcap"):
        save_model(tmp_path, CONFIG, mapper, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_folder_without_a_recorded_device_is_read(folder: Path) -> None:
    edit(folder, lambda config: [config.pop(name) for name in ("device", "precision", "n_processes")])
    assert load_model(folder).config == replace(CONFIG, device="unknown", precision="unknown", n_processes=1)


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
def test_files_follow_the_umask(tmp_path: Path, mapper: Mapper) -> None:
    before = os.umask(0o027)
    try:
        save_model(tmp_path / "model", CONFIG, mapper, METRICS)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()} == {0o640}


def test_names_that_are_not_utf_8_are_kept(tmp_path: Path, mapper: Mapper) -> None:
    name = os.fsdecode(b"caf\xe9")
    config = replace(CONFIG, backbone_name=name, caption_files=(CaptionFile(f"{name}.txt", "cd" * 32, 1),))
    save_model(tmp_path / name, config, mapper, METRICS)
    assert load_model(tmp_path / name).config == config
    assert "# caf\\\\xe9\n" in (tmp_path / name / "README.md").read_text(encoding="utf-8")


def test_mapper_that_cannot_be_opened_is_not_reported_as_missing(folder: Path) -> None:
    (folder / "mapper.safetensors").unlink()
    (folder / "mapper.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"mapper\.safetensors cannot be read: Is a directory"):
        load_model(folder)


def test_too_long_name_is_reported_as_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nnn does not exist"):
        load_model(tmp_path / ("n" * 300))


def test_mapper_with_nan_is_not_saved(tmp_path: Path, mapper: Mapper) -> None:
    with torch.no_grad():
        mapper.layers[0].output.weight[1, 2] = float("nan")
    with pytest.raises(InputError, match=r"layers\.0\.output\.weight contains NaN or infinite values"):
        save_model(tmp_path / "model", CONFIG, mapper)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["config.json", "mapper.safetensors"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"model.{name} does not exist"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "mapper.safetensors"])
@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda _: b"", lambda _: b"\xff" * 99])
def test_damaged_file_is_named(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read.*\(copy the whole folder again"):
        load_model(folder)


def test_missing_folder_and_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere does not exist \(.*textcap train"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(CheckpointError, match=r"config\.json is not a valid model configuration"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json is not a folder"):
        load_model(tmp_path / "config.json")


Change = Callable[[dict[str, Any]], object]


def edit(folder: Path, change: Change) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("number", [0, 2, "1", 1.5, [1]])
def test_unknown_format_version_is_refused(folder: Path, number: object) -> None:
    edit(folder, lambda config: config.update(format_version=number))
    with pytest.raises(CheckpointError, match="has format .* but this version of textcap reads format 1"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("end_token_id"), "it lacks 'end_token_id'"),
        (lambda config: config.update(end_token_id="319"), "end_token_id is '319', but must be of type int"),
        (lambda config: config.update(end_token_id=-1), "end_token_id is -1, but must be 0 or more"),
        (lambda config: config.update(n_processes="two"), "n_processes is 'two', but must be of type int"),
        (lambda config: config["mapper"].update(n_layers=0), "n_layers is 0"),
        (lambda config: config["mapper"].update(n_heads=0), "n_heads is 0"),
        (lambda config: config["mapper"].update(hidden_ratio=float("nan")), "hidden_ratio is nan"),
        (lambda config: config["mapper"].pop("width"), "lacks width"),
        (lambda config: config["bridge"].update(noise_variance=-1), "noise_variance is -1"),
        (lambda config: config["training"].update(dropout=0.1), "no field dropout"),
        (lambda config: config.update(caption_files=3), "not iterable"),
        (lambda config: config.update(bridge=None), "mapping"),
    ],
)
def test_invalid_setting_is_named(folder: Path, change: Change, message: str) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=rf"config\.json is not a valid model configuration: .*{message}"):
        load_model(folder)


def test_tensor_of_another_shape_is_named(folder: Path) -> None:
    edit(folder, lambda config: config["mapper"].update(prefix_length=3))
    with pytest.raises(CheckpointError, match=r"has no tensor constants of shape \[3, 8\]"):
        load_model(folder)


def test_unknown_tensor_is_named(folder: Path) -> None:
    tensors = load_file(folder / "mapper.safetensors")
    save_file({**tensors, "layers.9.extra": torch.zeros(1)}, folder / "mapper.safetensors")
    with pytest.raises(CheckpointError, match=r"has a tensor layers\.9\.extra, which a mapper does not have"):
        load_model(folder)


def test_card_has_the_facts_and_escapes_captions(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    for fact in ("1,234 captions", "tiny", "ab" * 32, "0.04", "1.5000", "62%", "textcap train captions.txt"):
        assert fact in card, fact
    (row,) = (line for line in card.splitlines() if "a dog barks" in line)
    assert row == r"| a dog barks | a \| \<b\>dog\</b\>\\x0a\# barks \` |"


def test_card_escapes_names_and_the_command() -> None:
    values = {
        "bridge": {"noise_variance": 0.0, "noise_std": 0.0, "audio_noise_variance": 0.0, "calibration": None},
        "mapper": {"n_layers": 1, "prefix_length": 2},
        "training": {"epochs": 1, "batch_size": 1, "learning_rate": 1e-4, "warmup_steps": 0, "seed": 0},
        "caption_files": [{"name": "<script>.txt\n# not a heading", "sha256": "0", "n_captions": 1, "weight": 1.0}],
        "pair_files": [],
        "adapter": None,
        "n_training_captions": 1,
        "n_held_out_captions": 0,
        "backbone_name": "|x|",
        "backbone_hash": "`",
        "packages": {},
        "device": "cpu",
        "precision": "float32",
        "n_processes": 1,
        "command": "textcap train '```\n# hm'",
    }
    lines = model_card('evil"\n# name', values, []).splitlines()
    assert [line for line in lines if line.startswith("# ")] == ['# evil"\\\\x0a\\# name']
    assert sum(line.startswith("````") for line in lines) == 2
    assert not any("<script>" in line for line in lines)
    assert any(r"| backbone | \|x\|, content hash `?` |" == line for line in lines)
