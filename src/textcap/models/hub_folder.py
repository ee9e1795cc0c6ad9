"""Read a model folder in transformers' form: its config.json, which weight files it has, and its licence."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from logging import CRITICAL
from pathlib import Path
from typing import Any, TypeVar

from textcap.config import from_dict
from textcap.device import is_out_of_memory
from textcap.errors import CheckpointError, FileError, InputError, first_line
from textcap.files import read_json
from textcap.models.weight_files import content_hash
from textcap.weights.repository import INDEX, WEIGHTS, licence_of

# What may stand beside the weights and decides what comes out.
_DECISIVE = re.compile(
    r"(config|(pre)?processor_config|added_tokens|special_tokens_map|tokenizer\w*|vocab)\.json|.+\.model|(merges|vocab)\.txt"
)

_Config = TypeVar("_Config")


class HubFolder:
    """A folder with config.json and weights, such as the hub's repositories are.

    Attributes:
        name: As the user gave it, for messages.
        path: The folder.
        licence: The one that its card states, else "unknown".
        weights: The weight files.

    Raises:
        CheckpointError: It has no config.json or no weights, or one of them is missing or damaged.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path, self.licence = name, path, licence_of(path)
        self.config = self.json("config.json")
        self.model_type = str(self.config.get("model_type", ""))
        self.weights = self._find_weights()

    def json(self, file: str) -> dict[str, Any]:
        """Return the object in a JSON file of the folder.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        try:
            values = read_json(self.path / file)
            if not isinstance(values, dict):
                raise FileError(self.path / file, "is not an object")
        except FileError as error:
            hint = "name a folder in transformers' form, or a repository of the hub such as Qwen/Qwen3-0.6B"
            raise CheckpointError(f"{self.name} cannot be used: {error.message}", hint=hint) from error
        return values

    def _find_weights(self) -> list[Path]:
        names = [next((name for name in WEIGHTS if (self.path / name).is_file()), WEIGHTS[0])]
        if names == [INDEX]:
            shards = self.json(INDEX).get("weight_map")
            names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
            if outside := next((name for name in names if re.search(r"[/\\]", name)), None):
                raise CheckpointError(f"{self.name} has a weight file outside of its folder: {outside}")
        paths = [self.path / name for name in names]
        if missing := next((path for path in paths if not path.is_file()), None):
            raise CheckpointError(f"{self.name} has no weights: {missing} does not exist", hint="make a complete copy")
        return paths

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the weights, the configuration and the tokenizer, in hexadecimal."""
        decisive = [path for path in sorted(self.path.iterdir()) if _DECISIVE.fullmatch(path.name) and path.is_file()]
        return content_hash({path.name: path for path in [*decisive, *self.weights]}, None)

    @contextmanager
    def refusing(self, problem: str, hint: str) -> Iterator[None]:
        """Turn whatever transformers makes of a folder that it cannot use into a CheckpointError of one line.

        Within the block transformers shows no progress bars, and its log only what is critical.

        Args:
            problem: Worded to follow the name, such as "cannot write captions".
            hint: What to do about it.
        """
        try:
            with quiet_transformers(CRITICAL):
                yield
        except CheckpointError:
            raise
        except Exception as error:  # of many kinds; also AttributeError, for models with another kind of cache
            if is_out_of_memory(error):
                raise
            kind = self.model_type or "of no known type"
            raise CheckpointError(f"{self.name} ({kind}) {problem}: {first_line(error)}", hint=hint) from error

    def sizes(self, kind: type[_Config], values: Mapping[str, Any]) -> _Config:
        """Return sizes from config.json as a configuration of ours.

        Raises:
            CheckpointError: One is missing or out of range.
        """
        try:
            return from_dict(kind, json.loads(json.dumps(values)))
        except InputError as error:
            path = self.path / "config.json"
            raise CheckpointError(f"{path} has sizes that cannot be used: {error.message}") from error


@contextmanager
def quiet_transformers(level: int) -> Iterator[None]:
    """Let transformers show no progress bars within the block, and log only what has this level or more."""
    from transformers.utils import logging

    before, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(level)
    if has_bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if has_bars:
            logging.enable_progress_bar()
