"""Find the jars of a Java metric in the cache, and make sure of every one before it is run.

Knows where they lie and what they should be, and fetches nothing. What comes back is a class path, and the hash
of everything on it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import textcap.scoring.jar_catalogue as jar_catalogue
from textcap.errors import DependencyError, InputError
from textcap.files import atomic_write_text, sha256_of_file, sha256_remembered
from textcap.scoring.jar_catalogue import JarFile, JavaProgram
from textcap.weights import own_cache_folder

FETCH = "textcap fetch metrics"
PROGRAM_NAMES: dict[JavaProgram, str] = {"ptb": "the PTB tokenizer", "meteor": "METEOR", "spice": "SPICE"}
_ENGINE = "textcap-engine.jar"
# Of the jar that tools/build_engine.py builds; a new one needs a new value here.
_ENGINE_SHA256 = "984b98e1633ffbd363760c48885ea5f79a4d8f0bed65797a15b16e97e7a6de90"
_GIVEN = "textcap-given.json"

JarState = Literal["right", "given", "wrong", "missing"]


@dataclass(frozen=True)
class Program:
    """The jars of a Java metric, checked."""

    name: JavaProgram
    class_path: tuple[Path, ...]  # the program's own jar first
    hashes: dict[str, str]  # SHA-256 of everything that is run or read, by its path in the cache folder
    unknown: list[str]  # which of them the user gave without their being the known ones

    @property
    def class_path_argument(self) -> str:
        """The class path as Java's option `-cp` takes it."""
        return os.pathsep.join(str(path) for path in self.class_path)


@dataclass(frozen=True)
class FoundJar:
    """What the cache holds for one file of the catalogue."""

    file: JarFile
    path: Path  # where it belongs
    state: JarState
    sha256: str | None  # None where it is missing


def metrics_folder() -> Path:
    """Return the folder of the cache that aac-metrics keeps its jars in; it need not exist."""
    named = os.environ.get("AAC_METRICS_CACHE_PATH")
    cache = os.path.expandvars(os.path.expanduser(named or "~/.cache"))
    return Path(os.path.abspath(cache)) / "aac-metrics"


def look_at(file: JarFile, *, thorough: bool = False) -> FoundJar:
    """Say what the cache holds for a file of the catalogue.

    Args:
        file: The file.
        thorough: Read it even where its size and time say that it has not changed since it was last read.

    Raises:
        InputError: It cannot be read.
    """
    path = metrics_folder().joinpath(*file.path.split("/"))
    if not path.is_file():
        return FoundJar(file, path, "missing", None)
    sha256 = sha256_of_file(path) if thorough else sha256_remembered(path, own_cache_folder() / "hashes.json")
    state: JarState = "wrong"
    if sha256 == file.sha256:
        state = "right"
    elif given_files().get(file.path) == sha256:
        state = "given"
    return FoundJar(file, path, state, sha256)


def find_jars(program: JavaProgram) -> Program:
    """Return the class path of a program, with every file of it checked.

    Raises:
        DependencyError: A file is missing, is not what it should be, or cannot be read.
    """
    what = PROGRAM_NAMES[program]
    try:
        found = [look_at(file) for file in jar_catalogue.CATALOGUE if file.program == program]
    except InputError as error:
        raise DependencyError(f"{what}: {error.message}", hint=f"delete it, then: {FETCH}") from error
    missing = [one.path for one in found if one.state == "missing"]
    if missing:
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DependencyError(f"{what} lacks {missing[0]}{rest}", hint=FETCH)
    for one in found:
        if one.state == "wrong":
            message = f"{one.path} is not the file that {what} runs: its SHA-256 is {one.sha256}"
            hint = f"{FETCH} replaces it; if it is meant to be used: {FETCH} --from {one.path}"
            raise DependencyError(message, hint=hint)
    hashes = {one.file.path: one.sha256 for one in found if one.sha256 is not None}
    # Every jar by its own name: what a manifest names is looked for beside the file that a link points to.
    class_path = [one.path for one in found if one.path.suffix == ".jar"]
    if program == "spice":
        engine = engine_jar()
        class_path.append(engine)
        hashes[_ENGINE] = sha256_of_file(engine)
        if hashes[_ENGINE] != _ENGINE_SHA256:
            message = f"{engine} is not the file that {what} runs: its SHA-256 is {hashes[_ENGINE]}"
            raise DependencyError(message, hint="install textcap again")
    for path in class_path:
        if os.pathsep in str(path):
            message = f"Java cannot run {path}: its class paths are separated by {os.pathsep!r}"
            raise DependencyError(message, hint="set AAC_METRICS_CACHE_PATH to another folder")
    return Program(program, tuple(class_path), hashes, [one.file.path for one in found if one.state == "given"])


def engine_jar() -> Path:
    """Return the script engine that SPICE writes its result with, where Java has none of its own.

    Raises:
        DependencyError: This installation lacks it.
    """
    path = Path(str(files("textcap"))) / "scoring" / "engine" / _ENGINE
    if not path.is_file():
        raise DependencyError(f"this installation of textcap lacks {path}", hint="install it again")
    return path


def given_files() -> dict[str, str]:
    """Return the SHA-256 of the files that the user gave in place of the known ones, by their path in the cache."""
    try:
        known = json.loads((metrics_folder() / _GIVEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {path: sha256 for path, sha256 in known.items() if isinstance(sha256, str)}


def remember_given(given: Mapping[str, str]) -> None:
    """Write down which files the user gave.

    Args:
        given: SHA-256 by path in the cache.

    Raises:
        InputError: The cache cannot be written.
    """
    if dict(given) != given_files():
        atomic_write_text(metrics_folder() / _GIVEN, json.dumps(dict(given), indent=1))
