"""Run `textcap page` and `textcap votes`, and read a page as a browser does: its elements, its rules, its data."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from textcap.cli.app import app


@dataclass
class Page:
    """What is in a page.

    Attributes:
        text: The whole file.
        policy: Its Content-Security-Policy.
        scripts, styles: The text of each such element but that of the data.
        block: The data as they stand in the file.
        addresses: Of all attributes that load something.
    """

    text: str
    policy: str = ""
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    block: str = ""
    addresses: list[str] = field(default_factory=list)

    @property
    def clips(self) -> list[dict[str, Any]]:
        """The rows."""
        return json.loads(self.block)["clips"]  # type: ignore[no-any-return]

    @property
    def facts(self) -> dict[str, Any]:
        """What the data say of the page."""
        return json.loads(self.block)["facts"]  # type: ignore[no-any-return]

    @property
    def captions(self) -> dict[str, list[str | None]]:
        """What each system says, by clip."""
        return {clip["id"]: [take and take["caption"] for take in clip["takes"]] for clip in self.clips}

    def clip(self, name: str) -> dict[str, Any]:
        """Return the only row of this name."""
        (found,) = (clip for clip in self.clips if clip["id"] == name)
        return found


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page, self.inside = page, ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.page.policy = values["content"] or ""
        self.page.addresses += [values[name] or "" for name in ("src", "href", "action") if name in values]
        self.inside = "data" if values.get("id") == "data" else tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "data":
            self.page.block += data
        elif self.inside in ("script", "style"):
            {"script": self.page.scripts, "style": self.page.styles}[self.inside].append(data)


def read_page(path: Path) -> Page:
    """Return what is in a page."""
    page = Page(path.read_text(encoding="utf-8"))
    _Reader(page).feed(page.text)
    return page


def textcap(*words: object, stdin: str | None = None) -> Result:
    """Run a command."""
    return CliRunner().invoke(app, list(map(str, words)), input=stdin, catch_exceptions=False)


def made_page(*words: object, output: Path, stdin: str | None = None, code: int = 0) -> Page:
    """Run `textcap page`, which says where the page is on stdout, and return it."""
    done = textcap("page", *words, "-o", output, stdin=stdin)
    assert (done.exit_code, done.stdout) == (code, f"{output}\n"), done.stderr
    return read_page(output)


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
