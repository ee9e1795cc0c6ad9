"""Progress on stderr: downloads, sounds that are being embedded, and metrics that are being computed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from textcap.cli.console import note, progress_bar, progress_display
from textcap.data.text import counted


@contextmanager
def download_progress() -> Iterator[Callable[[str, int, int, str], None]]:
    """Show downloads: a bar for each file where stderr is a terminal, a line elsewhere; notes are lines everywhere.

    Yields:
        A function that the library calls with a file's name, its bytes so far, the total (0 if unknown), and a note.
    """
    bars = progress_display(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: int, total: int, text: str = "") -> None:
        if text:
            note(text)
            return
        if not tasks:
            bars.start()  # not before: a display that shows nothing still moves the cursor
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total or None, completed=done)
            if bars.disable:
                note(f"downloading {name}" + (f" ({decimal(total)})" if total else ""))
        bars.update(tasks[name], completed=done)

    try:
        yield show
    finally:
        if tasks:
            bars.stop()


def show_embedded(bar: Progress, tasks: dict[str, TaskID], n_done: int, n_total: int, what: str = "sounds") -> None:
    """Show how many captions or sounds are embedded; where there is no bar, only a line at the start.

    Args:
        tasks: The tasks of the bar by what is embedded.
    """
    if what not in tasks:
        tasks[what] = bar.add_task(f"embedding {what}", total=n_total, status="")
        if bar.disable and n_done < n_total:
            note(f"embedding {counted(n_total - n_done, what.removesuffix('s'))}")
    bar.update(tasks[what], completed=n_done, total=n_total)


@contextmanager
def embedding_progress() -> Iterator[Callable[..., None]]:
    """Show how many sounds are embedded: a bar where stderr is a terminal, a line elsewhere.

    Yields:
        A function that the library calls with the number of sounds done and the total, and "captions" if it is these.
    """
    with progress_bar() as bar:
        yield partial(show_embedded, bar, {})


@contextmanager
def scoring_progress() -> Iterator[Callable[[str], None]]:
    """Show how far scoring is, where stderr is a terminal.

    Yields:
        A function that the library calls with what is done.
    """
    with progress_display(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bars:
        task = bars.add_task("scoring")
        yield lambda name: bars.update(task, description=f"scoring: {name}")
