"""`textcap verify`: prove textcap's loaders against msclap on this machine's weights."""

from typing import Annotated

import typer

from textcap.cli.console import err, print_result, set_verbosity

EXAMPLES = "textcap fetch all && textcap verify\n\ntextcap verify --offline"


def verify(
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name the tensors that nobody asked for.")] = False,
) -> None:
    """Compare textcap with the installed msclap on the fetched weights.

    Audio and text embeddings, and clapcap's captions where clapcap is fetched. Prints the largest differences and
    fails when one is above its tolerance. Takes about three minutes.
    """
    set_verbosity(quiet, verbose)
    from textcap.cli.fetch import download_progress
    from textcap.models.backbone import CLAPCAP, Backbone
    from textcap.verify import compare_with_msclap, import_msclap
    from textcap.weights import find

    import_msclap()  # before any weight is read or fetched
    agrees = True
    for name in ("msclap-2023", CLAPCAP):
        if name == CLAPCAP and find(name) is None:
            err.print("clapcap is not on disk, so captions are not compared (textcap fetch clapcap)")
            continue
        with download_progress() as progress:
            backbone = Backbone.load(name, offline=offline or None, progress=progress)
        for comparison in compare_with_msclap(backbone):
            agrees = agrees and comparison.agrees
            verdict = "ok" if comparison.agrees else f"DIFFERS {comparison.detail}"
            numbers = f"{comparison.difference:.2g} (at most {comparison.tolerance:.2g})"
            print_result(name, comparison.name, numbers, verdict)
    if not agrees:
        err.print("textcap: these weights do not give what msclap gives", style="red")
        raise typer.Exit(1)
