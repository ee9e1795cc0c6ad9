"""The options that every command on pairs of sound and text shares, and what it does first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID

from textcap.cli.console import err, progress_bar
from textcap.config import MAX_SEED
from textcap.data.text import printable

if TYPE_CHECKING:
    from textcap.embedding.pairs import EmbeddedPairs

PairsArgument = Annotated[
    Path, typer.Argument(help="CSV or JSON Lines with a sound (file_name, file, audio) and its caption or captions.")
]
AudioDirOption = Annotated[
    Path | None, typer.Option(help="Where the sounds are.", show_default="beside the file of pairs")
]
BackboneOption = Annotated[str, typer.Option(help="msclap-2023, tiny, or a folder.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Windows of sound embedded at once.")]
SeedOption = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Another seed draws other pairs.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object with everything.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]


class EmbeddingBar:
    """A bar on stderr for sounds that are being embedded; a context manager, called with how many are done."""

    def __init__(self) -> None:
        self._bar = progress_bar()
        self._task: TaskID | None = None

    def __enter__(self) -> "EmbeddingBar":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def __call__(self, n_done: int, n_total: int) -> None:
        """Show how many sounds of how many are done."""
        if self._task is None:
            self._task = self._bar.add_task("embedding sounds", total=n_total, status="")
            if self._bar.disable and n_done < n_total:
                err.print(f"embedding {n_total - n_done:,} sounds", markup=False)
        self._bar.update(self._task, completed=n_done, total=n_total)


def print_pair_warnings(pairs: "EmbeddedPairs") -> None:
    """Print warnings about pairs, and which of them were left out, on stderr."""
    from textcap.data.pairs import describe_skipped

    for line in (*pairs.source.warnings, *pairs.warnings, *describe_skipped(pairs.source)):
        err.print(f"warning: {printable(line)}", markup=False, style="yellow")
