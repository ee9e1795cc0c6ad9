"""`textcap info`: what textcap runs on, for users and for bug reports."""

import json

from rich.filesize import decimal

from textcap.cli.console import print_result
from textcap.cli.options import JsonOption

EXAMPLES = "textcap info\n\ntextcap info --json > report.json"


def info(as_json: JsonOption = False) -> None:
    """Print versions, devices, the formats of sounds that are read, caches and Java.

    Prints one line for each fact: its group, its name and its value, separated by tabs. --json prints the same for a
    bug report. The home folder is shown as ~, and no variable of the environment is printed.
    """
    from textcap.environment import inspect_environment

    groups = inspect_environment()
    if as_json:
        print(json.dumps(groups), flush=True)
        return
    for group, facts in groups.items():
        for name, value in facts.items():
            several = value if isinstance(value, dict) else {"": value}
            print_result(group, name, ", ".join(_shown(*one) for one in several.items()))


def _shown(name: str, value: object) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        name, value = name.removesuffix("_bytes"), decimal(value)
    return f"{name} {value}".strip()
