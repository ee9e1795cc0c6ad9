"""What the fields of settings have in common: range checks, and JSON in and out.

Knows no setting by name. A value that is out of range, missing, unknown or of the wrong type is an InputError that
names the field.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from textcap.errors import InputError

TOO_MANY = 2**31

_Config = TypeVar("_Config")


def require(condition: bool, name: str, value: object, rule: str) -> None:
    """Raise an InputError that names a field and its value unless the condition holds."""
    if not condition:
        raise InputError(f"{name} is {value!r}, but must be {rule}")


def require_counts(config: object, *names: str) -> None:
    """Require fields to be counts that torch can take; a list is looked at item by item."""
    for name in names:
        value = getattr(config, name)
        for count in value if isinstance(value, tuple) else (value,):
            require(1 <= count < TOO_MANY, name, value, f"at least 1 and below {TOO_MANY:,}")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values that JSON can hold; tuples become lists."""
    return {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for f in dataclasses.fields(config)
        for value in [getattr(config, f.name)]
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def from_dict(cls: type[_Config], data: Mapping[str, Any]) -> _Config:
    """Rebuild a configuration from `to_dict`'s output.

    Raises:
        InputError: A field is missing, unknown or out of range.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{cls.__name__} is {data!r}, but must be an object")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(data) - names):
        raise InputError(f"{cls.__name__} has no field {', '.join(unknown)}")
    if missing := sorted(names - set(data)):
        raise InputError(f"{cls.__name__} lacks {', '.join(missing)}")
    return cls(**{name: _typed(hints[name], f"{cls.__name__}.{name}", value) for name, value in data.items()})


def _typed(hint: Any, name: str, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value)
    if typing.get_origin(hint) is tuple:
        require(isinstance(value, list | tuple), name, value, "a list")
        return tuple(_typed(typing.get_args(hint)[0], name, item) for item in value)
    if isinstance(hint, types.UnionType):
        return None if value is None else _typed(typing.get_args(hint)[0], name, value)
    accepted = (int, float) if hint is float else (hint,)
    require(
        isinstance(value, accepted) and not (isinstance(value, bool) and hint is not bool),
        name,
        value,
        hint.__name__,
    )
    return float(value) if hint is float else value
