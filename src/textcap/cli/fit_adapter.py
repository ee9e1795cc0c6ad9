"""`textcap fit-adapter`: a linear adapter from pairs of sound and text."""

import json
import shlex
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli.console import err, set_verbosity
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
from textcap.errors import InputError

if TYPE_CHECKING:
    from textcap.config import AdapterFacts

EXAMPLES = (
    "textcap fit-adapter pairs.csv -o adapter.safetensors\n\ntextcap fit-adapter pairs.csv --method sgd --epochs 50"
)


class Method(str, Enum):
    """How the least squares are found."""

    RIDGE = "ridge"
    SGD = "sgd"


def fit_adapter(
    pairs: PairsArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")] = Path("adapter.safetensors"),
    audio_dir: AudioDirOption = None,
    method: Annotated[
        Method, typer.Option(help="ridge is the closed form, sgd the paper's way (Adam).")
    ] = Method.RIDGE,
    strength: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Penalty on the matrix beside the mean squared error.",
            show_default="the best on held-out pairs for ridge, 0 for sgd",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of sgd.")] = 100,
    learning_rate: Annotated[float, typer.Option(min=0, max=1, help="Of sgd, above 0 and below 1.")] = 1e-3,
    backbone: BackboneOption = "msclap-2023",
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    offline: OfflineOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it is there.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fit a linear adapter from text to audio embeddings.

    Least mean squared error over the pairs; a fifth of them is held out first to
    choose the strength and to say what the adapter does, then all are used. Prints
    the file.
    """
    set_verbosity(quiet, verbose)
    from textcap.data.pairs import read_pairs
    from textcap.device import resolve_device
    from textcap.embedding.pairs import embed_pairs
    from textcap.files import check_file_place
    from textcap.gap.adapter import save_adapter
    from textcap.gap.fit import MIN_PAIRS, fit_adapter_on_pairs
    from textcap.models.backbone import Backbone

    check_file_place(output, force=force, inputs=[pairs])
    read = read_pairs(pairs, audio_folder=audio_dir)
    chosen = resolve_device(device)
    loaded = Backbone.load(backbone, offline=offline or None)
    with EmbeddingBar() as bar:
        embedded = embed_pairs(read, loaded, chosen, min_pairs=MIN_PAIRS, progress=bar)
    print_pair_warnings(embedded)
    try:
        adapter = fit_adapter_on_pairs(
            embedded,
            loaded,
            chosen,
            method=method.value,
            strength=strength,
            epochs=epochs,
            learning_rate=learning_rate,
            seed=seed,
        )
    except InputError as error:
        if error.message.startswith(("strength", "learning_rate")):
            raise typer.BadParameter(error.message.replace("learning_rate", "--learning-rate")) from error
        raise
    save_adapter(output, adapter)
    _show(adapter.facts)
    if as_json:
        facts = {**asdict(adapter.facts), "helps": adapter.facts.helps}
        print(json.dumps({"output": str(output), **facts}), flush=True)
    else:
        print(output, flush=True)
    err.print(f"use it with: textcap train captions.txt --adapter {shlex.quote(str(output))}", markup=False)


def _show(facts: "AdapterFacts") -> None:
    """Print what the adapter does on held-out pairs, on stderr."""
    fitted = f"{facts.method} of strength {facts.strength:.3g} on {facts.n_captions:,} captions"
    err.print(f"{fitted} of {facts.n_pairs:,} sounds; on {facts.n_held_out:,} sounds held out:", markup=False)
    for name, before, after in (
        ("mean cosine", facts.cosine_before, facts.cosine_after),
        ("recall@1", facts.recall_at_1_before, facts.recall_at_1_after),
        ("recall@10", facts.recall_at_10_before, facts.recall_at_10_after),
    ):
        err.print(f"  {name:<12} {before:.3f} -> {after:.3f}", markup=False)
    if not facts.helps:
        message = f"{facts.n_pairs:,} pairs are too few to help: held-out sounds are no nearer to their captions"
        err.print(f"warning: {message}", markup=False, style="yellow")
