"""`textcap gap`: how far apart sounds and captions are, which bridge helps, and the noise that follows."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli import options
from textcap.cli.console import note, print_result, set_verbosity
from textcap.cli.loading import load_backbone
from textcap.cli.progress import embedding_progress
from textcap.config import DEFAULT_MOVING, MAX_SEED, MOVING
from textcap.data.text import counted

if TYPE_CHECKING:
    from textcap.gap.compare import BridgeRecall, GapParts
    from textcap.gap.measure import GapReport

WHEN_STOPPED = "run the same command again: what was embedded is kept"
EXAMPLES = "textcap gap pairs.csv --plot gap.png\n\ntextcap gap --audio-sample recordings --captions captions.txt"


def gap(
    pairs: options.OptionalPairsArgument = None,
    audio_dir: options.AudioDirOption = None,
    audio_sample: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Without pairs: recordings like those that you will caption.")
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Without pairs: the captions that you will train on.")
    ] = None,
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

    Prints one line for each figure: its name, its value, and for most its mean and standard deviation over the draws,
    separated by tabs. The noise follows the paper's rule: its standard deviation is the mean infinity norm of audio
    minus text embedding, over --n pairs of unit-length embeddings. The mean squared distance has three parts: a shift,
    a difference in spread, and what is private to a sound or a caption. From 200 pairs on, bridges are compared by
    recall, the share of held-out sounds that find their own caption. Sounds that cannot be read are skipped.

    Without pairs, --audio-sample and --captions give the two parts of the distance that need none.
    """
    unpaired = [audio_sample, captions]
    if (pairs is None) != all(unpaired) or (pairs is not None and any(unpaired)):
        raise typer.BadParameter("give a pairs file, or both --audio-sample and --captions")
    set_verbosity(quiet, verbose)
    from textcap.device import resolve_device
    from textcap.gap.compare import LEAST_PAIRS, MOST_PAIRS, best_bridge, compare_bridges, split_gap
    from textcap.gap.plot import check_plot, plot_gap

    if plot is not None:
        check_plot(plot, force=force, inputs=[path for path in (pairs, captions) if path])
    if pairs is None:
        assert audio_sample is not None and captions is not None
        _without_pairs(audio_sample, captions, backbone, device, plot, seed, offline=offline, as_json=as_json)
        return
    from textcap.data.pairs import read_pairs
    from textcap.gap.calibrate import measure_pair_gap

    read = read_pairs(pairs, audio_folder=audio_dir)
    chosen = resolve_device(device)
    loaded = load_backbone(backbone, offline=offline)
    with embedding_progress() as progress:
        found = measure_pair_gap(read, loaded, chosen, n=n, draws=draws, most=MOST_PAIRS, seed=seed, progress=progress)
    audio, text = found.pairs.audio, found.text
    parts = split_gap(audio, text, seed=seed)
    bridges = compare_bridges(audio, text, seed=seed) if len(audio) >= LEAST_PAIRS else []
    best = best_bridge(bridges) if bridges else None
    if plot is not None:
        shown = best if best in MOVING else DEFAULT_MOVING
        plot_gap(plot, audio, text, bridge=shown, n_lines=min(n, 30), seed=seed)
    if as_json:
        values = {"parts": asdict(parts), "bridges": [asdict(one) for one in bridges], "best_bridge": best}
        print(json.dumps({"pairs": str(pairs), "backbone": loaded.name, **asdict(found.report), **values}), flush=True)
    else:
        _print(found.report, parts)
        _print_bridges(bridges, len(audio))
    # --noise-from always uses the paper's 30 pairs and seed 0; what was measured otherwise is given as a number.
    if best == "adapter":
        note(f"make an adapter with: textcap fit-adapter {shlex.quote(str(pairs))}")
        command = "textcap train captions.txt --adapter adapter.safetensors"
    elif best in MOVING:
        command = f"textcap train captions.txt --audio-sample FOLDER --bridge {best}"
    elif (n, seed) == (30, 0):
        command = f"textcap train captions.txt --noise-from {shlex.quote(str(pairs))}"
    else:
        command = f"textcap train captions.txt --noise-std {found.report.sample.noise_std:.4g}"
    note(f"use it with: {command}")


def _without_pairs(
    folder: Path,
    captions: Path,
    backbone: str,
    device: str,
    plot: Path | None,
    seed: int,
    *,
    offline: bool,
    as_json: bool,
) -> None:
    from textcap.data.captions import load_captions
    from textcap.device import resolve_device
    from textcap.embedding.captions import embed_captions
    from textcap.embedding.sample import embed_sample, find_sample
    from textcap.gap.bridge.moments import measure_moments
    from textcap.gap.compare import unpaired_parts
    from textcap.gap.plot import plot_gap

    sounds, texts = find_sample([folder]), load_captions([captions]).captions
    chosen, loaded = resolve_device(device), load_backbone(backbone, offline=offline)
    with embedding_progress() as progress:
        audio = embed_sample(sounds, str(folder), loaded, chosen, progress=progress)
        text = embed_captions(texts, loaded, chosen, progress=lambda done: progress(done, len(texts), "captions"))
    shift, spread = unpaired_parts(measure_moments(audio), measure_moments(text))
    if plot is not None:
        plot_gap(plot, audio, text, bridge=DEFAULT_MOVING, n_lines=0, seed=seed)
    if as_json:
        values = {"shift": shift, "spread": spread, "n_sounds": len(audio), "n_captions": len(texts)}
        print(json.dumps({"audio_sample": str(folder), "backbone": loaded.name, **values}), flush=True)
    else:
        note(f"{counted(len(audio), 'sound')}, {counted(len(texts), 'caption')}; what is private needs pairs")
        print_result("shift", f"{shift:.4g}")
        print_result("spread", f"{spread:.4g}")
    note(f"use it with: textcap train {shlex.quote(str(captions))} --audio-sample {shlex.quote(str(folder))}")


def _print(report: "GapReport", parts: "GapParts") -> None:
    pairs = f"{report.n} of {counted(report.n_available, 'pair')}"
    note(f"{pairs}; mean and standard deviation over {counted(report.draws, 'draw')}")
    for name, value in asdict(report.sample).items():
        spread = report.spread.get(name)
        cells = [name, "undefined" if value is None else f"{value:.4g}"]
        print_result(*cells, *([f"{spread.mean:.4g}", f"{spread.std:.2g}"] if spread else []))
    note(f"the mean squared distance of all {counted(report.n_available, 'pair')} in three parts")
    for name, value in asdict(parts).items():
        if value is not None:
            print_result(name, f"{value:.4g}")


def _print_bridges(bridges: Sequence["BridgeRecall"], n_pairs: int) -> None:
    if bridges:
        note(f"recall of {n_pairs - n_pairs // 2} held-out pairs under each bridge, with 95 % intervals")
    for one in bridges:
        for k, value, (low, high) in (
            (1, one.recall_at_1, one.recall_at_1_interval),
            (10, one.recall_at_10, one.recall_at_10_interval),
        ):
            print_result(f"recall_at_{k} {one.bridge}", f"{value:.3f}", f"{low:.3f}", f"{high:.3f}")
