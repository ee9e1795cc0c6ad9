"""The page docs/python.md, from the docstrings of the names that `import textcap` exports.

Signatures are taken from the source, so that they are the same on every version of Python and of the packages.
"""

import ast
import builtins
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import textcap

HEAD = """# Python

Every name that `textcap` exports, with what it takes and gives. `make reference` generates this page from the
docstrings. Examples are in the README and in [training](training.md#from-python), [pairs](pairs.md) and
[scoring](scoring.md#from-python). Names are imported when they are first used, so `import textcap` loads no PyTorch.

All errors that a user can do something about derive from [`TextcapError`](#textcaperror). Letters in brackets are
shapes: B the size of a batch, E the width of an embedding. Types that `textcap` does not export are listed
[at the end](#other-types) with their modules.
"""
OTHERS = """
## Other types

Types and errors that are named above and that `textcap` does not export:

| name | import it from | what it is |
|---|---|---|
"""
WIDTH = 100  # of the code in signatures
_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
_FREE = ("Returns", "Yields")  # sections of one text, in which a colon means nothing
_ITEM = re.compile(r"(\w+(?:, \w+)*): (.+)", re.DOTALL)
_SOURCES = Path(textcap.__file__).parent


def render_python() -> str:
    """Return the page as Markdown."""
    shown = [_Shown(name) for name in textcap.__all__]
    sections = [section for one in shown for section in one.sections()]
    others = set().union(*(one.other_names() for one in shown))
    rows = (_row(*other) for other in sorted(others) if other[0] not in textcap.__all__)
    return "".join([HEAD, *sections, OTHERS, *rows])


class _Shown:
    """An exported name: where it is defined, and what of it is shown."""

    def __init__(self, name: str) -> None:
        self.name, self.path = name, Path(inspect.getfile(getattr(textcap, name)))
        self.source = self.path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.source)
        self.node = _definition(self.tree, name)
        body = self.node.body if isinstance(self.node, ast.ClassDef) else ()
        self.methods = [one for one in body if isinstance(one, ast.FunctionDef) and one.name[0] != "_"]

    def sections(self) -> list[str]:
        """Return the section of the name, and one for each public method and property of a class."""
        if isinstance(self.node, ast.FunctionDef):
            return [_section("##", self.name, signature_of(self.node), self.node)]
        assert isinstance(self.node, ast.ClassDef)
        methods = [_section("###", f"{self.name}.{one.name}", signature_of(one), one) for one in self.methods]
        return [_section("##", self.name, class_of(self.node, self.source), self.node), *methods]

    def other_names(self) -> set[tuple[str, Path]]:
        """Return the names of textcap in its signatures and among its errors, each with the file that defines it."""
        text = "".join(self.sections())
        code = "\n".join(re.findall(r"^```python\n(.+?)^```", text, flags=re.DOTALL | re.MULTILINE))
        errors = re.findall(r"^- `(\w+)`: ", text.partition("**Raises**")[2], flags=re.MULTILINE)
        defined = _definitions(_SOURCES / "errors.py")
        return _used(ast.parse(code), self.path) | {(name, defined[name]) for name in errors if name in defined}


def _used(tree: ast.AST, path: Path) -> set[tuple[str, Path]]:
    """Return the names of textcap in code of a file, each with the file that defines it, and those that they name."""
    defined, found = _definitions(path), set()
    for name in {one.id for one in ast.walk(tree) if isinstance(one, ast.Name)} & defined.keys():
        found.add((name, defined[name]))
        node = _definition(_parsed(defined[name]), name)
        if isinstance(node, ast.Assign):
            found |= _used(node.value, defined[name])
    return found


@cache
def _definitions(path: Path) -> dict[str, Path]:
    """Return the types of textcap that a module defines or imports, each with the file that defines it."""
    found = {}
    for node in _parsed(path).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textcap."):
            folder = _SOURCES.joinpath(*(node.module or "").split(".")[1:])
            source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
            there = _definitions(source)
            found |= {one.name: there[one.name] for one in node.names if one.name in there}
        elif isinstance(node, ast.ClassDef | ast.Assign):
            found[node.name if isinstance(node, ast.ClassDef) else ast.unparse(node.targets[0])] = path
    return found


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _definition(tree: ast.Module, name: str) -> ast.stmt | None:
    """Return the statement of a module that defines a class, a function or another name for a type."""
    for node in tree.body:
        target = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else getattr(node, "name", "")
        if target == name:
            return node
    return None


def _row(name: str, path: Path) -> str:
    """Return the row of a type in the table of others: a class by its docstring, another name by what it stands for."""
    node = _definition(_parsed(path), name)
    module = ".".join(["textcap", *path.relative_to(_SOURCES).with_suffix("").parts]).removesuffix(".__init__")
    if isinstance(node, ast.ClassDef):
        what = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    else:
        assert isinstance(node, ast.Assign)
        what = f"`{unquoted(node.value)}`".replace("|", "\\|")
    return f"| `{name}` | `{module}` | {what} |\n"


def _section(level: str, name: str, signature: str, node: ast.FunctionDef | ast.ClassDef) -> str:
    docstring = ast.get_docstring(node)
    assert docstring, f"{name} has no docstring"
    return f"\n{level} {name}\n\n```python\n{signature}\n```\n\n{render_docstring(docstring)}\n"


def signature_of(node: ast.FunctionDef) -> str:
    """Return the signature of a function as in a stub, with one parameter a line where it is long."""
    decorators = [ast.unparse(one).removeprefix("cached_") for one in node.decorator_list]
    told = "".join(f"@{one}\n" for one in decorators if one in ("property", "classmethod", "staticmethod"))
    returns = f" -> {unquoted(node.returns)}" if node.returns else ""
    parameters = list(_parameters(node.args))
    line = f"def {node.name}({', '.join(parameters)}){returns}: ..."
    if len(line) > WIDTH:
        line = "\n".join([f"def {node.name}(", *(f"    {one}," for one in parameters), f"){returns}: ..."])
    return told + line


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    yield from map(_parameter, positional, defaults)
    if arguments.vararg or arguments.kwonlyargs:
        yield f"*{_parameter(arguments.vararg, None)}" if arguments.vararg else "*"
    yield from map(_parameter, arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg:
        yield f"**{_parameter(arguments.kwarg, None)}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {unquoted(argument.annotation)}" if argument.annotation else ""
    equals = " = " if annotation else "="
    return argument.arg + annotation + (equals + _code(default) if default else "")


def unquoted(annotation: ast.expr) -> str:
    """Return a type as it is written, without the quotes around one that is defined later."""
    is_quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    return str(annotation.value) if is_quoted else ast.unparse(annotation)


def _code(node: ast.expr) -> str:
    return re.sub(r"'([^'\"\\]*)'", r'"\1"', ast.unparse(node))


def class_of(node: ast.ClassDef, source: str) -> str:
    """Return the fields of a dataclass with what is said beside them, or how another class is made.

    What a class is made from is shown if its docstring says what that is.
    """
    decorators = "".join(f"@{ast.unparse(one)}\n" for one in node.decorator_list)
    bases = [ast.unparse(one) for one in node.bases if hasattr(builtins, ast.unparse(one))]
    body = [_field(one, source) for one in node.body if isinstance(one, ast.AnnAssign)] if decorators else []
    if "\nArgs:\n" in (ast.get_docstring(node) or ""):
        body += [signature_of(one) for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    head = f"{decorators}class {node.name}" + (f"({', '.join(bases)})" if bases else "")
    return f"{head}:\n" + textwrap.indent("\n".join(body), "    ") if body else f"{head}: ..."


def _field(node: ast.AnnAssign, source: str) -> str:
    """Return the line of a field, with the comment after it or above it."""
    lines = source.splitlines()
    line = f"{ast.unparse(node.target)}: {unquoted(node.annotation)}"
    if default := _default(node.value):
        line += f" = {default}"
    comment = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :].strip()
    above: list[str] = []
    for text in reversed(lines[: node.lineno - 1]):
        if not text.strip().startswith("#"):
            break
        above.insert(0, text.strip())
    return "\n".join([*above, f"{line}  {comment}".rstrip()])


def _default(value: ast.expr | None) -> str | None:
    """Return the default of a dataclass's field as it is written, without the rest of what `field` takes."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        given = {one.arg: one.value for one in value.keywords}
        if "default_factory" in given:
            return f"{ast.unparse(given['default_factory'])}()"
        value = given.get("default")
    return _code(value) if value else None


def render_docstring(text: str) -> str:
    """Return a docstring in Google's form as Markdown, its sections as lists."""
    parts: list[str] = []
    for paragraph in re.split(r"\n{2,}", inspect.cleandoc(text)):
        first, _, body = paragraph.partition("\n")
        title = first.removesuffix(":")
        if title != first and title in _SECTIONS:
            parts += [f"**{title}**", "\n".join(_items(textwrap.dedent(body), title in _FREE))]
        else:
            parts.append(_filled(paragraph))
    return "\n\n".join(parts)


def _items(body: str, is_free: bool) -> Iterator[str]:
    """Yield the items of a section; an item goes on in the lines that are indented."""
    is_free = is_free or _ITEM.match(body) is None
    for item in [body] if is_free else re.split(r"\n(?=\S)", body):
        named = None if is_free else _ITEM.fullmatch(item)
        names = ", ".join(f"`{name.strip()}`" for name in named[1].split(",")) if named else ""
        yield _filled(f"{names}: {named[2]}" if named else item, bullet="- ")


def _filled(text: str, bullet: str = "") -> str:
    indent = " " * len(bullet)
    fill = textwrap.TextWrapper(120, bullet, indent, break_long_words=False, break_on_hyphens=False)
    return fill.fill(" ".join(text.split()))
