"""The command `textcap fetch`, and the display of a download for every command that may need one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn

from textcap.cli.console import err, print_result, progress_display, set_verbosity

EXAMPLES = "textcap fetch all\n\ntextcap fetch metrics --from stanford-corenlp.zip"


class Weights(str, Enum):
    """What can be fetched."""

    MSCLAP_2023 = "msclap-2023"
    CLAPCAP = "clapcap"
    ALL = "all"
    METRICS = "metrics"


@contextmanager
def download_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show downloads on stderr, a bar for each file, where stderr is a terminal.

    Yields:
        What the library is to call with file name, bytes so far and bytes in all.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bars = progress_display(*columns)
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: int, total: int) -> None:
        if not tasks:
            bars.start()  # not before: a display that shows nothing still moves the cursor
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total or None, completed=done)
            if bars.disable:
                err.print(f"fetching {name} ({decimal(total)})" if total else f"fetching {name}", markup=False)
        bars.update(tasks[name], completed=done)

    try:
        yield show
    finally:
        if tasks:
            bars.stop()


def fetch(
    weights: Annotated[
        Weights,
        typer.Argument(
            help="msclap-2023 is what models train on; clapcap is the released captioner; all is both. "
            "metrics are the jars of METEOR, SPICE and their tokenizer."
        ),
    ] = Weights.MSCLAP_2023,
    revision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REV",
            help="Branch, tag or commit of microsoft/msclap, or REPO@REV for another one; may be repeated.",
        ),
    ] = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Take metrics from a jar, zip file, wheel or folder that you have; may be repeated.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check what is on disk against its hashes; fetch nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress: errors only.")] = False,
) -> None:
    """Fetch weights from the Hugging Face hub, or the jars of metrics; or check those that are here.

    What is on disk already is used, also what msclap put into Hugging Face's cache. A download that was
    interrupted goes on where it stopped. HF_ENDPOINT, HF_TOKEN, HTTPS_PROXY and TEXTCAP_CACHE are honoured.

    Jars come from what --from names, else from the installed pycocoevalcap (pip install 'textcap\\[score]'), else
    from PyPI, Maven and Stanford, and go where aac-metrics looks for them: AAC_METRICS_CACHE_PATH is honoured.

    Prints for each file, with tabs between: name, licence, size, where it is from, path.
    """
    from textcap import weights as library

    if weights is Weights.METRICS:
        if revision:
            raise typer.BadParameter("metrics have none", param_hint="--revision")
        if verify and sources:
            raise typer.BadParameter("it goes without --verify", param_hint="--from")
        set_verbosity(quiet, verbose=False)
        _verify_metrics() if verify else _fetch_metrics(sources or [])
        return
    if sources:
        raise typer.BadParameter("only metrics can be taken from a file", param_hint="--from")
    names = list(library.WEIGHT_SETS) if weights is Weights.ALL else [weights.value]
    set_verbosity(quiet, verbose=False)
    if verify:
        _verify(names)
        return
    with download_progress() as progress:
        fetched = library.fetch(names, revision=_by_repository(revision or []), progress=progress)
    for one in fetched:
        size = decimal(one.path.stat().st_size)
        where = f"{one.file.repo}@{one.commit}"
        print_result(one.file.name, one.file.licence, size, where, str(one.path))
    n_new = sum(one.downloaded for one in fetched)
    err.print(f"fetched {n_new}, already here {len(fetched) - n_new}")


def _fetch_metrics(sources: list[Path]) -> None:
    from textcap.scoring.jar_fetching import fetch_metrics

    n_new = n_here = 0
    with download_progress() as progress:
        for one in fetch_metrics(sources, progress=progress):
            size = decimal(one.path.stat().st_size)
            print_result(one.file.name, one.file.licence, size, one.source, str(one.path))
            n_new, n_here = n_new + one.new, n_here + (not one.new)
            if not one.known:
                message = f"textcap: {one.file.name} is not the known file; it is used as you gave it"
                err.print(f"{message} (SHA-256 {one.sha256})", markup=False)
    err.print(f"fetched {n_new}, already here {n_here}")


def _verify_metrics() -> None:
    from textcap.errors import DependencyError
    from textcap.scoring.jar_fetching import verify_metrics

    states = {"right": "right", "given": "given", "wrong": "damaged", "missing": "missing"}
    checked = verify_metrics()
    for one in checked:
        print_result(one.file.name, states[one.state], str(one.path))
    bad = [one for one in checked if one.state in ("wrong", "missing")]
    if bad:
        message = f"{len(bad)} of {len(checked)} files are damaged or missing"
        raise DependencyError(message, hint="textcap fetch metrics")


def _verify(names: list[str]) -> None:
    from textcap.errors import CheckpointError
    from textcap.weights import verify_cache

    checked = verify_cache(names)
    for one in checked:
        print_result(one.file.name, one.state, str(one.path.resolve()) if one.path is not None else "")
    bad = [one for one in checked if one.state in ("damaged", "missing")]
    if not bad:
        return
    damaged = [str(one.path.resolve()) for one in bad if one.path is not None]
    hint = f"textcap fetch {names[0] if len(names) == 1 else 'all'}"
    if damaged:
        hint = f"delete {', '.join(damaged)}, then: {hint}"
    raise CheckpointError(f"{len(bad)} of {len(checked)} files are damaged or missing", hint=hint)


def _by_repository(revisions: list[str]) -> dict[str, str]:
    asked = {}
    for text in revisions:
        repo, _, revision = text.rpartition("@")
        asked[repo or "microsoft/msclap"] = revision
    return asked
