"""The page docs/python.md: signatures as in a stub, docstrings as Markdown, and where other types are found."""

import ast
import re
import sys
from pathlib import Path

import textcap

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from python_page import class_of, render_docstring, render_python, signature_of  # noqa: E402

CLASS = '''
@dataclass(frozen=True)
class Point(Checked):
    """A point.

    Attributes:
        name: Its name.
    """

    name: str
    # from the left
    x: "Number" = field(default=1, metadata=counts())
    tags: tuple[str, ...] = ()  # in any order
    inner: Inner = field(default_factory=Inner)
    limit = 3
'''


def function(source: str) -> ast.FunctionDef:
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    return node


def class_node(source: str) -> ast.ClassDef:
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    return node


def test_signature_is_that_of_a_stub() -> None:
    source = "def f(a: 'X', /, b=1, *, c: str = 'd', **e: int) -> 'list[X]':\n    return []\n"
    assert signature_of(function(source)) == 'def f(a: X, b=1, *, c: str = "d", **e: int) -> list[X]: ...'
    cached = "@cached_property\n@torch.inference_mode()\ndef g(self) -> str:\n    return ''\n"
    assert signature_of(function(cached)) == "@property\ndef g(self) -> str: ..."


def test_long_signature_has_one_parameter_a_line() -> None:
    names = [f"parameter_{i}" for i in range(10)]
    lines = signature_of(function(f"def f({', '.join(names)}):\n    pass\n")).splitlines()
    assert lines == ["def f(", *(f"    {name}," for name in names), "): ..."]


def test_fields_keep_their_defaults_and_comments() -> None:
    assert class_of(class_node(CLASS), CLASS).splitlines() == [
        "@dataclass(frozen=True)",
        "class Point:",
        "    name: str",
        "    # from the left",
        "    x: Number = 1",
        "    tags: tuple[str, ...] = ()  # in any order",
        "    inner: Inner = Inner()",
    ]


def test_parameters_of_a_class_are_shown_if_they_are_explained() -> None:
    made = "class Broken(ValueError):\n    {}\n\n    def __init__(self, why: str) -> None:\n        self.why = why\n"
    plain, explained = (
        made.format('"""An error."""'),
        made.format('"""An error.\n\n    Args:\n        why: Why.\n    """'),
    )
    assert class_of(class_node(plain), plain) == "class Broken(ValueError): ..."
    shown = class_of(class_node(explained), explained)
    assert shown == "class Broken(ValueError):\n    def __init__(self, why: str) -> None: ..."


def test_sections_of_docstrings_are_lists() -> None:
    text = """Do it.

    More: not a
    section.

    Args:
        a, b: What goes
            in: all of it.
        c: The rest.

    Returns:
        What comes out: a list of
        lines.

    Raises:
        The same as `other`.
    """
    assert render_docstring(text).split("\n\n") == [
        "Do it.",
        "More: not a section.",
        "**Args**",
        "- `a`, `b`: What goes in: all of it.\n- `c`: The rest.",
        "**Returns**",
        "- What comes out: a list of lines.",
        "**Raises**",
        "- The same as `other`.",
    ]


def test_page_has_every_exported_name_and_method_and_says_where_other_types_are() -> None:
    page = render_python()
    headings = re.findall(r"^##+ (.+)$", page, flags=re.MULTILINE)
    assert [heading for heading in headings if "." not in heading] == [*textcap.__all__, "Other types"]
    assert {"Captioner.load", "Captioner.caption", "CaptionResult.score"} <= set(headings)
    assert not [heading for heading in headings if "._" in heading]
    # A union names further types, and two modules define a Report.
    for row in (
        "| `Sound` | `textcap.audio.sources` |",
        "| `InputError` | `textcap.errors` |",
        "| `Report` | `textcap.scoring.report` |",
        "| `Report` | `textcap.training.events` |",
    ):
        assert row in page
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) > 20 and all(what for _, _, what in rows)
