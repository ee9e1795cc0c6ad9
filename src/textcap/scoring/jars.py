"""Find the jars of a Java program in the cache, and check the hash of each before it is run.

Downloading them is left to `jar_fetching`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import textcap.scoring.jar_catalogue as jar_catalogue
from textcap.data.text import counted
from textcap.errors import DependencyError, FileError, InputError
from textcap.files import atomic_write_text, read_json, sha256_of_file
from textcap.scoring.jar_catalogue import JarFile, JavaProgram
from textcap.weights.cache import known_sha256

FETCH = "textcap fetch metrics"
PROGRAM_NAMES: dict[JavaProgram, str] = {"ptb": "the PTB tokenizer", "meteor": "METEOR", "spice": "SPICE"}
_ENGINE = "textcap-java.jar"
# Hash of the jar that tools/build_engine.py builds; update it together with the jar.
_ENGINE_SHA256 = "9b3d472aef45a50b0d6729a6136bb9be14f3740d3e957c5b4a7d4dfb9689fc2a"
_GIVEN = "textcap-given.json"

JarState = Literal["right", "given", "wrong", "missing"]


@dataclass(frozen=True)
class Program:
    """The checked jars of a Java program."""

    name: JavaProgram
    class_path: tuple[Path, ...]  # the program's own jar first
    hashes: dict[str, str]  # SHA-256 of every file that is run or read, by its path in the cache folder
    unknown: list[str]  # files that the user gave and that are not the known ones, by their paths in the cache folder

    @property
    def class_path_argument(self) -> str:
        """The class path in the form of Java's option `-cp`."""
        return os.pathsep.join(str(path) for path in self.class_path)


@dataclass(frozen=True)
class FoundJar:
    """The state of one file of the catalogue in the cache."""

    file: JarFile
    path: Path  # its place in the cache
    state: JarState
    sha256: str | None  # hash of the file in the cache; None if it is missing


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
        InputError: The file cannot be read.
    """
    path = metrics_folder().joinpath(*file.path.split("/"))
    if not path.is_file():
        return FoundJar(file, path, "missing", None)
    sha256 = sha256_of_file(path) if thorough else known_sha256(path)
    state: JarState = "wrong"
    if sha256 == file.sha256:
        state = "right"
    elif given_files().get(file.path) == sha256:
        state = "given"
    return FoundJar(file, path, state, sha256)


def find_jars(program: JavaProgram) -> Program:
    """Return the jars of a program, after checking every file.

    Raises:
        DependencyError: A file is missing, has the wrong hash, or cannot be read.
    """
    title = PROGRAM_NAMES[program]
    try:
        found = [look_at(file) for file in jar_catalogue.CATALOGUE if file.program == program]
    except InputError as error:
        raise DependencyError(f"{title}: {error.message}", hint=f"delete it, and run {FETCH}") from error
    missing = [one.path for one in found if one.state == "missing"]
    if missing:
        rest = f" and {counted(len(missing) - 1, 'more file')}" if len(missing) > 1 else ""
        raise DependencyError(f"{title} is missing {missing[0]}{rest}", hint=f"run {FETCH}")
    for one in found:
        if one.state == "wrong":
            message = f"{one.path} is not the known file of {title}: its SHA-256 is {one.sha256}"
            hint = f"to replace it, run {FETCH}; to use it anyway, run {FETCH} --from {one.path}"
            raise DependencyError(message, hint=hint)
    hashes = {one.file.path: one.sha256 for one in found if one.sha256 is not None}
    # Every jar is listed, as Java resolves the jars in a manifest relative to the target of a symbolic link.
    class_path = [one.path for one in found if one.path.suffix == ".jar"]
    engine = engine_jar()
    class_path.append(engine)
    hashes[_ENGINE] = sha256_of_file(engine)
    if hashes[_ENGINE] != _ENGINE_SHA256:
        message = f"{engine} is not the known file of textcap: its SHA-256 is {hashes[_ENGINE]}"
        raise DependencyError(message, hint="reinstall textcap")
    for path in class_path:
        if os.pathsep in str(path):
            message = f"Java cannot run {path}: class paths are separated by {os.pathsep!r}"
            raise DependencyError(message, hint="set AAC_METRICS_CACHE_PATH to another folder")
    return Program(program, tuple(class_path), hashes, [one.file.path for one in found if one.state == "given"])


def engine_jar() -> Path:
    """Return our own jar: what runs the Java programs, and the script engine with which SPICE writes its result.

    Raises:
        DependencyError: The jar is missing from this installation.
    """
    path = Path(str(files("textcap"))) / "scoring" / "engine" / _ENGINE
    if not path.is_file():
        raise DependencyError(f"{path} does not exist", hint="reinstall textcap")
    return path


def given_files() -> dict[str, str]:
    """Return the SHA-256 of the files that the user gave instead of the known ones, by their paths in the cache."""
    try:
        known = read_json(metrics_folder() / _GIVEN)
    except FileError:
        return {}
    if not isinstance(known, dict):
        return {}
    return {path: sha256 for path, sha256 in known.items() if isinstance(sha256, str)}


def remember_given(given: Mapping[str, str]) -> None:
    """Record which files the user gave, so that they are accepted later.

    Args:
        given: SHA-256 by path in the cache.

    Raises:
        InputError: The cache cannot be written.
    """
    if dict(given) != given_files():
        atomic_write_text(metrics_folder() / _GIVEN, json.dumps(dict(given), indent=1))
