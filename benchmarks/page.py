"""A page of many clips: its size, how long it takes to make beside decoding the sounds, memory, and speed in Chromium.

Two systems with nine scores and five references for each clip. Clips share the content of a number of sounds under
names of their own, at 44.1 kHz, so that neither resampling nor the disk hides what the page costs. The time of the page
is that of the whole command, and that of decoding is without the start of its process. The work folder needs 0.4 GB.
"""

import csv
import importlib.util
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Bench, Contender, Timing
from benchmarks.options import option
from benchmarks.processes import DEFAULTS, CannotRunError, Measured, made, run_function, run_process, textcap
from benchmarks.sounds import world_captions, world_sounds
from textcap.audio.decoding import SoundReader, mix

_RATE_HZ = 44_100
_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider_d", "spice", "spider")
_N_REFERENCES = 5
_QUERIES = ("dog barks", "rain falls", "a bell rings twice")

# Times are those of the browser, in ms since it was told to open the page, or since it got the key: until a frame with
# the result has been drawn, which is when a message sent in that frame arrives.
_WATCH = """
const drawn = (then) => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => then(performance.now());
  channel.port2.postMessage(null);
});
let pressed = 0;
window.shown = new Promise((done) => {
  const watcher = new MutationObserver(() => {
    if (!document.querySelector("tbody.clips")) return;
    watcher.disconnect();
    drawn(done);
  });
  watcher.observe(document, { childList: true, subtree: true });
});
window.nextKey = () => { window.answered = new Promise((done) => { window.answer = done; }); };
addEventListener("keydown", (event) => { pressed = event.timeStamp; }, true);
addEventListener("input", () => drawn((now) => window.answer?.(now - pressed)), true);
"""


@dataclass(frozen=True)
class Sizes:
    """How large the page is."""

    rows: int = option(10_000, "clips")
    few_rows: int = option(1_000, "clips of the page whose memory is compared")
    sounds: int = option(500, "sounds of different content")
    seconds: float = option(7.0, "length of each sound")
    visits: int = option(3, "how often the page is opened")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure each, and what was promised of it."""
    sounds, output = linked_sounds(bench.work, sizes), bench.work / f"page-{os.getpid()}.html"
    what = f"page of {sizes.rows:,} clips"
    contenders = [
        Contender("textcap page", lambda: make_page(bench, sounds, sizes.rows, output), sizes.rows, warms_up=False),
        Contender("decoding", lambda: decode_sounds(bench, sounds), sizes.rows, warms_up=False),
    ]
    ours, decoding = bench.compare(what, contenders, differing_lengths).values()
    few = make_page(bench, sounds, sizes.few_rows, bench.work / "few.html")
    (bench.work / "few.html").unlink()
    each_s, each_cpu_s = few.wall_s / sizes.few_rows, few.cpu_s / sizes.few_rows
    timing = Timing(f"page of {sizes.few_rows:,} clips", "textcap page", [each_s], [each_cpu_s], peak_mb=few.peak_mb)
    bench.record(timing)
    bench.bar(f"{what}, size", "the bar", output.stat().st_size / 1e6, 45.0, unit="MB", is_most=True)
    bench.bar(what, "decoding", ours.median_s / decoding.median_s, 2.0, is_most=True)
    cpu = statistics.median(ours.cpu_s) / statistics.median(decoding.cpu_s)
    bench.note(f"{what}, against decoding: {cpu:.3g} times in CPU time, which other work changes less")
    grown_mb = (ours.peak_mb or 0.0) - (few.peak_mb or 0.0)
    bench.bar(f"{what}, memory", f"{sizes.few_rows:,} clips", grown_mb, 100.0, unit="MB more", is_most=True)
    try:
        show(bench, what, output, sizes.visits)
    except CannotRunError as error:
        bench.note(f"not measured in a browser: {error}")
    finally:
        output.unlink()


def make_page(bench: Bench, sounds: Path, n: int, output: Path) -> Measured:
    """Make a page; the output is the length of each sound, as the page has it."""
    scores = made(bench.work / f"page-scores-{n}.csv", lambda path: write_scores(bench.work, path, n))
    command = textcap("page", scores, "--audio-dir", sounds, "-o", output, "--force", "--quiet")
    taken = run_process(command, bench.work, DEFAULTS)
    block = output.read_text(encoding="utf-8").partition('type="application/json">')[2].partition("</script>")[0]
    lengths_s = [clip["length"] for clip in json.loads(block)["clips"]]
    return Measured(lengths_s, taken.wall_s, taken.cpu_s, taken.peak_mb)


def decode_sounds(bench: Bench, sounds: Path) -> Measured:
    """Decode the sounds alone, in a process whose start is not counted; the output is the length of each."""
    printed = run_function("page.decode", bench.work, str(sounds), env=DEFAULTS).output
    wall_s, cpu_s, *lengths_s = map(float, printed.split())
    return Measured(lengths_s, wall_s, cpu_s)


def decode(folder: str) -> None:
    """Decode the sounds of a folder to mono, as a page does; print the seconds it takes, and the sounds' lengths."""
    paths, lengths_s = sorted(Path(folder).iterdir()), []
    wall, cpu = time.perf_counter(), time.process_time()
    for path in paths:
        blocks = SoundReader(path, _RATE_HZ, lambda text: None)
        lengths_s.append(sum(len(mix(block)[0]) for block in blocks) / _RATE_HZ)
    print(time.perf_counter() - wall, time.process_time() - cpu, *lengths_s)


def differing_lengths(ours: list[float], theirs: list[float]) -> str:
    """Return in how many lengths two lists differ."""
    if len(ours) != len(theirs):
        return f"has {len(theirs):,} sounds, not {len(ours):,}"
    n_different = sum(abs(a - b) > 1e-6 for a, b in zip(ours, theirs, strict=True))
    return f"differs in the length of {n_different:,} sounds" if n_different else ""


def linked_sounds(work: Path, sizes: Sizes) -> Path:
    """Return a folder with a sound for each clip: names of the same few files in turn."""
    sounds = sorted(world_sounds(work, sizes.sounds, sizes.seconds, _RATE_HZ).iterdir())

    def link(folder: Path) -> None:
        folder.mkdir()
        for number in range(sizes.rows):
            os.link(sounds[number % len(sounds)], folder / clip_name(number))

    return made(work / f"page-sounds-{sizes.seconds:g}s-{sizes.sounds}-{sizes.rows}", link)


def clip_name(number: int) -> str:
    """Return the name of a clip; they are in order."""
    return f"clip {number:05}.wav"


def write_scores(work: Path, path: Path, n: int) -> None:
    """Write the scores of clips of two systems as `textcap score` does, with made-up numbers."""
    pool = world_captions(work, 2_000).read_text(encoding="utf-8").splitlines()
    rng = np.random.default_rng(0)
    references = [[pool[index] for index in row] for row in rng.integers(len(pool), size=(n, _N_REFERENCES))]
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        numbered = [f"reference_{number}" for number in range(1, _N_REFERENCES + 1)]
        table.writerow(["id", "predictions", "caption", *numbered, *_METRICS])
        for system in ("one.jsonl", "two.jsonl"):
            for number in range(n):
                caption = pool[rng.integers(len(pool))]
                scores = rng.random(len(_METRICS))
                table.writerow([clip_name(number), system, caption, *references[number], *scores])


def show(bench: Bench, what: str, page: Path, n_visits: int) -> None:
    """Measure the page in a browser: until its first rows are drawn, and from a key in its filter to the next frame.

    Raises:
        CannotRunError: Playwright or Chromium is missing.
    """
    if importlib.util.find_spec("playwright") is None:
        raise CannotRunError("needs Playwright: pip install playwright")
    from sound_pages import NO_BROWSER, find_browser, open_browser

    if find_browser() is None:
        raise CannotRunError(NO_BROWSER)
    first_s, keys_s = [], []
    with open_browser() as browser:
        for _ in range(n_visits):
            tab = browser.new_page()
            tab.add_init_script(_WATCH)
            tab.goto(page.as_uri())
            first_s.append(tab.evaluate("() => window.shown") / 1000)
            for query in _QUERIES:
                tab.fill("#filter", "")
                for key in query:
                    tab.evaluate("() => window.nextKey()")
                    tab.press("#filter", "Space" if key == " " else key)
                    keys_s.append(tab.evaluate("() => window.answered") / 1000)
            tab.close()
    bench.record(Timing(f"{what}, in Chromium", "until the first rows", first_s, [0.0]))
    bench.record(Timing(f"{what}, in Chromium", "a key in the filter", keys_s, [0.0]))
    bench.bar(f"{what}, first rows", "the bar", statistics.median(first_s), 2.0, unit="s", is_most=True)
    bench.bar(f"{what}, a key", "the bar", 1000 * statistics.median(keys_s), 100.0, unit="ms", is_most=True)
