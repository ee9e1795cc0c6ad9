"""`textcap train`: exit codes, what goes to stdout and what to stderr."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

import tiny_random
from light import run_without_torch
from textcap.cli import training_view
from textcap.cli.app import app
from textcap.cli.console import warn
from textcap.cli.training_view import TrainingView
from textcap.config import BridgeConfig, MapperConfig, TrainingConfig
from textcap.model_folder import ModelConfig, load_model
from textcap.models.backbone import BackboneNames
from textcap.training.events import Event, Measured, Started, Stepped
from textcap.training.state import STATE_FILE

QUICK = ["--epochs", "2", "--batch-size", "40", "--learning-rate", "5e-3", "--device", "cpu"]


@pytest.fixture(scope="module")
def backbone(backbone_folder: Path) -> Path:
    return backbone_folder


@pytest.fixture(autouse=True)
def captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(tiny_random.tiny_captions(120)), encoding="utf-8")
    return path


def run(*arguments: object, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, ["train", *map(str, arguments)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_stdout_has_only_the_model_folder(backbone: Path) -> None:
    result = run("captions.txt", "--backbone", backbone, *QUICK)
    assert result.exit_code == 0
    assert result.stdout == "textcap-model\n"
    lines = result.stderr.splitlines()
    assert f"backbone {backbone} on cpu, float32" in lines
    assert "noise on text embeddings: variance 0.01 (standard deviation 0.1)" in lines
    assert "training on 108 captions, 12 held out; 6 steps in 2 epochs" in lines
    assert "warm-up shortened from 2,000 to 1 step, a fifth of this short run" in lines
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert all("held-out loss" in line and "% distinct" in line and "captions/s" in line for line in epochs)
    assert sum(" -> " in line for line in lines) == 6
    assert lines[-1] == "use it with: textcap caption *.wav -m textcap-model"
    assert load_model(Path("textcap-model")).config.training.batch_size == 40
    assert sorted(path.name for path in Path().iterdir()) == ["captions.txt", "textcap-model"]


def test_quiet_prints_only_the_model_folder(backbone: Path) -> None:
    result = run("captions.txt", "-q", "-o", "my model", "--backbone", backbone, *QUICK)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "my model\n", "")


def test_flags_reach_the_model_folder(backbone: Path) -> None:
    flags = ["--noise-std", "0.2", "--warmup-steps", "1", "--held-out", "0", "--prefix-length", "2"]
    result = run("captions.txt", "-", "--backbone", backbone, *QUICK, *flags, "--seed", "9", stdin="one more\r\n")
    assert result.exit_code == 0, result.stderr
    stored = load_model(Path("textcap-model"))
    assert stored.config.bridge.noise_variance == pytest.approx(0.04)
    assert "noise on text embeddings: variance 0.04 (standard deviation 0.2)" in result.stderr
    assert (stored.config.training.seed, stored.config.training.warmup_steps) == (9, 1)
    assert (stored.config.n_training_captions, stored.config.n_held_out_captions) == (121, 0)
    assert stored.mapper.config.prefix_length == 2
    assert [file.name for file in stored.config.caption_files] == ["captions.txt", "standard input"]


def test_long_captions_are_cut_with_a_warning(backbone: Path, captions: Path) -> None:
    captions.write_text("a dog barks\n" + "long " * 300, encoding="utf-8")
    result = run("captions.txt", "--backbone", backbone, *QUICK)
    assert result.exit_code == 0
    assert "warning: captions.txt, line 2: cut from 1,499 to 1,000 characters" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--noise-std", "0.1", "--noise-variance", "0.01"], "not both"),
        (["--epochs", "0"], "--epochs"),
        (["--batch-size", "many"], "--batch-size"),
        (["--noise-variance", "-1"], "--noise-variance"),
        (["--noise-variance", "inf"], "--noise-variance: must be a finite number"),
        (["--noise-std", "1e200"], "--noise-std: must be a finite number"),
        (["--noise-std", "nan"], "--noise-std"),
        (["--learning-rate", "2"], "--learning-rate"),
        (["--learning-rate", "0"], "--learning-rate: is 0.0, but must be above 0 and below 1"),
        (["--seed", "-1"], "--seed"),
        (["--mapper-layers", "200"], "--mapper-layers: is 200, but must be at least 1 and at most 128"),
        (["--seed", str(2**63)], "--seed"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_misuse_exits_2(flags: list[str], message: str) -> None:
    result = run("captions.txt", *flags)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--backbone", "tyni"],
            "backbone 'tyni' does not exist (use msclap-2023, tiny, or a folder with config.json)",
        ),
        (["--device", "warp"], "device 'warp' does not exist"),
        (["more.txt"], "more.txt does not exist"),
        (["--offline"], "msclap"),
    ],
)
def test_known_errors_are_one_line_and_exit_1(flags: list[str], message: str) -> None:
    result = run("captions.txt", *flags)
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("textcap: ") and message in line
    assert sorted(path.name for path in Path().iterdir()) == ["captions.txt"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_missing_device_is_not_replaced_by_another(backbone: Path) -> None:
    result = run("captions.txt", "--backbone", backbone, "--device", "cuda")
    assert result.exit_code == 1 and "device cuda cannot be used here" in result.stderr


def test_existing_output_is_overwritten_only_with_force(backbone: Path) -> None:
    Path("textcap-model").mkdir()
    result = run("captions.txt", "--backbone", backbone, *QUICK)
    assert result.exit_code == 1 and "--force" in result.stderr
    result = run("captions.txt", "--backbone", backbone, *QUICK, "--force")
    assert result.exit_code == 0 and load_model(Path("textcap-model"))


def test_stopped_run_continues_and_reports_it(backbone: Path) -> None:
    class Stop(Exception):
        pass

    class StoppingView(TrainingView):
        def __call__(self, event: Event) -> None:
            if isinstance(event, Measured) and event.epoch == 2:
                raise Stop
            super().__call__(event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_view, "TrainingView", StoppingView)
        result = CliRunner().invoke(app, ["train", "captions.txt", "--backbone", str(backbone), *QUICK])
        assert isinstance(result.exception, Stop) and Path("textcap-model.partial").is_dir()
    result = run("captions.txt", "--backbone", backbone, *QUICK, "--seed", "1")
    assert result.exit_code == 1 and "unfinished run that differs in training.seed" in result.stderr
    result = run("captions.txt", "--backbone", backbone, *QUICK)
    assert result.exit_code == 0 and "continuing an unfinished run from step 3" in result.stderr
    epochs = [json.loads(line)["epoch"] for line in Path("textcap-model/metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2]


def test_control_characters_are_escaped_on_the_terminal() -> None:
    with CliRunner().isolation() as streams:
        warn("red \x1b[31m [bold]")
        assert streams[1].getvalue().decode().rstrip() == "warning: red \\x1b[31m [bold]"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    ("saved", "message"), [(True, "the last saved state is in model.partial"), (False, "no state was saved yet")]
)
def test_interruption_tells_whether_the_run_can_continue(saved: bool, message: str, error: type[BaseException]) -> None:
    if saved:
        Path("model.partial").mkdir()
        Path("model.partial", STATE_FILE).touch()
    with CliRunner().isolation() as streams:
        with contextlib.suppress(error), TrainingView(Path("model")) as view:
            view(started())
            raise error
        assert message in streams[1].getvalue().decode().splitlines()[-1]


def started(total_steps: int = 4) -> Started:
    """Return the first event of a small run."""
    model = ModelConfig(
        backbone=BackboneNames("tiny"),
        clap_hash="0" * 64,
        clap_licence="MIT",
        language_model_hash="0" * 64,
        language_model_licence="MIT",
        bridge=BridgeConfig(noise_variance=0.01),
        mapper=MapperConfig(),
        training=TrainingConfig(epochs=3, warmup_steps=1),
        end_token_id=0,
        n_training_captions=2,
        n_held_out_captions=0,
        caption_files=(),
        packages={},
        command="",
    )
    return Started(model, sources=(), total_steps=total_steps, first_step=0, warmup_steps=1)


def test_progress_bar_shows_the_time_left_of_a_run_with_slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120, get_time=lambda: now_s)
    monkeypatch.setattr("textcap.cli.console.err", terminal)
    with TrainingView(Path("model")) as view:
        view(started(total_steps=40))
        for step in range(1, 4):
            now_s += 100.0
            view(Stepped(step=step, loss=1.5, captions_per_s=10.0))
    assert "1:01:40" in terminal.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [".", ".."])
def test_force_never_overwrites_the_current_folder(tmp_path: Path, name: str) -> None:
    Path("thesis.doc").write_text("years of work")
    result = run("captions.txt", "-o", name, "--force", "--backbone", "tiny", *QUICK)
    assert result.exit_code == 1 and "is the current folder or contains it" in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["captions.txt", "thesis.doc"]


def test_model_folder_that_contains_the_captions_is_not_overwritten(captions: Path) -> None:
    model = Path("model")
    model.mkdir()
    (model / "config.json").write_text('{"format_version": 1}')
    captions.rename(model / "captions.txt")
    result = run(model / "captions.txt", "-o", model, "--force")
    assert result.exit_code == 1 and "model contains the input file model/captions.txt" in result.stderr
    assert (model / "captions.txt").exists()


def test_output_is_checked_before_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("model").write_text("a file")
    monkeypatch.setattr("textcap.training.load_captions", lambda paths, **_: pytest.fail("standard input was read"))
    result = run("-", "-o", "model")
    assert result.exit_code == 1 and "model is a file" in result.stderr


def test_help_shows_which_defaults_depend_on_the_backbone() -> None:
    shown = " ".join(run("--help").stdout.split())
    assert shown.count("the backbone's") == 7


def test_rank_without_torchrun_does_not_silence_the_output(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    result = run("captions.txt", "--backbone", backbone, *QUICK)
    assert (result.exit_code, result.stdout) == (0, "textcap-model\n") and "epoch 2/2" in result.stderr


def test_help_ends_with_two_commands_and_loads_no_torch() -> None:
    done = run_without_torch("train", "--help")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    assert all(line.startswith("textcap train ") for line in lines[-2:]), lines[-2:]
