"""The linear adapter: its fit against numpy and scikit-learn, its file, and its use in the bridge."""

import json
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file
from sklearn.linear_model import Ridge

from textcap.config import AdapterFacts, BridgeConfig
from textcap.errors import CheckpointError, InputError
from textcap.files import seal
from textcap.gap.adapter import LinearAdapter, load_adapter, save_adapter
from textcap.gap.bridge import Bridge
from textcap.gap.fit import fit_adapter
from textcap.gap.retrieval import measure_retrieval, unit_rows
from textcap.models.backbone import Backbone
from textcap.models.loading import sha256_of_tensors

FACTS = AdapterFacts(
    "tiny", "ab" * 32, "ridge", 1e-3, 120, 240, 24, "蝉.csv", "cd" * 32, 0, 0.4, 0.6, 0.5, 0.5, 0.9, 1.0
)


def pairs(n: int, width: int = 12, captions_each: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return audio `[N, E]`, text `[M, E]` and owners `[M]` of pairs with a linear gap and some noise."""
    rng = np.random.default_rng(seed)
    audio = unit_rows(rng.normal(size=(n, width)))
    owners = np.repeat(np.arange(n), captions_each)
    matrix = rng.normal(size=(width, width)) / width**0.5
    return audio, audio[owners] @ matrix + 0.3 + 0.05 * rng.normal(size=(len(owners), width)), owners


def apply_fitted(fitted, text: np.ndarray) -> np.ndarray:
    """Return h of text embeddings `[M, E]` that are made unit length first."""
    return unit_rows(text) @ fitted.matrix.T + fitted.bias


# The fit.


@pytest.mark.parametrize("captions_each", [1, 3])
def test_strength_zero_equals_numpy_least_squares(captions_each: int) -> None:
    audio, text, owners = pairs(80, captions_each=captions_each)
    fitted = fit_adapter(audio, text, owners, strength=0)
    rows = np.hstack([unit_rows(text), np.ones((len(text), 1))])
    solution = np.linalg.lstsq(rows, audio[owners], rcond=None)[0]
    np.testing.assert_allclose(fitted.matrix, solution[:-1].T, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, solution[-1], atol=1e-6)
    assert fitted.loss == pytest.approx(((rows @ solution - audio[owners]) ** 2).sum(1).mean(), rel=1e-6)


@pytest.mark.parametrize("strength", [1e-5, 1e-2, 1.0])
def test_ridge_equals_scikit_learn(strength: float) -> None:
    audio, text, owners = pairs(60, captions_each=2)
    fitted = fit_adapter(audio, text, owners, strength=strength)
    theirs = Ridge(alpha=strength * len(text)).fit(unit_rows(text), audio[owners])
    np.testing.assert_allclose(fitted.matrix, theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, theirs.intercept_, atol=1e-6)


def test_fewer_pairs_than_dimensions_can_be_fitted() -> None:
    audio, text, owners = pairs(30, width=64)
    exact = fit_adapter(audio, text, owners, strength=0)
    # Without a penalty it fits every pair exactly, which does not generalise: the best strength is above 0.
    np.testing.assert_allclose(apply_fitted(exact, text), audio, atol=1e-5)
    assert fit_adapter(audio, text, owners).strength > 0


def test_known_linear_gap_is_removed() -> None:
    rng = np.random.default_rng(1)
    audio = unit_rows(rng.normal(size=(400, 12)))
    # A rotation of the audio embeddings, which a matrix can undo exactly.
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    text = audio @ rotation
    fitted = fit_adapter(audio, text, np.arange(400))
    np.testing.assert_allclose(apply_fitted(fitted, text), audio, atol=1e-4)
    assert fitted.before.recall_at_1 < 0.2
    assert (fitted.after.recall_at_1, fitted.after.cosine) == (1.0, pytest.approx(1.0, abs=1e-6))


def test_sgd_reaches_the_closed_form() -> None:
    audio, text, owners = pairs(1500)
    ridge = fit_adapter(audio, text, owners, strength=0)
    sgd = fit_adapter(audio, text, owners, method="sgd", epochs=150, learning_rate=1e-2)
    assert sgd.strength == 0
    assert sgd.loss == pytest.approx(ridge.loss, rel=0.01)
    assert sgd.loss >= ridge.loss * (1 - 1e-6)


def test_sgd_is_repeatable_and_its_strength_shrinks_the_matrix() -> None:
    audio, text, owners = pairs(60)
    first, again, other = (fit_adapter(audio, text, owners, method="sgd", epochs=5, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert not np.array_equal(first.matrix, other.matrix)
    shrunk = fit_adapter(audio, text, owners, method="sgd", epochs=300, learning_rate=1e-2, strength=10.0)
    assert np.abs(shrunk.matrix).max() < 0.1


def test_held_out_figures_come_from_clips_it_was_not_fitted_on() -> None:
    audio, text, owners = pairs(100, captions_each=2, seed=3)
    fitted = fit_adapter(audio, text, owners, strength=1e-3, seed=4)
    held_out = np.sort(np.random.default_rng([4, 0]).choice(100, 20, replace=False))
    rest = ~np.isin(owners, held_out)
    theirs = Ridge(alpha=1e-3 * rest.sum()).fit(unit_rows(text)[rest], audio[owners][rest])
    first_captions = text[2 * held_out]
    expected = measure_retrieval(audio[held_out], theirs.predict(unit_rows(first_captions)))
    assert fitted.n_held_out == 20
    assert fitted.after.cosine == pytest.approx(expected.cosine, abs=1e-9)
    assert fitted.after.recall_at_1 == expected.recall_at_1
    before = measure_retrieval(audio[held_out], first_captions)
    assert fitted.before.cosine == pytest.approx(before.cosine, abs=1e-9)
    assert fitted.before.recall_at_10 == before.recall_at_10


@settings(max_examples=20)
@given(order=st.permutations(range(25)), scale=st.floats(0.01, 100))
def test_order_and_length_of_embeddings_do_not_matter(order: list[int], scale: float) -> None:
    audio, text, owners = pairs(25, width=5)
    plain = fit_adapter(audio, text, owners, strength=1e-3)
    other = fit_adapter(audio * scale, text[order] * scale, owners[order], strength=1e-3)
    np.testing.assert_allclose(other.matrix, plain.matrix, atol=1e-6)
    np.testing.assert_allclose(other.bias, plain.bias, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method is 'magic', but must be ridge or sgd"),
        ({"strength": -1.0}, "strength is -1.0"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": 1.0}, "learning_rate is 1.0"),
    ],
)
def test_setting_out_of_range_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_adapter(*pairs(30), **options)


def test_too_few_pairs_and_wrong_shapes_are_refused() -> None:
    audio, text, owners = pairs(19)
    with pytest.raises(InputError, match="fitting an adapter needs at least 20 pairs, but got 19"):
        fit_adapter(audio, text, owners)
    with pytest.raises(ValueError, match="owners"):
        fit_adapter(audio, text, owners[1:])


# The file.


@pytest.fixture
def adapter() -> LinearAdapter:
    generator = torch.Generator().manual_seed(0)
    return LinearAdapter(torch.randn(6, 6, generator=generator), torch.randn(6, generator=generator), FACTS)


def test_saved_adapter_loads_unchanged(adapter: LinearAdapter, tmp_path: Path) -> None:
    save_adapter(tmp_path / "h.safetensors", adapter)
    found = load_adapter(tmp_path / "h.safetensors")
    assert torch.equal(found.matrix, adapter.matrix) and torch.equal(found.bias, adapter.bias)
    assert found.facts == FACTS
    save_adapter(tmp_path / "again.safetensors", found)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "h.safetensors").read_bytes()


def test_nan_is_not_written(adapter: LinearAdapter, tmp_path: Path) -> None:
    broken = replace(adapter, bias=torch.full((6,), float("nan")))
    with pytest.raises(InputError, match="contains NaN or infinite values"):
        save_adapter(tmp_path / "h.safetensors", broken)
    assert list(tmp_path.iterdir()) == []


def write(path: Path, matrix: torch.Tensor, bias: torch.Tensor, **changes: object) -> Path:
    """Write an adapter file as somebody would who knows how its SHA-256 is computed."""
    tensors = {"matrix": matrix, "bias": bias}
    head = {"kind": "textcap adapter", "format_version": "3", "facts": json.dumps(vars(FACTS))}
    save_file(tensors, path, seal({**head, "tensors": sha256_of_tensors(tensors), **changes}))
    return path


def test_invalid_adapter_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    eye, zero = torch.eye(3), torch.zeros(3)
    assert load_adapter(write(path, eye, zero)).facts == FACTS
    path.unlink()
    with pytest.raises(CheckpointError, match=r"h\.safetensors does not exist \(run textcap fit-adapter"):
        load_adapter(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_adapter(path)
    for metadata in (None, {"textcap": "{"}, {"sha256": "1"}):
        save_file({"matrix": eye, "bias": zero}, path, metadata)
        with pytest.raises(CheckpointError, match=r"h\.safetensors (lacks its SHA-256|is damaged)"):
            load_adapter(path)
    for facts in ("", "{", "[" * 100_000, '{"a": 1' + "0" * 40 + "}"):
        with pytest.raises(CheckpointError, match=r"h\.safetensors is not valid JSON: "):
            load_adapter(write(path, eye, zero, facts=facts))
    with pytest.raises(CheckpointError, match=r"its matrix has shape \[3, 3\] and its bias \[4\]"):
        load_adapter(write(path, eye, torch.zeros(4)))
    with pytest.raises(CheckpointError, match="contains NaN or infinite values in matrix"):
        load_adapter(write(path, eye * float("inf"), zero))
    with pytest.raises(CheckpointError, match="tensor matrix of type I32, but must have float32"):
        load_adapter(write(path, eye.int(), zero))
    with pytest.raises(CheckpointError, match="has format 1, but this version of textcap reads format 3"):
        load_adapter(write(path, eye, zero, format_version="1"))
    with pytest.raises(CheckpointError, match="AdapterFacts is None, but must be an object"):
        load_adapter(write(path, eye, zero, facts="null"))
    with pytest.raises(CheckpointError, match="AdapterFacts.method is 1, but must be str"):
        load_adapter(write(path, eye, zero, facts=json.dumps({**vars(FACTS), "method": 1})))
    with pytest.raises(CheckpointError, match="is not a valid adapter file"):
        load_adapter(write(path, eye, zero, kind="another"))
    with pytest.raises(CheckpointError, match="the SHA-256 of its tensors is not the one it records"):
        load_adapter(write(path, eye, zero, tensors="ab"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_adapter(tmp_path)


def test_adapter_of_other_weights_or_another_width_does_not_fit(adapter: LinearAdapter) -> None:
    backbone = Backbone.load("tiny")
    with pytest.raises(CheckpointError, match=r"h was fitted on tiny with weights abababababab, not [0-9a-f]{12}"):
        adapter.check_backbone(backbone, "h")
    forged = replace(adapter, facts=replace(FACTS, clap_hash=backbone.clap.content_hash))
    with pytest.raises(CheckpointError, match="h has width 6, but the embeddings of tiny have width 256"):
        forged.check_backbone(backbone, "h")
    replace(forged, matrix=torch.eye(256), bias=torch.zeros(256)).check_backbone(backbone, "h")


# In the bridge.


def test_bridge_applies_the_adapter_before_the_noise(adapter: LinearAdapter) -> None:
    text = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    unit = text.numpy().astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    adapted = unit @ adapter.matrix.double().numpy().T + adapter.bias.double().numpy()
    adapted /= np.linalg.norm(adapted, axis=1, keepdims=True)
    noiseless = Bridge(BridgeConfig(noise_variance=0.0), adapter).text_side(text, torch.Generator())
    np.testing.assert_allclose(noiseless.numpy(), adapted, atol=1e-6)
    noise = torch.randn((5, 6), generator=torch.Generator().manual_seed(2)).double().numpy() * 0.3
    noisy = adapted + noise
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    found = Bridge(BridgeConfig(noise_variance=0.09), adapter).text_side(text, torch.Generator().manual_seed(2))
    np.testing.assert_allclose(found.numpy(), noisy, atol=1e-6)


def test_audio_training_side_adds_noise_only_if_configured(adapter: LinearAdapter) -> None:
    audio = torch.nn.functional.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(3)))
    plain = Bridge(BridgeConfig(noise_variance=0.5), adapter)
    torch.testing.assert_close(plain.audio_training_side(audio, torch.Generator()), audio)
    torch.testing.assert_close(plain.audio_side(audio * 7), audio)
    noisy = Bridge(BridgeConfig(audio_noise_variance=0.09)).audio_training_side(audio, torch.Generator().manual_seed(0))
    noise = torch.randn((4, 6), generator=torch.Generator().manual_seed(0)) * 0.3
    torch.testing.assert_close(noisy, torch.nn.functional.normalize(audio + noise))
