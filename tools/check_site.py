"""Check a built site: `python tools/check_site.py FOLDER`.

Every link within the site has to lead to a file, and to an anchor where it names one, and no page or style sheet may
load anything from another host. Links that a reader follows may lead anywhere.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FOLLOWED = {"a", "area"}  # by a reader; what other elements name is loaded at once
_LOADED_BY_STYLES = re.compile(r"(?:@import\s+|url\()[\s\"']*(?:https?:)?//[^\s\"')]+", re.IGNORECASE)


class _Page(HTMLParser):
    """The links, anchors and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []  # the element, and what it names
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append((tag, value))
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def find_faults(site: Path) -> list[str]:
    """Return one line for each link that leads nowhere and for each thing that is loaded from another host."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    faults = [f"{path}: loads {match[0]}" for path in site.rglob("*.css") for match in _foreign_in(path)]
    faults += [f"{path}: loads {match[0]}" for path in pages for match in _foreign_in(path)]
    for path, page in pages.items():
        for tag, link in page.links:
            parts = urlsplit(link)
            if parts.netloc or parts.scheme:
                if tag not in _FOLLOWED and parts.scheme != "data":
                    faults.append(f"{path}: loads {link}")
                continue
            place = site if parts.path.startswith("/") else path.parent  # the page of errors names files from the root
            target = (place / unquote(parts.path).lstrip("/")).resolve() if parts.path else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            anchors = next((one.anchors for other, one in pages.items() if other.resolve() == target), set())
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                faults.append(f"{path}: {link} leads nowhere")
    return faults


def _foreign_in(path: Path) -> list[re.Match[str]]:
    return list(_LOADED_BY_STYLES.finditer(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = find_faults(folder)
    if found:
        sys.exit("\n".join(found))
    n_pages = len(list(folder.rglob("*.html")))
    if not n_pages:
        sys.exit(f"{folder} has no pages")
    print(f"{n_pages} pages in {folder}; every link leads somewhere, and nothing is loaded from another host")
