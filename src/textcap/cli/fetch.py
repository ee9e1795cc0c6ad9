"""`textcap fetch`: download weights, or the jars of the Java metrics, or check those on disk."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from textcap.cli.console import note, print_result
from textcap.cli.progress import download_progress
from textcap.data.text import counted
from textcap.errors import CheckpointError

WHEN_STOPPED = "run the same command to continue the download"
EXAMPLES = "textcap fetch all\n\ntextcap fetch metrics --from jars/"


def fetch(
    weights: Annotated[
        str,
        typer.Argument(
            help="msclap-2023: the weights to train on. clapcap: the released captioner. all: both of these. "
            "metrics: the jars of METEOR, SPICE and their tokenizer. Or a repository of the hub, with a language model "
            "such as Qwen/Qwen3-0.6B, a CLAP of LAION, or a model folder of textcap."
        ),
    ] = "msclap-2023",
    revision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REV",
            help="Branch, tag or commit of the repository, or of microsoft/msclap; REPO@REV for another; repeatable.",
        ),
    ] = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="For metrics: take jars from this jar, zip file, wheel or folder; repeatable.",
        ),
    ] = None,
    fense: Annotated[bool, typer.Option("--fense", help="For metrics: the models of FENSE as well.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the files on disk against their hashes; download nothing.")
    ] = False,
) -> None:
    """Download weights from the Hugging Face hub, or the jars of the Java metrics.

    Files that are already on disk are used, including those that msclap downloaded; damaged ones are downloaded again.
    An interrupted download continues where it stopped. TEXTCAP_CACHE, HF_HUB_CACHE, HF_HOME, HF_ENDPOINT, HF_TOKEN and
    HTTPS_PROXY are used if set.

    Jars come from --from, else from the installed pycocoevalcap (pip install 'textcap\\[jars]'), else from PyPI and
    Maven. They are written to aac-metrics/ below AAC_METRICS_CACHE_PATH, or below ~/.cache. The models of FENSE come
    from the hub, and its error detector from its release on GitHub unless it is in FENSE_DATA.

    Prints one line for each file, separated by tabs: name, licence, size, source, path; with --verify name, state,
    path.
    """
    from textcap import weights as library
    from textcap.weights.repository import is_repository

    known = [*library.WEIGHT_SETS, "all", "metrics"]
    if weights not in known and not is_repository(weights):
        message = f"is {weights!r}, but must be one of {', '.join(known)}, or a repository such as Qwen/Qwen3-0.6B"
        raise typer.BadParameter(message, param_hint="WEIGHTS")
    if weights == "metrics":
        if revision:
            raise typer.BadParameter("does not apply to metrics", param_hint="--revision")
        if verify and sources:
            raise typer.BadParameter("cannot be combined with --verify", param_hint="--from")
    elif sources:
        raise typer.BadParameter("applies only to metrics", param_hint="--from")
    elif fense:
        raise typer.BadParameter("applies only to metrics", param_hint="--fense")
    sets: dict[str, Iterable[str]] = {"all": library.WEIGHT_SETS, "metrics": library.METRIC_MODELS if fense else ()}
    names = list(sets.get(weights, [weights]))
    if verify:
        from textcap.scoring.jar_fetching import verify_metrics

        jars = verify_metrics() if weights == "metrics" else []
        states: list[tuple[str, str, Path | None]] = [(jar.file.name, jar.state, jar.path.resolve()) for jar in jars]
        states += [(one.file.name, one.state, one.path and one.path.resolve()) for one in library.verify_cache(names)]
        _print_states(states, f"{weights} --fense" if fense else weights)
        return
    if weights == "metrics":
        _fetch_metrics(sources or [])
    if names:
        _fetch(names, _by_repository(revision or [], weights if is_repository(weights) else "microsoft/msclap"))


def _fetch(names: list[str], revisions: dict[str, str]) -> None:
    from textcap import weights as library

    with download_progress() as progress:
        fetched = library.fetch(names, revision=revisions, progress=progress)
    for one in fetched:
        size = decimal(one.path.stat().st_size)
        where = f"{one.file.repo}@{one.commit}"
        print_result(one.file.name, one.file.licence, size, where, str(one.path))
    n_new = sum(one.downloaded for one in fetched)
    _print_count(n_new, len(fetched) - n_new)


def _fetch_metrics(sources: list[Path]) -> None:
    from textcap.scoring.jar_fetching import fetch_metrics

    n_new = n_here = 0
    with download_progress() as progress:
        for one in fetch_metrics(sources, progress=progress):
            size = decimal(one.path.stat().st_size)
            print_result(one.file.name, one.file.licence, size, one.source, str(one.path))
            n_new, n_here = n_new + one.new, n_here + (not one.new)
            if not one.known:
                message = f"{one.file.name} differs from the known version; it is used because you gave it with --from"
                note(f"{message} (SHA-256 {one.sha256})", named=True)
    _print_count(n_new, n_here)


def _print_count(n_new: int, n_here: int) -> None:
    note(f"{n_new} fetched, {n_here} already on disk")


def _print_states(states: Sequence[tuple[str, str, Path | None]], argument: str) -> None:
    """Print the name, the state and the path of each file, and raise an error if one is damaged or missing."""
    n_bad = 0
    for name, state, path in states:
        print_result(name, "damaged" if state == "wrong" else state, str(path or ""))
        n_bad += state in ("wrong", "damaged", "missing")
    if n_bad:
        message = f"damaged or missing: {n_bad} of {counted(len(states), 'file')}"
        raise CheckpointError(message, hint=f"run textcap fetch {argument}")


def _by_repository(revisions: list[str], default: str) -> dict[str, str]:
    asked = {}
    for text in revisions:
        repo, _, revision = text.rpartition("@")
        asked[repo or default] = revision
    return asked
