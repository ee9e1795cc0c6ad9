"""`textcap demo`: the whole path on the embedded sound world, by the ordinary commands, shown as they run."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli.console import err, out, set_verbosity
from textcap.data.text import printable

if TYPE_CHECKING:
    from textcap.demo.folder import Clip

EXAMPLES = "textcap demo\n\ntextcap demo my-demo --seed 7 --force"

# Enough for the tiny backbone, and done in two minutes on two cores; real backbones take train's defaults.
N_CAPTIONS = 8000
_TRAIN = "train captions.txt --backbone tiny --epochs 10 --learning-rate 2e-3 -o textcap-model"
_CAPTION = "caption {} -m textcap-model"


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("textcap-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other captions and sounds.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if it is there.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Results only.")] = False,
) -> None:
    """Train on a text file and caption sounds never heard, offline, in about two minutes.

    Writes captions of a synthetic sound world, sounds to caption and further pairs of both into a folder, then runs
    the ordinary commands there. The embedded models know this world only, not real recordings.
    """
    set_verbosity(quiet, False)
    from textcap.demo.folder import N_PAIRS, write_demo_folder

    clips = write_demo_folder(folder, n_captions=N_CAPTIONS, seed=seed, force=force)
    names = sorted(path.name for path in (folder / "sounds").iterdir())
    err.print(
        f"Wrote {N_CAPTIONS} captions, {len(names)} sounds and {N_PAIRS} pairs to {printable(str(folder))}",
        markup=False,
    )
    train = f"{_TRAIN} --seed {seed}" if seed else _TRAIN
    _run(train, folder, shown=train, quiet=quiet)
    paths = " ".join(f"sounds/{name}" for name in names)
    captioned = _run(_CAPTION.format(paths), folder, shown=_CAPTION.format("sounds/*.wav"), quiet=quiet)
    captions = [line.split("\t", 1)[1] for line in captioned.splitlines()]
    _print_results(names, captions, clips)
    inside = printable(shlex.quote(str(folder)))
    out.print(
        f"\nGo on with:\n  cd {inside}\n  textcap caption sounds/*.wav > predictions.txt\n"
        "  textcap score references.json predictions.txt   # after: textcap fetch metrics\n"
        "  textcap train captions.txt --backbone tiny --epochs 30 --learning-rate 2e-3 -o better-model\n"
        "  textcap train your-captions.txt      # the real thing, after: textcap fetch",
        markup=False,
    )


def _run(arguments: str, folder: Path, *, shown: str, quiet: bool) -> str:
    """Run a textcap command in the folder, its progress on this terminal; return its stdout."""
    err.print(f"\n$ textcap {shown}", markup=False, style="bold")
    command = [sys.executable, "-m", "textcap", *shlex.split(arguments), *["-q"] * quiet]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout


def _print_results(names: list[str], captions: list[str], clips: "list[Clip]") -> None:
    from rich.table import Table
    from rich.text import Text

    from textcap.demo.grammar import event_f1

    table = Table("sound", "caption", "reference", show_lines=False)
    for name, caption, clip in zip(names, captions, clips, strict=True):
        table.add_row(name, Text(caption), Text(clip.captions[0]))
    out.print(table)
    score = event_f1(captions, [clip.scene for clip in clips])
    out.print(f"share of events named right: event F1 {score.f1:.2f}", markup=False)
