"""The two consoles of the command line: results to stdout, everything else to stderr."""

import logging
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from textcap.data.text import printable

out = Console(highlight=False, emoji=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


class LogHandler(logging.Handler):
    """Shows what the library logs as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        err.print(f"textcap: {printable(record.getMessage())}", markup=False)


def progress_display(*columns: ProgressColumn) -> Progress:
    """Return a progress display on stderr that shows only on a terminal, and leaves results on stdout."""
    return Progress(
        *columns,
        console=err,
        transient=True,
        disable=err.quiet or not err.is_terminal,
        # On a terminal, lines go above the bars through stderr's console; elsewhere stdout is not to be touched.
        redirect_stdout=sys.stdout.isatty(),
    )


def progress_bar() -> Progress:
    """Return a display of how many of how many are done."""
    return progress_display(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )


def print_result(*cells: str) -> None:
    """Print one line of result on stdout at once: the cells with tabs between, each made safe for a terminal."""
    print("\t".join(printable(cell) for cell in cells), flush=True)


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Let only errors through, or also what the library says of details."""
    err.quiet = quiet
    logging.getLogger("textcap").setLevel(logging.INFO if verbose else logging.WARNING)


def print_error(error: Exception) -> None:
    """Print an error as one line on stderr, whatever the verbosity."""
    quiet, err.quiet = err.quiet, False
    err.print(f"textcap: {printable(str(error))}", markup=False, style="red")
    err.quiet = quiet
