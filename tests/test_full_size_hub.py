"""Models of the hub at full size, with random weights in the shapes of Qwen3-0.6B and larger_clap_general."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModelForCausalLM, AutoTokenizer, ClapConfig, ClapFeatureExtractor, ClapModel, Qwen3Config

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.language_model import SHAPES
from benchmarks.processes import ROOT, run_process
from full_size import randomise, write_sound
from hub_models import save_byte_level, save_roberta_tokenizer
from test_full_size_clap import CAPTIONS
from textcap.audio.windows import read_windows
from textcap.config import BridgeConfig, MapperConfig, TrainingConfig
from textcap.gap.bridge import Bridge
from textcap.models.clap import open_clap
from textcap.models.language_model import open_language_model
from textcap.training.data import make_examples
from textcap.training.loop import MapperTraining
from tiny_random import tiny_captions

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
N_PREFIX, N_TOKENS, BATCH = 40, 15, 128
MOST_GB = 8.0
RATE_HZ = 48000


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model in the shape of Qwen3-0.6B, in bfloat16 like the file on the hub."""
    folder = tmp_path_factory.mktemp("qwen")
    tokenizer = save_byte_level(folder)
    config = Qwen3Config(**SHAPES["Qwen3-0.6B"][1], eos_token_id=tokenizer.eos_token_id)
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(randomise(model.state_dict(), seed=1))
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def test_loss_and_gradient_at_the_prefix_equal_transformers(qwen: Path) -> None:
    half = open_language_model("qwen", qwen)
    model = half.load()
    reference = AutoModelForCausalLM.from_pretrained(qwen, dtype=torch.float32)
    assert half.config.width == 1024 and sum(one.numel() for one in model.parameters()) == 596_049_920
    embed = reference.get_input_embeddings()
    torch.manual_seed(2)
    tokens, lengths = torch.randint(256, (3, N_TOKENS)), torch.tensor([N_TOKENS, 1, 9])
    prefixes = 0.03 * torch.randn(3, N_PREFIX, 1024)  # as long as token vectors
    ours, theirs = prefixes.clone().requires_grad_(), prefixes.clone().requires_grad_()
    is_target = torch.arange(N_TOKENS) < lengths[:, None]
    labels = torch.cat((torch.full((3, N_PREFIX), -100), tokens.where(is_target, -100)), dim=1)
    loss = model.loss(ours, tokens, lengths)
    expected = reference(inputs_embeds=torch.cat((theirs, embed(tokens)), dim=1), labels=labels).loss
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert ours.grad is not None and theirs.grad is not None
    largest = float(theirs.grad.abs().max())
    assert largest > 1e-4
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=TOLERANCE * largest)


def test_a_step_of_the_default_batch_needs_less_than_8_gb(qwen: Path) -> None:
    program = "import sys, test_full_size_hub as tests; tests.make_step(sys.argv[1])"
    path = os.pathsep.join(str(ROOT / name) for name in ("", "src", "tests"))
    used = run_process([sys.executable, "-c", program, qwen], qwen, {"PYTHONPATH": path})
    loss = float(used.output)
    assert loss == pytest.approx(np.log(151936), abs=2.5)
    assert used.peak_mb is not None
    print(f"{used.peak_mb / 1000:.2f} GB, {used.wall_s:.0f} s, of which {used.cpu_s:.0f} s of processors")
    assert 4 < used.peak_mb / 1000 < MOST_GB


def make_step(folder: str) -> None:
    """Train a mapper of the paper's size for one step, and print its loss; run in a process of its own."""
    half = open_language_model("qwen", Path(folder))
    tokenizer = half.tokenizer
    texts = [f"{one} while {one}" * 3 for one in tiny_captions(BATCH)]
    captions = [tokenizer.decode(ids[: N_TOKENS - 1]) for ids in tokenizer.encode(texts)]
    generator = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(BATCH, MapperConfig.embedding_width, generator=generator), dim=-1).numpy()
    examples = make_examples(captions, embeddings, tokenizer)
    assert examples.tokens.lengths.mean() == pytest.approx(N_TOKENS, abs=1)
    training = MapperTraining(
        examples,
        half.load(),
        tokenizer,
        Bridge(BridgeConfig(noise_variance=0.0)),
        MapperConfig(width=half.config.width),
        TrainingConfig(batch_size=BATCH),
        Accelerator(cpu=True),
    )
    loss_sum = training._step(examples.epoch_batches(BATCH, 0, 0)[0], 0, 0)
    print(float(loss_sum) / int(examples.tokens.lengths.sum()))


@pytest.fixture(scope="module")
def larger_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAP in the shape of laion/larger_clap_general; what it leaves out are defaults of transformers."""
    folder = tmp_path_factory.mktemp("clap")
    save_roberta_tokenizer(folder)
    sound = {"depths": [2, 2, 12, 2], "hidden_size": 1024, "patch_embeds_hidden_size": 128}
    model = ClapModel(ClapConfig(audio_config=sound, projection_dim=512))
    model.load_state_dict(randomise(model.state_dict(), seed=3))
    model.save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=RATE_HZ,
        hop_length=480,
        max_length_s=10,
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=14000,
        truncation="rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)
    return folder


def test_embeddings_of_sounds_and_texts_equal_transformers(larger_clap: Path, tmp_path: Path) -> None:
    half = open_clap("larger", larger_clap)
    reference = ClapModel.from_pretrained(larger_clap).eval()
    config = half.config
    assert (config.embedding_width, config.audio_tower.width, config.text_tower.n_layers) == (512, 1024, 12)
    paths = [write_sound(tmp_path / f"{n}.wav", seconds, n, RATE_HZ) for n, seconds in enumerate((10.0, 10.0, 3.5))]
    windows = [read_windows(path, config.audio) for path in paths]
    sounds = [torch.from_numpy(window.samples) for several in windows for window in several]
    assert len(sounds) == 3
    extractor, tokenizer = ClapFeatureExtractor.from_pretrained(larger_clap), AutoTokenizer.from_pretrained(larger_clap)
    whole = [sound.numpy() for sound in sounds[:2]] + [sounds[2].numpy()[: round(3.5 * RATE_HZ)]]
    features = extractor(whole, sampling_rate=RATE_HZ, return_tensors="pt")
    texts = [*CAPTIONS[:12], "rain", "a dog barks and then " * 20]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        heard, read = (
            normalize(_plain(features), dim=-1)
            for features in (reference.get_audio_features(**features), reference.get_text_features(**tokens))
        )
        for ours, theirs in (
            (half.audio_encoder()(torch.stack(sounds)), heard),
            (half.text_encoder().encode(texts), read),
        ):
            assert (theirs[0] - theirs[1]).norm() > 0.01
            print(f"largest difference {float((ours - theirs).abs().max()):.1e}")
            torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


def _plain(features: Any) -> Tensor:
    """Return transformers' features, which 5 returns in an output."""
    return features if isinstance(features, Tensor) else features.pooler_output
