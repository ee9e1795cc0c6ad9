"""Training equals a plain loop, on any number of processes up to rounding and after any interruption exactly."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from accelerate import Accelerator
from filelock import FileLock
from safetensors.torch import load_file

import textcap
import tiny_random
from textcap import training
from textcap.config import BridgeConfig, MapperConfig, TrainingConfig
from textcap.data.captions import CaptionFile, CaptionSet
from textcap.device import seeded_generator
from textcap.errors import CheckpointError, DeviceError, FileError, InputError, SettingError, TextcapError
from textcap.files import remove_quietly
from textcap.gap.bridge import Bridge
from textcap.model_folder import load_model
from textcap.models import msclap
from textcap.models.backbone import Backbone
from textcap.models.gpt2 import Gpt2LanguageModel
from textcap.training import loop, processes, state, train
from textcap.training.data import NOISE_STREAM, Examples, epoch_batches, make_examples
from textcap.training.events import Embedded, Event, Measured, Started, Stepped
from textcap.training.held_out import HeldOutResult
from textcap.training.loop import MapperTraining, new_mapper
from textcap.training.state import STATE_FILE, TrainingProgress, WorkFolder, has_saved, load_state
from work_folders import open_work

# Of 203 captions 20 are held out; the last of the batches of 13 has one caption.
CAPTIONS = tiny_random.tiny_captions(203)
SETTINGS = {"captions": "", "backbone": "", "bridge": {}, "mapper": {}, "training": {"seed": 1}}
LANGUAGE_MODEL_LOSS = Gpt2LanguageModel.loss
QUICK = TrainingConfig(epochs=2, batch_size=13, learning_rate=5e-3, seed=3)


@pytest.fixture(scope="module")
def examples(backbone: Backbone) -> Examples:
    vectors = backbone.text_encoder().encode(CAPTIONS).numpy()
    return make_examples(CAPTIONS, vectors, backbone.tokenizer, held_out_captions=200, seed=QUICK.seed)


def caption_set(captions: list[str] = CAPTIONS) -> CaptionSet:
    return CaptionSet(captions, (CaptionFile("captions.txt", "0" * 64, len(captions)),))


def make_run(
    backbone: Backbone, examples: Examples, config: TrainingConfig = QUICK, **options: object
) -> MapperTraining:
    return MapperTraining(
        examples,
        language_model=options.pop("language_model", None) or backbone.language_model(),
        tokenizer=backbone.tokenizer,
        bridge=options.pop("bridge", None) or Bridge(BridgeConfig(noise_variance=0.01)),
        mapper_config=backbone.config.mapper,
        config=config,
        accelerator=Accelerator(cpu=True, mixed_precision="no"),
        **options,
    )


def train_tiny(backbone_folder: Path, output: Path, captions: CaptionSet | None = None, **options: Any) -> Path:
    options = {"backbone": backbone_folder, "config": QUICK, "device": "cpu", **options}
    return train(captions or caption_set(), output, **options)


def without_speed(metrics: Path) -> list[dict[str, object]]:
    return [{**json.loads(line), "captions_per_s": None} for line in metrics.read_text().splitlines()]


@pytest.mark.parametrize("values_at_once", [2**24, 2000])
def test_run_equals_a_plain_loop(
    backbone: Backbone, examples: Examples, monkeypatch: pytest.MonkeyPatch, values_at_once: int
) -> None:
    """The reference trains on captions one by one, without padding, and accumulates their gradients."""
    monkeypatch.setitem(loop._MICRO_BATCH_VALUES, "cpu", values_at_once)
    sizes: list[int] = []
    monkeypatch.setattr(
        Gpt2LanguageModel, "loss", lambda self, *args: (sizes.append(len(args[1])), LANGUAGE_MODEL_LOSS(self, *args))[1]
    )
    config = replace(QUICK, epochs=1)
    run = make_run(backbone, examples, config)
    trained = run.run()

    assert sizes[0] == 13 if values_at_once == 2**24 else 1 < sizes[0] < 7
    language_model = backbone.language_model()
    mapper = new_mapper(backbone.config.mapper, config.seed)
    optimizer = torch.optim.Adam(mapper.parameters())
    bridge = Bridge(BridgeConfig(noise_variance=0.01))
    total_loss, total_tokens = 0.0, 0
    lengths_of = examples.tokens.lengths[examples.training]
    for step, places in enumerate(epoch_batches(lengths_of, 13, config.seed, 0)):
        chosen = examples.training[places]
        noisy = bridge.text_side(
            torch.from_numpy(examples.embeddings[chosen]),
            seeded_generator(config.seed, NOISE_STREAM, 0, step),
        )
        n_tokens = 0
        for vector, index in zip(noisy, chosen, strict=True):
            tokens, lengths = examples.tokens.padded([index])
            loss = language_model.loss(mapper(vector[None]), tokens, lengths) * int(lengths[0])
            loss.backward()
            n_tokens += int(lengths[0])
            total_loss += float(loss.detach())
        for parameter in mapper.parameters():
            parameter.grad /= n_tokens
        # The run has 15 steps, so its warm-up has 3.
        optimizer.param_groups[0]["lr"] = 5e-3 * min((step + 1) / 3, (15 - step) / 12)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += n_tokens

    for (name, ours), reference in zip(trained.named_parameters(), mapper.parameters(), strict=True):
        torch.testing.assert_close(ours, reference.detach(), atol=2e-5, rtol=0, msg=name)
    assert run.progress.metrics[0]["loss"] == pytest.approx(total_loss / total_tokens, rel=1e-5)


def test_loss_falls_and_the_language_model_is_unchanged(backbone: Backbone, examples: Examples) -> None:
    language_model = backbone.language_model()
    before = {name: tensor.clone() for name, tensor in language_model.state_dict().items()}
    events: list[Event] = []
    # At twice this rate, the loss of a late epoch may rise by a thousandth, depending on the random weights.
    config = replace(QUICK, epochs=10, learning_rate=5e-3)
    run = make_run(backbone, examples, config, language_model=language_model, report=events.append)
    trained = run.run()
    losses = [record["loss"] for record in run.progress.metrics]
    held_out = [record["held_out_loss"] for record in run.progress.metrics]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.1
    assert held_out[-1] < held_out[0] - 0.1
    for name, tensor in language_model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.requires_grad for parameter in trained.parameters())

    steps = [event for event in events if isinstance(event, Stepped)]
    assert [event.step for event in steps] == list(range(1, 151))
    epochs = [event for event in events if isinstance(event, Measured)]
    assert [event.epoch for event in epochs] == list(range(1, 11))
    for event in epochs:
        assert [sample.reference for sample in event.samples] == [s.reference for s in epochs[0].samples]
        assert len(event.samples) == 3 and {s.reference for s in event.samples} <= set(examples.held_out_captions)
        assert event.distinct_share is not None and 0 < event.distinct_share <= 1


class CountedEmbeddings:
    """Embeddings that count how often each row is read."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.counts = vectors, np.zeros(len(vectors), int)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        np.add.at(self.counts, rows, 1)
        return self.vectors[rows]


def test_held_out_captions_are_never_trained_on(backbone: Backbone, examples: Examples) -> None:
    counted = CountedEmbeddings(examples.embeddings)
    run = make_run(backbone, replace(examples, embeddings=counted))
    run.run()
    # Once in each of two epochs: in a training step, or in the evaluation at the end of the epoch.
    assert counted.counts.tolist() == [2] * len(CAPTIONS)

    counted.counts[:] = 0
    run = make_run(backbone, replace(examples, embeddings=counted, held_out=np.array([], np.int64)))
    run.run()
    assert counted.counts[examples.held_out].sum() == 0


class RecordingBridge(Bridge):
    """A bridge that records the embeddings before and after its text side."""

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.recorded: list[tuple[torch.Tensor, torch.Tensor]] = []

    def text_side(self, embeddings: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noisy = super().text_side(embeddings, generator)
        self.recorded.append((embeddings, noisy))
        return noisy


def test_noise_is_new_at_every_step_and_has_the_given_variance(backbone: Backbone, examples: Examples) -> None:
    bridge = RecordingBridge(BridgeConfig(noise_variance=0.004))
    make_run(backbone, replace(examples, held_out=np.array([], np.int64)), bridge=bridge).run()
    clean = torch.cat([before for before, _ in bridge.recorded])
    noisy = torch.cat([after for _, after in bridge.recorded])
    assert len(clean) == 2 * len(examples.training)
    assert len(noisy.unique(dim=0)) == len(noisy)
    # Orthogonal to the clean direction there is only noise; dividing by the part along it undoes the last scaling.
    along = (noisy * clean).sum(-1, keepdim=True)
    across = (noisy - along * clean) / along
    variance = float(across.square().sum() / (len(clean) * (clean.shape[1] - 1)))
    assert variance == pytest.approx(0.004 * (1 + 3 * 0.004), rel=0.06)


@pytest.mark.parametrize(("epochs", "warned"), [(5, [2, 3, 4, 5]), (1, [1])])
def test_collapse_is_warned_of_after_every_epoch_but_the_first_of_several(
    backbone: Backbone,
    examples: Examples,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int,
    warned: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    same = HeldOutResult(1.0, ("a dog",) * 20, examples.held_out_captions)
    monkeypatch.setattr(loop, "evaluate_held_out", lambda *arguments: same)
    warned_before: list[int] = []

    def note_epoch(event: Event) -> None:
        if isinstance(event, Measured):
            if any("nearly the same captions for everything: 5% of its" in message for message in caplog.messages):
                warned_before.append(event.epoch)
            caplog.clear()

    make_run(backbone, examples, replace(QUICK, epochs=epochs, batch_size=100), report=note_epoch).run()
    assert warned_before == warned


def test_collapse_requires_different_references() -> None:
    different = tuple(f"caption {i}" for i in range(10))
    assert HeldOutResult(1.0, ("x",) * 10, different).collapsed
    assert not HeldOutResult(1.0, ("x",) * 10, ("one", "two") * 5).collapsed
    assert not HeldOutResult(1.0, ("x", "y") * 5, different).collapsed
    assert HeldOutResult(1.0, ("x", "y") * 5, different).distinct_share == 0.2


def test_out_of_memory_suggests_a_smaller_batch(backbone: Backbone, examples: Examples) -> None:
    language_model = backbone.language_model()

    def loss(*args: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("tried to allocate")

    language_model.loss = loss
    with pytest.raises(DeviceError, match="out of memory on cpu with batches of 13 .lower --batch-size, say to 6"):
        make_run(backbone, examples, language_model=language_model).run()


def test_out_of_memory_while_embedding_leaves_no_files(
    backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*args: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(msclap.MsclapTextEncoder, "encode", encode)
    with pytest.raises(DeviceError, match="out of memory on cpu while embedding captions"):
        train_tiny(backbone_folder, tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_other_device_chosen_by_accelerate_is_refused(
    backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "resolve_device", torch.device)
    events: list[Event] = []
    with pytest.raises(DeviceError, match="accelerate chose the device .*, not meta as requested .*unset"):
        train_tiny(backbone_folder, tmp_path / "model", device="meta", report=events.append)
    assert not events and not any(tmp_path.iterdir())


def test_prefix_without_room_is_refused_before_any_work(backbone_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(InputError, match="a prefix of 96 vectors leaves no room for a caption in 96 positions"):
        train_tiny(backbone_folder, tmp_path / "model", mapper=MapperConfig(24, 16, 96), report=events.append)
    assert not events and not any(tmp_path.iterdir())


def test_clapcap_is_refused_before_its_download(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="clapcap has no text encoder"):
        train(caption_set(), tmp_path / "model", backbone="clapcap", offline=True)


def test_nan_loss_stops_the_run(backbone: Backbone, examples: Examples) -> None:
    broken = np.full_like(examples.embeddings, np.nan)
    with pytest.raises(InputError, match="the loss at step 1 is nan .lower --learning-rate"):
        make_run(backbone, replace(examples, embeddings=broken)).run()


def test_new_mapper_leaves_the_global_generator_unchanged(backbone: Backbone) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = new_mapper(backbone.config.mapper, 1)
    assert torch.equal(torch.rand(3), expected)
    again, other = (new_mapper(backbone.config.mapper, seed) for seed in (1, 2))
    assert torch.equal(first.constants, again.constants) and not torch.equal(first.constants, other.constants)


def test_training_writes_a_model_folder(backbone_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    mapper = replace(Backbone.load(str(backbone_folder)).config.mapper, prefix_length=3)
    options = {"mapper": mapper, "command": "textcap train captions.txt", "report": events.append}
    assert train_tiny(backbone_folder, tmp_path / "model", **options) == tmp_path / "model"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    stored = load_model(tmp_path / "model")
    assert stored.mapper.config.prefix_length == 3 and stored.config.end_token_id == 319
    assert stored.config.clap_hash == Backbone.load(str(backbone_folder)).clap.content_hash
    assert stored.config.bridge.noise_variance == 0.01, "the backbone's own"
    assert (stored.config.n_training_captions, stored.config.n_held_out_captions) == (183, 20)
    assert stored.config.training == QUICK and stored.config.command == "textcap train captions.txt"
    lines = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "held_out_loss", "learning_rate", "captions_per_s", "samples", "distinct_share"} <= lines[0].keys()
    (started,) = (event for event in events if isinstance(event, Started))
    assert (started.total_steps, started.warmup_steps, started.model.training.warmup_steps) == (30, 6, 2000)
    assert [event.n_done for event in events if isinstance(event, Embedded)] == [0, 203]


def test_same_seed_gives_the_same_files(backbone_folder: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train_tiny(backbone_folder, tmp_path / name, config=replace(QUICK, epochs=1, seed=seed))
    for file in ("mapper.safetensors", "config.json"):
        first, again, other = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert first == again != other


def test_existing_output_is_overwritten_only_with_force(backbone_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    quick = replace(QUICK, epochs=1, batch_size=100)
    for force in (False, True):
        with pytest.raises(InputError, match="already exists and contains mine.txt, which textcap did not write"):
            train_tiny(backbone_folder, output, config=quick, force=force)
    assert [path.name for path in output.iterdir()] == ["mine.txt"]
    (output / "mine.txt").unlink()
    train_tiny(backbone_folder, output, config=quick, force=True)
    with pytest.raises(InputError, match="already exists .*--force"):
        train_tiny(backbone_folder, output, config=quick)
    train_tiny(backbone_folder, output, config=replace(quick, seed=9), force=True)
    assert load_model(output).config.training.seed == 9


@pytest.mark.parametrize("n_captions", [1, 9])
def test_few_captions_are_all_trained_on(backbone_folder: Path, tmp_path: Path, n_captions: int) -> None:
    train_tiny(backbone_folder, tmp_path / "m", captions=caption_set(CAPTIONS[:n_captions]))
    stored = load_model(tmp_path / "m")
    assert (stored.config.n_training_captions, stored.config.n_held_out_captions) == (n_captions, 0)
    assert json.loads((tmp_path / "m" / "metrics.jsonl").read_text().splitlines()[-1])["held_out_loss"] is None


RUN_UNTIL_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_training as t
from pathlib import Path
from textcap.training import loop
loop.SAVE_EVERY_S = 0.0
def kill(event):
    if type(event).__name__ == sys.argv[4] and event.step == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)
t.train_tiny(Path(sys.argv[2]), Path(sys.argv[3]), report=kill)
"""


def test_killed_run_continues_to_the_same_result(backbone_folder: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_tiny(backbone_folder, whole)
    # First in the middle of an epoch, then after the epoch was evaluated and before it is saved.
    for moment in (("Stepped", "8"), ("Measured", "15")):
        where = [str(Path(__file__).parent), str(backbone_folder), str(killed)]
        command = [sys.executable, "-c", RUN_UNTIL_KILLED, *where, *moment]
        done = subprocess.run(command, timeout=300, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not killed.exists()
    events: list[Event] = []
    train_tiny(backbone_folder, killed, report=events.append)
    (started,) = (event for event in events if isinstance(event, Started))
    assert started.first_step == 14
    assert [event.step for event in events if isinstance(event, Stepped)] == list(range(15, 31))
    assert (killed / "mapper.safetensors").read_bytes() == (whole / "mapper.safetensors").read_bytes()
    assert without_speed(killed / "metrics.jsonl") == without_speed(whole / "metrics.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


@pytest.mark.slow
def test_run_killed_every_few_steps_gives_the_same_result(backbone_folder: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_tiny(backbone_folder, whole)
    where = [str(Path(__file__).parent), str(backbone_folder), str(killed)]
    for step in range(3, 30, 3):
        command = [sys.executable, "-c", RUN_UNTIL_KILLED, *where, "Stepped", str(step)]
        done = subprocess.run(command, timeout=300, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    train_tiny(backbone_folder, killed)
    assert (killed / "mapper.safetensors").read_bytes() == (whole / "mapper.safetensors").read_bytes()
    assert without_speed(killed / "metrics.jsonl") == without_speed(whole / "metrics.jsonl")


class Stop(Exception):
    """Raised by a test's report function to stop a run."""


def stop_after(step: int):
    """Return a report function that stops the run after a step."""

    def report(event: Event) -> None:
        if isinstance(event, Measured | Stepped) and event.step > step:
            raise Stop

    return report


def stopped_run(backbone_folder: Path, output: Path) -> Path:
    """Stop a run after the first of two epochs, and return its work folder."""
    with pytest.raises(Stop):
        train_tiny(backbone_folder, output, report=stop_after(15))
    return WorkFolder.path_of(output)


def test_unfinished_run_with_other_settings_needs_force(backbone_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    work = stopped_run(backbone_folder, output)
    other = {"bridge": BridgeConfig(noise_variance=0.1), "config": replace(QUICK, seed=4)}
    with pytest.raises(
        InputError, match=r"unfinished run that differs in bridge.noise_variance, training.seed .*--force"
    ):
        train_tiny(backbone_folder, output, **other)
    with pytest.raises(InputError, match="differs in captions"):
        train_tiny(backbone_folder, output, captions=caption_set(CAPTIONS[1:]))
    assert load_state(work)[0].step == 15
    events: list[Event] = []
    train_tiny(backbone_folder, output, **other, force=True, report=events.append)
    assert next(event for event in events if isinstance(event, Started)).first_step == 0
    assert load_model(output).config.bridge.noise_variance == 0.1


def test_broken_state_is_reported(backbone_folder: Path, tmp_path: Path) -> None:
    work = stopped_run(backbone_folder, tmp_path / "model")
    (work / STATE_FILE).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"state\.safetensors cannot be read.*delete .*partial to start again"):
        train_tiny(backbone_folder, tmp_path / "model")


def test_state_contains_the_moments_of_adam(backbone_folder: Path, tmp_path: Path) -> None:
    work = stopped_run(backbone_folder, tmp_path / "model")
    assert [json.loads(line)["epoch"] for line in (work / "metrics.jsonl").read_text().splitlines()] == [1]
    tensors = load_file(work / STATE_FILE)
    mapper = {name.removeprefix("mapper.") for name in tensors if name.startswith("mapper.")}
    for moment in ("exp_avg", "exp_avg_sq", "step"):
        assert {name.removeprefix(f"{moment}.") for name in tensors if name.startswith(f"{moment}.")} == mapper
    assert all(tensors[name] == 15 for name in tensors if name.startswith("step."))


def test_second_run_with_the_same_output_is_refused(tmp_path: Path) -> None:
    first = open_work(tmp_path / "model", SETTINGS)
    with pytest.raises(InputError, match="another training run is writing"):
        open_work(tmp_path / "model", SETTINGS)
    first.close()
    open_work(tmp_path / "model", SETTINGS).remove()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["thesis.doc", "settings.json"])
def test_work_folder_with_files_of_others_is_untouched(tmp_path: Path, name: str) -> None:
    path = WorkFolder.path_of(tmp_path / "model")
    path.mkdir()
    (path / name).write_text('{"editor": "mine"}')
    for force in (False, True):
        with pytest.raises(InputError, match=f"model.partial is needed .* contains {name}, which textcap did not"):
            open_work(tmp_path / "model", SETTINGS, force=force)
    WorkFolder.sweep(tmp_path / "model")
    assert [path.name for path in path.iterdir()] == [name]


def test_removing_a_work_folder_keeps_files_of_others(tmp_path: Path) -> None:
    work = open_work(tmp_path / "model", SETTINGS)
    work.save(TrainingProgress(), {"a": torch.zeros(1)})
    (work.path / "notes.txt").write_text("mine")
    work.remove()
    assert [path.name for path in work.path.iterdir()] == ["notes.txt"]


def test_work_folder_without_a_state_is_deleted(tmp_path: Path) -> None:
    output = tmp_path / "model"
    work = open_work(output, SETTINGS)
    assert work.path.is_dir() and not has_saved(output)
    WorkFolder.sweep(output)
    assert work.path.is_dir(), "it is still open"
    work.close()
    assert not any(tmp_path.iterdir())
    work = open_work(output, SETTINGS)
    work.save(TrainingProgress(), {"a": torch.zeros(1)})
    work.close()
    WorkFolder.sweep(output)
    assert has_saved(output) and load_state(work.path)


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
def test_state_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        work = open_work(tmp_path / "model", SETTINGS)
        work.save(TrainingProgress(), {"a": torch.zeros(1)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((work.path / STATE_FILE).stat().st_mode) == 0o644
    work.remove()


def test_run_with_names_that_are_not_utf_8(backbone_folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    captions = CaptionSet(CAPTIONS, (CaptionFile(f"{name}.txt", "0" * 64, len(CAPTIONS)),))
    options = {"config": replace(QUICK, batch_size=100), "command": f"textcap train {name}.txt"}

    def stop(event: Event) -> None:
        if isinstance(event, Measured) and event.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train_tiny(backbone_folder, tmp_path / name, captions, **options, report=stop)
    events: list[Event] = []
    train_tiny(backbone_folder, tmp_path / name, captions, **options, report=events.append)
    assert next(event for event in events if isinstance(event, Started)).first_step == 2
    config = load_model(tmp_path / name).config
    assert (config.command, config.caption_files[0].name) == ("textcap train caf\\xe9.txt", "caf\\xe9.txt")
    assert (config.device, config.precision, config.n_processes) == ("cpu", "float32", 1)
    assert config.n_threads == torch.get_num_threads()


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, (0, 1)),
        ({"RANK": "1"}, (0, 1)),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, (0, 1)),
        ({"WORLD_SIZE": "3", "RANK": "2"}, (2, 3)),
    ],
)
def test_torchrun_place_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], place: tuple[int, int]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.torchrun_place() == place


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE is 'x', but must be a whole number"),
        ({"WORLD_SIZE": "2"}, "RANK is '', but must be a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, but must be less than WORLD_SIZE, which is 2"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK is set without WORLD_SIZE"),
    ],
)
def test_invalid_torchrun_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        processes.torchrun_place()


def test_unwritable_output_is_reported_before_any_work(backbone_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    events: list[Event] = []
    with pytest.raises(InputError, match="model.partial cannot be written: Not a directory"):
        train_tiny(backbone_folder, tmp_path / "file" / "model", report=events.append)
    assert not events


UNEVEN_PARTS = """
import sys
from pathlib import Path
from textcap.config import TrainingConfig
from textcap.training import loop, train

loop._MICRO_BATCH_VALUES["cpu"] = int(sys.argv[1])
config = TrainingConfig(epochs=1, batch_size=13, learning_rate=1e-4, seed=3)
train(sys.argv[2], sys.argv[3], backbone=sys.argv[4], config=config, device="cpu")
"""


@pytest.mark.long
def test_processes_exchange_gradients_once_a_step_whatever_their_parts(backbone_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    (tmp_path / "run.py").write_text(UNEVEN_PARTS)
    # The last batch has one caption for one process and none for the other.
    for name, words, values in (
        ("one", [], 2**24),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], 1500),
    ):
        command = [sys.executable, *words, str(tmp_path / "run.py"), str(values), str(tmp_path / "captions.txt")]
        subprocess.run([*command, str(tmp_path / name), str(backbone_folder)], check=True, timeout=300)
    one, two = (load_model(tmp_path / name).mapper.state_dict() for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-6, rtol=0, msg=name)


def test_two_processes_give_the_same_mapper(backbone_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    # Adam's steps are as large as the learning rate even for gradients near 0, whose rounding depends on the CPU. The
    # mappers then differed by 4e-5 at a rate of 5e-3, and by 1e-7 at the paper's. An error would amount to whole steps.
    slow = replace(QUICK, learning_rate=TrainingConfig.learning_rate)
    train_tiny(backbone_folder, tmp_path / "one", config=slow)
    train_tiny(backbone_folder, tmp_path / "two", config=slow, report=events.append, n_processes=2)
    assert next(event for event in events if isinstance(event, Started)).model.n_processes == 2
    assert [event.step for event in events if isinstance(event, Stepped)] == list(range(1, 31))
    one, two = (load_model(tmp_path / name) for name in ("one", "two"))
    for (name, alone), shared in zip(one.mapper.named_parameters(), two.mapper.parameters(), strict=True):
        torch.testing.assert_close(shared, alone, atol=1e-6, rtol=0, msg=name)
    losses = [[r["loss"] for r in without_speed(tmp_path / name / "metrics.jsonl")] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def replace_workers(monkeypatch: pytest.MonkeyPatch, *scripts: str) -> list[subprocess.Popen[bytes]]:
    """Make `launch` start these scripts, one for each rank, and return the list that it adds the processes to."""
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def start_script(command: list[str], *, env: dict[str, str], **options: int) -> subprocess.Popen[bytes]:
        started.append(start([command[0], "-c", scripts[int(env["RANK"])]], env=env, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start_script)
    return started


WAIT_FOR_END = "import sys; sys.stdin.read()"
SEND_ERROR = (
    """
import pickle, sys
from textcap.errors import *
pickle.dump(%s, sys.stdout.buffer)
sys.stdout.flush()
"""
    + WAIT_FOR_END
)


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (SEND_ERROR % "InputError('no room', hint='less')", InputError, r"no room \(less\)"),
        (SEND_ERROR % "FileError('a.wav', 'is empty')", FileError, "a.wav is empty"),
        (SEND_ERROR % "SettingError('epochs', 0, 'at least 1')", SettingError, "epochs is 0, but must be at least 1"),
        ("import sys; sys.exit(3)", TextcapError, "training process 1 of 2 ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", TextcapError, "ended with exit code -9"),
    ],
)
def test_failing_process_stops_the_others(
    monkeypatch: pytest.MonkeyPatch, script: str, error: type[Exception], message: str
) -> None:
    workers = replace_workers(monkeypatch, WAIT_FOR_END, script)
    with pytest.raises(TextcapError, match=message) as raised:
        processes.launch("x" * 1_000_000, 2, lambda event: None)  # more than a pipe holds
    assert type(raised.value) is error
    assert len(workers) == 2 and all(worker.poll() is not None for worker in workers)


def test_worker_ends_when_its_standard_input_closes() -> None:
    command = [sys.executable, "-m", "textcap.training.worker"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


# A plain script: nothing is guarded by `__name__`, and it runs from standard input as in a notebook.
RUN_IN_TWO_PROCESSES = """
import sys
sys.path.insert(0, %r)
import tiny_random
from textcap import TrainingConfig, train
def report(event):
    print(type(event).__name__, file=sys.stderr, flush=True)
config = TrainingConfig(epochs=10_000, batch_size=13, seed=3)
train("captions.txt", "model", backbone=%r, config=config, device="cpu", n_processes=2, report=report)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=lambda number: number.name
)
def test_workers_of_a_script_without_a_guard_end_with_it(
    backbone_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS), encoding="utf-8")
    (tmp_path / "script.py").write_text(RUN_IN_TWO_PROCESSES % (str(Path(__file__).parent), str(backbone_folder)))
    with open(tmp_path / "script.py") as script:
        streams = {"stdin": script, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-"], cwd=tmp_path, text=True, **streams)
    assert process.stderr is not None
    events: list[str] = []
    while events.count("Measured") < 2:  # the state is saved after the first is reported
        events.append(process.stderr.readline().strip())
        assert events[-1], process.communicate()
    assert events.count("Started") == 1
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (-number, "")
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert has_saved(tmp_path / "model")


@pytest.mark.parametrize(
    ("error", "n_processes"), [(KeyboardInterrupt, 1), pytest.param(SystemExit, 2, marks=pytest.mark.long)]
)
def test_interrupted_run_continues_to_the_same_result(
    backbone_folder: Path, tmp_path: Path, error: type[BaseException], n_processes: int
) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 20:
            raise error

    with pytest.raises(error):
        train_tiny(backbone_folder, tmp_path / "stopped", n_processes=n_processes, report=interrupt)
    assert not psutil.Process().children()
    events: list[Event] = []
    train_tiny(backbone_folder, tmp_path / "stopped", n_processes=n_processes, report=events.append)
    assert next(event for event in events if isinstance(event, Started)).first_step == 15
    train_tiny(backbone_folder, tmp_path / "whole", n_processes=n_processes)
    mappers = [(tmp_path / name / "mapper.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert mappers[0] == mappers[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "whole"]


def test_resume_with_another_number_of_threads_warns(
    backbone_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    n_threads = torch.get_num_threads()
    stopped_run(backbone_folder, tmp_path / "model")
    torch.set_num_threads(n_threads + 1)
    try:
        train_tiny(backbone_folder, tmp_path / "model")
    finally:
        torch.set_num_threads(n_threads)
    (warning,) = (message for message in caplog.messages if "continues" in message)
    change = f"the run continues with {n_threads + 1} instead of {n_threads} threads"
    assert warning == f"{change}: rounding may change its mapper by up to about 1e-6"
    assert load_model(tmp_path / "model").config.n_threads == n_threads + 1


@pytest.mark.long
def test_resume_with_another_number_of_processes_warns(
    backbone_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped_run(backbone_folder, tmp_path / "model")
    train_tiny(backbone_folder, tmp_path / "model", n_processes=2)
    (warning,) = (message for message in caplog.messages if "processes" in message)
    assert warning.startswith("the run continues with 2 instead of 1 processes: rounding may change its mapper")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def uncleaned(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model of a run that was killed before it deleted its work folder."""
    folder = tmp_path_factory.mktemp("uncleaned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkFolder, "remove", lambda self: None)
        train_tiny(backbone_folder, folder / "model")
    assert (folder / "model.partial" / STATE_FILE).exists()
    return folder


@pytest.mark.parametrize(
    ("n_deleted", "n_processes"),
    [(0, 1), (1, 1), (2, 1), pytest.param(2, 2, marks=pytest.mark.long), (3, 1), (4, 1), (5, 1)],
)
def test_run_killed_while_it_deletes_its_work_folder_is_done(
    backbone_folder: Path,
    uncleaned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_deleted: int,
    n_processes: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same command says so and cleans up, whatever was deleted; another one says that the model exists."""
    shutil.copytree(uncleaned, tmp_path, dirs_exist_ok=True)
    model, path = tmp_path / "model", tmp_path / "model.partial"

    def kill(*arguments: object) -> None:
        raise Killed

    (path / state.WITH_PAIRS).mkdir()  # as of a run on text and pairs
    n_files = len(list(path.iterdir()))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        deletions = iter([remove_quietly] * n_deleted)
        patch.setattr(state, "remove_quietly", lambda file: next(deletions, kill)(file))
        patch.setattr(Path, "rmdir", kill)
        WorkFolder(path, FileLock(path / "lock")).remove()
    assert path.is_dir() and len(list(path.iterdir())) == n_files - n_deleted
    written = {file: file.stat().st_mtime_ns for file in model.iterdir()}
    shutil.copytree(tmp_path, tmp_path / "other")
    with pytest.raises(InputError, match="model already exists"):
        train_tiny(backbone_folder, tmp_path / "other" / "model", config=replace(QUICK, seed=9))
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["model"]
    events: list[Event] = []
    train_tiny(backbone_folder, model, n_processes=n_processes, report=events.append)
    assert caplog.messages == [f"{model} is complete; the run was killed before it deleted {path}"]
    assert not any(isinstance(event, Started | Stepped) for event in events)
    assert {file: file.stat().st_mtime_ns for file in model.iterdir()} == written and not path.exists()


def test_forced_run_that_was_killed_before_its_first_state_begins_again(
    backbone_folder: Path, uncleaned: Path, tmp_path: Path
) -> None:
    shutil.copytree(uncleaned, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.partial" / STATE_FILE).unlink()
    events: list[Event] = []
    train_tiny(backbone_folder, tmp_path / "model", force=True, report=events.append)
    assert any(isinstance(event, Started) and event.first_step == 0 for event in events)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_front_lists_what_train_needs() -> None:
    assert set(dir(textcap)) == {*textcap.__all__, "__version__"}
    assert {"BridgeConfig", "MapperConfig", "TrainingConfig", "load_captions", "read_pairs"} < set(textcap.__all__)


def test_paths_and_loaded_objects_give_the_same_files(
    backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("captions.txt").write_text("\n".join(CAPTIONS), encoding="utf-8")
    options = {"config": replace(QUICK, epochs=1), "device": torch.device("cpu")}
    train("captions.txt", "paths", backbone=str(backbone_folder), **options)
    backbone = Backbone.load(str(backbone_folder))
    default = BridgeConfig(noise_variance=backbone.config.noise_variance)
    train(
        textcap.load_captions(["captions.txt"]),
        Path("objects"),
        backbone=backbone,
        bridge=default,
        mapper=backbone.config.mapper,
        **options,
    )
    for file in ("mapper.safetensors", "config.json"):
        assert Path("paths", file).read_bytes() == Path("objects", file).read_bytes()


def test_captions_given_as_none_or_empty_need_pairs(backbone_folder: Path, tmp_path: Path) -> None:
    for captions in (None, []):
        with pytest.raises(InputError, match="nothing to train on"):
            train(captions, tmp_path / "model", backbone=backbone_folder)
    assert not any(tmp_path.iterdir())
