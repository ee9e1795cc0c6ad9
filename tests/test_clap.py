"""The CLAP encoders: the log-mel front end, embeddings independent of their batch, and pooling."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Model

from reference_models import gpt2_config
from textcap.config import AudioConfig, AudioTowerConfig, ClapConfig, TextTowerConfig
from textcap.models.clap import FrontEnd
from textcap.models.msclap import MsclapAudioEncoder, MsclapTextEncoder
from tiny_random import write_tokenizer

with tempfile.TemporaryDirectory() as _folder:
    TOKENIZER = write_tokenizer(Path(_folder))
CONFIG = ClapConfig(
    audio=AudioConfig(
        sample_rate_hz=8000,
        window_s=1.0,
        hop_s=0.5,
        n_fft=256,
        stft_hop_samples=128,
        n_mels=16,
        mel_rate_hz=8000,
        mel_min_hz=0.0,
        mel_max_hz=4000.0,
    ),
    audio_tower=AudioTowerConfig(spec_size=32, patch_width=8, depths=(1, 1), n_heads=(1, 2), attention_window=4),
    text_tower=TextTowerConfig(
        n_layers=2, width=16, n_heads=2, n_positions=32, vocab_size=TOKENIZER.vocab_size, max_tokens=12
    ),
    embedding_width=24,
)


def _text_encoder() -> MsclapTextEncoder:
    torch.manual_seed(0)
    return MsclapTextEncoder(CONFIG, TOKENIZER).eval()


def test_log_mel_equals_a_direct_fourier_transform() -> None:
    front_end = FrontEnd(CONFIG.audio)
    signal = np.random.default_rng(0).uniform(-1, 1, 8000)
    padded = np.pad(signal, 128, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    frames = np.stack([padded[i : i + 256] * hann for i in range(0, 8001, 128)])
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(256), np.arange(129)) / 256)
    power = np.abs(frames @ kernel) ** 2
    expected = 10 * np.log10(np.maximum(power @ front_end.mel.numpy().astype(float), 1e-10))

    log_mel = front_end(torch.from_numpy(signal[None]).float())
    assert log_mel.shape == (1, 1, 63, 16)
    np.testing.assert_allclose(log_mel[0, 0].numpy(), expected, atol=2e-3)


def test_silence_is_at_the_power_floor() -> None:
    assert FrontEnd(CONFIG.audio)(torch.zeros(1, 8000)).unique().tolist() == [-100.0]


def test_front_end_of_the_paper_has_965_frames_of_64_mel_bins() -> None:
    assert FrontEnd(AudioConfig())(torch.zeros(1, AudioConfig().window_samples)).shape == (1, 1, 965, 64)


def test_audio_embeddings_are_unit_length_and_independent_of_the_batch() -> None:
    torch.manual_seed(0)
    encoder = MsclapAudioEncoder(CONFIG).eval()
    windows = torch.rand(3, 8000) - 0.5
    with torch.inference_mode():
        together, alone = encoder(windows), torch.cat([encoder(w[None]) for w in windows])
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tower_in_half_precision_gives_nearly_the_same_embeddings(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = MsclapAudioEncoder(CONFIG).eval()
    windows = torch.rand(3, 8000) - 0.5
    with torch.inference_mode():
        exact, half = encoder(windows), encoder.compute_in(dtype)(windows)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.norm(dim=-1), torch.ones(3))
    assert 0 < (half - exact).abs().max() < 0.05


@settings(max_examples=25)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=9), st.integers(1, 4))
def test_text_embeddings_are_unit_length_and_independent_of_the_batch(captions: list[str], batch_size: int) -> None:
    encoder = _text_encoder()
    together = encoder.encode(captions, batch_size=batch_size)
    alone = torch.cat([encoder.encode([caption]) for caption in captions])
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(len(captions)))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_text_is_pooled_at_the_last_token_even_if_its_id_is_0() -> None:
    encoder = _text_encoder()
    tokens = torch.tensor([[0, 0, 5, 0, 7, 0]])
    reference = GPT2Model(gpt2_config(CONFIG.text_tower)).eval()
    reference.load_state_dict(encoder.tower.state_dict())
    with torch.inference_mode():
        ours = encoder(tokens, torch.tensor([4]))
        hidden = reference(input_ids=tokens[:, :4]).last_hidden_state[:, -1]
        expected = torch.nn.functional.normalize(encoder.projection(hidden), dim=-1)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_long_caption_is_cut_at_the_limit() -> None:
    encoder = _text_encoder()
    long = "dog " * 50
    [ids] = TOKENIZER.encode_for_clap([long], 12)
    with torch.inference_mode():
        expected = encoder(torch.tensor([ids]), torch.tensor([12]))
    torch.testing.assert_close(encoder.encode([long]), expected, atol=1e-6, rtol=0)


def test_stretch_of_the_time_axis_runs_on_the_cpu_under_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without an MPS device, a tensor that claims to be on one is moved to the CPU and back.
    tower = MsclapAudioEncoder(CONFIG).eval().tower
    log_mel = torch.zeros(1, 1, 63, 16)
    moves: list[str] = []

    class OnMps(torch.Tensor):
        device = torch.device("mps")  # type: ignore[assignment]

        def cpu(self) -> torch.Tensor:  # type: ignore[override]
            moves.append("cpu")
            return log_mel

    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: (moves.append(str(device)), tensor)[1])
    tower._image(log_mel.as_subclass(OnMps))
    assert moves == ["cpu", "mps"]
