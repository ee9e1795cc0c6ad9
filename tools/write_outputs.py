"""Write what commands print into the documents: `python tools/write_outputs.py [PAGE ...]`.

Runs the console blocks as tests/test_documents.py does and puts the new output in place of the old. Of an output with
"..." as many lines are shown before and after it as now, so read the change.
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from documents import Block, blocks_of, environment_in, outputs_of_demo, pages, run_command  # noqa: E402


def main() -> None:
    """Run the demo once, and then the blocks of every page, or of those that are named, in a copy of its folder."""
    wanted = set(sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        place = Path(work) / "textcap-demo"
        outputs = outputs_of_demo(run_command(f"textcap demo {place}", Path(work), environment_in(Path(work))), place)
        for page in pages():
            if not wanted or page.name in wanted:
                folder = Path(work) / page.stem / "demo"
                shutil.copytree(place, folder)
                rewrite(page, folder, outputs)


def rewrite(page: Path, folder: Path, outputs: dict[str, list[str]]) -> None:
    """Write a page with new output in each console block that needs nothing that is not here."""
    text = page.read_text(encoding="utf-8")
    for block in blocks_of(page):
        if block.language == "console" and not block.needs:
            text = text.replace(block.text, rewritten(block, folder, outputs), 1)
    page.write_text(text, encoding="utf-8")


def rewritten(block: Block, folder: Path, outputs: dict[str, list[str]]) -> str:
    """Return the text of a block with what its commands print now."""
    new, rest = "", block.text
    for command, old in block.commands:
        printed = outputs.get(command) or run_command(command, folder, environment_in(folder.parent))
        if not any(old):  # what shows no output stays so; it may have written what the next command reads
            continue
        head, _, rest = rest.partition("\n".join(old))
        new += head + "\n".join(shortened(old, printed))
    return new + rest


def shortened(old: list[str], printed: list[str]) -> list[str]:
    """Return printed lines without those between the first and the last ones, if "..." stood for such before."""
    printed = "\n".join(printed).strip("\n").split("\n") + [""] * (old[-1:] == [""])
    if "..." not in old:
        return printed
    n_before, n_after = old.index("..."), len(old) - old.index("...") - 1
    return [*printed[:n_before], "...", *printed[len(printed) - n_after :]]


if __name__ == "__main__":
    main()
