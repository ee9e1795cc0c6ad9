"""`textcap demo`: train and caption on the synthetic sound world, showing each ordinary command as it runs."""

import logging
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textcap.cli import options
from textcap.cli.console import err, note, out
from textcap.cli.signals import signals_deferred
from textcap.data.text import printable
from textcap.errors import TextcapError

if TYPE_CHECKING:
    from textcap.demo.folder import Clip

WHEN_STOPPED = "run the same command to continue"
EXAMPLES = "textcap demo\n\ntextcap demo my-demo --seed 7 --force"

# These settings are enough for the tiny backbone, and training takes three minutes on two cores. For real backbones,
# use the defaults of `textcap train`.
N_CAPTIONS = 8000
_TRAIN = "train captions.txt --backbone tiny --epochs 10 --learning-rate 2e-3 -o textcap-model"
_CAPTION = "caption {} -m textcap-model"


def demo(
    folder: Annotated[Path, typer.Argument(help="The folder to write.")] = Path("textcap-demo"),
    seed: Annotated[int, options.seed(help="Seed of the captions and sounds.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the folder if it exists.")] = False,
) -> None:
    """Train a model on text, then caption sounds that it has never heard, offline, in three to four minutes.

    Writes a folder with captions from a synthetic sound world, sounds to caption, and audio-text pairs, then runs
    textcap train and textcap caption there. A demo that was interrupted continues when it is run again. The models in
    the package are for this world only, not for real recordings.
    """
    from textcap.demo.folder import N_PAIRS, N_SEEN, N_UNSEEN, held_out_clips, is_demo_folder, write_demo_folder

    if not force and is_demo_folder(folder, n_captions=N_CAPTIONS, seed=seed):
        clips = held_out_clips(N_SEEN, N_UNSEEN, seed)
        note(f"continuing the demo in {folder}")
    else:
        clips = write_demo_folder(folder, n_captions=N_CAPTIONS, seed=seed, force=force)
        note(f"wrote {N_CAPTIONS:,} captions, {len(clips)} sounds and {N_PAIRS} pairs to {folder}")
    names = sorted(path.name for path in (folder / "sounds").iterdir())
    train = f"{_TRAIN} --seed {seed}" if seed else _TRAIN
    flags = ["-q"] * err.quiet + ["-v"] * logging.getLogger("textcap").isEnabledFor(logging.INFO)
    if not (folder / "textcap-model").is_dir():  # it is written last, and at once
        _run(train, folder, shown=train, flags=flags)
    paths = " ".join(f"sounds/{name}" for name in names)
    captioned = _run(_CAPTION.format(paths), folder, shown=_CAPTION.format("sounds/*.wav"), flags=flags)
    captions = [line.split("\t", 1)[1] for line in captioned.splitlines()]
    _print_results(names, captions, clips)
    inside = printable(shlex.quote(str(folder)))
    out.print(
        f"\nNext:\n  cd {inside}\n  textcap caption sounds/*.wav > predictions.txt\n"
        "  textcap score references.json predictions.txt   # first run: textcap fetch metrics\n"
        "  textcap train captions.txt --backbone tiny --epochs 30 --learning-rate 2e-3 -o better-model\n"
        "  textcap train your-captions.txt   # for real recordings; first run: textcap fetch",
        markup=False,
    )


def _run(arguments: str, folder: Path, *, shown: str, flags: list[str]) -> str:
    """Run a textcap command in the folder, with its stderr on this terminal; return its stdout."""
    err.print(f"\n$ textcap {shown}", markup=False, style="bold")
    command = [sys.executable, "-m", "textcap", *shlex.split(arguments), *flags]
    process = None
    try:
        with signals_deferred():
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, encoding="utf-8")
        output, _ = process.communicate()
    except BaseException:  # the command ends when the demo does, and saves what it can
        if process is not None:
            process.terminate()
            process.communicate()
        raise
    if process.returncode < 0:
        number = -process.returncode
        message = f"textcap {arguments.split()[0]} was killed by {signal.Signals(number).name}"
        hint = "the machine may have run out of memory; " * (number == signal.SIGKILL)
        raise TextcapError(message, hint=hint + WHEN_STOPPED)
    if process.returncode:  # it has said why
        raise typer.Exit(process.returncode)
    return output


def _print_results(names: list[str], captions: list[str], clips: "list[Clip]") -> None:
    from rich.table import Table
    from rich.text import Text

    from textcap.demo.grammar import event_f1

    table = Table("sound", "caption", "reference", show_lines=False)
    for name, caption, clip in zip(names, captions, clips, strict=True):
        table.add_row(name, Text(caption), Text(clip.captions[0]))
    out.print(table)
    score = event_f1(captions, [clip.scene for clip in clips])
    out.print(f"sounds named correctly: event F1 {score.f1:.2f}", markup=False)
