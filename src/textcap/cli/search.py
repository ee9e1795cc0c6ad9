"""`textcap search` and `textcap tag`: sounds by words, and words by sounds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textcap.cli import options
from textcap.cli.console import note, print_result, print_skipped
from textcap.cli.loading import load_backbone
from textcap.cli.progress import embedding_progress
from textcap.outputs.rows import without_none

if TYPE_CHECKING:
    from textcap.embedding.search import Collection
    from textcap.models.backbone import Backbone

EXAMPLES = (
    'textcap search "rain on a tin roof" recordings/\n\ntextcap search --like dog.wav embeddings.safetensors -k 5'
)
TAG_EXAMPLES = (
    "textcap tag recordings/ --labels labels.txt --top 3\n\n"
    'textcap tag work --labels labels.txt --template "{} can be heard"'
)

SOURCES = (
    "Sounds, folders of them and patterns; or one corpus; or one file of textcap embed or textcap caption with "
    "embeddings, .safetensors or .parquet."
)
BackboneOption = Annotated[
    str | None,
    typer.Option(help="Backbone whose CLAP embeds.", show_default="the one of the embeddings, else msclap-2023"),
]


def search(
    words: Annotated[
        list[str],
        typer.Argument(help=f"What to find, unless --like says so, and where. {SOURCES}", show_default=False),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many to print.")] = 20,
    like: Annotated[
        str | None, typer.Option(metavar="SOUND", help="Find what sounds like this file, in place of words.")
    ] = None,
    recursive: options.RecursiveOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    backbone: BackboneOption = None,
    clap: options.ClapOption = None,
    device: options.DeviceOption = "auto",
    offline: options.OfflineOption = False,
) -> None:
    """Find the sounds that fit words, or that sound like another.

    Prints the nearest first: similarity, path, start and end of a piece, and caption, as far as they are known.
    Similarities are cosines of CLAP's embeddings; they are not calibrated, and serve to compare sounds for one query.
    Sounds that cannot be read are named on stderr and skipped (exit code 3, or 1 if none could be read).
    """
    query, sources = (like or "", words) if like is not None else (words[0], words[1:])
    if not sources:
        raise typer.BadParameter("name what to search: sounds, a folder, a corpus, or a file of embeddings")
    found, loaded = _open(sources, recursive, backbone, clap, device, offline, needs_text=like is None)
    from textcap.device import resolve_device
    from textcap.embedding.captions import embed_captions
    from textcap.embedding.search import collection_of_sounds
    from textcap.errors import FileError

    chosen = resolve_device(device)
    if like is None:
        vectors = embed_captions([query], loaded, chosen)
    else:
        own = collection_of_sounds([query], loaded, chosen, lambda n_done, n_total: None)
        if own.errors:
            raise own.errors[0]
        if not len(own.vectors):
            raise FileError(query, "is silent: nothing sounds like it")
        vectors = own.vectors.astype("f4")
    for similarity, number in found.best(vectors, k)[0] if len(vectors) else ():
        row = without_none(found.line(number))
        if as_json:
            print(json.dumps({"similarity": similarity, **row}), flush=True)
        else:
            print_result(f"{similarity:.3f}", *_place(row), *([row["caption"]] if row.get("caption") else []))
    _end(found)


def tag(
    sources: Annotated[list[str], typer.Argument(help=SOURCES, show_default=False)],
    labels: Annotated[Path, typer.Option(help="A text file with one label per line.", show_default=False)],
    template: Annotated[
        str, typer.Option(help="The sentence that a label is put into, in place of {}.")
    ] = "This is a sound of {}",
    top: Annotated[int, typer.Option(min=1, help="How many labels to print.")] = 5,
    recursive: options.RecursiveOption = False,
    backbone: BackboneOption = None,
    clap: options.ClapOption = None,
    device: options.DeviceOption = "auto",
    offline: options.OfflineOption = False,
) -> None:
    """Print the labels that fit each sound best.

    Prints a line for each sound or piece: path, start and end of a piece, and the labels with their similarities, best
    first. Silent sounds are left out. Sounds that cannot be read are named on stderr and skipped (exit code 3, or 1 if
    none could be read).
    """
    if "{}" not in template:
        raise typer.BadParameter("has no {} for the label", param_hint="--template")
    from textcap.data.captions import load_captions

    names = list(load_captions([labels], plain_text=True).captions)
    found, loaded = _open(sources, recursive, backbone, clap, device, offline, needs_text=True)
    from textcap.device import resolve_device
    from textcap.embedding.captions import embed_captions

    vectors = embed_captions([template.replace("{}", name) for name in names], loaded, resolve_device(device))
    for number, nearest in found.labels(vectors, top):
        shown = [f"{names[label]} {similarity:.3f}" for similarity, label in nearest]
        print_result(*_place(found.line(number)), *shown)
    _end(found)


def _open(
    sources: Sequence[str],
    recursive: bool,
    backbone: str | None,
    clap: str | None,
    device: str,
    offline: bool,
    *,
    needs_text: bool,
) -> "tuple[Collection, Backbone]":
    """Return the embeddings to search, and the backbone to embed queries with."""
    from textcap.embedding.search import collection_of_file, collection_of_sounds
    from textcap.models.similarity import with_text_encoder
    from textcap.models.weight_files import KINDS

    first, found = Path(sources[0]), None
    if (first / "plan").is_dir() and len(sources) == 1:
        from textcap.corpus.index import collection_of
        from textcap.corpus.plan import Corpus

        corpus = Corpus.open(first)
        found = collection_of(corpus)
        names = corpus.settings()["backbone"]
        backbone, clap = backbone or names["backbone"], clap or names["clap"]
    elif first.suffix.lower() in (".safetensors", ".parquet") and len(sources) == 1:
        found = collection_of_file(first)
        own = found.facts.get("clap", "")
        backbone, clap = (backbone or own, clap) if own in KINDS else (backbone, clap or own or None)
    loaded = load_backbone(backbone or options.DEFAULT_BACKBONE, clap, offline=offline)
    if found is None:
        from textcap.audio.inputs import find_inputs
        from textcap.device import resolve_device

        named = find_inputs(sources, recursive=recursive)
        note(*named.notes)
        paths = [one.name for one in named.inputs]
        with embedding_progress() as progress:
            found = collection_of_sounds(paths, loaded, resolve_device(device), progress)
        found.errors.extend(named.errors)
    found.check(loaded)
    return found, with_text_encoder(loaded) if needs_text else loaded


def _place(row: dict[str, Any]) -> list[str]:
    """Return the path of a sound, and the start and the end of a piece."""
    start_s, end_s = row.get("start_s"), row.get("end_s")
    return [row["path"], *([] if start_s is None else [f"{start_s:.3f}", f"{end_s:.3f}"])]


def _end(found: "Collection") -> None:
    print_skipped(*found.errors)
    if found.errors:
        raise typer.Exit(3 if len(found.vectors) else 1)
