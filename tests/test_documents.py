"""README and docs: every command in them exists, and every output that they show is what the command prints."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from documents import (
    JARS,
    ROOT,
    WEIGHTS,
    Block,
    blocks_of,
    command_lines,
    environment_in,
    find_misuse,
    mask,
    matches,
    outputs_of_demo,
    pages,
    run_command,
)

CONSOLE = {path.name: [block for block in blocks_of(path) if block.language == "console"] for path in pages()}


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_commands_in_documents_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    spans = re.findall(r"`(textcap [^`\n]+)`", text)
    lines = [line for part in (*(block.text for block in blocks_of(path)), *spans) for line in command_lines(part)]
    if path.name == "README.md":
        assert {line.split()[1] for line in lines} >= {"train", "caption", "score", "fetch"}
    assert not [misuse for line in lines if (misuse := find_misuse(line))]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    benchmarks = (path.stem.replace("_", "-") for path in (ROOT / "benchmarks").glob("*.py"))
    targets |= {"bench-", *(f"bench-{name}" for name in benchmarks)}  # of `bench-%`; "bench-" is that of bench-NAME
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.M)) <= targets


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_python_in_documents_imports_what_exists(path: Path) -> None:
    for block in blocks_of(path):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "textcap":
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), f"{path.name}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)?(#[^)\s]+)?\)", path.read_text(encoding="utf-8")):
        file, anchor = target
        if re.match(r"[a-z]+:", file):
            continue
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), f"{path.name}: {file}"
        if anchor and place.suffix == ".md":
            assert anchor[1:] in anchors(place), f"{path.name}: {file}{anchor}"


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_misuse_in_documents_would_be_found() -> None:
    assert find_misuse("textcap sing a.wav") == "textcap sing a.wav: no command sing"
    assert (
        find_misuse("textcap caption a.wav --no-such-flag=3")
        == "textcap caption a.wav --no-such-flag=3: --no-such-flag"
    )
    assert find_misuse("textcap caption a.wav --json") is None
    assert find_misuse("textcap corpus") is find_misuse("textcap corpus run work --part 1/2") is None
    assert find_misuse("textcap corpus sing work") == "textcap corpus sing work: no command corpus"
    assert find_misuse("textcap corpus plan work --part 1/2") == "textcap corpus plan work --part 1/2: --part"
    assert list(command_lines("$ textcap train a.txt \\\n  -o b  # why\nls\ntextcap demo > log")) == [
        "textcap train a.txt -o b",
        "textcap demo",
    ]


def test_commands_of_a_block_go_on_after_one_backslash_and_their_output_ends_in_two() -> None:
    block = Block("a.md", 1, "console", "$ textcap train \\\n    a.txt\nx \\\\\ny", None)
    assert block.commands == [("textcap train a.txt", ["x \\\\", "y"])]


def test_output_is_written_anew_after_commands_that_only_prepare_it(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    from write_outputs import rewritten

    text = "$ echo new > a.txt\n$ cat a.txt\nold\n$ printf 'a\\nb\\nc\\n'\n...\nc"
    folder = tmp_path / "demo"
    folder.mkdir()
    new = rewritten(Block("a.md", 1, "console", text, None), folder, {})
    assert new == text.replace("old", "new")


def test_output_is_compared_line_by_line_without_numbers_and_captions() -> None:
    assert mask("a.wav\tA dog barks") == mask("a.wav\tRain falls") != mask("a.wav")
    assert mask("0.5\ta.wav\tA dog barks") == mask("0.4\tb.wav\tRain").replace("b.", "a.") != mask("a.wav\tRain")
    assert mask("  A dog -> A cat") == mask("  Rain -> Wind") and mask("  recall@1  0.917 -> 0.9") != mask("  a -> b")
    shown = ["embedding 120 sounds", "...", "epoch 2/2: loss 0.834"]
    assert matches(shown, ["embedding 7 sounds", "x", "y", "epoch 10/10: loss 1.2e-3", ""])
    assert not matches(shown, ["embedding 7 sounds", "epoch 10/10: loss 1", "more"])
    assert not matches(["one"], ["two"]) and not matches(["one", "two"], ["one"])


def test_blocks_that_cannot_be_run_here_are_counted() -> None:
    """Blocks that need the network or real weights are not run, and those that need jars only where there are some."""
    marked = Counter(block.needs for path in pages() for block in blocks_of(path) if block.needs)
    assert marked == {JARS: 3}


@dataclass(frozen=True)
class DemoRun:
    """One run of `textcap demo`, shared by all pages."""

    folder: Path
    outputs: dict[str, list[str]]  # of the commands that the demo itself has run


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    folder = tmp_path_factory.mktemp("documents") / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "textcap", "demo", str(folder)],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr
    return DemoRun(folder, outputs_of_demo(done.stderr.splitlines(), folder))


@pytest.mark.documents
@pytest.mark.parametrize("page", [page for page, blocks in CONSOLE.items() if blocks])
def test_shown_output_is_what_the_commands_print(
    page: str, demo_run: DemoRun, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demo_run.folder, folder)
    environment = environment_in(tmp_path)
    for block in CONSOLE[page]:
        if block.needs == WEIGHTS:
            continue
        if block.needs == JARS:
            environment["AAC_METRICS_CACHE_PATH"] = str(request.getfixturevalue("spice_jars"))
        for command, expected in block.commands:
            printed = demo_run.outputs.get(command) or run_command(command, folder, environment)
            assert matches(expected, printed), f"{page}, line {block.line}: {command}\n" + "\n".join(printed)
