"""`textcap train`: captions or pairs in, a model folder out."""

import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from textcap.cli import options
from textcap.cli.console import err, note
from textcap.cli.loading import load_backbone
from textcap.config import BridgeConfig, TrainingConfig

WHEN_STOPPED = "run the same command to continue"
EXAMPLES = (
    "textcap train captions.txt -o textcap-model\n\n"
    "textcap train mine.txt more.txt:0.5 --noise-from pairs.csv -o my-model"
)


def train(
    captions: Annotated[
        list[str] | None,
        typer.Argument(
            help="Text files with one caption per line, or tables of captions (CSV, TSV, JSON Lines); - reads standard "
            "input. A name may end in a weight: more.txt:0.5 draws half as many captions per epoch as more.txt has.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, options.output(help="The model folder to write.")] = Path("textcap-model"),
    plain_text: Annotated[
        bool, typer.Option("--plain-text", help="Take each line as a caption, also of files that look like tables.")
    ] = False,
    backbone: options.BackboneOption = options.DEFAULT_BACKBONE,
    clap: options.ClapOption = None,
    language_model: options.LanguageModelOption = None,
    noise_variance: Annotated[
        float | None,
        typer.Option(min=0, help="Variance of the noise added to text embeddings.", show_default="the backbone's"),
    ] = None,
    noise_std: Annotated[
        float | None, typer.Option(min=0, help="Standard deviation of that noise, instead of --noise-variance.")
    ] = None,
    noise_from: Annotated[
        Path | None,
        typer.Option(metavar="PAIRS", help="Compute the noise from 30 pairs of this pairs file, as textcap gap does."),
    ] = None,
    audio_sample: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of recordings like those that you will caption, without captions: the bridge is computed "
            "from it.",
        ),
    ] = None,
    bridge: Annotated[
        Literal["noise", "centre", "coral", "none"] | None,
        typer.Option(
            help="How to bridge the modality gap: noise on text embeddings; noise after both sides are centred; noise, "
            "and sounds given the mean and covariance of the text; or nothing. centre and coral need --audio-sample, "
            "unless the backbone has means to centre with.",
            show_default="the backbone's; with --audio-sample centre, or coral from 300 sounds on",
        ),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Adapter file to apply to text embeddings; textcap fit-adapter writes one.")
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(help="Train on the sounds of this pairs file, in addition to text or instead of it; repeatable."),
    ] = None,
    audio_dir: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that holds the sound files: one for all pairs files, or one for each --pairs in order and "
            "then one for --noise-from and one for --val.",
            show_default="the folder of each pairs file",
        ),
    ] = None,
    audio_noise_variance: Annotated[
        float, typer.Option(min=0, help="Variance of the noise added to the audio embeddings of --pairs.")
    ] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over all captions.")] = TrainingConfig.epochs,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps, in place of --epochs.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Captions per training step, over all devices together.")
    ] = TrainingConfig.batch_size,
    learning_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Adam's learning rate after the warm-up, above 0 and below 1.")
    ] = TrainingConfig.learning_rate,
    warmup_steps: Annotated[
        int,
        typer.Option(
            min=0, help="Steps over which the learning rate rises; at most a fifth of a run under 10,000 steps."
        ),
    ] = TrainingConfig.warmup_steps,
    held_out: Annotated[
        int, typer.Option(min=0, help="Number of captions held out to measure the loss; at most a tenth of all.")
    ] = TrainingConfig.held_out_captions,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Captions, or pairs of sound and text, to measure the loss on in place of --held-out captions.",
        ),
    ] = None,
    keep: Annotated[
        Literal["last", "best"],
        typer.Option(help="Which mapper to keep: that of the last step, or of the least held-out loss."),
    ] = "last",
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop when the held-out loss has not fallen for so many measurements: one an epoch, and one every "
            "2,000 steps.",
            show_default="never stop early",
        ),
    ] = None,
    prefix_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of prefix vectors that the mapper makes.",
            show_default="the backbone's",
        ),
    ] = None,
    mapper_layers: Annotated[
        int | None, typer.Option(min=1, help="Number of layers of the mapper.", show_default="the backbone's")
    ] = None,
    seed: Annotated[
        int,
        options.seed(
            help="Seed of everything random; the same seed, device and number of threads give the same model."
        ),
    ] = TrainingConfig.seed,
    device: Annotated[
        str,
        typer.Option(
            help="Device to compute on: auto (CUDA, else Apple's MPS, else the CPU), cpu, cuda (all CUDA devices), "
            "cuda:1 or mps."
        ),
    ] = "auto",
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite the model folder, and discard an unfinished run with other settings."),
    ] = False,
    offline: options.OfflineOption = False,
) -> None:
    """Train a captioner on text alone, or on pairs of sound and text.

    Prints the path of the model folder. Run the same command again to continue an unfinished run. The defaults are the
    paper's.
    """
    captions, pairs = captions or [], pairs or []
    if not captions and not pairs:
        raise typer.BadParameter("give a text file of captions, or --pairs")
    variance = _text_noise(noise_variance, noise_std)
    if noise_from is not None and variance is not None:
        raise typer.BadParameter("give only one of --noise-from, --noise-variance and --noise-std")
    if bridge == "none" and (variance or noise_from is not None):
        raise typer.BadParameter("leaves no room for noise: take --bridge noise", param_hint="--bridge none")
    if bridge in ("noise", "none") and audio_sample is not None:
        raise typer.BadParameter("is not used by --bridge noise or none", param_hint="--audio-sample")
    if adapter is not None and (audio_sample is not None or bridge not in (None, "noise")):
        raise typer.BadParameter("give either an --adapter or another --bridge, not both")
    if not captions:
        _refuse_text_options(noise_from, variance, adapter, audio_sample, bridge)
    if audio_noise_variance and not pairs:
        raise typer.BadParameter("needs --pairs", param_hint="--audio-noise-variance")
    folders = _audio_folders([*pairs, *(path for path in (noise_from, val) if path)], audio_dir or [])
    fields = ("epochs", "steps", "patience", "batch_size", "learning_rate", "warmup_steps", "seed")
    with options.settings_from_flags(*fields, held_out_captions="--held-out"):
        config = TrainingConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            held_out_captions=held_out,
            seed=seed,
            steps=steps,
            keep=keep,
            patience=patience,
        )
    from textcap.cli.training_view import TrainingView
    from textcap.data.pairs import is_pairs_file, read_pairs
    from textcap.models.backbone import BackboneNames, read_backbone_config
    from textcap.models.weight_files import kind_of
    from textcap.training import train as train_model
    from textcap.training.processes import torchrun_place

    is_main = torchrun_place()[0] == 0
    err.quiet = err.quiet or not is_main
    names = BackboneNames(backbone, clap, language_model)
    names.check_trainable()
    loaded = load_backbone(backbone, clap, language_model, offline=offline) if names.has_other_halves else None
    defaults = loaded.config if loaded else read_backbone_config(backbone)
    if (remark := kind_of(backbone).remark) and not (clap and language_model):
        note(remark)
    sizes = {"prefix_length": prefix_length, "n_layers": mapper_layers}
    with options.settings_from_flags("audio_noise_variance", "prefix_length", n_layers="--mapper-layers"):
        is_measured = noise_from is not None or audio_sample is not None or not captions
        noise = 0.0 if bridge == "none" else defaults.noise_for(variance, is_measured=is_measured)
        bridge_config = BridgeConfig(noise, audio_noise_variance, kind="noise" if bridge == "none" else bridge)
        mapper = replace(defaults.mapper, **{name: value for name, value in sizes.items() if value is not None})
    with TrainingView(output) as view:
        read = [read_pairs(path, audio_folder=folder) for path, folder in zip(pairs, folders, strict=False)]
        train_model(
            captions,
            output,
            plain_text=plain_text,
            backbone=loaded or names,
            pairs=read,
            bridge=bridge_config,
            audio_sample=audio_sample or (),
            noise_from=read_pairs(noise_from, audio_folder=folders[len(pairs)]) if noise_from else None,
            adapter=adapter,
            mapper=mapper,
            config=config,
            val=read_pairs(val, audio_folder=folders[-1]) if val and not plain_text and is_pairs_file(val) else val,
            device=device,
            force=force,
            offline=offline or None,
            report=view,
            download_progress=view.show_download,
            command=shlex.join(["textcap", *sys.argv[1:]]),
        )
    if is_main:
        print(output, flush=True)
        note(f"use it with: textcap caption *.wav -m {shlex.quote(str(output))}")


def _text_noise(noise_variance: float | None, noise_std: float | None) -> float | None:
    """Return the variance of the noise on text embeddings that was asked for, if any."""
    if noise_variance is not None and noise_std is not None:
        raise typer.BadParameter("give --noise-variance or --noise-std, not both")
    variance = noise_variance if noise_std is None else noise_std * noise_std  # a power would overflow
    if variance is not None and not math.isfinite(variance):
        hint = "--noise-variance" if noise_std is None else "--noise-std"
        raise typer.BadParameter("must be a finite number", param_hint=hint)
    return variance


def _refuse_text_options(
    noise_from: Path | None, variance: float | None, adapter: Path | None, sample: Path | None, bridge: str | None
) -> None:
    """Refuse options that apply to text embeddings, of which there are none."""
    given: dict[str, object] = {"--noise-from": noise_from, "--noise-variance or --noise-std": variance}
    given |= {"--adapter": adapter, "--audio-sample": sample, "--bridge": bridge}
    for name in (name for name, value in given.items() if value is not None):
        hint = " (use --audio-noise-variance for sounds)" if "noise" in name else ""
        raise typer.BadParameter(f"{name} applies to text, but no text file is given{hint}")


def _audio_folders(pair_paths: list[Path], audio_dirs: list[Path]) -> list[Path | None]:
    """Return the sound folder of each pairs file, None for its own."""
    if audio_dirs and not pair_paths:
        raise typer.BadParameter("needs --pairs, --noise-from or --val", param_hint="--audio-dir")
    if len(audio_dirs) > 1 and len(audio_dirs) != len(pair_paths):
        message = f"is given {len(audio_dirs)} times, but must be given once, or once for each pairs file"
        raise typer.BadParameter(message, param_hint="--audio-dir")
    if len(audio_dirs) <= 1:
        return [audio_dirs[0] if audio_dirs else None] * len(pair_paths)
    return list(audio_dirs)
