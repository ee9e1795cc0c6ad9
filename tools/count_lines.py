"""Count lines of code per package, without blank lines, comments and docstrings.

`python tools/count_lines.py [FOLDER]` prints one line for each package and top-level module of a source tree, one for
all JavaScript and one for all CSS in it, and the total. Markup of HTML pages is not counted.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "textcap"
_IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_STRING = r"""'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*\""""
_COMMENT = r"/\*.*?\*/"
# Strings are matched so that what looks like a comment in them is not one; so are template and regular expression
# literals. A slash begins the latter only where a value is expected.
_TEMPLATE = r"`(?:\\.|[^`\\])*`"
_EXPRESSION = r"(?<=[(,=:\[!&|?{};])[ \t]*/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/"
_TOKENS = {
    "JavaScript": re.compile(rf"{_STRING}|{_TEMPLATE}|{_EXPRESSION}|(?P<comment>//[^\n]*|{_COMMENT})", re.DOTALL),
    "CSS": re.compile(rf"{_STRING}|(?P<comment>{_COMMENT})", re.DOTALL),
}
_SUFFIXES = {".js": "JavaScript", ".css": "CSS"}
_BLOCKS = {"script": "JavaScript", "style": "CSS"}
_BLOCK = re.compile(r"<(script|style)\b([^>]*)>(.*?)</\1\s*>", re.DOTALL | re.IGNORECASE)
_DATA = re.compile(r"\btype\s*=\s*[\"']?(?!module\b|text/javascript\b|text/css\b)", re.IGNORECASE)  # such as JSON


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


def count_web_lines(text: str, language: str) -> int:
    """Return the number of lines of JavaScript or CSS that are neither blank nor only comments."""
    # A comment keeps its line ends, so that what stands before and after it stays on its own line.
    without = _TOKENS[language].sub(
        lambda match: re.sub(r"[^\n]", "", match[0]) if match["comment"] else match[0], text
    )
    return sum(bool(line.strip()) for line in without.splitlines())


def count_web(source: Path) -> dict[str, int]:
    """Return the number of lines of JavaScript and of CSS in a source tree, in files and in blocks of HTML pages."""
    counts = dict.fromkeys(_TOKENS, 0)
    for path in sorted(source.rglob("*")):
        if language := _SUFFIXES.get(path.suffix):
            counts[language] += count_web_lines(path.read_text(encoding="utf-8"), language)
        elif path.suffix == ".html":
            for tag, attributes, text in _BLOCK.findall(path.read_text(encoding="utf-8")):
                if not _DATA.search(attributes):
                    language = _BLOCKS[tag.lower()]
                    counts[language] += count_web_lines(text, language)
    return counts


def _docstring_lines(text: str) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        # Any bare string in a body counts as a docstring, such as one below an attribute.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    counts = {**count_packages(source), **count_web(source)}
    for name, count in counts.items():
        print(f"{count:6,}  {name}")
    print(f"{sum(counts.values()):6,}  total")


if __name__ == "__main__":
    main()
