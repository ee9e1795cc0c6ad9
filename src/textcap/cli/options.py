"""The options that several commands share, each defined once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from textcap.errors import SettingError

DEFAULT_BACKBONE = "msclap-2023"

QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print no progress, notes or warnings on stderr, only errors.")
]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Print more detail on stderr.")]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Do not access the network; fail if weights are not on disk.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the output if it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
DeviceOption = Annotated[
    str,
    typer.Option(help="Device to compute on: auto (CUDA, else Apple's MPS, else the CPU), cpu, cuda, cuda:1 or mps."),
]
BackboneOption = Annotated[
    str,
    typer.Option(
        help="Frozen CLAP and GPT-2: msclap-2023, tiny (the small models of textcap demo), or a backbone folder."
    ),
]
ClapOption = Annotated[
    str | None,
    typer.Option(
        help="CLAP to take in place of the backbone's: a folder, or a repository such as laion/clap-htsat-unfused.",
        show_default="the backbone's",
    ),
]
LanguageModelOption = Annotated[
    str | None,
    typer.Option(
        help="Language model to take in place of the backbone's: a folder, or a repository such as Qwen/Qwen3-0.6B.",
        show_default="the backbone's",
    ),
]
DEFAULT_BATCH = "8 to 64, more for small models"
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of audio windows to embed at once; lower it to save memory.",
        show_default=DEFAULT_BATCH,
    ),
]
PairsArgument = Annotated[
    Path,
    typer.Argument(help="Pairs file: CSV or JSON Lines; each row names a sound file and its caption or captions."),
]
OptionalPairsArgument = Annotated[
    Path | None,
    typer.Argument(
        help="Pairs file: CSV or JSON Lines; each row names a sound file and its caption or captions.",
        show_default=False,
    ),
]
AudioDirOption = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the sound files.", show_default="the folder of the pairs file"),
]


def check_safetensors(output: Path) -> None:
    """Refuse an output whose name ends in that of another format than the one written."""
    if output.suffix not in ("", ".safetensors"):
        raise typer.BadParameter(f"ends in {output.suffix}, but must end in .safetensors", param_hint="--output")


@contextmanager
def settings_from_flags(*fields: str, **renamed: str) -> Iterator[None]:
    """Turn a setting that is out of range within the block into misuse (exit code 2) that names its flag.

    Args:
        fields: The settings that have a flag of the same name; other errors pass.
        renamed: The flags of settings that have another name.
    """
    try:
        yield
    except SettingError as error:
        flag = renamed.get(error.field) or f"--{error.field.replace('_', '-')}"
        if error.field not in (*fields, *renamed):
            raise
        raise typer.BadParameter(f"is {error.value!r}, but must be {error.rule}", param_hint=flag) from error
