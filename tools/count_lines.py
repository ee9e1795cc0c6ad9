"""Count lines of code per package, without blank lines, comments and docstrings.

`python tools/count_lines.py [FOLDER]` prints one line for each package and top-level module of a source tree, and the
total.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "textcap"
_IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def count_code_lines(text: str) -> int:
    """Return the number of lines of a Python source that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _IGNORED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - _docstring_lines(text))


def count_packages(source: Path) -> dict[str, int]:
    """Return the number of lines of code of each package and top-level module of a source tree, sorted by name."""
    counts: Counter[str] = Counter()
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        counts[f"{inside.parts[0]}/" if len(inside.parts) > 1 else inside.name] += count_code_lines(
            path.read_text(encoding="utf-8")
        )
    return dict(sorted(counts.items()))


def _docstring_lines(text: str) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        # Any bare string in a body counts as a docstring, such as one below an attribute.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    counts = count_packages(source)
    for name, count in counts.items():
        print(f"{count:6,}  {name}")
    print(f"{sum(counts.values()):6,}  total")


if __name__ == "__main__":
    main()
