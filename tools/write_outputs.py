"""Write what commands print into the documents: `python tools/write_outputs.py [PAGE ...]`.

Runs the console blocks as tests/test_documents.py does and puts the new output in place of the old. Where lines were
left out ("..."), they are left out again; where that cannot be told any more, the block stays.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from documents import ROOT, blocks_of, mask, pages  # noqa: E402


def main() -> None:
    """Run the demo once, and then the blocks of every page, or of those that are named, in a copy of its folder."""
    wanted = set(sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        place = Path(work) / "textcap-demo"
        demo = print_of(f"textcap demo {place}", Path(work), Path(work))
        by_command = demo_outputs(demo, place)
        for page in pages():
            if not wanted or page.name in wanted:
                folder = Path(work) / page.stem / "demo"
                shutil.copytree(place, folder)
                rewrite(page, folder, by_command)


def print_of(command: str, folder: Path, cache: Path) -> list[str]:
    """Return the lines that a command prints on both streams."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "TEXTCAP_CACHE": str(cache / "cache"), "PATH": path, "COLUMNS": "120"}
    place = ROOT if command.startswith("python ") else folder
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout.splitlines()


def demo_outputs(lines: list[str], place: Path) -> dict[str, list[str]]:
    """Return the output of the demo, and those of the commands that it runs."""
    found: dict[str, list[str]] = {"textcap demo": []}
    command = "textcap demo"
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
        found.setdefault(command, []).extend([] if line.startswith("$ ") else [line.replace(str(place), place.name)])
    return found


def rewrite(page: Path, folder: Path, by_command: dict[str, list[str]]) -> None:
    """Write a page with new output in each block that can be run here."""
    lines = page.read_text(encoding="utf-8").splitlines()
    shift = 0
    for block in blocks_of(page):
        if block.language != "console" or block.needs:
            continue
        new: list[str] = []
        raw = iter(block.text.splitlines())
        chunks: list[tuple[list[str], list[str]]] = []
        for line in raw:
            if line.startswith("$ "):
                chunks.append(([line], []))
                while chunks[-1][0][-1].endswith("\\"):
                    chunks[-1][0].append(next(raw))
            elif chunks:
                chunks[-1][1].append(line)
        for (command, _), (head, old) in zip(block.commands, chunks, strict=True):
            printed = by_command[command] if command in by_command else print_of(command, folder, folder.parent)
            new += [*head, *merged(old, printed, f"{page.name}, line {block.line}: {command}")]
        start = block.line + shift
        lines[start : start + len(block.text.splitlines())] = new
        shift += len(new) - len(block.text.splitlines())
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def merged(old: list[str], printed: list[str], place: str) -> list[str]:
    """Return the printed lines, without those that were left out before."""
    while printed and not printed[-1].strip():
        printed = printed[:-1]
    while printed and not printed[0].strip():
        printed = printed[1:]
    blank = [""] if old and not old[-1].strip() else []
    if "..." not in old:
        return [*printed, *blank]
    found, at, skipped = list[str](), 0, False
    for number, line in enumerate(old):
        if line == "...":
            found.append(line)
            skipped = True
            continue
        rest = old[number:]
        if skipped and "..." not in rest and len(rest) <= len(printed) - at:
            at = len(printed) - len([one for one in rest if one.strip()])
        elif skipped:
            at = next((i for i in range(at, len(printed)) if mask(printed[i]) == mask(line)), len(printed))
        skipped = False
        if line.strip() or (at < len(printed) and not printed[at].strip()):
            if at >= len(printed) or mask(printed[at]) != mask(line):
                print(f"{place}: cannot tell what to leave out\n" + "\n".join(printed), flush=True)
                return old
            found.append(printed[at])
            at += 1
    return [*found, *blank]


if __name__ == "__main__":
    main()
