"""Model folders: a saved model loads unchanged, and an invalid one is refused with a message that names the reason."""

import hashlib
import json
import os
import shlex
import stat
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from textcap.config import AdapterFacts, BridgeConfig, MapperConfig, NoiseCalibration, TrainingConfig
from textcap.data.captions import CaptionFile
from textcap.errors import CheckpointError, InputError
from textcap.files import seal, unseal
from textcap.model_folder import ModelConfig, load_model, model_card, package_versions, save_model
from textcap.models.backbone import Backbone, BackboneNames
from textcap.models.loading import sha256_of_tensors
from textcap.models.mapper import Mapper
from textcap.models.weight_files import kind_of
from tiny_random import recorded

SIZES = MapperConfig(embedding_width=6, width=8, prefix_length=2, n_layers=1, n_heads=2)
CONFIG = ModelConfig(
    backbone=BackboneNames("tiny"),
    clap_hash="ab" * 32,
    clap_licence="MIT",
    language_model_hash="12" * 32,
    language_model_licence="",
    bridge=BridgeConfig(noise_variance=0.04, kind="noise"),
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
    config = stored.config
    assert config == CONFIG and stored.path == folder
    assert (config.backbone.backbone, config.clap_hash, config.end_token_id) == ("tiny", "ab" * 32, 319)
    assert config.bridge.noise_std == pytest.approx(0.2)
    embeddings = torch.randn(3, 6)
    tensors = stored.mapper.state_dict()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in mapper.state_dict().items())
    # Layers that record gradients may add in another order.
    torch.testing.assert_close(stored.mapper(embeddings), mapper(embeddings).detach(), rtol=0, atol=1e-6)
    assert not stored.mapper.training and not any(p.requires_grad for p in stored.mapper.parameters())


def test_folder_has_four_readable_files(folder: Path, mapper: Mapper) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "mapper.safetensors",
        "metrics.jsonl",
    ]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["kind"], config["format_version"]) == ("textcap model", 4)
    assert config["bridge"] == {
        "noise_variance": 0.04,
        "audio_noise_variance": 0.0,
        "kind": "noise",
        "calibration": None,
        "sample": None,
    }
    mapper_bytes = (folder / "mapper.safetensors").read_bytes()
    assert config["mapper_sha256"] == hashlib.sha256(mapper_bytes).hexdigest()
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
    assert load_model(folder).config.end_token_id == 319
    save_model(folder, other, mapper, force=True)
    assert load_model(folder).config.end_token_id == 7


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"model_type": "gpt2"}'),
        ("config.json", '{"format_version": 1}'),
        ("thesis.doc", "years of work"),
    ],
)
def test_folder_that_is_not_a_model_is_never_overwritten(
    tmp_path: Path, mapper: Mapper, name: str, content: str, force: bool
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"already exists and contains {name}, which textcap did not write"):
        save_model(tmp_path, CONFIG, mapper, force=force)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_of_others_in_a_model_folder_are_never_deleted(folder: Path, mapper: Mapper) -> None:
    (folder / "thesis.doc").write_text("years of work")
    with pytest.raises(InputError, match=r"contains thesis\.doc, which textcap did not write"):
        save_model(folder, CONFIG, mapper, force=True)
    assert (folder / "thesis.doc").exists() and load_model(folder).config == CONFIG


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
def test_files_follow_the_umask(tmp_path: Path, mapper: Mapper) -> None:
    before = os.umask(0o027)
    try:
        save_model(tmp_path / "model", CONFIG, mapper, METRICS)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()} == {0o640}


def test_card_says_what_the_backbone_does_not_know(tmp_path: Path, mapper: Mapper) -> None:
    warning = "its captions of recordings mean nothing"
    for name, is_warned in (("tiny", True), ("msclap-2023", False)):
        save_model(tmp_path / name, replace(CONFIG, backbone=BackboneNames(name)), mapper, METRICS)
        assert (warning in (tmp_path / name / "README.md").read_text(encoding="utf-8")) == is_warned
        assert (warning in kind_of(name).remark) == is_warned


def test_names_that_are_not_utf_8_are_kept(tmp_path: Path, mapper: Mapper) -> None:
    name = os.fsdecode(b"caf\xe9")
    config = replace(CONFIG, backbone=BackboneNames(name), caption_files=(CaptionFile(f"{name}.txt", "cd" * 32, 1),))
    save_model(tmp_path / name, config, mapper, METRICS)
    assert load_model(tmp_path / name).config == config
    assert "# caf\\\\xe9\n" in (tmp_path / name / "README.md").read_text(encoding="utf-8")


def test_mapper_that_cannot_be_opened_is_not_reported_as_missing(folder: Path) -> None:
    (folder / "mapper.safetensors").unlink()
    (folder / "mapper.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"mapper\.safetensors cannot be read: Is a directory"):
        load_model(folder)


def test_pipe_in_a_model_folder_is_not_waited_for(folder: Path) -> None:
    for name in ("mapper.safetensors", "config.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(CheckpointError, match=f"{name} cannot be read: Not a regular file"):
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
    with pytest.raises(CheckpointError, match=rf"{name} .*\(copy the whole folder again"):
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
    """Change the configuration as somebody would who knows how its SHA-256 is computed."""
    path = folder / "config.json"
    config = unseal(json.loads(path.read_text(encoding="utf-8")), path)
    change(config)
    path.write_text(json.dumps(seal(config)), encoding="utf-8")


def edit_mapper(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the mapper in the same way."""
    tensors = load_file(folder / "mapper.safetensors")
    change(tensors)
    save_file(tensors, folder / "mapper.safetensors", seal({"tensors": sha256_of_tensors(tensors)}))
    sha256 = hashlib.sha256((folder / "mapper.safetensors").read_bytes()).hexdigest()
    edit(folder, lambda config: config.update(mapper_sha256=sha256))


def test_edited_configuration_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"end_token_id": 319', '"end_token_id": 318'), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: its SHA-256 is not that of its content"):
        load_model(folder)


def test_mapper_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "other", CONFIG, Mapper(SIZES))
    os.replace(tmp_path / "other" / "mapper.safetensors", folder / "mapper.safetensors")
    with pytest.raises(CheckpointError, match=r"mapper\.safetensors is not the mapper that config\.json records"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(constants=t["constants"].int()), "tensor constants of type I32, but must have float32"),
        (lambda t: t.update(constants=t["constants"].half()), "tensor constants of type F16, but must have float32"),
        (lambda t: t["constants"].fill_(float("nan")), "contains NaN or infinite values in constants"),
        (lambda t: t["constants"].fill_(float("inf")), "contains NaN or infinite values in constants"),
        (lambda t: t.pop("constants"), r"has \d+ numbers, but must have \d+"),
    ],
)
def test_mapper_with_other_values_is_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    edit_mapper(folder, change)
    with pytest.raises(CheckpointError, match=rf"mapper\.safetensors .*{message}"):
        load_model(folder)


def test_parameters_are_counted_before_anything_is_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textcap.model_folder.Mapper", lambda config: pytest.fail("the mapper was built"))
    for change in ({"n_layers": 100}, {"prefix_length": 4096, "width": 65536, "hidden_ratio": 0.1}):
        edit(folder, lambda config, change=change: config["mapper"].update(change))
        with pytest.raises(CheckpointError, match=r"has [\d,]+ numbers, but must have [\d,]+"):
            load_model(folder)
    edit(folder, lambda config: config["mapper"].update(n_layers=1_000_000))
    with pytest.raises(CheckpointError, match="n_layers is 1000000, but must be at least 1 and at most 128"):
        load_model(folder)


@pytest.mark.parametrize("number", [0, 1, "2", 1.5, [2]])
def test_unknown_format_version_is_refused(folder: Path, number: object) -> None:
    edit(folder, lambda config: config.update(format_version=number))
    with pytest.raises(CheckpointError, match="has format .* but this version of textcap reads format 4"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("end_token_id"), "ModelConfig lacks end_token_id"),
        (lambda config: config.update(end_token_id="319"), "end_token_id is '319', but must be int"),
        (lambda config: config.update(end_token_id=-1), "end_token_id is -1, but must be 0 or more"),
        (lambda config: config.update(n_processes="two"), "n_processes is 'two', but must be int"),
        (lambda config: config["mapper"].update(n_layers=0), "n_layers is 0"),
        (lambda config: config["mapper"].update(n_heads=0), "n_heads is 0"),
        (lambda config: config["mapper"].update(hidden_ratio=1e300), "hidden_ratio is 1e\\+300"),
        (lambda config: config["mapper"].pop("width"), "lacks width"),
        (lambda config: config["bridge"].update(noise_variance=-1), "noise_variance is -1"),
        (lambda config: config["training"].update(dropout=0.1), "no field dropout"),
        (lambda config: config.update(caption_files=3), "caption_files is 3, but must be a list"),
        (lambda config: config.update(bridge=None), "BridgeConfig is None, but must be an object"),
        (lambda config: config["packages"].update(torch=2), "packages.torch is 2, but must be str"),
    ],
)
def test_invalid_setting_is_named(folder: Path, change: Change, message: str) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=rf"config\.json is not a valid model configuration: .*{message}"):
        load_model(folder)


def test_tensor_of_another_shape_is_named(folder: Path) -> None:
    edit_mapper(folder, lambda tensors: tensors.update(constants=tensors["constants"].reshape(1, -1)))
    with pytest.raises(CheckpointError, match=r"does not fit config\.json: .* size mismatch for constants: .*\[2, 8\]"):
        load_model(folder)


def test_unknown_tensor_is_named(folder: Path) -> None:
    edit_mapper(folder, lambda tensors: tensors.update({"layers.9.extra": torch.zeros(0)}))
    with pytest.raises(CheckpointError, match=r'does not fit config\.json: .* Unexpected key.*: "layers\.9\.extra"'):
        load_model(folder)


def test_backbone_of_other_weights_or_sizes_does_not_fit(folder: Path) -> None:
    backbone = Backbone.load("tiny")
    with pytest.raises(CheckpointError, match="was trained on tiny, its CLAP with weights abababababab, but those"):
        load_model(folder).check_backbone(backbone)
    edit(folder, lambda config: config.update(clap_hash=backbone.clap.content_hash))
    with pytest.raises(CheckpointError, match="on tiny, its language model with weights 121212121212"):
        load_model(folder).check_backbone(backbone)
    edit(folder, lambda config: config.update(language_model_hash=backbone.language_model_half.content_hash))
    with pytest.raises(CheckpointError, match=r"config\.json does not fit the sizes of tiny"):
        load_model(folder).check_backbone(backbone)
    config = replace(CONFIG, **recorded(backbone), mapper=backbone.config.mapper)
    for end_token_id, fits in ((999, True), (1000, False), (2**63, False)):
        save_model(folder, replace(config, end_token_id=end_token_id), Mapper(config.mapper), force=True)
        if fits:
            load_model(folder).check_backbone(backbone)
        else:
            with pytest.raises(CheckpointError, match=r"config\.json does not fit the sizes of tiny"):
                load_model(folder).check_backbone(backbone)


def test_card_has_the_facts_and_escapes_captions(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    for fact in ("1,234 captions", "tiny", "ab" * 32, "0.04", "1.5000", "62%", "textcap train captions.txt"):
        assert fact in card, fact
    (row,) = (line for line in card.splitlines() if "a dog barks" in line)
    assert row == r"| a dog barks | a \| \<b\>dog\</b\>\\x0a\# barks \` |"


def test_card_escapes_names_and_the_command() -> None:
    values = {
        "bridge": asdict(BridgeConfig(0.0)),
        "mapper": {"n_layers": 1, "prefix_length": 2},
        "training": {
            "epochs": 1,
            "steps": None,
            "keep": "last",
            "batch_size": 1,
            "learning_rate": 1e-4,
            "warmup_steps": 0,
            "seed": 0,
        },
        "caption_files": [{"name": "<script>.txt\n# not a heading", "sha256": "0", "n_captions": 1, "weight": 1.0}],
        "pair_files": [],
        "validation_files": [],
        "adapter": None,
        "n_training_captions": 1,
        "n_held_out_captions": 0,
        "backbone": {"backbone": "|x|", "clap": None, "language_model": "<b>/c"},
        "clap_hash": "`",
        "clap_licence": "|",
        "language_model_hash": "0",
        "language_model_licence": "",
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
    assert any(r"| CLAP | \|x\|, licence: \|, content hash `?` |" == line for line in lines)
    assert any(r"| language model | \<b\>/c, licence: unknown, content hash `0` |" == line for line in lines)


def test_card_shows_no_absolute_path(tmp_path: Path, mapper: Mapper) -> None:
    place = tmp_path / "private place"
    adapter = AdapterFacts(
        "tiny", "ab" * 32, "ridge", 1e-3, 9, 9, 9, f"{place}/h.csv", "cd" * 32, 0, 0.4, 0.6, 0.5, 0.5, 0.9, 1.0
    )
    config = replace(
        CONFIG,
        backbone=BackboneNames(str(place / "backbone")),
        bridge=BridgeConfig(calibration=NoiseCalibration(f"{place}/noise.csv", "ab" * 32, 9, 0, "mean")),
        caption_files=(CaptionFile(f"{place}/a.txt", "cd" * 32, 3), CaptionFile("sub/b.txt", "cd" * 32, 3)),
        pair_files=(CaptionFile(r"C:\secret\pairs.csv", "cd" * 32, 3),),
        adapter=adapter,
        command=shlex.join(
            ["/opt/bin/textcap", "train", f"{place}/a.txt:0.5", "sub/b.txt", f"--adapter={place}/h", "-q"]
        ),
    )
    save_model(place / "model", config, mapper, METRICS)
    card = (place / "model" / "README.md").read_text(encoding="utf-8")
    for secret in (str(tmp_path), "private", "secret", "/opt"):
        assert secret not in card
    for kept in ("backbone", "noise", "sub/b", "pairs", "h.csv", "textcap train a.txt:0.5 sub/b.txt --adapter=h -q"):
        assert kept in card, kept
