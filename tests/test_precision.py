"""Modules prepared for inference: packed weights, 8-bit products and half precision."""

import copy
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from test_language_model import TINY, make_pair
from textcap.config import DecodingConfig
from textcap.embedding.recordings import Recording, RecordingEmbedder
from textcap.errors import DeviceError, SettingError
from textcap.models import precision
from textcap.models.backbone import Backbone
from textcap.models.beam_search import beam_search
from textcap.models.precision import PRECISIONS, check_precision, prepare

CPU = torch.device("cpu")


def _prefixes(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 5, TINY.width, generator=torch.Generator().manual_seed(3))


@pytest.mark.skipif(not precision._works(precision._pack_float32), reason="torch cannot pack weights here")
def test_packed_language_model_equals_transformers_and_finds_the_same_captions() -> None:
    model, reference = make_pair()
    packed = prepare(copy.deepcopy(model))
    assert not any(isinstance(module, nn.Linear | precision.Conv1D) for module in packed.modules())
    _, logits = packed.start(_prefixes())
    with torch.no_grad():
        expected = reference(inputs_embeds=_prefixes()).logits[:, -1]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    for ours, plain in zip(
        beam_search(packed, _prefixes(), DecodingConfig(max_tokens=9), end_id=0),
        beam_search(model, _prefixes(), DecodingConfig(max_tokens=9), end_id=0),
        strict=True,
    ):
        assert ours[0].token_ids == plain[0].token_ids


def test_layers_stay_as_they_are_where_torch_cannot_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_works", lambda pack: False)
    model, _ = make_pair()
    expected = model.start(_prefixes())[1]
    assert torch.equal(prepare(model).start(_prefixes())[1], expected)
    assert isinstance(model.head, nn.Linear)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 30), st.integers(1, 9), st.floats(1e-3, 1e3), st.integers(0, 2**31))
def test_8_bit_product_is_that_of_rounded_rows_whatever_else_is_in_the_batch(
    n_in: int, n_out: int, n_rows: int, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(n_in, n_out)
    rows = torch.randn(n_rows, n_in) * scale * torch.logspace(-2, 2, n_rows)[:, None]
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    packed = prepare(nn.ModuleList([layer]), "int8")[0]
    together = packed(rows)
    alone = torch.cat([packed(row[None]) for row in rows])
    assert torch.equal(together, alone)

    x = rows.double().numpy()
    row_steps = np.abs(x).max(axis=1, keepdims=True) / 63  # 7 bits, of which one is the sign
    weight_steps = np.abs(weight).max(axis=1, keepdims=True) / 127
    # Each input is off by at most a step (its zero point is rounded, too), and each weight by at most half a step.
    bound = row_steps @ np.abs(weight).sum(axis=1)[None] + np.abs(x).sum(axis=1)[:, None] @ weight_steps.T
    assert (np.abs(together.detach().double().numpy() - (x @ weight.T + bias)) <= bound + 1e-4 * scale).all()


def test_8_bit_language_model_is_near_that_in_float32() -> None:
    model, _ = make_pair()
    exact = model.start(_prefixes())[1]
    rounded = prepare(model, "int8").start(_prefixes())[1]
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.std()


@pytest.mark.parametrize("name", ["bf16", "float16"])
def test_half_precision_decodes_with_scores_in_float32(name: str) -> None:
    model, _ = make_pair()
    exact = model.start(_prefixes())[1]
    half = prepare(model, name)
    _, logits = half.start(_prefixes())
    assert logits.dtype == torch.float32
    assert 0 < (logits - exact).abs().max() < 0.1 * exact.std()
    [best], *_ = beam_search(half, _prefixes(), DecodingConfig(max_tokens=5), end_id=0)
    assert best.score < 0


@pytest.mark.parametrize(
    ("name", "device", "reason"),
    [
        ("int8", "cuda", "int8 cannot be used on cuda: torch has 8-bit products for the CPU only"),
        ("bf16", "cpu", "bf16 cannot be used on cpu: the processor has no instructions for bf16"),
        ("float16", "cpu", "float16 cannot be used on cpu: the processor has no instructions for float16"),
        ("bf16", "cuda", "bf16 cannot be used on cuda: the GPU computes bfloat16 only by emulation"),
    ],
)
def test_precision_that_a_device_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, device: str, reason: str
) -> None:
    for op in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
        monkeypatch.setattr(torch.ops.mkldnn, op, lambda: False, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    with pytest.raises(DeviceError, match=reason):
        check_precision(name, torch.device(device))


def test_bf16_that_a_processor_only_emulates_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: False, raising=False)
    with pytest.raises(DeviceError, match="the processor has no instructions for bf16, so it would be slower"):
        check_precision("bf16", CPU)
    monkeypatch.setattr(precision.platform, "machine", lambda: "aarch64")
    check_precision("bf16", CPU)


def test_precision_that_a_device_has_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
        monkeypatch.setattr(torch.ops.mkldnn, op, lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    for name in PRECISIONS:
        check_precision(name, CPU)
    with pytest.raises(SettingError, match="precision is 'int4', but must be one of float32, int8, bf16, float16"):
        check_precision("int4", CPU)


def test_embeddings_of_another_precision_are_neither_read_nor_kept_as_float32(tmp_path: Path) -> None:
    sound = tmp_path / "noise.wav"
    soundfile.write(sound, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    backbone = Backbone.load("tiny")

    def embed(name: str) -> np.ndarray:
        (recording,) = RecordingEmbedder(backbone, CPU, name).embed([sound])
        assert isinstance(recording, Recording)
        return recording.embedding

    half, exact = embed("bf16"), embed("float32")
    assert 0 < np.abs(half - exact).max() < 0.05
    assert np.array_equal(embed("bf16"), half) and np.array_equal(embed("int8"), exact)
