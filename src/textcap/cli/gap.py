"""`textcap gap`: how far apart sounds and their captions are, and the noise that follows."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli import options
from textcap.cli.console import note, print_result, set_verbosity
from textcap.cli.loading import load_backbone
from textcap.cli.progress import embedding_progress
from textcap.config import MAX_SEED
from textcap.data.text import counted

if TYPE_CHECKING:
    from textcap.gap.measure import GapReport

WHEN_STOPPED = "run the same command again: what was embedded is kept"
EXAMPLES = "textcap gap pairs.csv\n\ntextcap gap clotho_captions_development.csv --audio-dir development --plot gap.png"


def gap(
    pairs: options.PairsArgument,
    audio_dir: options.AudioDirOption = None,
    n: Annotated[
        int, typer.Option("--n", min=2, help="Number of pairs to compute the noise from; the paper uses 30.")
    ] = 30,
    draws: Annotated[
        int, typer.Option(min=1, help="Number of random draws of --n pairs, to estimate the spread.")
    ] = 10,
    plot: Annotated[
        Path | None,
        typer.Option(help="Plot the embeddings and their cosines to a .png, .svg or .pdf file; needs textcap\\[plot]."),
    ] = None,
    backbone: options.BackboneOption = options.DEFAULT_BACKBONE,
    device: options.DeviceOption = "auto",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the random draws of pairs.")] = 0,
    offline: options.OfflineOption = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the plot if it exists.")] = False,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Measure the modality gap: how far sounds are from their captions in CLAP's space.

    Also prints the noise to train with by the paper's rule: its standard deviation is the mean infinity norm of
    audio minus text embedding, over --n pairs of unit-length embeddings. Prints one line for each figure: its name,
    its value, and for most its mean and standard deviation over the draws, separated by tabs. Sounds that cannot be
    read are skipped.
    """
    set_verbosity(quiet, verbose)
    from textcap.data.pairs import read_pairs
    from textcap.device import resolve_device
    from textcap.gap.calibrate import measure_pair_gap
    from textcap.gap.plot import check_plot, plot_gap

    if plot is not None:
        check_plot(plot, force=force, inputs=[pairs])
    read = read_pairs(pairs, audio_folder=audio_dir)
    chosen = resolve_device(device)
    loaded = load_backbone(backbone, offline=offline)
    with embedding_progress() as progress:
        found = measure_pair_gap(read, loaded, chosen, n=n, draws=draws, seed=seed, progress=progress)
    if plot is not None:
        plot_gap(plot, found.pairs.audio, found.text, n_lines=min(n, 30), seed=seed)
    if as_json:
        print(json.dumps({"pairs": str(pairs), "backbone": loaded.name, **asdict(found.report)}), flush=True)
    else:
        _print(found.report)
    # --noise-from always uses the paper's 30 pairs and seed 0; what was measured otherwise is given as a number.
    if (n, seed) == (30, 0):
        command = f"textcap train captions.txt --noise-from {shlex.quote(str(pairs))}"
    else:
        command = f"textcap train captions.txt --noise-std {found.report.sample.noise_std:.4g}"
    note(f"use it with: {command}")


def _print(report: "GapReport") -> None:
    pairs = f"{report.n} of {counted(report.n_available, 'pair')}"
    note(f"{pairs}; mean and standard deviation over {counted(report.draws, 'draw')}")
    for name, value in asdict(report.sample).items():
        spread = report.spread.get(name)
        cells = [name, "undefined" if value is None else f"{value:.4g}"]
        print_result(*cells, *([f"{spread.mean:.4g}", f"{spread.std:.2g}"] if spread else []))
