"""`textcap gap`: how far sounds and their captions are apart, and the noise that follows."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textcap.cli.console import err, print_result, set_verbosity
from textcap.cli.pair_options import (
    AudioDirOption,
    BackboneOption,
    DeviceOption,
    EmbeddingBar,
    JsonOption,
    OfflineOption,
    PairsArgument,
    QuietOption,
    SeedOption,
    VerboseOption,
    print_pair_warnings,
)

if TYPE_CHECKING:
    from textcap.gap.measure import GapReport, GapSample

EXAMPLES = "textcap gap pairs.csv\n\ntextcap gap clotho_captions_development.csv --audio-dir development --plot gap.png"


def gap(
    pairs: PairsArgument,
    audio_dir: AudioDirOption = None,
    n: Annotated[int, typer.Option("--n", min=2, help="Pairs that the noise follows from; the paper's are 30.")] = 30,
    draws: Annotated[int, typer.Option(min=1, help="How often so many pairs are drawn, for the spread.")] = 10,
    plot: Annotated[
        Path | None, typer.Option(help="Draw both clouds and the cosines: png, svg or pdf. Needs textcap[plot].")
    ] = None,
    backbone: BackboneOption = "msclap-2023",
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    offline: OfflineOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the plot if it is there.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure the modality gap between sounds and their captions.

    Embeddings have unit length. The noise is the paper's: its standard deviation
    is the mean infinity norm of audio less text embedding over a few pairs. Prints
    a line for each figure: its name, its value, and its mean and standard deviation
    over the draws, with tabs between. Sounds that cannot be read are left out.
    """
    set_verbosity(quiet, verbose)
    from textcap.data.pairs import read_pairs
    from textcap.device import resolve_device
    from textcap.gap.calibrate import measure_pair_gap
    from textcap.gap.plot import check_plot, plot_gap
    from textcap.models.backbone import Backbone

    if plot is not None:
        check_plot(plot, force=force, inputs=[pairs])
    read = read_pairs(pairs, audio_folder=audio_dir)
    chosen = resolve_device(device)
    loaded = Backbone.load(backbone, offline=offline or None)
    with EmbeddingBar() as bar:
        found = measure_pair_gap(read, loaded, chosen, n=n, draws=draws, seed=seed, progress=bar)
    print_pair_warnings(found.pairs)
    if plot is not None:
        plot_gap(plot, found.pairs.audio, found.text, n_lines=min(n, 30), seed=seed)
    if as_json:
        print(json.dumps({"pairs": str(pairs), "backbone": loaded.name, **_to_dict(found.report)}), flush=True)
    else:
        _print(found.report)
    # What is measured with other settings is not what --noise-from would use.
    if (n, seed) == (30, 0):
        command = f"textcap train captions.txt --noise-from {shlex.quote(str(pairs))}"
    else:
        command = f"textcap train captions.txt --noise-std {found.report.sample.noise_std:.4g}"
    err.print(f"use it with: {command}", markup=False)


def _print(report: "GapReport") -> None:
    noun = f"{report.n} of {report.n_available:,} pairs"
    err.print(f"{noun}, and mean and standard deviation over {report.draws} draws", markup=False)
    for name, value in _figures(report.sample).items():
        spread = report.spread.get(name)
        cells = [name, "undefined" if value is None else f"{value:.4g}"]
        print_result(*cells, *([f"{spread.mean:.4g}", f"{spread.std:.2g}"] if spread else []))


def _figures(sample: "GapSample") -> dict[str, float | None]:
    return {
        "mean_cosine": sample.mean_cosine,
        "modality_distance": sample.modality_distance,
        "mean_infinity_norm": sample.mean_infinity_norm,
        "max_infinity_norm": sample.max_infinity_norm,
        "noise_std": sample.noise_std,
        "noise_variance": sample.noise_variance,
        "cosine_variance": sample.cosine_variance,
    }


def _to_dict(report: "GapReport") -> dict[str, Any]:
    values = asdict(report)
    return {**values, "sample": _figures(report.sample), "every_pair": _figures(report.every_pair)}
