"""Pages of the sound world and the browser that shows them, for tests/test_browser.py and the picture in README."""

import csv
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import Browser, sync_playwright
from typer.testing import CliRunner

from textcap.cli.app import app
from textcap.demo.folder import RATE_HZ, held_out_clips
from textcap.demo.grammar import word_scene
from textcap.demo.render import render_scene

BROWSER = "TEXTCAP_TEST_BROWSER"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_BROWSER = f"no browser: install chromium (apt-get install chromium), or set {BROWSER} to the path of one"
SYSTEMS = ("text-only.jsonl", "pairs.jsonl")
ODD = "a#1 50%.wav"  # a name with what has a meaning in addresses
SOUND_S = 3.0


@dataclass
class Row:
    """A clip of the comparison: captions, and CIDEr-D and SPICE, by system; and its references."""

    id: str
    captions: tuple[str, str]
    scores: tuple[tuple[float, float], tuple[float, float]]
    references: tuple[str, ...]

    @property
    def spider(self) -> tuple[float, ...]:
        """The mean of the two metrics, by system."""
        return tuple(round(sum(scores) / 2, 4) for scores in self.scores)

    @property
    def difference(self) -> float:
        """How much more SPIDEr the first system has."""
        return self.spider[0] - self.spider[1]


def find_browser() -> str | None:
    """Return the path of the browser that is named by the environment or installed."""
    return os.environ.get(BROWSER) or next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run a browser without a window.

    Raises:
        FileNotFoundError: There is none.
    """
    path = find_browser()
    if path is None:
        raise FileNotFoundError(NO_BROWSER)
    # Chromium refuses to run as root in its sandbox, as in containers.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if is_root else [])
        yield browser
        browser.close()


def write_world(folder: Path) -> list[Row]:
    """Write sounds into `sounds/`, what two systems say of them, and their scores as `textcap score` writes them.

    `scores.csv` has both systems, and `text-only.csv` and `pairs.csv` have one each. Of three clips, the first
    system is right in one and the second in another; of the third, they say the same.
    """
    (folder / "sounds").mkdir()
    clips = held_out_clips(10, 5, seed=0)
    rows = []
    for number, clip in enumerate(clips):
        name = f"{number + 1:03d}.wav" if number else ODD
        samples = render_scene(clip.scene, clip.sound_seed, RATE_HZ, SOUND_S)
        soundfile.write(folder / "sounds" / name, samples, RATE_HZ)
        right = word_scene(clip.scene, np.random.default_rng(number))
        wrong = clips[number - 1].captions[0]
        good, bad = (0.9 + number * 7 % 15 / 15, 0.35), (0.1 + number * 4 % 15 / 37, 0.05)
        captions, scores = [
            ((right, wrong), (good, bad)),
            ((wrong, right), (bad, good)),
            ((right, right), (good, good)),
        ][number % 3]
        rows.append(Row(name, captions, scores, clip.captions))
    for system, path in enumerate(SYSTEMS):
        lines = [json.dumps({"path": f"sounds/{row.id}", "caption": row.captions[system]}) for row in rows]
        (folder / path).write_text("\n".join(lines), encoding="utf-8")
        write_scores((folder / path).with_suffix(".csv"), rows, [system])
    write_scores(folder / "scores.csv", rows, [0, 1])
    return rows


def write_scores(path: Path, rows: Sequence[Row], systems: Sequence[int]) -> None:
    """Write the scores of clips by one system or both."""
    references = [f"reference_{number + 1}" for number in range(5)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "predictions", "caption", *references, "cider_d", "spice", "spider"])
        for system in systems:
            for row in rows:
                numbers = [*row.scores[system], row.spider[system]]
                table.writerow([row.id, SYSTEMS[system], row.captions[system], *row.references, *numbers])


def write_page(output: Path, *words: object) -> str:
    """Run `textcap page`, and return the address of what it wrote."""
    done = CliRunner().invoke(app, ["page", *map(str, words), "-o", str(output), "-q"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return output.as_uri()
