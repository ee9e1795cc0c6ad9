"""Write the picture of a page in README, with the chromium that is installed: `python tools/write_screenshot.py`."""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from sound_pages import open_browser, write_page, write_world  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "page.png"
MOST_BYTES = 200_000


def main() -> None:
    """Show two systems on the sound world, sorted by their difference, with the references of one clip."""
    with tempfile.TemporaryDirectory() as name, open_browser() as browser:
        folder = Path(name)
        write_world(folder)
        address = write_page(folder / "page.html", folder / "scores.csv", "--audio-dir", folder / "sounds")
        page = browser.new_page(viewport={"width": 1400, "height": 800}, color_scheme="light")
        page.goto(address)
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
