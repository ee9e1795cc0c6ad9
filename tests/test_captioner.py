"""The captioner: its results, its errors, and `textcap caption` on top of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from textcap.audio.sources import Sound
from textcap.captioner import Captioner
from textcap.cli.app import app
from textcap.config import BridgeConfig, DecodingConfig, TrainingConfig
from textcap.demo.folder import RATE_HZ, held_out_clips
from textcap.demo.render import render_scene
from textcap.embedding.recordings import Recording
from textcap.errors import CheckpointError, DeviceError, DownloadError, InputError
from textcap.model_folder import ModelConfig, load_model, package_versions, save_model
from textcap.models.backbone import Backbone, BackboneNames
from tiny_random import random_mapper, recorded, write_tiny_backbone

SHORT = DecodingConfig(max_tokens=8)


def save_model_folder(folder: Path, backbone_name: str | BackboneNames) -> Path:
    """Write a model folder with a random mapper, scaled so that different sounds get different captions."""
    backbone = Backbone.load(backbone_name)
    config = ModelConfig(
        **recorded(backbone),
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
    save_model(folder, config, random_mapper(backbone.config.mapper))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_folder(tmp_path_factory.mktemp("models") / "model", "tiny")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sounds of 0.1 to 8 s, one of them stereo, one at another rate."""
    folder = tmp_path_factory.mktemp("sounds")
    clips = [render_scene(clip.scene, clip.sound_seed, RATE_HZ) for clip in held_out_clips(4, 2, seed=0)]
    written = [
        (clips[0][:1600], RATE_HZ),
        (clips[1], RATE_HZ),
        (np.stack((clips[2], clips[2][::-1]), axis=1), RATE_HZ),
        (clips[3], 22050),
        (np.concatenate((clips[4], clips[5], clips[0][:1])), RATE_HZ),
        (clips[5], RATE_HZ),
    ]
    for i, (samples, rate_hz) in enumerate(written):
        soundfile.write(folder / f"{i}.wav", samples, rate_hz)
    return [folder / f"{i}.wav" for i in range(len(written))]


def test_results_are_in_order_with_their_durations(model: Path, sounds: list[Path]) -> None:
    results = list(Captioner.load(model, device="cpu").caption(sounds, decoding=SHORT, batch_size=4))
    assert [r.path for r in results] == list(map(str, sounds))
    assert all(r.error is None and r.score <= 0 for r in results)
    durations = [soundfile.info(path).duration for path in sounds]
    assert [r.duration_s for r in results] == pytest.approx(durations, abs=1e-3)
    assert len({r.caption for r in results}) >= 3
    assert all(r.caption for r in results)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_captions_depend_neither_on_batch_size_nor_on_order(model: Path, sounds: list[Path], batch_size: int) -> None:
    captioner = Captioner.load(model, device="cpu")
    in_one_batch = {r.path: r for r in captioner.caption(sounds, decoding=SHORT, batch_size=8)}
    in_batches = list(captioner.caption(reversed(sounds), decoding=SHORT, batch_size=batch_size))
    assert [r.path for r in in_batches] == list(map(str, sounds[::-1]))
    for result in in_batches:
        assert result.caption == in_one_batch[result.path].caption
        assert result.score == pytest.approx(in_one_batch[result.path].score, abs=1e-5)


def test_long_clip_is_captioned_from_the_mean_of_its_windows(model: Path, sounds: list[Path]) -> None:
    # The clip is one sample longer than 8 s; windows are 4 s long and start every 2 s, the last one at the end.
    captioner = Captioner.load(model, device="cpu")
    samples = soundfile.read(sounds[4], dtype="float32")[0]
    starts = [0, 32000, 64000, 64001]
    windows = torch.from_numpy(np.stack([samples[i : i + 64000] for i in starts]))
    with torch.inference_mode():
        embeddings = captioner.backbone.audio_encoder()(windows)
    mean = torch.nn.functional.normalize(embeddings.mean(dim=0), dim=-1)
    [[expected]] = captioner.candidates(mean[None], SHORT)
    [result] = captioner.caption([sounds[4]], decoding=SHORT)
    assert len(samples) == 128001
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


def test_files_captioned_again_are_not_embedded_again(
    model: Path, sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    paths = [*sounds, broken, sounds[0]]
    first = run_caption(*paths, "--json", "-m", model, "--max-length", 8)
    assert first[0] == 3
    forward = Backbone.audio_encoder

    def refuse(*arguments: object, **options: object) -> object:
        encoder = forward(*arguments, **options)  # type: ignore[arg-type]
        encoder.forward = lambda samples: pytest.fail("a sound was embedded again")  # type: ignore[method-assign]
        return encoder

    monkeypatch.setattr(Backbone, "audio_encoder", refuse)
    assert run_caption(*paths, "--json", "-m", model, "--max-length", 8) == first
    assert run_caption(*reversed(paths), "--json", "-m", model, "--max-length", 8, "--batch-size", 3)[0] == 3


def test_one_path_is_one_file(model: Path, sounds: list[Path]) -> None:
    captioner = Captioner.load(model, device="cpu")
    [expected] = captioner.caption([sounds[1]], decoding=SHORT)
    for path in (sounds[1], str(sounds[1])):
        assert list(captioner.caption(path, decoding=SHORT)) == [expected]


def test_open_files_and_samples_are_captioned_like_the_file(model: Path, sounds: list[Path]) -> None:
    captioner = Captioner.load(model, device="cpu")
    samples, rate_hz = soundfile.read(sounds[3], dtype="float32")
    (named,) = captioner.caption(sounds[3], decoding=SHORT)
    with open(sounds[3], "rb") as file:
        (opened,) = captioner.caption(file, decoding=SHORT)
    (in_memory,) = captioner.caption(Sound(samples, rate_hz), decoding=SHORT)
    assert [one.path for one in (named, opened, in_memory)] == [str(sounds[3]), str(sounds[3]), "samples"]
    assert named.caption == opened.caption == in_memory.caption
    assert named.duration_s == opened.duration_s == in_memory.duration_s


def test_embeddings_are_those_of_clap(model: Path, sounds: list[Path]) -> None:
    captioner = Captioner.load(model, device="cpu")
    samples = torch.from_numpy(soundfile.read(sounds[1], dtype="float32")[0])
    with torch.inference_mode():
        expected = captioner.backbone.audio_encoder()(samples[None])[0]
    [recording] = captioner.embed(sounds[1])
    assert isinstance(recording, Recording)
    assert recording.embedding == pytest.approx(expected.numpy(), abs=1e-6)


def test_captioner_shows_what_it_is_and_takes_a_torch_device(model: Path) -> None:
    captioner = Captioner.load(model, device=torch.device("cpu"))
    assert repr(captioner) == f"Captioner(model='{model}', backbone='tiny', device='cpu', precision='float32')"
    assert Captioner.load(model, device=torch.device("cpu", 0)).device == torch.device("cpu", 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda captioner: captioner._mapper.constants.data.fill_(torch.nan), "the mapper of"),
        (lambda captioner: captioner._mapper.spread.weight.data.fill_(torch.inf), "the mapper of"),
        (lambda captioner: next(captioner._language_model.parameters()).data.fill_(torch.nan), "the language model of"),
    ],
)
def test_weights_that_are_not_finite_give_no_caption(model: Path, sounds: list[Path], damage, message: str) -> None:
    captioner = Captioner.load(model, device="cpu")
    damage(captioner)
    with pytest.raises(CheckpointError, match=f"{message} {model} gives values that are NaN or infinite"):
        list(captioner.caption(sounds[:2], decoding=SHORT))


def test_embeddings_to_caption_must_be_finite(model: Path) -> None:
    captioner = Captioner.load(model, device="cpu")
    with pytest.raises(InputError, match="the embeddings to caption contain NaN or infinite values"):
        captioner.candidates(torch.full((1, 256), torch.nan), SHORT)


def test_audio_encoder_with_nan_weights_captions_nothing(
    model: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Backbone.audio_encoder

    def damaged(*arguments: object, **options: object) -> object:
        encoder = forward(*arguments, **options)  # type: ignore[arg-type]
        for parameter in encoder.projection.parameters():
            parameter.data.fill_(torch.nan)
        return encoder

    monkeypatch.setattr(Backbone, "audio_encoder", damaged)
    code, out, err = run_caption(*sounds[:2], "--json", "-m", model, "--max-length", 8)
    assert code == 1
    assert ["error" in json.loads(line) for line in out.splitlines()] == [True, True]
    assert err.count("has an embedding that is NaN or infinite (the weights of the backbone may be damaged)") == 2


def test_files_are_read_lazily(model: Path, sounds: list[Path]) -> None:
    n_read = 0

    def endless() -> object:
        nonlocal n_read
        while True:
            n_read += 1
            yield sounds[0]

    results = Captioner.load(model, device="cpu").caption(endless(), decoding=SHORT, batch_size=2)  # type: ignore[arg-type]
    next(results)
    assert n_read == 2


def test_other_weights_than_those_trained_on_are_refused(backbone_folder: Path, tmp_path: Path) -> None:
    other = write_tiny_backbone(tmp_path / "other", seed=1)
    stored = load_model(save_model_folder(tmp_path / "first", str(backbone_folder)))
    swapped = tmp_path / "model"
    save_model(swapped, ModelConfig(**{**vars(stored.config), "backbone": BackboneNames(str(other))}), stored.mapper)
    with pytest.raises(CheckpointError, match="was trained on"):
        Captioner.load(swapped, device="cpu")


def test_backbone_folder_that_was_moved_is_named(backbone_folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(backbone_folder, tmp_path / "backbone")
    model = save_model_folder(tmp_path / "model", str(moved))
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="put the folder back, say where it lies with --clap") as caught:
        Captioner.load(model, device="cpu")
    assert str(moved) in str(caught.value)


@pytest.mark.parametrize("name", ["n" * 5000, "nul\0"])
def test_invalid_backbone_name_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match="backbone .* cannot be read"):
        Backbone.load(name)


def test_invalid_backbone_configuration_is_named(backbone_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(backbone_folder, tmp_path / "backbone")
    (folder / "config.json").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"backbone/config\.json is not a valid backbone configuration"):
        Backbone.load(str(folder))


def test_unused_tensors_are_logged_once(
    backbone_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(backbone_folder, tmp_path / "backbone")
    path = folder / "audio_encoder.safetensors"
    save_file({**load_file(path), "new.part": torch.zeros(3)}, path)
    with caplog.at_level("INFO", "textcap"):
        backbone = Backbone.load(str(folder))
        backbone.text_encoder()
        backbone.language_model()
        assert not caplog.messages
        backbone.audio_encoder()
        backbone.audio_encoder()
    assert caplog.messages == [f"{path} has unused tensors: new.part"]
    assert backbone.unused_tensors() == ["new.part"]


def test_too_little_memory_is_a_device_error(model: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    captioner = Captioner.load(model, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Captioner, "candidates", refuse)
        with pytest.raises(DeviceError, match="out of memory on cpu while captioning 1 sound at once"):
            list(captioner.caption(sounds[:1], batch_size=4))
    monkeypatch.setattr(Backbone, "audio_encoder", refuse)
    with pytest.raises(DeviceError, match="out of memory while loading .* on cpu"):
        Captioner.load(model, device="cpu")


def test_batches_are_halved_when_memory_runs_out(
    model: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    captioner = Captioner.load(model, device="cpu")
    expected = list(captioner.caption(sounds, decoding=SHORT))
    whole, sizes = Captioner.candidates, []

    def at_most_two(self: Captioner, embeddings: torch.Tensor, *how: object) -> object:
        sizes.append(len(embeddings))
        if len(embeddings) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(self, embeddings, *how)  # type: ignore[arg-type]

    monkeypatch.setattr(Captioner, "candidates", at_most_two)
    found = list(captioner.caption(sounds, decoding=SHORT, batch_size=4))
    assert sizes == [4, 2, 2, 2]
    assert [(r.path, r.caption) for r in found] == [(r.path, r.caption) for r in expected]
    assert [record.getMessage() for record in caplog.records] == [
        "cpu is out of memory: captioning 2 at once from here on"
    ]


def test_missing_backbone_is_named() -> None:
    with pytest.raises(InputError, match="backbone 'nothing-here' does not exist"):
        Backbone.load("nothing-here")
    with pytest.raises(DownloadError, match="textcap fetch msclap-2023"):
        Backbone.load("msclap-2023", offline=True)


def test_clapcap_is_the_default_without_a_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DownloadError, match="textcap fetch clapcap"):
        Captioner.load(offline=True, device="cpu")


def test_model_folder_in_the_current_folder_is_the_default(
    model: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "textcap-model").symlink_to(model, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    [result] = Captioner.load(device="cpu").caption(sounds[:1], decoding=SHORT)
    assert result.error is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_missing_device_is_refused(model: Path) -> None:
    with pytest.raises(DeviceError):
        Captioner.load(model, device="cuda")


def run_caption(*arguments: object) -> tuple[int, str, str]:
    """Run `textcap caption` and return the exit code, stdout and stderr."""
    result = CliRunner().invoke(app, ["caption", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_caption_goes_to_stdout_only(model: Path, sounds: list[Path]) -> None:
    code, out, err = run_caption(*sounds[:2], "-m", model, "--max-length", 8, "--device", "cpu")
    expected = Captioner.load(model, device="cpu").caption(sounds[:2], decoding=SHORT)
    assert code == 0
    assert out == "".join(f"{r.path}\t{r.caption}\n" for r in expected)
    assert "cpu" in err


def test_quiet_prints_nothing_on_stderr(model: Path, sounds: list[Path]) -> None:
    code, out, err = run_caption(sounds[0], "-q", "-m", model, "--max-length", 8)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1


def test_json_lines_have_path_caption_score_and_duration(model: Path, sounds: list[Path]) -> None:
    code, out, _ = run_caption(*sounds[:3], "--json", "-m", model, "--max-length", 8)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [set(line) for line in lines] == [{"path", "caption", "score", "duration_s", "silent"}] * 3
    assert [line["path"] for line in lines] == [str(path) for path in sounds[:3]]
    assert lines[0]["duration_s"] == pytest.approx(0.1)


def test_exit_code_is_3_if_some_files_fail_and_1_if_all_fail(model: Path, sounds: list[Path], tmp_path: Path) -> None:
    missing = tmp_path / "no\nsuch.wav"
    code, out, err = run_caption(missing, sounds[0], "-m", model, "--max-length", 8)
    assert code == 3
    assert out.startswith(str(sounds[0]))
    assert "does not exist" in err
    code, out, err = run_caption(missing, tmp_path, "-q", "-m", model)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 2


def test_unusual_file_names_stay_on_one_line(model: Path, sounds: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / " tab\tnew\nline [bold] \u2028é.wav"
    odd.write_bytes(sounds[0].read_bytes())
    code, out, _ = run_caption(odd, "-m", model, "--max-length", 8)
    assert code == 0
    assert out.count("\n") == 1
    assert out.split("\t")[0].endswith(" tab\\x09new\\x0aline [bold] \\u2028é.wav")
    _, out, _ = run_caption(odd, "--json", "-m", model, "--max-length", 8)
    assert json.loads(out)["path"] == str(odd)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "no-such-model"], 1, "no-such-model does not exist (name a model folder"),
        (["--beam-size", "0"], 2, "beam-size"),
        (["--device", "abacus"], 1, "device 'abacus' does not exist"),
    ],
)
def test_misuse_is_reported_without_a_traceback(
    sounds: list[Path], arguments: list[str], code: int, message: str
) -> None:
    exit_code, out, err = run_caption(sounds[0], *arguments)
    assert (exit_code, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_beam_size_above_the_vocabulary_is_refused(model: Path, sounds: list[Path]) -> None:
    code, _, err = run_caption(sounds[0], "-m", model, "--beam-size", 1001)
    assert code == 1
    assert "beam_size is 1001" in err
