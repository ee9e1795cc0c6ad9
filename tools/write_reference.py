"""Write the pages of docs that are generated: commands.md from the program, python.md from the docstrings."""

from pathlib import Path

from commands_page import render_commands
from python_page import render_python

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"commands.md": render_commands, "python.md": render_python}


if __name__ == "__main__":
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
        print(f"wrote {DOCS / name}")
