"""`textcap train`: a text file in, a model folder out."""

import math
import shlex
import sys
from dataclasses import dataclass
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
    "textcap train mine.txt more.txt:0.5 --noise-from pairs.csv -o my-model"
)

_Captions = Annotated[
    list[str] | None,
    typer.Argument(
        help="Text files, one caption per line; - is standard input. more.txt:0.5 draws half as many captions "
        "per epoch as more.txt has lines, where no file of the whole name is there.",
        show_default=False,
    ),
]
_NoiseFrom = Annotated[
    Path | None, typer.Option(metavar="PAIRS", help="Measure the noise on pairs, as textcap gap does.")
]
_Adapter = Annotated[
    Path | None, typer.Option(help="Apply this linear adapter to text embeddings; see textcap fit-adapter.")
]
_Pairs = Annotated[
    list[Path] | None, typer.Option(help="Learn from sounds with captions, beside text or without; repeatable.")
]
_AudioDirs = Annotated[
    list[Path] | None,
    typer.Option(help="Where the sounds of pairs are: one for all, or one for each --pairs, then --noise-from."),
]
_AudioNoise = Annotated[float, typer.Option(min=0, help="Of noise on the embeddings of sounds that are learned from.")]


def train(
    captions: _Captions = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder to write.")] = Path("textcap-model"),
    backbone: Annotated[str, typer.Option(help="msclap-2023, tiny, or a folder.")] = "msclap-2023",
    noise_variance: Annotated[
        float | None, typer.Option(min=0, help="Of the noise on text embeddings.", show_default="the backbone's")
    ] = None,
    noise_std: Annotated[
        float | None, typer.Option(min=0, help="The same as a standard deviation: the square root.")
    ] = None,
    noise_from: _NoiseFrom = None,
    adapter: _Adapter = None,
    pairs: _Pairs = None,
    audio_dir: _AudioDirs = None,
    audio_noise_variance: _AudioNoise = 0.0,
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
    """Train a captioner on text alone, or on pairs of sound and text.

    Only captions are needed, no sound. Prints the model folder. A run that was
    stopped goes on when the same command is given again. The defaults are the
    paper's.
    """
    captions, pairs = captions or [], pairs or []
    if not captions and not pairs:
        raise typer.BadParameter("give a text file with captions, or --pairs")
    bridge = _bridge(noise_variance, noise_std, audio_noise_variance)
    _check_bridge(bridge, noise_from, adapter, captions, pairs, audio_noise_variance)
    pair_paths = [*pairs, *([noise_from] if noise_from else [])]
    folders = _audio_folders(pair_paths, audio_dir or [])
    try:
        settings = TrainingConfig(epochs, batch_size, learning_rate, warmup_steps, held_out, seed)
    except InputError as error:
        raise typer.BadParameter(error.message.replace("learning_rate", "--learning-rate")) from error
    from textcap.training.job import TrainingJob

    job = TrainingJob(
        output=str(output),
        backbone=backbone,
        bridge=bridge,
        audio_noise_variance=audio_noise_variance,
        adapter=str(adapter) if adapter else None,
        prefix_length=prefix_length,
        mapper_layers=mapper_layers,
        training=settings,
        device=device,
        force=force,
        offline=offline or None,
        command=shlex.join(["textcap", *sys.argv[1:]]),
    )
    inputs = _Inputs(captions, list(zip(pair_paths, folders, strict=True)), noise_from is not None)
    _run(job, inputs, quiet, verbose)


@dataclass(frozen=True)
class _Inputs:
    captions: list[str]
    pairs: list[tuple[Path, Path | None]]  # with the folder of their sounds
    last_is_for_noise: bool  # the last of `pairs` is what the noise is measured on


def _run(job: "TrainingJob", inputs: _Inputs, quiet: bool, verbose: bool) -> None:
    set_verbosity(quiet, verbose)
    from textcap.cli.training_view import TrainingView
    from textcap.data.captions import load_captions, split_weight
    from textcap.data.pairs import read_pairs
    from textcap.training import check_output
    from textcap.training import train as train_model
    from textcap.training.events import Warned
    from textcap.training.processes import torchrun_place

    is_main = torchrun_place()[0] == 0
    set_verbosity(quiet or not is_main, verbose)
    output = Path(job.output)
    # Before standard input is waited for.
    check_output(job, [*(split_weight(name)[0] for name in inputs.captions), *(path for path, _ in inputs.pairs)])
    with TrainingView(output) as view:
        read = [read_pairs(path, audio_folder=folder) for path, folder in inputs.pairs]
        noise_pairs = read.pop() if inputs.last_is_for_noise else None
        loaded = load_captions(inputs.captions) if inputs.captions else None
        for warning in loaded.warnings if loaded else ():
            view(Warned(warning))
        train_model(job, loaded, view, pairs=read, noise_pairs=noise_pairs, download_progress=view.show_download)
    if is_main:
        print(output, flush=True)
        err.print(f"caption with: textcap caption *.wav -m {shlex.quote(str(output))}", markup=False)


def _bridge(noise_variance: float | None, noise_std: float | None, audio_noise_variance: float) -> BridgeConfig | None:
    if noise_variance is not None and noise_std is not None:
        raise typer.BadParameter("give --noise-variance or --noise-std, not both")
    variance = noise_variance if noise_std is None else noise_std * noise_std  # a power would overflow
    for name, value in (
        ("--noise-variance" if noise_std is None else "--noise-std", variance),
        ("--audio-noise-variance", audio_noise_variance),
    ):
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"{name} is too large or no number")
    if variance is None:
        return None
    return BridgeConfig(noise_variance=variance, audio_noise_variance=audio_noise_variance)


def _check_bridge(
    bridge: BridgeConfig | None,
    noise_from: Path | None,
    adapter: Path | None,
    captions: list[str],
    pairs: list[Path],
    audio_noise_variance: float,
) -> None:
    """Refuse options that say nothing of what is trained on."""
    if noise_from is not None and bridge is not None:
        raise typer.BadParameter("give --noise-from or the noise itself, not both")
    given = {"--noise-from": noise_from, "--noise-variance or --noise-std": bridge, "--adapter": adapter}
    if not captions and (of_text := [name for name, value in given.items() if value is not None]):
        raise typer.BadParameter(f"{of_text[0]} is for text, and there is none: --audio-noise-variance is for sounds")
    if audio_noise_variance and not pairs:
        raise typer.BadParameter("--audio-noise-variance is for the sounds of --pairs, and there are none")


def _audio_folders(pair_paths: list[Path], audio_dirs: list[Path]) -> list[Path | None]:
    """Return the folder of each file of pairs."""
    if audio_dirs and not pair_paths:
        raise typer.BadParameter("--audio-dir is for --pairs and --noise-from, and there are none")
    if len(audio_dirs) > 1 and len(audio_dirs) != len(pair_paths):
        message = f"there are {len(audio_dirs)} --audio-dir for {len(pair_paths)} files of pairs"
        raise typer.BadParameter(f"{message}: give one for all, or one for each")
    if len(audio_dirs) <= 1:
        return [audio_dirs[0] if audio_dirs else None] * len(pair_paths)
    return list(audio_dirs)
