"""Write the picture of a page in README, with the Chromium that is installed: `python tools/write_screenshot.py PAGE`.

PAGE is what `textcap page` made of the scores of two systems; docs/listening.md has the commands for the demo's folder.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from sound_pages import open_browser  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "page.png"
MOST_BYTES = 200_000


def main() -> None:
    """Show the page sorted by the difference of the systems, with the references of one clip."""
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 800}, color_scheme="light")
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        page.get_by_role("button", name="Difference").click()
        place = page.locator("tbody.clips").nth(1)
        place.locator("summary").click()
        place.locator("canvas").click(position={"x": 130, "y": 20})
        page.wait_for_timeout(400)
        page.keyboard.press("p")
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=PICTURE)
    if PICTURE.stat().st_size > MOST_BYTES:
        sys.exit(f"{PICTURE} has {PICTURE.stat().st_size:,} bytes, but at most {MOST_BYTES:,} are wanted")


if __name__ == "__main__":
    main()
