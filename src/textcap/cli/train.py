"""`textcap train`: a text file in, a model folder out."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli.console import err, set_verbosity
from textcap.config import MAX_SEED, BridgeConfig, TrainingConfig
from textcap.errors import InputError

if TYPE_CHECKING:
    from textcap.training.job import TrainingJob

EXAMPLES = (
    "textcap train captions.txt -o textcap-model\n\n"
    "textcap train a.txt b.txt --epochs 10 --noise-std 0.1 -o quick-model"
)


def train(
    captions: Annotated[
        list[str],
        typer.Argument(help="Text files, one caption per line; - is standard input.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder to write.")] = Path("textcap-model"),
    backbone: Annotated[str, typer.Option(help="msclap-2023, tiny, or a folder.")] = "msclap-2023",
    noise_variance: Annotated[
        float | None, typer.Option(min=0, help="Of the noise on text embeddings.", show_default="the backbone's")
    ] = None,
    noise_std: Annotated[
        float | None, typer.Option(min=0, help="The same as a standard deviation: the square root.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times every caption is seen.")] = TrainingConfig.epochs,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Captions in a step, over all devices.")
    ] = TrainingConfig.batch_size,
    learning_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Of Adam, above 0 and below 1.")
    ] = TrainingConfig.learning_rate,
    warmup_steps: Annotated[
        int, typer.Option(min=0, help="At most a fifth of a run of fewer than 10,000 steps.")
    ] = TrainingConfig.warmup_steps,
    held_out: Annotated[
        int, typer.Option(min=0, help="Captions to measure on, at most a tenth of all.")
    ] = TrainingConfig.held_out_captions,
    prefix_length: Annotated[
        int | None, typer.Option(min=1, help="Vectors that GPT-2 continues.", show_default="the backbone's")
    ] = None,
    mapper_layers: Annotated[
        int | None, typer.Option(min=1, help="Layers of the mapper.", show_default="the backbone's")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Another seed gives another model.")
    ] = TrainingConfig.seed,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all of them), cuda:1 or mps.")] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace the output, and unfinished runs with other settings.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")] = False,
) -> None:
    """Train a captioner on text alone.

    Only captions are needed, no sound. Prints the model folder. A run that was
    stopped goes on when the same command is given again. The defaults are the
    paper's.
    """
    bridge = _bridge(noise_variance, noise_std)
    try:
        settings = TrainingConfig(epochs, batch_size, learning_rate, warmup_steps, held_out, seed)
    except InputError as error:
        raise typer.BadParameter(error.message.replace("learning_rate", "--learning-rate")) from error
    from textcap.training.job import TrainingJob

    job = TrainingJob(
        output=str(output),
        backbone=backbone,
        bridge=bridge,
        prefix_length=prefix_length,
        mapper_layers=mapper_layers,
        training=settings,
        device=device,
        force=force,
        offline=offline or None,
        command=shlex.join(["textcap", *sys.argv[1:]]),
    )
    _run(job, captions, quiet, verbose)


def _run(job: "TrainingJob", captions: list[str], quiet: bool, verbose: bool) -> None:
    set_verbosity(quiet, verbose)
    from textcap.captions import load_captions
    from textcap.cli.training_view import TrainingView
    from textcap.training import check_output
    from textcap.training import train as train_model
    from textcap.training.events import Warned
    from textcap.training.processes import torchrun_place

    is_main = torchrun_place()[0] == 0
    set_verbosity(quiet or not is_main, verbose)
    output = Path(job.output)
    check_output(job, captions)  # before standard input is waited for
    with TrainingView(output) as view:
        loaded = load_captions(captions)
        for warning in loaded.warnings:
            view(Warned(warning))
        train_model(job, loaded, view, download_progress=view.show_download)
    if is_main:
        print(output, flush=True)
        err.print(f"caption with: textcap caption *.wav -m {shlex.quote(str(output))}", markup=False)


def _bridge(noise_variance: float | None, noise_std: float | None) -> BridgeConfig | None:
    if noise_variance is not None and noise_std is not None:
        raise typer.BadParameter("give --noise-variance or --noise-std, not both")
    variance = noise_variance if noise_std is None else noise_std * noise_std  # a power would overflow
    if variance is None:
        return None
    if not math.isfinite(variance):
        name = "--noise-variance" if noise_std is None else "--noise-std"
        raise typer.BadParameter(f"{name} is too large or no number")
    return BridgeConfig(noise_variance=variance)
