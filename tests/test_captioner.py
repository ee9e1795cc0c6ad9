import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from textcap.backbone import Backbone
from textcap.captioner import Captioner
from textcap.checkpoint import ModelConfig, load_model, package_versions, save_model
from textcap.cli.app import app
from textcap.config import BridgeConfig, DecodingConfig, TrainingConfig
from textcap.errors import CheckpointError, DeviceError, DownloadError, InputError
from textcap.mapper import Mapper
from tiny_random import write_tiny_backbone

SHORT = DecodingConfig(max_tokens=8)


@pytest.fixture(scope="module")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    backbone = Backbone.load(str(backbone_folder))
    torch.manual_seed(0)
    mapper = Mapper(backbone.config.mapper)
    with torch.no_grad():
        mapper.spread.weight *= 20  # else every clip sounds alike to random weights
    config = ModelConfig(
        backbone_name=str(backbone_folder),
        backbone_hash=backbone.content_hash,
        bridge=BridgeConfig(0.01),
        mapper=backbone.config.mapper,
        training=TrainingConfig(),
        end_token_id=backbone.tokenizer.end_id,
        n_training_captions=1,
        n_held_out_captions=0,
        caption_files=(),
        packages=package_versions(),
        command="textcap train",
    )
    save_model(folder, config, mapper)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sounds of 0.1 to 4 s, one of them stereo, one at another rate."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    paths = []
    for i, (n_samples, rate_hz, channels) in enumerate(
        [(800, 8000, 1), (8000, 8000, 1), (9000, 8000, 2), (20000, 8000, 1), (32001, 8000, 1), (30000, 22050, 1)]
    ):
        time_s = np.arange(n_samples)[:, None] / rate_hz
        tone = np.sin(2 * np.pi * rng.uniform(100, 2000, channels) * time_s)
        paths.append(folder / f"{i}.wav")
        soundfile.write(paths[-1], 0.3 * tone + 0.05 * rng.standard_normal(tone.shape), rate_hz)
    return paths


def test_results_come_in_order_with_their_durations(model: Path, sounds: list[Path]) -> None:
    results = list(Captioner.load(model, device="cpu").caption(sounds, decoding=SHORT, batch_size=4))
    assert [r.path for r in results] == sounds
    assert all(r.error is None and r.score <= 0 for r in results)
    durations = [soundfile.info(path).duration for path in sounds]
    assert [r.duration_s for r in results] == pytest.approx(durations, abs=1e-3)
    assert len({r.caption for r in results}) > 1


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_captions_depend_neither_on_batch_size_nor_on_order(model: Path, sounds: list[Path], batch_size: int) -> None:
    captioner = Captioner.load(model, device="cpu")
    together = {r.path: r for r in captioner.caption(sounds, decoding=SHORT, batch_size=8)}
    apart = list(captioner.caption(reversed(sounds), decoding=SHORT, batch_size=batch_size))
    assert [r.path for r in apart] == sounds[::-1]
    for result in apart:
        assert result.caption == together[result.path].caption
        assert result.score == pytest.approx(together[result.path].score, abs=1e-5)


def test_long_clip_is_the_mean_of_its_windows(model: Path, sounds: list[Path]) -> None:
    # 4 s and a sample, windows of 1 s every 0.5 s: computed here from the samples themselves.
    captioner = Captioner.load(model, device="cpu")
    samples = soundfile.read(sounds[4], dtype="float32")[0]
    starts = [*range(0, len(samples) - 8000, 4000), len(samples) - 8000]
    windows = torch.from_numpy(np.stack([samples[i : i + 8000] for i in starts]))
    with torch.inference_mode():
        embeddings = captioner.backbone.audio_encoder()(windows)
    mean = torch.nn.functional.normalize(embeddings.mean(dim=0), dim=-1)
    [expected] = captioner.caption_embeddings(mean[None], SHORT)
    [result] = captioner.caption([sounds[4]], decoding=SHORT)
    assert len(starts) == 8
    assert result.caption == expected.caption
    assert result.score == pytest.approx(expected.score, abs=1e-5)


def test_bad_file_does_not_stop_the_others(model: Path, sounds: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    results = list(Captioner.load(model, device="cpu").caption([sounds[0], broken, sounds[1]], decoding=SHORT))
    alone = list(Captioner.load(model, device="cpu").caption(sounds[:2], decoding=SHORT))
    assert isinstance(results[1].error, InputError)
    assert results[1].caption == ""
    assert [results[0].caption, results[2].caption] == [r.caption for r in alone]


def test_files_are_read_lazily(model: Path, sounds: list[Path]) -> None:
    asked = 0

    def endless() -> object:
        nonlocal asked
        while True:
            asked += 1
            yield sounds[0]

    results = Captioner.load(model, device="cpu").caption(endless(), decoding=SHORT, batch_size=2)  # type: ignore[arg-type]
    next(results)
    assert asked == 2


def test_other_weights_than_trained_on_are_refused(model: Path, backbone_folder: Path, tmp_path: Path) -> None:
    other = write_tiny_backbone(tmp_path / "other", seed=1)
    stored = load_model(model)
    swapped = tmp_path / "model"
    save_model(swapped, ModelConfig(**{**vars(stored.config), "backbone_name": str(other)}), stored.mapper)
    with pytest.raises(CheckpointError, match="was trained on"):
        Captioner.load(swapped, device="cpu")


def test_backbone_that_is_nowhere_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no backbone 'nothing-here'"):
        Backbone.load("nothing-here")
    with pytest.raises(DownloadError, match="textcap fetch msclap-2023"):
        Backbone.load("msclap-2023", offline=True)


def test_without_a_model_clapcap_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DownloadError, match="textcap fetch clapcap"):
        Captioner.load(offline=True, device="cpu")


def test_model_folder_of_the_working_directory_is_the_default(
    model: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "textcap-model").symlink_to(model, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    [result] = Captioner.load(device="cpu").caption(sounds[:1], decoding=SHORT)
    assert result.error is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_device_that_is_absent_is_refused(model: Path) -> None:
    with pytest.raises(DeviceError):
        Captioner.load(model, device="cuda")


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["caption", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_caption_goes_to_stdout_only(model: Path, sounds: list[Path]) -> None:
    code, out, err = _run(*sounds[:2], "-m", model, "--max-tokens", 8, "--device", "cpu")
    expected = Captioner.load(model, device="cpu").caption(sounds[:2], decoding=SHORT)
    assert code == 0
    assert out == "".join(f"{r.path}\t{r.caption}\n" for r in expected)
    assert "cpu" in err


def test_quiet_says_nothing_on_stderr(model: Path, sounds: list[Path]) -> None:
    code, out, err = _run(sounds[0], "-q", "-m", model, "--max-tokens", 8)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1


def test_json_lines_hold_path_caption_score_duration(model: Path, sounds: list[Path]) -> None:
    code, out, _ = _run(*sounds[:3], "--json", "-m", model, "--max-tokens", 8)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [set(line) for line in lines] == [{"path", "caption", "score", "duration_s"}] * 3
    assert [line["path"] for line in lines] == [str(path) for path in sounds[:3]]
    assert lines[0]["duration_s"] == pytest.approx(0.1)


def test_some_failed_is_exit_3_and_all_failed_exit_1(model: Path, sounds: list[Path], tmp_path: Path) -> None:
    missing = tmp_path / "no\nsuch.wav"
    code, out, err = _run(missing, sounds[0], "-m", model, "--max-tokens", 8)
    assert code == 3
    assert out.startswith(str(sounds[0]))
    assert "there is no file" in err
    code, out, err = _run(missing, tmp_path, "-q", "-m", model)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 2


def test_odd_names_stay_on_one_line(model: Path, sounds: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / " tab\tnew\nline [bold] \u2028é.wav"
    odd.write_bytes(sounds[0].read_bytes())
    code, out, _ = _run(odd, "-m", model, "--max-tokens", 8)
    assert code == 0
    assert out.count("\n") == 1
    assert out.split("\t")[0].endswith(" tab\\tnew\\nline [bold] \\u2028é.wav")
    _, out, _ = _run(odd, "--json", "-m", model, "--max-tokens", 8)
    assert json.loads(out)["path"] == str(odd)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "no-such-model"], 1, "there is no model folder no-such-model"),
        (["--beam-size", "0"], 2, "beam-size"),
        (["--device", "abacus"], 1, "no device is called"),
    ],
)
def test_misuse_is_one_line(sounds: list[Path], arguments: list[str], code: int, message: str) -> None:
    got, out, err = _run(sounds[0], *arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_beams_beyond_the_vocabulary_are_refused(model: Path, sounds: list[Path]) -> None:
    code, _, err = _run(sounds[0], "-m", model, "--beam-size", 1000)
    assert code == 1
    assert "beam_size is 1000" in err
