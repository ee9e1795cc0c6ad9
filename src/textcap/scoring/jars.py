"""Know every jar and data file of the Java programs, and check the hash of each in the cache before it is run.

Their places in the cache are those of aac-metrics, so that either package finds the files that the other has
downloaded. Bringing them there is left to `jar_fetching`.
"""

import csv
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast

from textcap.data.text import counted
from textcap.errors import DependencyError, FileError, InputError
from textcap.files import atomic_write_text, read_json, sha256_of_file
from textcap.weights.cache import known_sha256

JavaProgram = Literal["ptb", "meteor", "spice"]
JarState = Literal["right", "given", "wrong", "missing"]

FETCH = "textcap fetch metrics"
PROGRAM_NAMES: dict[JavaProgram, str] = {"ptb": "the PTB tokenizer", "meteor": "METEOR", "spice": "SPICE"}
_ENGINE = "textcap-java.jar"
# Hash of the jar that tools/build_engine.py builds; update it together with the jar.
_ENGINE_SHA256 = "a69c08b7e415c4f3f1c15def4b52bdd1b26a4f7948b5ac232ccc793c1877b184"
_GIVEN = "textcap-given.json"


@dataclass(frozen=True)
class JarFile:
    """One file that a Java program runs or reads."""

    program: JavaProgram
    path: str  # relative to the folder `aac-metrics` of the cache, with slashes
    sha256: str
    size_bytes: int  # approximate for CoreNLP's models
    licence: str  # as its authors state it
    packaged: str | None  # path in the package pycocoevalcap; None if the package does not contain the file
    url: str | None  # where to download it from if the package does not contain it

    @property
    def name(self) -> str:
        """The file name without folders."""
        return self.path.rpartition("/")[2]


with files("textcap.scoring").joinpath("jars.csv").open(encoding="utf-8") as _file:
    _header, *_rows = csv.reader(_file)

CATALOGUE = tuple(
    JarFile(cast(JavaProgram, program), path, sha256, int(size_bytes), licence, packaged or None, url or None)
    for program, path, sha256, size_bytes, licence, packaged, url in _rows
)
"""Every file of the programs; SPICE's are in the order of the class path in its manifest."""


@dataclass(frozen=True)
class Program:
    """The checked jars of a Java program."""

    name: JavaProgram
    class_path: tuple[Path, ...]  # the program's own jar first, its libraries in order, textcap's own jar last
    hashes: dict[str, str]  # SHA-256 of every file that is run or read, by its path in the cache folder
    unknown: list[str]  # files that the user gave and that are not the known ones, by their paths in the cache folder


@dataclass(frozen=True)
class FoundJar:
    """The state of one file of the catalogue in the cache."""

    file: JarFile
    path: Path  # its place in the cache
    state: JarState
    sha256: str  # hash of the file in the cache; empty if it is missing


def metrics_folder() -> Path:
    """Return the folder in which aac-metrics keeps its jars; it need not exist."""
    named = os.environ.get("AAC_METRICS_CACHE_PATH")
    cache = os.path.expandvars(os.path.expanduser(named or "~/.cache"))
    return Path(os.path.abspath(cache)) / "aac-metrics"


def look_at(file: JarFile, *, thorough: bool = False) -> FoundJar:
    """Return the state of a file of the catalogue in the cache.

    Args:
        file: The file.
        thorough: Hash the file even if its size and time have not changed since it was last hashed.

    Raises:
        DependencyError: The file cannot be read.
    """
    path = metrics_folder().joinpath(*file.path.split("/"))
    if not path.is_file():
        return FoundJar(file, path, "missing", "")
    try:
        sha256 = sha256_of_file(path) if thorough else known_sha256(path)
    except InputError as error:
        raise DependencyError(error.message, hint=f"delete it, and run {FETCH}") from error
    states: dict[str, JarState] = {given_files().get(file.path, ""): "given", file.sha256: "right"}
    return FoundJar(file, path, states.get(sha256, "wrong"), sha256)


def find_jars(program: JavaProgram) -> Program:
    """Return the jars of a program, after checking every file.

    Raises:
        DependencyError: A file is missing, has the wrong hash, or cannot be read.
    """
    title = PROGRAM_NAMES[program]
    found = [look_at(file) for file in CATALOGUE if file.program == program]
    missing = [one.path for one in found if one.state == "missing"]
    if missing:
        rest = f" and {counted(len(missing) - 1, 'more file')}" if len(missing) > 1 else ""
        raise DependencyError(f"{title} is missing {missing[0]}{rest}", hint=f"run {FETCH}")
    for one in found:
        if one.state == "wrong":
            hint = f"to replace it, run {FETCH}; to use it anyway, run {FETCH} --from {one.path}"
            message = f"{one.path} is not the known file of {title}: its SHA-256 is {one.sha256}"
            raise DependencyError(message, hint=hint)
    hashes = {one.file.path: one.sha256 for one in found} | {_ENGINE: _ENGINE_SHA256}
    # Every jar is listed, as Java resolves the jars in a manifest relative to the target of a symbolic link.
    class_path = (*(one.path for one in found if one.path.suffix == ".jar"), engine_jar())
    for path in class_path:
        if os.pathsep in str(path):
            message = f"Java cannot run {path}: class paths are separated by {os.pathsep!r}"
            raise DependencyError(message, hint="set AAC_METRICS_CACHE_PATH to another folder")
    return Program(program, class_path, hashes, [one.file.path for one in found if one.state == "given"])


def engine_jar() -> Path:
    """Return our own jar: what runs the Java programs, and the script engine with which SPICE writes its result.

    Raises:
        DependencyError: The jar is missing from this installation, or is not the one that belongs to it.
    """
    path = Path(str(files("textcap"))) / "scoring" / "engine" / _ENGINE
    if not path.is_file() or sha256_of_file(path) != _ENGINE_SHA256:
        raise DependencyError(f"{path} does not exist or is not the known file", hint="reinstall textcap")
    return path


def given_files() -> dict[str, str]:
    """Return the SHA-256 of the files that the user gave instead of the known ones, by their paths in the cache."""
    with suppress(FileError):
        known = read_json(metrics_folder() / _GIVEN)
        if isinstance(known, dict):
            return {path: sha256 for path, sha256 in known.items() if isinstance(sha256, str)}
    return {}


def remember_given(file: JarFile, sha256: str) -> None:
    """Record that the user gave another file than the known one, so that it is accepted later.

    Args:
        file: The file of the catalogue in whose place it is.
        sha256: Its SHA-256.

    Raises:
        InputError: The cache cannot be written.
    """
    atomic_write_text(metrics_folder() / _GIVEN, json.dumps({**given_files(), file.path: sha256}, indent=1))
