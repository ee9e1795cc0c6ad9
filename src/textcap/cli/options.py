"""The options that several commands share, each defined once."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from textcap.config import MAX_SEED, DecodingConfig
from textcap.data.text import STDIN
from textcap.errors import SettingError
from textcap.outputs.forms import FORMS

DEFAULT_BACKBONE = "msclap-2023"

output = partial(typer.Option, "-o", "--output")
seed = partial(typer.Option, min=0, max=MAX_SEED)

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
ModelOption = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="A model folder that textcap train wrote, a repository of the hub that holds one, or clapcap, the "
        "captioner released with msclap.",
        show_default="textcap-model if that folder exists, else clapcap",
    ),
]
RecursiveOption = Annotated[bool, typer.Option("--recursive", help="Take the sounds in subfolders, too.")]
FilesFromOption = Annotated[
    str | None, typer.Option(help="A file that names an input on each line; - is standard input.", metavar="LIST")
]
PrecisionOption = Annotated[
    str,
    typer.Option(help="float32, or for more speed and slightly different captions int8 (CPU), bf16 or float16."),
]

WIDE_BEAM = 8  # the default with several captions per sound
shape = partial(typer.Option, rich_help_panel="Form of the output")
_selection = partial(typer.Option, rich_help_panel="Choice of captions")

TimelineOption = Annotated[bool, shape("--timeline", help="Say what is heard when.")]
HopOption = Annotated[
    float | None,
    shape(
        "--hop",
        min=0.01,
        help="Seconds between the starts of the windows of a time line.",
        show_default="half a window",
    ),
]
CaptionSilenceOption = Annotated[bool, shape("--caption-silence", help="Caption silence like any other sound.")]
NumCaptionsOption = Annotated[int, _selection(min=1, help="Captions per sound, best first.")]
RerankOption = Annotated[bool, _selection("--rerank", help="Order them by CLAP's similarity, too.")]
RerankWeightOption = Annotated[
    float,
    _selection(min=0.0, max=1.0, help="Weight of the similarity against the score."),
]
SimilarityOption = Annotated[
    bool,
    _selection("--similarity", help="Add the similarity of sound and caption to JSON."),
]
BeamSizeOption = Annotated[
    int | None,
    _selection(
        min=1,
        help="Number of partial captions that beam search keeps at each step.",
        show_default=f"{DecodingConfig.beam_size}; {WIDE_BEAM} with --num-captions or --rerank",
    ),
]
MinLengthOption = Annotated[int, _selection(min=0, help="Minimum length of a caption in tokens.")]
MaxLengthOption = Annotated[
    int,
    _selection(min=1, help="Maximum length of a caption in tokens; a token is about three quarters of a word."),
]
DEFAULT_BATCH = "8 to 64, more for small models"
CaptionBatchOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of sounds to caption at once; captions do not depend on it.",
        show_default=DEFAULT_BATCH,
    ),
]
_PAIRS = "Pairs file: CSV or JSON Lines; each row names a sound file and its caption or captions."
PairsArgument = Annotated[Path, typer.Argument(help=_PAIRS)]
OptionalPairsArgument = Annotated[Path | None, typer.Argument(help=_PAIRS, show_default=False)]
AudioDirOption = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the sound files.", show_default="the folder of the pairs file"),
]


def decoding_of(
    beam_size: int | None, min_length: int, max_length: int, num_captions: int, rerank: bool
) -> DecodingConfig:
    """Return the settings of the beam search that flags ask for; one that is out of range is misuse."""
    several = num_captions > 1 or rerank
    size = beam_size or (max(WIDE_BEAM, num_captions) if several else DecodingConfig.beam_size)
    n_best = num_captions if num_captions > 1 else size if rerank else 1
    with settings_from_flags("beam_size", min_tokens="--min-length", n_best="--num-captions"):
        return DecodingConfig(beam_size=size, max_tokens=max_length, min_tokens=min_length, n_best=n_best)


def timeline_misuse(timeline: bool, hop_s: float | None, num_captions: int, similarity: bool) -> dict[str, bool]:
    """Return what flags must not ask for of time lines, for `refuse_misuse`."""
    several = num_captions > 1 or similarity
    return {
        "--hop needs a time line": hop_s is not None and not timeline,
        "a time line has one caption for each piece: leave out --num-captions and --similarity": timeline and several,
    }


def refuse_misuse(problems: dict[str, bool]) -> None:
    """Refuse the first problem that holds (exit code 2)."""
    for problem, holds in problems.items():
        if holds:
            raise typer.BadParameter(problem)


def check_form(form: str | None) -> None:
    """Refuse a form of the output that does not exist."""
    if form is not None and form not in FORMS:
        raise typer.BadParameter(f"is {form!r}, but must be one of {', '.join(FORMS)}", param_hint="--format")


def check_ending(output: Path, *endings: str) -> None:
    """Refuse an output whose name ends in that of another format than those that can be written."""
    must = " or ".join(endings)
    if str(output) == STDIN:
        raise typer.BadParameter(f"must be a file, {must}", param_hint="--output")
    if output.suffix.lower() not in ("", *endings):
        raise typer.BadParameter(f"ends in {output.suffix}, but must end in {must}", param_hint="--output")


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
