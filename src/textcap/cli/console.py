"""The two consoles of the command line: results to stdout, everything else to stderr."""

import logging

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def progress_bar() -> Progress:
    """Return a progress display on stderr that shows only on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=err.quiet or not err.is_terminal,
    )


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Let only errors through, or also what the library says of details."""
    err.quiet = quiet
    logging.getLogger("textcap").setLevel(logging.INFO if verbose else logging.WARNING)


def print_error(error: Exception) -> None:
    """Print an error as one line on stderr, whatever the verbosity."""
    quiet, err.quiet = err.quiet, False
    err.print(f"textcap: {' '.join(str(error).split())}", markup=False, style="red")
    err.quiet = quiet
