"""The page docs/commands.md, from the program: every command with its arguments, options and examples."""

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.models import OptionInfo, ParameterInfo

from textcap.cli.app import app

HEAD = """# Commands

Every command with its arguments and options, as `textcap COMMAND --help` shows them. `make reference` generates this
page from the program. Exit codes, environment variables and files are in the [reference](reference.md).

`textcap --version` prints the version. `textcap --debug COMMAND ...` shows the traceback of an error.
"""
VALUES = {str: "TEXT", int: "N", float: "X", Path: "PATH"}


def render_commands() -> str:
    """Return the page as Markdown."""
    sections = [_section("textcap", command) for command in app.registered_commands]
    for group in app.registered_groups:  # as in the help, these come last
        assert group.typer_instance is not None
        sections += [_section(f"textcap {group.name}", command) for command in group.typer_instance.registered_commands]
    return "".join([HEAD, *sections])


def _section(program: str, command: Any) -> str:
    name = command.callback.__name__.replace("_", "-")
    table = "".join(_rows(command.callback))
    examples = "\n".join(line for line in command.epilog.split("\n") if line)
    return (
        f"\n## {program} {name}\n\n{_plain(command.help)}\n"
        f"\n| argument or option | default | meaning |\n|---|---|---|\n{table}\n```sh\n{examples}\n```\n"
    )


def _rows(function: Callable[..., None]) -> list[str]:
    hints = typing.get_type_hints(function, include_extras=True)
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = typing.get_args(hints[name])
        repeatable, kind = _unwrap(kind)
        if isinstance(info, OptionInfo):
            # Typer keeps the first of the names given to Option as its default.
            given = (info.default, *(info.param_decls or ()))
            flags = [flag for flag in given if isinstance(flag, str)] or [f"--{name.replace('_', '-')}"]
            shown = ", ".join(f"`{flag}`" for flag in flags)
            shown += "" if kind is bool else f" {_plain(info.metavar or _value(kind))}"
        else:
            shown = f"`{name.upper()}`"
        shown += " ..." if repeatable else ""
        rows.append(f"| {shown} | {_default(parameter.default, info)} | {_plain(info.help or '')} |\n")
    return rows


def _unwrap(kind: Any) -> tuple[bool, Any]:
    """Return whether a type is a list, and the type of one value."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):  # a Literal and None make the latter
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    return (True, typing.get_args(kind)[0]) if typing.get_origin(kind) is list else (False, kind)


def _value(kind: Any) -> str:
    return "|".join(typing.get_args(kind)) or VALUES[kind]


def _default(default: Any, info: ParameterInfo) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(info.show_default, str):
        return _plain(info.show_default)
    return "" if default is None or default is False else f"`{default}`"


def _plain(text: str) -> str:
    """Return help text for a Markdown table, without the escapes that Rich needs."""
    return text.replace("\\[", "[").replace("|", "\\|")
