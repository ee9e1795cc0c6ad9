"""The two consoles of the command line: results go to stdout, everything else to stderr."""

import logging
import os
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from textcap.data.text import printable

out = Console(highlight=False, emoji=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def keep_stdout_for_results() -> None:
    """Point descriptor 1 at stderr, because libraries in C print to it, and keep a copy for `sys.stdout`."""
    try:
        private = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
        return
    sys.stdout = open(private, "w", encoding="utf-8")


class LogHandler(logging.Handler):
    """Prints the library's warnings and, if they are logged, its details on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if record.levelno >= logging.WARNING:
            warn(record.getMessage())
        else:
            note(record.getMessage(), named=True)


def progress_display(*columns: ProgressColumn) -> Progress:
    """Return a progress display on stderr; it shows only on a terminal, and leaves stdout to the results."""
    return Progress(
        *columns,
        console=err,
        transient=True,
        speed_estimate_period=3600.0,  # of the time left: a step or a batch may take longer than rich's 30 s
        disable=err.quiet or not err.is_terminal,
        # On a terminal, result lines must go above the bars; elsewhere stdout must stay as it is.
        redirect_stdout=sys.stdout.isatty(),
    )


def progress_bar() -> Progress:
    """Return a progress bar that counts items."""
    return progress_display(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )


def print_result(*cells: str) -> None:
    """Print one line of results on stdout at once: the cells separated by tabs, each made safe for a terminal."""
    print("\t".join(printable(cell) for cell in cells), flush=True)


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Print only errors (`quiet`), or the library's details as well (`verbose`)."""
    err.quiet = quiet
    logging.getLogger("textcap").setLevel(logging.INFO if verbose else logging.WARNING)


def note(*lines: str, named: bool = False) -> None:
    """Print lines for the user on stderr, made safe for a terminal.

    Args:
        named: Begin each with the program's name, as lines do that may stand among those of other programs.
    """
    for line in lines:
        err.print(("textcap: " if named else "") + printable(line), markup=False)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    err.print(f"warning: {printable(message)}", markup=False, style="yellow")


def print_error(error: Exception | str) -> None:
    """Print an error as one line on stderr, whatever the verbosity."""
    _print_always(f"textcap: {error}")


def print_skipped(*errors: Exception) -> None:
    """Print why some of several inputs are skipped, whatever the verbosity."""
    for error in errors:
        _print_always(f"skipped: {error}")


def _print_always(message: str) -> None:
    quiet, err.quiet = err.quiet, False
    err.print(printable(message), markup=False, style="red")
    err.quiet = quiet
