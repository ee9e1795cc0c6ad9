"""`textcap gap`: how far apart sounds and captions are, which bridge helps, and the noise that follows."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli import options
from textcap.cli.console import note, print_result
from textcap.cli.loading import load_backbone
from textcap.cli.progress import embedding_progress
from textcap.config import MOVING
from textcap.data.text import counted

if TYPE_CHECKING:
    import torch

    from textcap.data.captions import CaptionSet
    from textcap.data.pairs import PairSet
    from textcap.gap.compare import BridgeRecall, GapParts
    from textcap.gap.measure import GapReport
    from textcap.models.backbone import Backbone

_Drawing = tuple[int, int, int]  # pairs in a draw, draws, seed
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
        int | None,
        typer.Option("--n", min=2, help="Number of pairs to compute the noise from; by default the paper's 30."),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(min=1, help="Number of random draws of --n pairs, to estimate the spread; by default 10."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Plot the embeddings and their cosines to a .png, .svg or .pdf file; needs textcap\\[plot]."),
    ] = None,
    backbone: options.BackboneOption = options.DEFAULT_BACKBONE,
    clap: options.ClapOption = None,
    device: options.DeviceOption = "auto",
    seed: Annotated[int, options.seed(help="Seed of the random draws of pairs.")] = 0,
    offline: options.OfflineOption = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the plot if it exists.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Measure the modality gap: how far sounds are from their captions in CLAP's space.

    Prints one line for each figure: its name and its value, and where there are any its mean and standard deviation
    over the draws or the limits of its 95 % interval, separated by tabs. The noise follows the paper's rule: its
    standard deviation is the mean infinity norm of audio minus text embedding, over --n pairs of unit-length
    embeddings. The mean squared distance has three parts: a shift, a difference in spread, and what is private to a
    sound or a caption. From 200 pairs on, bridges are compared on held-out pairs: by recall, the share of sounds that
    find their own caption, and by closeness, by which share the squared distance to the own caption is less than that
    to all captions. best_bridge is the simplest whose closeness is within .05 of the largest. Sounds that cannot be
    read are skipped.

    Without pairs, --audio-sample and --captions give the two parts of the distance that need none.
    """
    unpaired = [audio_sample, captions]
    if (pairs is None) != all(unpaired) or (pairs is not None and any(unpaired)):
        raise typer.BadParameter("give a pairs file, or both --audio-sample and --captions")
    for name, value in (("--n", n), ("--draws", draws), ("--audio-dir", audio_dir)):
        if pairs is None and value is not None:
            raise typer.BadParameter("needs a pairs file", param_hint=name)
    from textcap.device import resolve_device
    from textcap.gap.plot import check_plot

    if plot is not None:
        check_plot(plot, force=force, inputs=[path for path in (pairs, captions) if path])
    chosen = resolve_device(device)
    if pairs is None:
        from textcap.data.captions import load_captions
        from textcap.embedding.sample import find_sample

        assert audio_sample is not None and captions is not None
        sounds, texts = find_sample([audio_sample]), load_captions([captions])
        loaded = load_backbone(backbone, clap, offline=offline)
        _without_pairs(sounds, str(audio_sample), texts, loaded, chosen, plot, seed, as_json)
    else:
        from textcap.data.pairs import read_pairs
        from textcap.gap.measure import N_DRAWS, N_PAIRS

        read, drawing = read_pairs(pairs, audio_folder=audio_dir), (n or N_PAIRS, draws or N_DRAWS, seed)
        _with_pairs(read, load_backbone(backbone, clap, offline=offline), chosen, plot, drawing, as_json)


def _with_pairs(
    pairs: "PairSet", backbone: "Backbone", device: "torch.device", plot: Path | None, drawing: _Drawing, as_json: bool
) -> None:
    from textcap.gap.calibrate import measure_pair_gap
    from textcap.gap.compare import (
        LEAST_PAIRS,
        MOST_PAIRS,
        best_bridge,
        compare_bridges,
        measure_unpaired_gap,
        split_gap,
    )
    from textcap.gap.measure import N_DRAWS, N_PAIRS
    from textcap.gap.plot import plot_gap

    name, (n, draws, seed) = pairs.file.name, drawing
    with embedding_progress() as show:
        found = measure_pair_gap(pairs, backbone, device, n=n, draws=draws, most=MOST_PAIRS, seed=seed, progress=show)
    audio, text = found.pairs.audio, found.text
    parts = split_gap(audio, text, seed=seed)
    bridges = compare_bridges(audio, text, seed=seed) if len(audio) >= LEAST_PAIRS else []
    best = best_bridge(bridges) if bridges else None
    if plot is not None:
        shown = measure_unpaired_gap(audio, text, best if best in MOVING else None)
        plot_gap(plot, audio, text, after=(shown.kind, shown.bridge), n_lines=min(n, 30), seed=seed)
    if as_json:
        values = {"parts": asdict(parts), "bridges": [asdict(one) for one in bridges], "best_bridge": best}
        print(json.dumps({"pairs": name, "backbone": backbone.name, **asdict(found.report), **values}), flush=True)
    else:
        _print(found.report, parts, len(audio))
        _print_bridges(bridges, best, len(audio))
    # --noise-from always uses the paper's 30 pairs, ten draws and seed 0; what was measured otherwise is a number.
    if best == "adapter":
        note(f"make an adapter with: textcap fit-adapter {shlex.quote(name)}")
        command = "textcap train captions.txt --adapter adapter.safetensors"
    elif best in MOVING:
        command = f"textcap train captions.txt --audio-sample FOLDER --bridge {best}"
    else:
        alone = " --bridge noise" if best == "none" and backbone.config.default_bridge != "noise" else ""
        measured = f"--noise-from {shlex.quote(name)}"
        number = f"--noise-std {found.report.sample.noise_std:.4g}"
        command = f"textcap train captions.txt{alone} {measured if drawing == (N_PAIRS, N_DRAWS, 0) else number}"
    note(f"use it with: {command}")


def _without_pairs(
    sounds: Sequence[str],
    folder: str,
    captions: "CaptionSet",
    backbone: "Backbone",
    device: "torch.device",
    plot: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    from textcap.embedding.captions import embed_captions
    from textcap.embedding.sample import embed_sample
    from textcap.gap.compare import measure_unpaired_gap
    from textcap.gap.plot import plot_gap

    texts, file = captions.captions, captions.files[0].name
    with embedding_progress() as show:
        audio = embed_sample(sounds, folder, backbone, device, progress=show)
        text = embed_captions(texts, backbone, device, progress=lambda done: show(done, len(texts), "captions"))
    found = measure_unpaired_gap(audio, text)
    if plot is not None:
        plot_gap(plot, audio, text, after=(found.kind, found.bridge), n_lines=0, seed=seed)
    if as_json:
        values = {"n_sounds": len(audio), "n_captions": len(texts), "parts": asdict(found.parts)}
        print(json.dumps({"audio_sample": folder, "backbone": backbone.name, **values}), flush=True)
    else:
        note(f"{counted(len(audio), 'sound')}, {counted(len(texts), 'caption')}; what is private needs pairs")
        _print_parts(found.parts)
    note(f"use it with: textcap train {shlex.quote(file)} --audio-sample {shlex.quote(folder)}")


def _print(report: "GapReport", parts: "GapParts", n_pairs: int) -> None:
    pairs = f"{report.n} of {counted(report.n_available, 'pair')}"
    note(f"{pairs}; mean and standard deviation over {counted(report.draws, 'draw')}")
    for name, value in asdict(report.sample).items():
        spread = report.spread.get(name)
        cells = [name, "undefined" if value is None else f"{value:.4g}"]
        print_result(*cells, *([f"{spread.mean:.4g}", f"{spread.std:.2g}"] if spread else []))
    note(f"the mean squared distance of {counted(n_pairs, 'pair')} in three parts")
    _print_parts(parts)


def _print_parts(parts: "GapParts") -> None:
    for name, value in asdict(parts).items():
        if value is not None:
            print_result(name, f"{value:.4g}")


def _print_bridges(bridges: Sequence["BridgeRecall"], best: str | None, n_pairs: int) -> None:
    if best is None:
        return
    note(f"recall, with 95 % intervals, and closeness of {n_pairs - n_pairs // 2} held-out pairs across each bridge")
    for one in bridges:
        for name, share in (("recall_at_1", one.recall_at_1), ("recall_at_10", one.recall_at_10)):
            print_result(f"{name} {one.bridge}", *(f"{value:.3f}" for value in asdict(share).values()))
        print_result(f"closeness {one.bridge}", f"{one.closeness:.3f}")
    print_result("best_bridge", best)
