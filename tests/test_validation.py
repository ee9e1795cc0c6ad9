"""Which mapper a run keeps: validation files, the best measurement, early stopping, steps in place of epochs."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator

from test_training import CAPTIONS, QUICK, caption_set, train_tiny
from textcap.config import BridgeConfig, TrainingConfig
from textcap.data.captions import CaptionFile, CaptionSet
from textcap.data.pairs import read_pairs
from textcap.embedding.pairs import embed_pairs
from textcap.errors import DeviceError, InputError, SettingError
from textcap.gap.bridge import Bridge
from textcap.model_folder import load_model
from textcap.models.backbone import Backbone
from textcap.models.gpt2 import Gpt2LanguageModel
from textcap.training import loop
from textcap.training.data import make_examples
from textcap.training.events import Event, Measured, Started
from textcap.training.loop import MapperTraining

FEW = CAPTIONS[:40]
BY_HEART = TrainingConfig(epochs=12, batch_size=10, learning_rate=2e-2, warmup_steps=0, seed=1)


def few_captions() -> CaptionSet:
    return CaptionSet(FEW, (CaptionFile("few.txt", "0" * 64, len(FEW)),))


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """A validation file of 30 captions, 4 of which are training captions as well."""
    path = tmp_path / "val.txt"
    path.write_text("\n".join(CAPTIONS[36:66]) + "\n")
    return path


ODD = [f"{caption} ZQX 7#9" for caption in CAPTIONS[36:66]]  # what is learned from the others is in the end wrong here


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    path = tmp_path / "odd.txt"
    path.write_text("\n".join(ODD) + "\n")
    return path


def measurements(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).mapper.state_dict()


def test_validation_file_replaces_held_out_captions(
    backbone_folder: Path, tmp_path: Path, val: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train_tiny(backbone_folder, tmp_path / "model", few_captions(), val=val, config=QUICK)
    assert "4 captions left out, which also stand in the validation file" in caplog.messages
    config = load_model(tmp_path / "model").config
    assert (config.n_training_captions, config.n_held_out_captions) == (36, 30)
    samples = [one["reference"] for one in measurements(tmp_path / "model")[0]["samples"]]
    assert set(samples) <= set(CAPTIONS[36:66])
    # What is trained on is the same as without those four captions, and nothing of the file.
    train_tiny(
        backbone_folder,
        tmp_path / "same",
        CaptionSet(FEW[:36], (CaptionFile("few.txt", "0" * 64, 36),)),
        config=replace(QUICK, held_out_captions=0),
    )
    same = tensors_of(tmp_path / "same")
    for name, tensor in tensors_of(tmp_path / "model").items():
        assert torch.equal(tensor, same[name]), name


def test_every_caption_in_the_validation_file_is_an_error(backbone_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_text("\n".join(FEW) + "\n")
    with pytest.raises(InputError, match="every caption to train on also stands in the validation file"):
        train_tiny(backbone_folder, tmp_path / "model", few_captions(), val=path)


def test_pairs_are_judged_by_the_loss_after_their_sounds(backbone_folder: Path, tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), ["file_name,caption"]
    for number in range(12):
        soundfile.write(tmp_path / f"{number}.wav", rng.normal(0, 0.1, 8000 + 500 * number), 8000)
        rows.append(f"{number}.wav,{CAPTIONS[100 + number]}")
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows) + "\n")
    train_tiny(backbone_folder, tmp_path / "model", few_captions(), val=path, config=QUICK)
    backbone, stored = Backbone.load(str(backbone_folder)), load_model(tmp_path / "model")
    assert stored.config.n_held_out_captions == 12
    pairs = embed_pairs(read_pairs(path), backbone, torch.device("cpu"))
    examples = make_examples(pairs.captions, pairs.audio, backbone.tokenizer)
    tokens, lengths = examples.tokens.padded(np.arange(12))
    prefixes = stored.mapper(torch.from_numpy(pairs.audio))
    expected = float(backbone.language_model().loss(prefixes, tokens, lengths))
    assert measurements(tmp_path / "model")[-1]["held_out_loss"] == pytest.approx(expected, rel=1e-5)


def test_best_mapper_is_that_of_the_least_loss(backbone_folder: Path, tmp_path: Path, odd: Path) -> None:
    # A rate that falls to 0 would hide which step a mapper is of: it is the same run up to there.
    options = {"val": odd, "backbone": backbone_folder}
    train_tiny(backbone_folder, tmp_path / "last", few_captions(), config=BY_HEART, **options)
    losses = [one["held_out_loss"] for one in measurements(tmp_path / "last")]
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1, losses
    kept: list[dict[str, torch.Tensor]] = []
    train_tiny(backbone_folder, tmp_path / "best", few_captions(), config=replace(BY_HEART, keep="best"), **options)
    assert [one["held_out_loss"] for one in measurements(tmp_path / "best")] == losses

    backbone = Backbone.load(str(backbone_folder))
    stored = load_model(tmp_path / "best")
    every = [*FEW, *ODD]
    vectors = backbone.text_encoder().encode(every).numpy()
    examples = make_examples(every, vectors, backbone.tokenizer, held_out=np.arange(40, 70), seed=1)
    run: MapperTraining

    def keep(event: Event) -> None:
        if isinstance(event, Measured):
            kept.append({name: tensor.detach().clone() for name, tensor in run.mapper.state_dict().items()})

    run = MapperTraining(
        examples,
        backbone.language_model(),
        backbone.tokenizer,
        Bridge(stored.config.bridge),
        backbone.config.mapper,
        BY_HEART,
        Accelerator(cpu=True),
        report=keep,
    )
    run.run()
    for name, tensor in stored.mapper.state_dict().items():
        torch.testing.assert_close(tensor, kept[best][name], atol=1e-5, rtol=0, msg=name)
    card = (tmp_path / "best" / "README.md").read_text()
    assert (
        f"## After epoch {best + 1}\n" in card
        and "## After epoch 12\n" in (tmp_path / "last" / "README.md").read_text()
    )


@pytest.mark.long
def test_patience_stops_the_run(backbone_folder: Path, tmp_path: Path, odd: Path) -> None:
    config = replace(BY_HEART, keep="best", patience=2)
    train_tiny(backbone_folder, tmp_path / "model", few_captions(), config=config, val=odd)
    losses = [one["held_out_loss"] for one in measurements(tmp_path / "model")]
    assert len(losses) < 12 and int(np.argmin(losses)) == len(losses) - 3
    train_tiny(backbone_folder, tmp_path / "whole", few_captions(), config=replace(config, patience=None), val=odd)
    same = tensors_of(tmp_path / "whole")
    assert all(torch.equal(tensor, same[name]) for name, tensor in tensors_of(tmp_path / "model").items())


def test_best_needs_something_to_measure_on(backbone_folder: Path, tmp_path: Path) -> None:
    for options in ({"keep": "best"}, {"patience": 1}):
        config = replace(QUICK, held_out_captions=0, **options)
        with pytest.raises(InputError, match="no caption is held out to tell which mapper is best"):
            train_tiny(backbone_folder, tmp_path / "model", config=config)
    with pytest.raises(SettingError, match="keep is 'first', but must be last or best"):
        TrainingConfig(keep="first")


@pytest.mark.long
def test_killed_run_keeps_its_best_mapper(backbone_folder: Path, tmp_path: Path, val: Path) -> None:
    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, Measured) and event.epoch == 8:
            raise Stop

    options = {"config": replace(BY_HEART, keep="best"), "val": val}
    with pytest.raises(Stop):
        train_tiny(backbone_folder, tmp_path / "model", few_captions(), report=stop, **options)
    events: list[Event] = []
    train_tiny(backbone_folder, tmp_path / "model", few_captions(), report=events.append, **options)
    assert next(event for event in events if isinstance(event, Started)).first_step > 0
    train_tiny(backbone_folder, tmp_path / "whole", few_captions(), **options)
    assert (tmp_path / "model" / "mapper.safetensors").read_bytes() == (
        tmp_path / "whole" / "mapper.safetensors"
    ).read_bytes()


def test_steps_take_the_place_of_epochs(backbone_folder: Path, tmp_path: Path) -> None:
    train_tiny(backbone_folder, tmp_path / "epochs")
    n_steps = measurements(tmp_path / "epochs")[-1]["step"]
    train_tiny(backbone_folder, tmp_path / "steps", config=replace(QUICK, epochs=30, steps=n_steps))
    same = tensors_of(tmp_path / "epochs")
    assert all(torch.equal(tensor, same[name]) for name, tensor in tensors_of(tmp_path / "steps").items())
    train_tiny(backbone_folder, tmp_path / "part", config=replace(QUICK, steps=n_steps - 4))
    assert [(one["epoch"], one["step"]) for one in measurements(tmp_path / "part")] == [(1, 15), (2, n_steps - 4)]


def test_long_epochs_are_measured_and_saved_in_between(
    backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tiny(backbone_folder, tmp_path / "plain")
    monkeypatch.setattr(loop, "MEASURE_EVERY", 6)
    train_tiny(backbone_folder, tmp_path / "often")
    places = [(one["epoch"], one["step"], one["within_epoch"]) for one in measurements(tmp_path / "often")]
    assert places == [(1, 6, True), (1, 12, True), (1, 15, False), (2, 21, True), (2, 27, True), (2, 30, False)]
    same = tensors_of(tmp_path / "plain")
    assert all(torch.equal(tensor, same[name]) for name, tensor in tensors_of(tmp_path / "often").items())


def test_step_is_divided_when_memory_runs_out(
    backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow = replace(QUICK, learning_rate=TrainingConfig.learning_rate)
    train_tiny(backbone_folder, tmp_path / "plain", config=slow)
    loss = Gpt2LanguageModel.loss

    def loss_of_few(self: Gpt2LanguageModel, prefixes: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if len(prefixes) > most and prefixes.requires_grad:
            raise torch.OutOfMemoryError("tried to allocate")
        return loss(self, prefixes, *rest)

    monkeypatch.setattr(Gpt2LanguageModel, "loss", loss_of_few)
    most = 4
    train_tiny(backbone_folder, tmp_path / "divided", config=slow)
    assert caplog.messages.count("cpu is out of memory: steps are divided further from here on") == 2  # 13, 7, 4
    same = tensors_of(tmp_path / "plain")
    for name, tensor in tensors_of(tmp_path / "divided").items():
        torch.testing.assert_close(tensor, same[name], atol=1e-6, rtol=0, msg=name)
    most = 0
    with pytest.raises(DeviceError, match="out of memory on cpu with batches of 13"):
        train_tiny(backbone_folder, tmp_path / "never", config=slow)


def test_resume_reads_neither_captions_nor_the_store_again(
    backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, Measured):
            raise Stop

    path = tmp_path / "captions.txt"
    path.write_text("\n".join(CAPTIONS) + "\n")
    options: dict[str, Any] = {"config": replace(QUICK, epochs=3)}
    for report in (stop, stop):  # the first is stopped before its state is saved
        with pytest.raises(Stop):
            train_tiny(backbone_folder, tmp_path / "model", path, report=report, **options)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    with pytest.raises(Stop):
        train_tiny(backbone_folder, tmp_path / "model", path, report=stop, **options)
    assert (tmp_path / "model.partial" / "captions").is_dir()

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("is read again")

    monkeypatch.setattr("textcap.data.stored.read_captions", refuse)
    monkeypatch.setattr("textcap.store.Store._map", refuse)
    monkeypatch.setattr("textcap.models.tokenizer.Tokenizer.encode", refuse)
    train_tiny(backbone_folder, tmp_path / "model", path, **options)
    monkeypatch.undo()
    train_tiny(backbone_folder, tmp_path / "whole", caption_set(), **options)
    assert (tmp_path / "model" / "mapper.safetensors").read_bytes() == (
        tmp_path / "whole" / "mapper.safetensors"
    ).read_bytes()
    assert not (tmp_path / "model.partial").exists()


def test_captions_cut_at_the_token_limit_are_counted(
    backbone_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    captions = [*CAPTIONS[:60], *(f"{number} " + "a dog barks " * 40 for number in range(3))]
    given = CaptionSet(captions, (CaptionFile("c", "0" * 64, 63),))
    train_tiny(backbone_folder, tmp_path / "model", given, bridge=BridgeConfig(0.01, kind="noise"))
    assert "3 captions cut to 77 tokens" in caplog.messages
