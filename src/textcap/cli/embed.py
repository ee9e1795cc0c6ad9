"""`textcap embed`: the embeddings of sounds and captions, as a file."""

from pathlib import Path
from typing import Annotated

import typer

from textcap.cli.console import err, print_error, set_verbosity
from textcap.cli.pair_options import (
    BackboneOption,
    BatchSizeOption,
    DeviceOption,
    EmbeddingBar,
    OfflineOption,
    QuietOption,
    VerboseOption,
)
from textcap.config import CAPTION_BATCH_SIZE
from textcap.data.text import printable

EXAMPLES = (
    "textcap embed recordings/*.wav captions.txt -o embeddings.safetensors\n\n"
    'textcap embed dog.wav --text "A dog barks" --backbone tiny -o two.safetensors'
)


def embed(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Sounds, and .txt files with a caption on each line.", show_default=False),
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A caption; repeatable.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")] = Path("embeddings.safetensors"),
    backbone: BackboneOption = "msclap-2023",
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = CAPTION_BATCH_SIZE,
    offline: OfflineOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it is there.")] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write CLAP's embeddings of sounds and captions.

    A safetensors file with the tensor embeddings, one row of unit length for each
    sound and caption in the order given, and their names in its metadata. Prints
    the file. What cannot be read is named on stderr and the others go on (exit
    code 3; 1 when none could be read).
    """
    set_verbosity(quiet, verbose)
    if not inputs and not text:
        raise typer.BadParameter("give a sound, a .txt file, or --text")
    from textcap.device import resolve_device
    from textcap.embedding.export import embed_inputs, save_embeddings
    from textcap.files import check_file_place
    from textcap.models.backbone import Backbone

    check_file_place(output, force=force, inputs=inputs or [])
    chosen = resolve_device(device)
    loaded = Backbone.load(backbone, offline=offline or None)
    with EmbeddingBar() as bar:
        found = embed_inputs(inputs or [], text or [], loaded, chosen, batch_size=batch_size, progress=bar)
    for warning in found.warnings:
        err.print(f"warning: {printable(warning)}", markup=False, style="yellow")
    for error in found.errors:
        print_error(error)
    if not found.names:
        raise typer.Exit(1)
    save_embeddings(output, found, loaded)
    print(output, flush=True)
    if found.errors:
        raise typer.Exit(3)
