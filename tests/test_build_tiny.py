"""The build of the tiny backbone: its loop continues where it was killed; styles, the gap, a quick run of it all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from textcap.demo.grammar import event_f1
from textcap.demo.scenes import LAYOUTS, sample_scene
from textcap.models.backbone import Backbone, read_backbone_config
from tiny.loop import train
from tiny.projections import private_part, ridge_weights, scene_features
from tiny.settings import EVENT_SHARES, LanguageSettings
from tiny.styles import STYLES
from tiny.words import draw_caption, draw_text

BUILD = Path(__file__).parent.parent / "tools" / "build_tiny.py"


def run(folder: Path, *, stop_at: int | None = None, learning_rate: float = 1e-2) -> Tensor:
    """Train a small model for 120 steps; return its weights."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)

    def loss_of(step: int) -> Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        rows = torch.from_numpy(np.random.default_rng([5, step]).standard_normal((8, 4))).float()
        return (model(rows) - rows[:, :2]).square().mean()

    steps: list[int] = []
    settings = {"steps": 120, "learning_rate": learning_rate, "weight_decay": 0.01}
    try:
        train(folder / "model.unfinished", model, loss_of, lambda step, *_: steps.append(step), **settings)
    except KeyboardInterrupt:
        assert stop_at is not None
    return model.weight.detach().clone()


def test_training_continues_at_its_last_checkpoint(tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole")
    stopped = run(tmp_path / "stopped", stop_at=75)
    assert not torch.equal(stopped, whole)
    assert torch.equal(run(tmp_path / "stopped", stop_at=110), stopped) is False
    assert torch.equal(run(tmp_path / "stopped"), whole)


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    run(tmp_path / "stopped", stop_at=75)
    assert torch.equal(run(tmp_path / "stopped", learning_rate=1e-3), run(tmp_path / "whole", learning_rate=1e-3))


def test_styled_captions_name_their_sounds_and_lists_name_the_style() -> None:
    rng = np.random.default_rng(1)
    drawn = [(sample_scene(rng, unseen=False, event_shares=EVENT_SHARES)) for _ in range(300)]
    styles, captions = zip(*(draw_caption(scene, rng) for scene in drawn), strict=True)
    assert set(styles) == set(STYLES) and 0.5 < styles.count("plain") / len(styles) < 0.7
    assert event_f1(captions, drawn).f1 == 1.0
    contexts = [draw_text(rng, LanguageSettings())[0] for _ in range(300)]
    assert any(context.startswith("headline list: ") for context in contexts)
    assert any(context.startswith("list: ") for context in contexts)


def test_private_part_is_what_the_scene_does_not_predict() -> None:
    rng = np.random.default_rng(2)
    scenes = [sample_scene(rng, unseen=False) for _ in range(900)]
    features = scene_features(scenes)
    assert features.shape == (900, 3 * 48 + len(LAYOUTS) + 4) and (features[:, -1] == 1).all()
    heard = features @ torch.randn(features.shape[1], 16)
    own = torch.randn(900, 16)
    found = private_part(heard + own, features, ridge_weights(heard + own, features))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(900))
    cosine = torch.nn.functional.cosine_similarity(found, own).mean()
    assert cosine > 0.9
    assert abs(torch.nn.functional.cosine_similarity(found, heard).mean()) < 0.2


@pytest.mark.slow
def test_every_stage_of_the_build_runs_and_a_second_run_writes_the_same(tmp_path: Path) -> None:
    command = [sys.executable, str(BUILD), "--quick", "--work", str(tmp_path / "work")]
    for name in ("one", "two"):
        subprocess.run([*command, "--out", str(tmp_path / name)], check=True, capture_output=True)
    config = read_backbone_config(str(tmp_path / "one"))
    assert config.default_bridge == "centre" and len(config.mean_sound) == 256
    assert np.linalg.norm(config.mean_text) <= 1
    narrow = load_file(tmp_path / "work" / "narrow.safetensors")
    assert {key.split(".")[0] for key in narrow} == {"audio_encoder", "text_encoder"}
    one, two = (Backbone.load(str(tmp_path / name)) for name in ("one", "two"))
    assert one.content_hash == two.content_hash
