"""The site that `make docs` builds: its navigation, and what is checked of it once it is built."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from documents import ROOT

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

sys.path.insert(0, str(ROOT / "tools"))
from check_site import find_faults  # noqa: E402

DOCS = ROOT / "docs"


def read_config() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    return project


def sections_of_index() -> dict[str, list[str]]:
    """The pages that each section of docs/index.md names, each page where it is named first."""
    sections: dict[str, list[str]] = {}
    seen: set[str] = set()
    for part in re.split(r"^## ", (DOCS / "index.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        pages = dict.fromkeys(re.findall(r"\]\(([\w-]+\.md)", text))
        sections[title] = [page for page in pages if page not in seen]
        seen.update(pages)
    return sections


def test_navigation_follows_the_index() -> None:
    home, *sections = read_config()["nav"]
    assert home == "index.md"
    merged: dict[str, list[str]] = {}
    for section in sections:
        merged |= section
    assert list(merged.items()) == list(sections_of_index().items())


def test_index_names_every_page() -> None:
    named = {page for pages in sections_of_index().values() for page in pages}
    assert named | {"index.md"} == {path.name for path in DOCS.glob("*.md")}
    assert "docs/index.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_site_has_no_plugins_and_checks_links() -> None:
    config = read_config()
    assert "plugins" not in config and config["theme"]["font"] is False
    assert config["validation"] == {"invalid_links": True, "invalid_link_anchors": True}
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndocs:")[1].split("\n\n")[0]
    assert "zensical build --clean --strict" in recipe and "tools/check_site.py" in recipe


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ('<a href="other.html">x</a>', None),
        ('<a href="other.html#there">x</a><a href="#here">x</a><p id="here">', None),
        ('<a href="https://example.org/page">x</a>', None),
        ('<img src="data:image/png;base64,AA">', None),
        ('<a href="no.html">x</a>', "no.html leads nowhere"),
        ('<a href="other.html#no">x</a>', "other.html#no leads nowhere"),
        ('<a href="#no">x</a>', "#no leads nowhere"),
        ('<img src="no.png">', "no.png leads nowhere"),
        ('<img src="https://example.org/a.png">', "loads https://example.org/a.png"),
        ('<script src="//example.org/a.js"></script>', "loads //example.org/a.js"),
        ('<link rel="stylesheet" href="https://example.org/a.css">', "loads https://example.org/a.css"),
        ("<style>@import 'https://example.org/b.css';</style>", "loads @import 'https://example.org/b.css"),
    ],
)
def test_broken_links_and_foreign_files_are_found(tmp_path: Path, added: str, fault: str | None) -> None:
    (tmp_path / "other.html").write_text('<p id="there">', encoding="utf-8")
    (tmp_path / "index.html").write_text(added, encoding="utf-8")
    faults = find_faults(tmp_path)
    assert faults == ([] if fault is None else [f"{tmp_path / 'index.html'}: {fault}"])


def test_foreign_files_in_style_sheets_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a { background: url('b.png') }", encoding="utf-8")
    assert find_faults(tmp_path) == []
    (tmp_path / "a.css").write_text("@font-face { src: url(https://example.org/f.woff2) }", encoding="utf-8")
    assert find_faults(tmp_path) == [f"{tmp_path / 'a.css'}: loads url(https://example.org/f.woff2"]
