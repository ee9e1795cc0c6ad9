"""The options that several commands share, each defined once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from textcap.config import MAX_SEED
from textcap.errors import SettingError

DEFAULT_BACKBONE = "msclap-2023"

QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Print more detail on stderr.")]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Never access the network; fail if weights are missing on disk.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the output if it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")]
DeviceOption = Annotated[
    str, typer.Option(help="Where to compute: auto (CUDA, then Apple's MPS, then the CPU), cpu, cuda, cuda:1 or mps.")
]
BackboneOption = Annotated[
    str, typer.Option(help="The CLAP and GPT-2 to use: msclap-2023, tiny (the demo's), or a folder.")
]
BatchSizeOption = Annotated[
    int, typer.Option(min=1, help="Windows of sound to embed at once; lower it to save memory.")
]
PairsArgument = Annotated[
    Path,
    typer.Argument(help="CSV or JSON Lines file; each row names a sound file and its caption or captions."),
]
AudioDirOption = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the sound files.", show_default="the folder of the pairs file"),
]
SeedOption = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the random draw of pairs.")]


@contextmanager
def settings_from_flags() -> Iterator[None]:
    """Turn a setting that is out of range within the block into misuse (exit code 2) that names its flag."""
    try:
        yield
    except SettingError as error:
        flag = f"--{error.field.replace('_', '-')}"
        raise typer.BadParameter(f"must be {error.rule}, not {error.value!r}", param_hint=flag) from error
