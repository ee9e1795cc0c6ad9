"""`textcap verify`: compare textcap's loaders with msclap, on this machine and its weights."""

import typer

from textcap.cli import options
from textcap.cli.console import note, print_error, print_result
from textcap.cli.loading import load_backbone

WHEN_STOPPED = "run the same command again"
EXAMPLES = "textcap fetch all && textcap verify\n\ntextcap verify --offline"


def verify(offline: options.OfflineOption = False) -> None:
    """Check that textcap and the installed msclap compute the same numbers with the same weights.

    Compares audio and text embeddings, and clapcap's captions if clapcap is on disk; msclap-2023 is downloaded if it
    is missing. Prints the largest difference of each and exits with 1 if one is above its tolerance. Takes about three
    minutes and needs textcap\\[verify].
    """
    from textcap.models.backbone import CLAPCAP
    from textcap.verify import compare_with_msclap, import_msclap
    from textcap.weights import find

    import_msclap()  # before any weight is read or downloaded
    agrees = True
    for name in ("msclap-2023", CLAPCAP):
        if name == CLAPCAP and find(name) is None:
            note("clapcap is not on disk, so captions are not compared (run textcap fetch clapcap)")
            continue
        for comparison in compare_with_msclap(load_backbone(name, offline=offline)):
            agrees = agrees and comparison.agrees
            verdict = "ok" if comparison.agrees else f"DIFFERS {comparison.detail}"
            numbers = f"{comparison.difference:.2g} (at most {comparison.tolerance:.2g})"
            print_result(name, comparison.name, numbers, verdict)
    if not agrees:
        print_error("textcap's results differ from msclap's by more than the tolerance (see the lines marked DIFFERS)")
        raise typer.Exit(1)
