"""Weight files: the supported formats, the errors for broken files, and exact loading."""

import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from textcap.errors import CheckpointError, InputError
from textcap.models.loading import Checkpoint, TensorSource, load_exact, read_checkpoint, read_tensors, write_tensors

TENSORS = {"first.weight": torch.arange(6.0).view(2, 3), "first.bias": torch.tensor([-1.0, 1.0])}


def _write_pth(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_pth_file_gives_the_tensors_under_model(tmp_path, zipped):
    content = {"model": OrderedDict(TENSORS), "epoch": 3}
    path = _write_pth(tmp_path / "weights.pth", content, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert checkpoint.path == path
    assert {name: tensor.tolist() for name, tensor in checkpoint.tensors.items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }


def test_safetensors_file_gives_all_tensors(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert set(read_checkpoint(tmp_path / "model.safetensors").tensors) == set(TENSORS)


class _RunsCode:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>sorry</html>", b"\x00" * 64, b"PK\x03\x04"])
def test_file_that_is_not_a_weight_file_is_an_error_of_one_line(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value) and "make a complete copy of its folder" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file_is_an_error(tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    large = {name: tensor.repeat(50, *[1] * (tensor.dim() - 1)) for name, tensor in TENSORS.items()}
    torch.save({"model": large}, path) if suffix == ".pth" else save_file(large, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_checkpoint(path)


def test_file_with_code_is_an_error_and_the_code_does_not_run(tmp_path, capsys):
    for name, write in (
        ("zip.pth", torch.save),
        ("plain.pth", lambda content, path: path.write_bytes(content)),
    ):
        path = tmp_path / name
        write({"model": _RunsCode()} if name == "zip.pth" else pickle.dumps({"model": _RunsCode()}, protocol=2), path)
        with pytest.raises(
            CheckpointError,
            match="is truncated or not a weight file|is not a weight file, or contains more than tensors",
        ):
            read_checkpoint(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [{"state": TENSORS}, {"model": {"a": 1}}, [1, 2], TENSORS["first.bias"]])
def test_file_without_tensors_under_model_is_an_error(tmp_path, content):
    path = _write_pth(tmp_path / "weights.pth", content)
    with pytest.raises(CheckpointError, match='has no tensors under "model"'):
        read_checkpoint(path)


def test_missing_file_is_an_error_with_its_name(tmp_path):
    for name in ("gone.pth", "gone.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{name} does not exist \(make a complete copy of its folder"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["gone.pth", "short.safetensors"])
def test_hint_for_a_downloaded_file_is_textcap_fetch(tmp_path, name):
    folder = tmp_path / "models--openai-community--gpt2" / "snapshots" / "0"
    folder.mkdir(parents=True)
    (folder / "short.safetensors").write_bytes(b"{")
    with pytest.raises(CheckpointError, match=rf"{name}.*run textcap fetch"):
        read_checkpoint(folder / name)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_that_cannot_be_opened_is_not_reported_as_missing(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_checkpoint(path)
    path.rmdir()
    path.touch(0)
    if os.access(path, os.R_OK):
        pytest.skip("root can read all files")
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        read_checkpoint(path)


def _module() -> torch.nn.Module:
    return torch.nn.ModuleDict({"first": torch.nn.Linear(3, 2)})


def test_load_fills_every_tensor_and_lists_the_unused(tmp_path):
    extras = {
        "more": torch.zeros(1),
        "h.0.attn.bias": torch.zeros(1),
        "x.num_batches_tracked": torch.zeros(1),
    }
    checkpoint = Checkpoint(tmp_path, TENSORS | extras)
    module = _module()
    load_exact(module, checkpoint)
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in module.state_dict().items())
    assert checkpoint.unused == ["more"] and checkpoint.absent == set()


def test_load_renames_extracts_and_converts_tensors():
    stacked = torch.arange(4).to(torch.bfloat16)
    module = _module()
    before = module.state_dict()["first.weight"].clone()
    checkpoint = Checkpoint("file", {"both": stacked})
    sources = {
        "first.bias": TensorSource("both", lambda tensor: tensor.chunk(2)[1]),
        "first.weight": TensorSource("absent", optional=True),
    }
    load_exact(module, checkpoint, sources.__getitem__)
    assert module.state_dict()["first.bias"].tolist() == [2.0, 3.0]
    assert torch.equal(module.state_dict()["first.weight"], before)
    assert checkpoint.absent == {"absent"} and checkpoint.unused == []


def test_missing_tensor_and_wrong_shape_are_errors_with_the_name_of_the_tensor():
    with pytest.raises(CheckpointError, match="file lacks the tensor first.weight"):
        load_exact(_module(), Checkpoint("file", {"first.bias": TENSORS["first.bias"]}))
    wrong = TENSORS | {"first.weight": torch.zeros(3, 2)}
    with pytest.raises(CheckpointError, match=r"file: tensor first.weight has shape \[3, 2\] instead of \[2, 3\]"):
        load_exact(_module(), Checkpoint("file", wrong))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.int(), r"tensor first\.weight has type torch.int32 instead of torch.float32"),
        (lambda tensor: tensor * float("nan"), r"tensor first\.weight contains NaN or infinite values"),
        (lambda tensor: tensor / 0, r"tensor first\.weight contains NaN or infinite values"),
    ],
)
def test_tensor_with_values_that_cannot_be_weights_is_refused(tmp_path, change, message):
    tensors = dict(_module().state_dict())
    save_file({**tensors, "first.weight": change(tensors["first.weight"]).contiguous()}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_exact(_module(), read_checkpoint(tmp_path / "m.safetensors"))


def test_file_with_fewer_numbers_than_parameters_is_refused(tmp_path):
    save_file(TENSORS, tmp_path / "m.safetensors")
    checkpoint = read_checkpoint(tmp_path / "m.safetensors")
    n_values = sum(tensor.numel() for tensor in TENSORS.values())
    checkpoint.require_values(n_values)
    with pytest.raises(
        CheckpointError, match=rf"has {n_values} numbers, but the configuration asks for {n_values + 1}"
    ):
        checkpoint.require_values(n_values + 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pipe_is_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"m{suffix}")
    with pytest.raises(CheckpointError, match="cannot be read: Not a regular file"):
        read_checkpoint(tmp_path / f"m{suffix}")


def test_written_tensors_are_read_with_their_metadata_and_give_the_same_bytes(tmp_path):
    tensors = {
        "b": torch.randn(2, 3),
        "a": torch.randn(4).double(),
        "scalar": torch.tensor(7.0),
        "none": torch.empty(0, 5),
    }
    metadata = {"names": '["a", "\u8749"]', "kind": "x", "z": "\n\x01"}
    for name in ("one", "two"):
        write_tensors(tmp_path / name, tensors, metadata)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found, kept = read_tensors(tmp_path / "one", hint="", n_values=11)
    assert kept == metadata and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.float())
    with pytest.raises(InputError, match="b contains NaN or infinite values, so .*three is not written"):
        write_tensors(tmp_path / "three", {"b": torch.tensor([float("inf")])}, {})
