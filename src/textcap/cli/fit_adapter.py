"""`textcap fit-adapter`: a linear adapter from pairs of sound and text."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from textcap.cli import options
from textcap.cli.console import note, warn
from textcap.cli.loading import load_backbone
from textcap.cli.progress import embedding_progress
from textcap.config import MIN_JUDGED
from textcap.data.text import counted

if TYPE_CHECKING:
    from textcap.config import AdapterFacts

WHEN_STOPPED = "run the same command again: what was embedded is kept"
EXAMPLES = (
    "textcap fit-adapter pairs.csv -o adapter.safetensors\n\ntextcap fit-adapter pairs.csv --method sgd --epochs 50"
)


def fit_adapter(
    pairs: options.PairsArgument,
    output: Annotated[Path, options.output(help="The adapter file to write.")] = Path("adapter.safetensors"),
    audio_dir: options.AudioDirOption = None,
    method: Annotated[
        Literal["ridge", "sgd"],
        typer.Option(help="ridge solves the least squares in closed form; sgd trains with Adam, as in the paper."),
    ] = "ridge",
    strength: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Strength of the L2 penalty on the adapter's matrix.",
            show_default="ridge: the best on held-out pairs; sgd: 0",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pairs; used by sgd only.")] = 100,
    learning_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Adam's initial learning rate, above 0 and below 1; used by sgd only.")
    ] = 1e-3,
    backbone: options.BackboneOption = options.DEFAULT_BACKBONE,
    clap: options.ClapOption = None,
    device: options.DeviceOption = "auto",
    seed: Annotated[
        int,
        options.seed(help="Seed of the choice of held-out sounds and, for sgd, of the order of the batches."),
    ] = 0,
    offline: options.OfflineOption = False,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Fit a linear adapter that moves text embeddings towards audio embeddings.

    It minimises the mean squared error over the pairs. A fifth of the sounds, at most 1,000, is held out to choose
    the strength (for ridge) and to measure the effect; the adapter is then fitted again on all of them. Prints the
    path of the file. It is advised only if at least 50 sounds are held out and all figures agree.
    """
    options.check_ending(output, ".safetensors")
    from textcap.data.pairs import read_pairs
    from textcap.device import resolve_device
    from textcap.embedding.pairs import embed_pairs
    from textcap.files import check_file_place
    from textcap.gap.adapter import save_adapter
    from textcap.gap.fit import MIN_PAIRS, fit_adapter_on_pairs

    check_file_place(output, force=force, inputs=[pairs])
    read = read_pairs(pairs, audio_folder=audio_dir)
    chosen = resolve_device(device)
    loaded = load_backbone(backbone, clap, offline=offline)
    with embedding_progress() as progress:
        embedded = embed_pairs(read, loaded, chosen, min_pairs=MIN_PAIRS, progress=progress)
    with options.settings_from_flags("strength", "epochs", "learning_rate"):
        adapter = fit_adapter_on_pairs(
            embedded,
            loaded,
            chosen,
            method=method,
            strength=strength,
            epochs=epochs,
            learning_rate=learning_rate,
            seed=seed,
        )
    save_adapter(output, adapter)
    _show(adapter.facts)
    if as_json:
        facts = {**asdict(adapter.facts), "helps": adapter.facts.helps}
        print(json.dumps({"output": str(output), **facts}), flush=True)
    else:
        print(output, flush=True)
    if adapter.facts.helps:
        note(f"use it with: textcap train captions.txt --adapter {shlex.quote(str(output))}")


def _show(facts: "AdapterFacts") -> None:
    """Print what the adapter does on held-out pairs, on stderr."""
    fitted = f"{facts.method}, strength {facts.strength:.3g}, fitted on {counted(facts.n_captions, 'caption')}"
    note(f"{fitted} of {counted(facts.n_pairs, 'sound')}; on {counted(facts.n_held_out, 'held-out sound')}:")
    for name, before, after in (
        ("mean cosine", facts.cosine_before, facts.cosine_after),
        ("recall@1", facts.recall_at_1_before, facts.recall_at_1_after),
        ("recall@10", facts.recall_at_10_before, facts.recall_at_10_after),
    ):
        note(f"  {name:<12} {before:.3f} -> {after:.3f}")
    if facts.n_held_out < MIN_JUDGED:
        warn(f"too few sounds to tell whether the adapter helps: at least {5 * MIN_JUDGED} are needed")
    elif facts.helps is None:
        warn("held-out sounds are nearer to their captions, but find them less often: whether it helps is uncertain")
    elif not facts.helps:
        warn("the adapter does not help: held-out sounds are no nearer to their captions than without it")
