"""`textcap cache`: what the cache folder holds, whether it is intact, and what nothing has used for long."""

import time
from typing import Annotated

import typer
from rich.filesize import decimal

from textcap.cli.console import note, print_result
from textcap.data.text import counted

EXAMPLES = "textcap cache --check\n\ntextcap cache --prune 30"

_DAY_S = 86400


def cache(
    check: Annotated[
        bool, typer.Option("--check", help="Read all embeddings and compare their checksums; exit code 1 if damaged.")
    ] = False,
    prune: Annotated[
        int | None,
        typer.Option(
            metavar="DAYS",
            min=1,
            help="Delete the embeddings of each encoder that no command has used for this many days.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List what the cache folder holds: embeddings of sounds and captions, weights, and results of metrics.

    Prints one line for each: its name, what it holds, its size, for embeddings the days since their last use, and what
    is damaged. Damaged embeddings are computed again when they are needed. --prune deletes only embeddings, which
    textcap can compute again; weights are never deleted.
    """
    from textcap.files import sizes_in
    from textcap.store import delete_store, inspect_store, own_cache_folder, store_folder

    root, stores = own_cache_folder(), store_folder()
    note(f"the cache folder is {root}")
    is_damaged = False
    for path in sorted(stores.glob("*.sqlite")):
        status = path.stat()
        days = int((time.time() - status.st_mtime) / _DAY_S)
        n_vectors, problem = inspect_store(path, check=check)
        cells = [str(path.relative_to(root)), counted(n_vectors, "vector"), decimal(status.st_size)]
        if prune is not None and days >= prune:
            delete_store(path)
            problem = "deleted"
        elif problem:
            is_damaged = True
        print_result(*cells, f"used {counted(days, 'day')} ago", *([problem] if problem else []))
    for path in sorted(root.glob("*")):
        if path != stores:
            sizes = sizes_in(path)
            print_result(path.name, counted(len(sizes), "file"), decimal(sum(sizes)))
    if is_damaged:
        raise typer.Exit(1)
