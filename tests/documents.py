"""README and docs as data: their code blocks, the commands in them, and output in a form that can be compared."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from textcap.cli.app import app

ROOT = Path(__file__).parent.parent
WEIGHTS, JARS = "weights", "jars"  # what a block may need; it stands in a comment above the block

PLACE = "/home/ada/demo"  # the demo's folder, in output that names whole paths

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def _commands_of(group: Any) -> dict[str, Any]:
    """Return the commands of a group by name, such as "train" and "corpus plan"."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        own = _commands_of(command) if hasattr(command, "commands") else None
        found |= {name: command} if own is None else {f"{name} {inner}": one for inner, one in own.items()}
    return found


COMMANDS = _commands_of(get_command(app))


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    line: int
    language: str
    text: str
    needs: str | None  # WEIGHTS, JARS or nothing

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of a console block, each with the lines that it prints."""
        found: list[tuple[str, list[str]]] = []
        # A line of LaTeX ends in two backslashes and goes on nowhere.
        for line in re.sub(r"\s*(?<!\\)\\\n\s*", " ", self.text).splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
        return found


def pages() -> list[Path]:
    """README and all pages of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(path: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    start: int | None = None
    for i, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if start is None:
            start = i
            continue
        above = next((one for one in reversed(lines[:start]) if one.strip()), "")
        needs = re.fullmatch(r"<!-- needs: (\w+) -->", above.strip())
        language = lines[start].strip().removeprefix("```")
        text = "\n".join(lines[start + 1 : i])
        found.append(Block(path.name, start + 1, language, text, needs[1] if needs else None))
        start = None
    return found


def command_lines(text: str) -> Iterator[str]:
    """Each `textcap ...` line of a text, without prompt, comment, and anything after a pipe or redirection."""
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        line = re.split(r"\s#|[|>;&]", line.strip().removeprefix("$ "))[0].strip()
        if line.startswith("textcap "):
            yield line


def find_misuse(line: str) -> str | None:
    """Return what the command line does not know in `line`."""
    words = shlex.split(line)[1:]
    if words[0].startswith("-"):
        return None if words[0] in ("--help", "-h", "--version", "--debug") else f"{line}: {words[0]}"
    if words[0] == "COMMAND" or (len(words) == 1 and any(name.startswith(f"{words[0]} ") for name in COMMANDS)):
        return None  # a group stands for all of its commands
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
    if name is None:
        return f"{line}: no command {words[0]}"
    known = {name for parameter in COMMANDS[name].params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    unknown = used - known - {"--help", "-h"}
    return f"{line}: {', '.join(sorted(unknown))}" if unknown else None


def outputs_of_demo(lines: Iterable[str], place: Path) -> dict[str, list[str]]:
    """Return what the demo in a folder prints, and what the commands print that it runs, by command."""
    outputs: dict[str, list[str]] = {}
    command = "textcap demo"
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
        shown = line.replace(str(place), "textcap-demo") if command == "textcap demo" else line
        outputs.setdefault(command, []).extend([] if line.startswith("$ ") else [shown])
    return outputs


def run_command(command: str, folder: Path, environment: dict[str, str]) -> list[str]:
    """Return the lines that a command prints, on both streams as a terminal shows them."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT if command.startswith("python ") else folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    # The jars of the test data are smaller than those that `textcap fetch metrics` brings.
    lines = [line for line in done.stdout.splitlines() if "is not the known file" not in line]
    return [line.replace(str(folder), PLACE) for line in lines]


def environment_in(folder: Path) -> dict[str, str]:
    """Return the environment for commands of documents, with a cache in the folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "TEXTCAP_CACHE": str(folder / "cache"), "PATH": path, "COLUMNS": "120"}


def mask(line: str) -> str:
    """Return a line of output without what differs between runs and machines: numbers, and the models' captions."""
    line = re.sub(r"^((?:\d\.\d+\t)?\S+\.wav)\t.+$", r"\1\t(caption)", line)
    line = re.sub(r"^  (?!mean cosine|recall@).+ -> .+$", "  (caption) -> (caption)", line)
    return _NUMBER.sub("#", line.rstrip())


def matches(expected: list[str], printed: list[str]) -> bool:
    """Whether printed lines are the expected ones, masked; a line "..." stands for any number of lines."""
    wanted, got = [mask(line) for line in expected], [mask(line) for line in printed]
    # Empty lines at either end are layout.
    wanted, got = _stripped(wanted), _stripped(got)
    pattern = "".join("(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in wanted)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in got)) is not None


def _stripped(lines: list[str]) -> list[str]:
    return "\n".join(lines).strip("\n").split("\n")
