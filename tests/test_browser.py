"""The page in a browser: what it plays, shows and asks for, votes, hostile text and accessibility (make test-browser).

Keys and clicks are those of a user. Each test fails if a page asks for anything but its sounds, or says anything in the
console.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Request, expect
from typer.testing import CliRunner

from sound_pages import (
    BROWSER,
    NO_BROWSER,
    ODD,
    SOUND_S,
    SYSTEMS,
    Row,
    find_browser,
    open_browser,
    write_page,
    write_world,
)
from textcap.cli.app import app

pytestmark = pytest.mark.browser

Visit = Callable[..., Page]
N_MANY = 120
BLIND = ("text-only.csv", "pairs.csv")
BORDERS_S = (0.5, 1.5)  # where the pieces of time lines end
HOSTILE_SYSTEMS = ("\u202eolleh", "<img src=x onerror=alert(1)>")
HOSTILE = (
    "</script><img src=x onerror=\"document.title='x'\">",
    "<!--<script><b>bold</b>&lt;",
    "\u202eolleh\u2066",
    "one\u2028two",
    "__proto__",
)


@dataclass(frozen=True)
class World:
    """Sounds, the rows of their comparison, and the addresses of pages by name."""

    folder: Path
    rows: list[Row]
    pages: dict[str, str]

    def row(self, clip: str) -> Row:
        return next(row for row in self.rows if row.id == clip)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    rows = write_world(folder)
    audio_dir = ("--audio-dir", folder / "sounds")
    scores = [folder / name for name in BLIND]
    pages = {
        "comparison": write_page(folder / "comparison.html", folder / "scores.csv", *audio_dir),
        "blind": write_page(folder / "blind.html", *scores, *audio_dir, "--blind"),
        "other blind": write_page(folder / "other.html", *scores, *audio_dir, "--blind", "--seed", 1),
    }
    spans = list(zip((0, *BORDERS_S), (*BORDERS_S, SOUND_S), strict=True))
    pieces = [{"start_s": start, "end_s": end, "caption": f"until {end}"} for start, end in spans]
    lines = [json.dumps({"path": f"sounds/{row.id}", "pieces": pieces, "silent": False}) for row in rows[:3]]
    (folder / "timeline.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pages["timeline"] = write_page(folder / "timeline.html", folder / "timeline.jsonl")
    many = {f"{number:03d}.ogg": f"caption {number}" for number in range(N_MANY)}
    (folder / "many.json").write_text(json.dumps(many), encoding="utf-8")
    pages["many"] = write_page(folder / "many.html", folder / "many.json")
    return World(folder, rows, pages)


class _Handler(SimpleHTTPRequestHandler):
    """Sends parts of files, too, as web servers do: without them, browsers do not seek."""

    def send_head(self) -> Any:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            return super().send_head()
        content, start = path.read_bytes(), int(wanted[1])
        part = content[start : int(wanted[2]) + 1 if wanted[2] else None]
        self.send_response(206)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[dict[str, str]]:
    """The addresses of the pages from a server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(world.folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        yield {name: f"{base}/{address.rpartition('/')[2]}" for name, address in world.pages.items()}
        server.shutdown()


@pytest.fixture(params=["file", "server"])
def pages(request: pytest.FixtureRequest, world: World) -> dict[str, str]:
    """The addresses of the pages by name, as files and from a server."""
    found: dict[str, str] = world.pages if request.param == "file" else request.getfixturevalue("served")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_browser() is None:
        pytest.exit(NO_BROWSER, returncode=1)
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open an address in a browser without history; options are those of playwright's contexts."""
    faults: list[str] = []
    contexts = []

    def open_page(address: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        own = (address.rpartition("/")[0], "data:")

        def check(request: Request) -> None:
            is_page = request.resource_type == "document" and request.url.split("#")[0].endswith(".html")
            is_sound = request.resource_type == "media" and request.url.startswith(own)
            if not is_page and not is_sound:
                faults.append(f"asked for {request.url} ({request.resource_type})")

        context.on("request", check)
        context.on("console", lambda message: faults.append(message.text))
        context.on("weberror", lambda error: faults.append(str(error.error)))
        page = context.new_page()
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def ids(page: Page) -> list[str]:
    return page.locator("td.clip a").all_inner_texts()


def clip(page: Page, name: str) -> Locator:
    return page.locator("tbody.clips").filter(has=page.get_by_role("link", name=name, exact=True))


def current(page: Page) -> Locator:
    return page.locator("tbody[aria-current] td.clip a")


def time_s(place: Locator) -> float:
    found: float = place.locator("audio").evaluate("audio => audio.currentTime")
    return found


def wait_until_played(place: Locator) -> None:
    """Wait until the sound of a row plays and has been heard."""
    expression = """audio => {
      const heard = audio.played;
      return !audio.paused && heard.length > 0 && heard.end(heard.length - 1) > heard.start(heard.length - 1) + 0.1;
    }"""
    place.page.wait_for_function(expression, arg=place.locator("audio").element_handle(), timeout=10_000)


def start_of_playing_s(place: Locator, act: Callable[[], None]) -> float:
    """Do something that makes a sound play, and return from where."""
    audio = place.locator("audio")
    audio.evaluate(
        """audio => {
          audio.start = null;
          audio.addEventListener("playing", () => { audio.start = audio.currentTime; }, { once: true });
        }"""
    )
    act()
    place.page.wait_for_function("audio => audio.start !== null", arg=audio.element_handle(), timeout=10_000)
    found: float = audio.evaluate("audio => audio.start")
    return found


def is_playing(place: Locator) -> bool:
    return bool(place.locator("audio").evaluate("audio => !audio.paused"))


def header(page: Page, name: str) -> Locator:
    return page.get_by_role("columnheader", name=name, exact=True)


def seek(place: Locator, share: float) -> None:
    """Click in the spectrogram of a row."""
    canvas = place.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": share * box["width"], "y": 20})


def test_without_a_browser_tests_fail_and_say_how_to_install_one(tmp_path: Path) -> None:
    options = "-q -m browser -p no:cacheprovider -k every_vote".split()
    command = [sys.executable, "-m", "pytest", *options, __file__]
    environment = {**os.environ, "PATH": str(tmp_path), BROWSER: ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "apt-get install chromium" in done.stdout
    assert "passed" not in done.stdout and "skipped" not in done.stdout


@pytest.mark.parametrize("name", [ODD, "002.wav"])
def test_sound_plays_and_its_position_moves(visit: Visit, pages: dict[str, str], name: str) -> None:
    asked: list[str] = []
    page = visit(pages["comparison"])
    page.on("request", lambda request: asked.append(request.url))
    place = clip(page, name)
    assert place.locator("audio").get_attribute("preload") == "none"
    assert place.locator("audio").get_attribute("controls") is not None
    page.wait_for_timeout(100)
    assert not asked
    place.locator("td").nth(1).click()
    page.keyboard.press("p")
    wait_until_played(place)
    position = place.locator(".position")
    page.wait_for_function("line => parseFloat(line.style.left) > 0", arg=position.element_handle())
    left = float(position.evaluate("line => parseFloat(line.style.left)"))
    assert left == pytest.approx(100 * time_s(place) / SOUND_S, abs=20)
    expect(position).to_be_visible()
    assert asked
    page.keyboard.press("p")
    assert not is_playing(place)


def test_click_in_the_spectrogram_seeks_and_plays(visit: Visit, pages: dict[str, str]) -> None:
    page = visit(pages["comparison"])
    place = clip(page, "003.wav")
    assert start_of_playing_s(place, lambda: seek(place, 0.6)) == pytest.approx(0.6 * SOUND_S, abs=0.3)
    page.keyboard.press("s")
    assert start_of_playing_s(place, lambda: seek(place, 0.2)) == pytest.approx(0.2 * SOUND_S, abs=0.3)


def test_pieces_of_a_time_line_are_regions_that_play(visit: Visit, pages: dict[str, str]) -> None:
    page = visit(pages["timeline"])
    place = page.locator("tbody.clips").nth(1)
    regions = place.locator(".strip i:not(.position)")
    spans = regions.evaluate_all("all => all.map(({ style }) => [parseFloat(style.left), parseFloat(style.width)])")
    ends = [0.0, *(100 * at / SOUND_S for at in BORDERS_S), 100.0]
    assert [left for left, _ in spans] == pytest.approx(ends[:-1], abs=0.01)
    assert [left + width for left, width in spans] == pytest.approx(ends[1:], abs=0.01)
    texts = place.get_by_role("listitem").all_inner_texts()
    assert texts == ["0:00–0:00\nuntil 0.5", "0:00–0:01\nuntil 1.5", "0:01–0:03\nuntil 3.0"]
    button = place.get_by_role("button", name="Play from 0:01")
    assert start_of_playing_s(place, button.click) == pytest.approx(BORDERS_S[1], abs=0.3)


def test_one_sound_plays_at_a_time(visit: Visit, world: World) -> None:
    page = visit(world.pages["comparison"])
    first, second = clip(page, "002.wav"), clip(page, "003.wav")
    seek(first, 0.1)
    wait_until_played(first)
    seek(second, 0.1)
    wait_until_played(second)
    assert not is_playing(first)
    expect(current(page)).to_have_text("003.wav")


def test_embedded_sounds_play_without_files(visit: Visit, world: World, tmp_path: Path) -> None:
    page = visit(write_page(tmp_path / "page.html", world.folder / SYSTEMS[0], "--embed", "--sample", 2))
    assert str(world.folder) not in page.content()
    place = page.locator("tbody.clips").first
    seek(place, 0.1)
    wait_until_played(place)


def test_sound_that_was_moved_says_so(browser: Browser, world: World, tmp_path: Path) -> None:
    copyfile(world.folder / "comparison.html", tmp_path / "moved.html")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((tmp_path / "moved.html").as_uri())
        place = clip(page, "002.wav")
        expect(place.locator(".problem")).to_be_hidden()
        place.locator("td").nth(1).click()
        page.keyboard.press("p")
        expect(place.locator(".problem")).to_contain_text("the browser cannot play this sound")


def test_comparison_sorts_by_difference_and_by_any_column(visit: Visit, world: World) -> None:
    page = visit(world.pages["comparison"])
    assert ids(page) == [row.id for row in world.rows]
    difference = header(page, "Difference")
    difference.get_by_role("button").click()
    expect(difference).to_have_attribute("aria-sort", "descending")
    most = sorted(world.rows, key=lambda row: -row.difference)
    assert ids(page) == [row.id for row in most]
    shown = [float(text.replace("\u2212", "-")) for text in page.locator("[data-title=Difference]").all_inner_texts()]
    assert shown == pytest.approx([row.difference for row in most], abs=0.00051)
    page.keyboard.press("Enter")  # the button has kept the focus
    expect(difference).to_have_attribute("aria-sort", "ascending")
    assert ids(page) == [row.id for row in sorted(world.rows, key=lambda row: row.difference)]
    header(page, f"SPIDEr of {SYSTEMS[1]}").get_by_role("button").click()
    expect(difference).to_have_attribute("aria-sort", "none")
    assert ids(page) == [row.id for row in sorted(world.rows, key=lambda row: -row.spider[1])]
    page.get_by_label("Score").select_option("CIDEr-D")
    header(page, "Difference").get_by_role("button").click()
    assert ids(page)[0] == max(world.rows, key=lambda row: row.scores[0][0] - row.scores[1][0]).id
    header(page, "Clip").get_by_role("button").click()
    assert ids(page) == sorted(row.id for row in world.rows if row.id != ODD) + [ODD]
    header(page, SYSTEMS[0]).get_by_role("button").click()
    captions = page.locator(f"[data-title='{SYSTEMS[0]}']").all_inner_texts()
    assert captions == sorted(captions, key=str.lower)


def test_filter_narrows_as_you_type_and_keys_rest(visit: Visit, world: World) -> None:
    page = visit(world.pages["comparison"])
    page.keyboard.press("Tab")
    expect(page.get_by_label("Filter")).to_be_focused()
    page.keyboard.type("jk ps")
    assert current(page).count() == 0
    assert not ids(page)
    expect(page.get_by_role("status")).to_have_text(f"No clip matches, {len(world.rows)} in all")
    page.get_by_label("Filter").fill("")
    first = world.rows[3]
    words = first.references[2].upper()
    page.keyboard.type(words)
    assert ids(page) == [row.id for row in world.rows if all(_has(row, one) for one in words.lower().split())]
    assert first.id in ids(page)
    expect(page.get_by_role("status")).to_have_text(re.compile(rf"^{len(ids(page))} clips?, {len(world.rows)} in all$"))


def _has(row: Row, word: str) -> bool:
    return word in "\n".join([row.id, *row.captions, *row.references]).lower()


def test_only_clips_that_differ(visit: Visit, world: World) -> None:
    page = visit(world.pages["comparison"])
    page.get_by_label("Only clips that differ").check()
    different = [row.id for row in world.rows if row.captions[0] != row.captions[1]]
    assert ids(page) == different
    expect(page.get_by_role("status")).to_have_text(f"{len(different)} clips, {len(world.rows)} in all")


def test_details_show_references_and_all_scores_by_keyboard(visit: Visit, world: World) -> None:
    page = visit(world.pages["comparison"])
    row = world.rows[1]
    place = clip(page, row.id)
    expect(place.locator(".references")).to_be_hidden()
    place.locator("summary").focus()
    page.keyboard.press("Enter")
    assert place.locator(".references li").all_inner_texts() == list(row.references)
    scores = place.locator(".scores tr").filter(has_text="SPICE").locator("td").all_inner_texts()
    assert scores == [f"{spice:.3f}" for _, spice in row.scores]


def test_many_rows_come_fifty_at_a_time(visit: Visit, world: World) -> None:
    page = visit(world.pages["many"])
    names = [f"{number:03d}.ogg" for number in range(N_MANY)]
    previous, following = (page.get_by_role("button", name=name) for name in ("Previous 50", "Next 50"))
    status = page.get_by_role("status")
    assert ids(page) == names[:50]
    expect(status).to_have_text("1–50 of 120 clips")
    expect(previous).to_be_disabled()
    following.click()
    following.click()
    assert ids(page) == names[100:]
    expect(following).to_be_disabled()
    previous.click()
    assert ids(page) == names[50:100]
    page.keyboard.press("k")  # no row is chosen yet: the first of these
    expect(current(page)).to_have_text(names[50])
    page.keyboard.press("k")
    assert ids(page) == names[:50]
    expect(current(page)).to_have_text(names[49])


def test_keys_go_to_the_next_row_play_and_stop(visit: Visit, world: World) -> None:
    page = visit(world.pages["comparison"])
    for key, name in (("j", ODD), ("j", "002.wav"), ("j", "003.wav"), ("k", "002.wav")):
        page.keyboard.press(key)
        expect(current(page)).to_have_text(name)
        expect(current(page)).to_be_in_viewport()
    place = clip(page, "002.wav")
    page.keyboard.press("p")
    wait_until_played(place)
    page.keyboard.press("Control+s")
    assert is_playing(place)
    page.keyboard.press("s")
    assert not is_playing(place)
    assert time_s(place) == 0


def test_keys_begin_at_the_top_of_what_is_shown(visit: Visit, world: World) -> None:
    page = visit(world.pages["many"])
    page.keyboard.press("J")  # with the shift key or Caps Lock
    expect(current(page)).to_have_text("000.ogg")
    page.get_by_role("button", name="Next 50").click()
    page.keyboard.press("j")
    expect(current(page)).to_have_text("050.ogg")
    page.evaluate("location.hash = '#110.ogg'")
    expect(current(page)).to_have_text("110.ogg")
    page.get_by_label("Filter").fill("caption 1")
    page.locator("td.number").first.click()
    page.locator("h1").click()
    page.keyboard.press("j")
    expect(current(page)).to_have_text("010.ogg")


def test_another_score_leaves_sounds_and_rows_as_they_are(visit: Visit, world: World) -> None:
    page = visit(world.pages["comparison"])
    place = clip(page, "003.wav")
    place.locator("summary").click()
    seek(place, 0.1)
    wait_until_played(place)
    page.get_by_label("Score").select_option("CIDEr-D")
    assert is_playing(place)
    assert place.locator("details").get_attribute("open") is not None
    shown = place.locator("tr").first.locator("td.number").all_inner_texts()
    scores = [scores[0] for scores in world.row("003.wav").scores]
    assert shown[1:] == [f"{one:.3f}".replace("-", "\u2212") for one in (*scores, scores[0] - scores[1])]
    assert header(page, "CIDEr-D of text-only.jsonl").count() == 1


def test_link_to_a_hidden_row_clears_the_filters_and_nothing_else(visit: Visit, world: World) -> None:
    page = visit(world.pages["comparison"])
    page.get_by_label("Score").select_option("SPICE")
    page.get_by_label("Only clips that differ").check()
    page.get_by_label("Filter").fill("no such words")
    assert ids(page) == []
    page.evaluate("location.hash = '#003.wav'")
    expect(current(page)).to_have_text("003.wav")
    assert len(ids(page)) == len(world.rows)
    expect(page.get_by_label("Filter")).to_have_value("")
    expect(page.get_by_label("Only clips that differ")).not_to_be_checked()
    expect(page.get_by_label("Score")).to_have_value("spice")


def test_names_that_are_not_utf_8_are_rows_with_links(visit: Visit, tmp_path: Path) -> None:
    rows = [{"path": f"{name}.wav", "caption": f"of {name}"} for name in ("\udce9t\udce9", "plain")]
    (tmp_path / "odd.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    page = visit(write_page(tmp_path / "page.html", tmp_path / "odd.jsonl"))
    assert len(ids(page)) == 2
    href = page.locator("td.clip a").first.get_attribute("href") or ""
    page.goto(f"{page.url}{href}")
    expect(current(page)).to_have_attribute("href", href)


def test_link_leads_to_its_row(visit: Visit, world: World, pages: dict[str, str]) -> None:
    page = visit(f"{pages['many']}#075.ogg")
    expect(current(page)).to_have_text("075.ogg")
    expect(current(page)).to_be_in_viewport()
    expect(page.get_by_role("status")).to_have_text("51–100 of 120 clips")
    page.get_by_label("Filter").fill("caption 7")
    page.evaluate("location.hash = '#110.ogg'")  # which the filter leaves out
    expect(current(page)).to_have_text("110.ogg")
    expect(page.get_by_label("Filter")).to_have_value("")
    page.goto(pages["comparison"])
    link = page.get_by_role("link", name=ODD)
    page.goto(f"{pages['comparison']}{link.get_attribute('href')}")
    expect(current(page)).to_have_text(ODD)
    page.goto(f"{pages['comparison']}#%")
    assert len(ids(page)) == len(world.rows)


def cast(page: Page, place: Locator, vote: str, *, with_key: bool) -> None:
    """Vote in a row and see that the button shows it."""
    button = place.get_by_role("button", name=vote.title(), exact=True)
    if with_key:
        place.locator("td").nth(1).click()
        page.keyboard.press(vote[0])
    else:
        button.click()
    expect(button).to_have_attribute("aria-pressed", "true")


def test_blind_vote_is_tallied_to_the_known_answer(
    visit: Visit, world: World, pages: dict[str, str], tmp_path: Path
) -> None:
    page = visit(pages["blind"])
    data = page.locator("#data").text_content() or ""
    captions = {caption for row in world.rows for caption in row.captions}
    assert all(caption in data for row in world.rows[:2] for caption in row.captions)
    secrets = {"text-only", "pairs", "spice", *(one for row in world.rows for one in row.references)} - captions
    assert not [secret for secret in secrets if secret in data]
    names = ids(page)
    wanted = [1, 1, 0, 1, -1]  # for the first system, a tie, for the second
    expected = [wanted[number % len(wanted)] for number in range(len(names))]
    half = len(names) // 2
    for number, (name, vote) in enumerate(zip(names, expected, strict=True)):
        if number == half:
            page.reload()
            expect(page.get_by_role("status")).to_have_text(f"{len(names)} clips, {half} judged")
            pressed = page.locator("[aria-pressed=true]").all_inner_texts()
            assert len(pressed) == half and pressed[2] == "Tie"
            expect(page.get_by_label(f"Note on {names[0]}")).to_have_value("left tie")
        place = clip(page, name)
        texts = place.locator("td.text").all_inner_texts()
        first_is_left = texts[0] == world.row(name).captions[0]
        side = "tie" if vote == 0 else "left" if first_is_left is (vote == 1) else "right"
        cast(page, place, side, with_key=number % 2 == 0)
        if number == 0:  # the keys of votes do not vote while one types
            page.get_by_label(f"Note on {name}").press_sequentially("left tie")
            page.keyboard.press("Tab")
    page.get_by_label("Only clips without a vote").check()
    expect(page.get_by_role("status")).to_have_text(re.compile("^No clip matches"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Export votes").click()
    assert re.fullmatch(r"votes-[0-9a-f]+\.json", download.value.suggested_filename)
    download.value.save_as(tmp_path / "anna.json")
    content = json.loads((tmp_path / "anna.json").read_text(encoding="utf-8"))
    assert content["votes"][names[0]]["note"] == "left tie"
    words = [*(str(world.folder / name) for name in BLIND), str(tmp_path / "anna.json"), "--json"]
    done = CliRunner().invoke(app, ["votes", *words], catch_exceptions=False)
    (tally,) = json.loads(done.stdout)["tallies"]
    assert (tally["first"], tally["second"], tally["ties"]) == tuple(expected.count(vote) for vote in (1, -1, 0))
    assert len(set(expected)) == 3


def test_votes_of_two_pages_do_not_mix_and_can_be_taken_back(visit: Visit, world: World) -> None:
    page = visit(world.pages["blind"])
    place = page.locator("tbody.clips").first
    cast(page, place, "left", with_key=False)
    other = page.context.new_page()
    other.goto(world.pages["other blind"])
    expect(other.get_by_role("status")).to_have_text(re.compile(" 0 judged$"))
    again = page.context.new_page()
    again.goto(world.pages["blind"])
    expect(again.get_by_role("status")).to_have_text(re.compile(" 1 judged$"))
    place.get_by_role("button", name="Left").click()
    expect(place.get_by_role("button", name="Left")).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("status")).to_have_text(re.compile(" 0 judged$"))


def test_votes_in_two_tabs_of_a_page_are_all_kept(visit: Visit, world: World) -> None:
    page = visit(world.pages["blind"])
    other = page.context.new_page()
    other.goto(world.pages["blind"])
    cast(page, page.locator("tbody.clips").nth(0), "left", with_key=False)
    cast(other, other.locator("tbody.clips").nth(1), "tie", with_key=False)
    page.reload()
    expect(page.get_by_role("status")).to_have_text(re.compile(" 2 judged$"))


def test_key_that_is_held_votes_once(visit: Visit, world: World) -> None:
    page = visit(world.pages["blind"])
    page.keyboard.press("j")
    for _ in range(2):
        page.keyboard.down("l")
    page.keyboard.up("l")
    left = page.locator("tbody.clips").first.get_by_role("button", name="Left")
    expect(left).to_have_attribute("aria-pressed", "true")


def write_hostile_scores(world: World, folder: Path) -> None:
    """Write a sound and rows whose names, captions, references and systems would do harm if they were read as HTML."""
    sound = folder / HOSTILE[0]
    sound.parent.mkdir()
    copyfile(world.folder / "sounds" / "002.wav", sound)
    with open(folder / "scores.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "predictions", "caption", "reference_1", "spider"])
        for system in HOSTILE_SYSTEMS:
            for name in HOSTILE:
                table.writerow([name, system, f"{name} by {system}", f"of {name}", 0.5])


def test_hostile_names_and_captions_do_nothing(visit: Visit, world: World, tmp_path: Path) -> None:
    write_hostile_scores(world, tmp_path)
    page = visit(write_page(tmp_path / "page.html", tmp_path / "scores.csv"))
    assert page.locator("img, b, iframe").count() == 0
    assert page.locator("script").count() == 2
    assert [name in page.title() for name in HOSTILE_SYSTEMS] == [True, True]
    assert page.locator("td.clip a").evaluate_all("all => all.map((one) => one.textContent)") == list(HOSTILE)
    texts = page.locator("td.text").evaluate_all("all => all.map((one) => one.textContent)")
    assert texts == [f"{name} by {system}" for name in HOSTILE for system in HOSTILE_SYSTEMS]
    references = page.locator(".references li").evaluate_all("all => all.map((one) => one.textContent)")
    assert references == [f"of {name}" for name in HOSTILE]
    for name in HOSTILE:
        page.evaluate("name => { location.hash = encodeURIComponent(name); }", name)
        page.wait_for_function("name => document.querySelector('[aria-current] a').textContent === name", arg=name)
    place = page.locator("tbody.clips").first
    seek(place, 0.1)
    wait_until_played(place)


def test_marks_of_direction_do_not_turn_what_follows(visit: Visit, world: World, tmp_path: Path) -> None:
    write_hostile_scores(world, tmp_path)
    page = visit(write_page(tmp_path / "page.html", tmp_path / "scores.csv"))
    # The last words of a line stand right of the first ones, whatever is between.
    for place in ("h1", "caption"):
        lefts = page.locator(place).evaluate(
            """place => {
              const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
              const nodes = [];
              while (walker.nextNode()) nodes.push(walker.currentNode);
              const left = (node, at) => {
                const range = document.createRange();
                range.setStart(node, at);
                range.setEnd(node, at + 1);
                return range.getBoundingClientRect().left;
              };
              const last = nodes[nodes.length - 1];
              return [left(nodes[0], 0), left(last, last.length - 1)];
            }"""
        )
        assert lefts[0] < lefts[1]


def test_blind_page_of_hostile_names_keeps_every_vote(visit: Visit, tmp_path: Path) -> None:
    for system in SYSTEMS:
        (tmp_path / system).write_text(json.dumps({name: f"{name} by {system}" for name in HOSTILE}), encoding="utf-8")
    page = visit(write_page(tmp_path / "page.html", tmp_path / SYSTEMS[0], tmp_path / SYSTEMS[1], "--blind"))
    for place in page.locator("tbody.clips").all():
        cast(page, place, "tie", with_key=False)
    page.reload()
    expect(page.get_by_role("status")).to_have_text(f"{len(HOSTILE)} clips, {len(HOSTILE)} judged")


def test_policy_refuses_scripts_that_are_not_the_page_s_own(browser: Browser, world: World) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(world.pages["comparison"])
        title = page.title()
        page.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "document.title = 'x'";
              document.body.append(script);
              const image = document.createElement("img");
              image.setAttribute("onerror", "document.title = 'x'");
              image.src = "x.png";
              document.body.append(image);
            }"""
        )
        page.wait_for_timeout(200)
        assert page.title() == title


@pytest.mark.parametrize("name", ["comparison", "blind", "timeline"])
def test_axe_finds_no_violation(visit: Visit, world: World, name: str) -> None:
    page = visit(world.pages[name])
    page.keyboard.press("j")
    if name == "comparison":
        header(page, "Difference").get_by_role("button").click()
        page.locator("summary").first.click()
    if name == "blind":
        cast(page, page.locator("tbody.clips").first, "left", with_key=False)
    for width in (1400, 400):
        page.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            results = Axe().run(page)
            assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_overlaps_or_leaves_the_page(visit: Visit, world: World, tmp_path: Path, width: int) -> None:
    names = ["folder/" + "no_space" * 30 + ".wav", "short.wav"]
    for system in ("x" * 100 + ".json", "b.json", "c.json"):
        (tmp_path / system).write_text(json.dumps({name: "y" * 300 for name in names}), encoding="utf-8")
    paths = sorted(tmp_path.glob("*.json"))
    for address in (write_page(tmp_path / "page.html", *paths), world.pages["comparison"]):
        page = visit(address, viewport={"width": width, "height": 900})
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        tops_and_bottoms = page.locator("tbody.clips > tr").evaluate_all(
            """rows => rows.map((row) => {
              const text = [...row.cells].slice(row.classList.contains("more") ? 0 : 2);
              const boxes = text.map((cell) => cell.getBoundingClientRect());
              return [Math.min(...boxes.map((box) => box.top)), Math.max(...boxes.map((box) => box.bottom))];
            })"""
        )
        bottoms = [bottom for _, bottom in tops_and_bottoms]
        assert all(top >= bottom - 1 for (top, _), bottom in zip(tops_and_bottoms[1:], bottoms, strict=False))
