"""`textcap embed`: the embeddings of sounds and captions, as a file."""

from pathlib import Path
from typing import Annotated

import typer

from textcap.cli import options
from textcap.cli.console import note, print_skipped
from textcap.cli.loading import load_backbone
from textcap.cli.progress import embedding_progress

EXAMPLES = (
    "textcap embed recordings/*.wav captions.txt -o embeddings.safetensors\n\n"
    'textcap embed dog.wav --text "A dog barks" --backbone tiny -o two.safetensors'
)


def embed(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Sound files, folders of them, patterns, and .txt files of captions.", show_default=False),
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A caption to embed; repeatable.")] = None,
    output: Annotated[Path, options.output(help="The file to write, .safetensors or .parquet.")] = Path(
        "embeddings.safetensors"
    ),
    backbone: options.BackboneOption = options.DEFAULT_BACKBONE,
    clap: options.ClapOption = None,
    device: options.DeviceOption = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of audio windows to embed at once; lower it to save memory.",
            show_default=options.DEFAULT_BATCH,
        ),
    ] = None,
    offline: options.OfflineOption = False,
    force: options.ForceOption = False,
) -> None:
    """Write CLAP's embeddings of sounds and captions to a file.

    The file holds one tensor, embeddings, with one row of unit length for each sound and caption in the order given,
    and their names in its metadata. Prints the path of the file. Inputs that cannot be read are named on stderr and
    skipped (exit code 3, or 1 if none could be read).
    """
    options.check_ending(output, ".safetensors", ".parquet")
    if not inputs and not text:
        raise typer.BadParameter("give a sound file, a .txt file, or --text")
    from textcap.audio.inputs import find_inputs
    from textcap.files import check_file_place

    named = find_inputs(inputs or [])
    names = [one.name for one in named.inputs]
    check_file_place(output, force=force, inputs=names)
    note(*named.notes)
    print_skipped(*named.errors)
    if not names and not text:
        raise typer.Exit(1)
    from textcap.device import resolve_device
    from textcap.embedding.export import embed_inputs, save_embeddings

    chosen = resolve_device(device)
    loaded = load_backbone(backbone, clap, offline=offline)
    with embedding_progress() as progress:
        found = embed_inputs(names, text or [], loaded, chosen, batch_size=batch_size, progress=progress)
    print_skipped(*found.errors)
    if not found.names:
        raise typer.Exit(1)
    save_embeddings(output, found, loaded)
    print(output, flush=True)
    if named.errors or found.errors:
        raise typer.Exit(3)
