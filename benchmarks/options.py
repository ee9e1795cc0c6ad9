"""The sizes of a benchmark as a dataclass whose fields are options of the command line."""

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def option(default: Any, meaning: str) -> Any:
    """Declare a field of a `Sizes` class, with what it means."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def parse_sizes(sizes: type[T], name: str, description: str | None, arguments: Sequence[str]) -> T:
    """Return sizes from the command line: an underscore in a field's name is a hyphen in that of its option."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hints = typing.get_type_hints(sizes)
    for field in dataclasses.fields(sizes):  # type: ignore[arg-type]
        hint, several = hints[field.name], typing.get_origin(hints[field.name]) is tuple
        one_type = next(one for one in (typing.get_args(hint) or (hint,)) if one is not type(None))
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=one_type,
            nargs="+" if several else None,
            default=field.default,
            help=f"{field.metadata['meaning']} (default: {field.default})",
        )
    values = vars(parser.parse_args(arguments))
    return sizes(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
