"""`textcap page`: what it reads of every form of captions, what it finds and shows of sounds, and what it lets in.

What a page shows in a browser is left to test_browser.py: here its data are read as the browser would.
"""

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from page_files import Page, made_page, read_page, textcap, write_lines
from test_captioner import save_model_folder
from textcap.page.sounds import hear, link_to
from textcap.page.sources import find_clips, read_sources, source_of_rows
from textcap.page.write import write_page
from textcap.scoring.matching import Matched
from textcap.scoring.report import Report, write_scores
from textcap.scoring.results import MetricScore, Scoring

RATE_HZ = 22_050
BANDS = 32
NO_SOUND = "no sound was found"
HINT = " (--audio-dir names a folder to look in)"


def tone(hz: float = 440.0, seconds: float = 0.5, rate_hz: int = RATE_HZ) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def write_sounds(folder: Path, *names: str) -> Path:
    """Write a tone of another pitch under each name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tone(300.0 * (number + 1)), RATE_HZ, format="WAV")
    return folder


def as_csv(*rows: list[Any], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def one_line(text: str) -> str:
    """Return the only line of a text."""
    (line,) = text.splitlines()
    return line


def levels(spectrogram: str) -> np.ndarray:
    """Return the levels `[columns, bands]` of a spectrogram in base 64."""
    packed = np.frombuffer(base64.b64decode(spectrogram), np.uint8)
    return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1, BANDS)


def sound_of(page: Path, clip: dict[str, Any]) -> Path:
    """Return the file that a browser finds under the address of a clip's sound."""
    parts = urlsplit(clip["sound"])
    assert not (parts.scheme or parts.netloc or parts.query or parts.fragment)
    return page.parent / os.fsdecode(unquote_to_bytes(parts.path))


# Sources

CAPTIONS = {"dog.wav": 'a dog, "barking" ', "rüe/rain.wav": "rain & wind < storm"}
_PAIRS = [list(pair) for pair in CAPTIONS.items()]
FORMS = {
    "plain": json.dumps(CAPTIONS),
    "coco": json.dumps([{"image_id": name, "caption": text} for name, text in CAPTIONS.items()]),
    "jsonl": "\n".join(json.dumps({"id": name, "caption": text}) for name, text in CAPTIONS.items()),
    "predicted": as_csv(["file_name", "caption_predicted"], *_PAIRS),
    "semicolons": as_csv(["file_name", "caption"], *_PAIRS, delimiter=";"),
    "id": as_csv(["id", "caption"], *_PAIRS),
    "text": "".join(f"{name}\t{text}\n" for name, text in CAPTIONS.items()),
    "ours": "".join(
        json.dumps({"path": name, "caption": text, "score": -1.5, "duration_s": 0.5, "silent": False}) + "\n"
        for name, text in CAPTIONS.items()
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_piped", [False, True])
def test_every_form_of_captions_gives_the_same_rows(tmp_path: Path, form: str, is_piped: bool) -> None:
    source = "-" if is_piped else write(tmp_path / "captions", FORMS[form])
    page = made_page(source, output=tmp_path / "page.html", stdin=FORMS[form] if is_piped else None)
    assert page.captions == {name: [text] for name, text in CAPTIONS.items()}
    assert list(page.captions) == list(CAPTIONS)
    assert page.facts["systems"] == ["standard input" if is_piped else "captions"]
    assert [clip["problem"] for clip in page.clips] == [NO_SOUND] * 2


def scored(folder: Path, *names: str, sort_by: str | None = None) -> Path:
    """Write the scores of clips of systems as `textcap score` does."""
    clips = ["a.wav", "b.wav", "c.wav"]
    references = [[f"{clip} is heard", f"the sound of {clip}"] for clip in clips]
    predictions = [[f"{clip} by {name}" for clip in clips] for name in names]
    numbers = [np.array([0.25, 1 / 3, 0.5]) + index for index in range(len(names))]
    systems = [{one: MetricScore(one, 0.0, values) for one in ("cider_d", "spider")} for values in numbers]
    matched = Matched(clips, references, predictions, 3, [], [], [])
    path = folder / "scores.csv"
    write_scores(path, Report(list(names), matched, Scoring(systems, 3)), sort_by=sort_by)
    return path


def test_scores_of_several_systems_are_columns_of_one_page(tmp_path: Path) -> None:
    path = scored(tmp_path, "runs/one.jsonl", "runs/two.csv", sort_by="spider")
    page = made_page(path, output=tmp_path / "page.html")
    assert page.facts["systems"] == ["one.jsonl", "two.csv"]
    assert page.facts["numbers"] == [{"name": "cider_d", "title": "CIDEr-D"}, {"name": "spider", "title": "SPIDEr"}]
    assert page.captions == {
        clip: [f"{clip} by runs/one.jsonl", f"{clip} by runs/two.csv"] for clip in ("a.wav", "b.wav", "c.wav")
    }
    row = page.clip("b.wav")
    assert row["references"] == ["b.wav is heard", "the sound of b.wav"]
    assert [take["scores"] for take in row["takes"]] == [
        {"cider_d": 0.333333, "spider": 0.333333},
        {"cider_d": 1.333333, "spider": 1.333333},
    ]


def test_scores_of_one_system_stand_beside_another_file(tmp_path: Path) -> None:
    path = scored(tmp_path, "one")
    assert "predictions" not in path.read_text().splitlines()[0]
    other = write(tmp_path / "other.txt", "elsewhere/b.wav\tmore of b\n")
    page = made_page(path, other, output=tmp_path / "page.html")
    assert page.facts["systems"] == ["scores.csv", "other.txt"]
    assert page.captions == {
        "a.wav": ["a.wav by one", None],
        "b.wav": ["b.wav by one", "more of b"],
        "c.wav": ["c.wav by one", None],
    }
    assert page.clip("b.wav")["takes"][1]["scores"] == {}


def test_infinite_score_is_no_number_of_the_page(tmp_path: Path) -> None:
    path = write(tmp_path / "scores.csv", as_csv(["id", "caption", "spider", "fer"], ["a", "x", "nan", ""]))
    assert made_page(path, output=tmp_path / "page.html").clip("a")["takes"][0]["scores"] == {}


def test_rows_of_caption_tell_errors_silence_and_notes_in_words(tmp_path: Path) -> None:
    pieces = [{"start_s": 0.0, "end_s": 2.5, "caption": "rain"}, {"start_s": 2.5, "end_s": 4, "caption": "wind"}]
    path = write_lines(
        tmp_path / "out.jsonl",
        {"path": "gone.wav", "error": "gone.wav does not exist"},
        {"path": "still.wav", "caption": "", "score": None, "duration_s": 3.0, "silent": True, "notes": ["ends early"]},
        {"path": "long.wav", "duration_s": 4, "silent": False, "pieces": pieces},
        {"path": "heard.wav", "caption": "a dog", "score": -0.75, "similarity": 0.5, "notes": ["one", "two"]},
    )
    page = made_page(path, output=tmp_path / "page.html")
    takes = {clip["id"]: clip["takes"][0] for clip in page.clips}
    assert {name: take["said"] for name, take in takes.items()} == {
        "gone.wav": "failed: gone.wav does not exist",
        "still.wav": "silent; ends early",
        "long.wav": "",
        "heard.wav": "one; two",
    }
    assert takes["long.wav"]["pieces"] == [[0.0, 2.5, "rain"], [2.5, 4.0, "wind"]]
    assert takes["heard.wav"]["scores"] == {"similarity": 0.5, "score": -0.75}
    assert page.facts["numbers"] == [
        {"name": "similarity", "title": "similarity"},
        {"name": "score", "title": "score"},
    ]
    assert [clip["length"] for clip in page.clips] == [None, 3.0, 4.0, None]


def test_each_piece_that_search_has_found_is_a_row_that_starts_there(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", "a.wav", "b.wav")
    hits = [
        {"similarity": 0.9, "path": "a.wav", "start_s": 10.0, "end_s": 12.25, "caption": "a dog"},
        {"similarity": 0.8, "path": "b.wav"},
        {"similarity": 0.7, "path": "a.wav", "start_s": 20.0, "end_s": 30.0, "caption": "a cat"},
    ]
    source = write_lines(tmp_path / "hits.jsonl", *hits)
    page = made_page(source, "--audio-dir", tmp_path / "sounds", output=tmp_path / "page.html")
    assert list(page.captions) == ["a.wav 10.00–12.25 s", "b.wav", "a.wav 20.00–30.00 s"]
    assert [clip["start"] for clip in page.clips] == [10.0, 0.0, 20.0]
    assert [clip["takes"][0]["pieces"] for clip in page.clips] == [[[10, 12.25, "a dog"]], [], [[20, 30, "a cat"]]]
    assert [clip["takes"][0]["scores"] for clip in page.clips] == [{"similarity": one} for one in (0.9, 0.8, 0.7)]
    found = [sound_of(tmp_path / "page.html", clip).resolve().name for clip in page.clips[:2]]
    assert found == ["a.wav", "b.wav"]
    assert page.clips[2]["same"] == 0 and "sound" not in page.clips[2]  # the browser takes it from there


def test_sound_of_several_clips_is_read_and_embedded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sounds(tmp_path, "a.wav", "b.wav")
    hits = [{"similarity": 0.5, "path": f"{name}.wav", "start_s": n, "end_s": n + 1} for n in (0, 2) for name in "ab"]
    heard = []
    monkeypatch.setattr("textcap.page.write.hear", lambda path, most: heard.append(path) or hear(path, most))
    source = write_lines(tmp_path / "hits.jsonl", *hits)
    page = made_page(source, "--embed", output=tmp_path / "page.html")
    assert len(heard) == 2
    assert [clip.get("same") for clip in page.clips] == [None, None, 0, 1]
    assert [clip.get("sound", "")[:10] for clip in page.clips] == ["data:audio", "data:audio", "", ""]


@pytest.mark.parametrize("name", ["conette_audiocaps_test", "timkonr_clapcap_audiocaps_inference"])
def test_published_predictions_stand_beside_their_references(test_data: Path, tmp_path: Path, name: str) -> None:
    items = json.loads((test_data / "oracle" / f"{name}.json").read_text(encoding="utf-8"))["items"]
    path = write(tmp_path / "published.csv", as_csv(["fname", "caption"], []).replace("fname", "file_name"))
    rows = [[one["id"], one["candidate"]] for one in items]
    write(path, as_csv(["file_name", "caption_predicted"], *rows))
    if name.startswith("conette"):  # as AudioCaps names its clips; the references have the ids of the films
        references = test_data / "references" / "audiocaps_test_refs.json"
    else:
        references = write(tmp_path / "refs.json", json.dumps({one["id"]: one["references"] for one in items}))
    page = made_page(path, "--refs", references, output=tmp_path / "page.html")
    assert page.captions == {one["id"]: [one["candidate"]] for one in items}
    known = json.loads(references.read_text(encoding="utf-8"))
    for clip in page.clips:
        assert clip["references"] == known[clip["id"] if clip["id"] in known else clip["id"][:11]]
        assert len(clip["references"]) == 5


# Matching


def test_clips_are_matched_by_the_rules_of_score(tmp_path: Path) -> None:
    first = write_lines(
        tmp_path / "first.jsonl",
        *({"path": path, "caption": "one"} for path in ("here/dog.wav", "Yabcdefghijk_30.wav", "only first.wav")),
    )
    second = write(
        tmp_path / "second.csv",
        as_csv(
            ["file_name", "caption"],
            *[[name, "two"] for name in ("only second.wav", "abcdefghijk_30000_40000.flac", "there\\dog.mp3")],
        ),
    )
    references = write(
        tmp_path / "refs.csv",
        as_csv(
            ["audiocap_id", "youtube_id", "start_time", "caption"],
            [1, "abcdefghijk", 30, "a horse"],
            [2, "abcdefghijk", 30, "hooves"],
            [3, "abcdefghijk", 90, "a cow"],
        ),
    )
    page = made_page(first, second, "--refs", references, output=tmp_path / "page.html")
    assert page.captions == {
        "here/dog.wav": ["one", "two"],
        "Yabcdefghijk_30.wav": ["one", "two"],
        "only first.wav": ["one", None],
        "only second.wav": [None, "two"],
    }
    assert [clip["references"] for clip in page.clips] == [[], ["a horse", "hooves"], [], []]


def test_base_name_of_two_clips_is_that_of_neither(tmp_path: Path) -> None:
    first = write(tmp_path / "first.txt", "a/x.wav\tone\nb/x.wav\tone\n")
    second = write(tmp_path / "second.txt", "x.wav\ttwo\n")
    page = made_page(first, second, output=tmp_path / "page.html")
    assert page.captions == {"a/x.wav": ["one", None], "b/x.wav": ["one", None], "x.wav": [None, "two"]}


def test_systems_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "out.txt" for folder in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("a\tx\n")
    assert made_page(*paths, output=tmp_path / "page.html").facts["systems"] == [str(path) for path in paths]


def test_sample_keeps_the_order_and_depends_on_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "many.txt", "".join(f"{number}\tx\n" for number in range(200)))
    drawn = {}
    for seed in (0, 1):
        page = made_page(path, "--sample", 20, "--seed", seed, output=tmp_path / f"{seed}.html")
        drawn[seed] = list(map(int, page.captions))
        assert len(drawn[seed]) == 20 and drawn[seed] == sorted(drawn[seed])
    assert drawn[0] != drawn[1]
    assert len(made_page(path, "--sample", 201, output=tmp_path / "all.html").clips) == 200


# Sounds


def test_sounds_are_found_where_the_source_says_beside_it_and_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sounds(tmp_path, "results/beside.wav", "work/here.wav", "elsewhere/deep/hidden.wav")
    monkeypatch.chdir(tmp_path / "work")
    rows = [{"path": name, "caption": "x"} for name in ("beside.wav", "here.wav", "hidden.wav", "gone.wav")]
    source = write_lines(tmp_path / "results" / "out.jsonl", *rows)
    output = tmp_path / "pages" / "page.html"
    output.parent.mkdir()
    page = made_page(source, "--audio-dir", tmp_path / "elsewhere", output=output)
    wanted = ["results/beside.wav", "work/here.wav", "elsewhere/deep/hidden.wav"]
    assert [sound_of(output, clip).resolve() for clip in page.clips[:3]] == [tmp_path / name for name in wanted]
    assert page.clips[3]["problem"] == NO_SOUND and "sound" not in page.clips[3]
    done = textcap("page", source, "-o", output, "--force")
    assert done.stderr.splitlines() == [f"warning: 2 of 4 clips: {NO_SOUND}{HINT}"]


def test_sounds_in_a_folder_are_found_by_the_rules_of_score(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", "dog.wav", "Yabcdefghijk_30.wav", "twice/x.wav", "again/x.wav")
    names = ["/data/of/others/dog.mp3", "abcdefghijk_30000_40000", "x.wav"]
    source = write(tmp_path / "out.txt", "".join(f"{name}\tx\n" for name in names))
    page = made_page(source, "--audio-dir", tmp_path / "sounds", output=tmp_path / "page.html")
    found = [sound_of(tmp_path / "page.html", clip).name for clip in page.clips if "sound" in clip]
    assert found == ["dog.wav", "Yabcdefghijk_30.wav"]


def test_systems_that_name_a_clip_by_other_paths_find_its_sound(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", "train/001.wav", "002.wav")
    for system, folder in (("a", "/of/a/"), ("b", "")):
        rows = [{"path": f"{folder}{name}.wav", "caption": system} for name in ("001", "002")]
        write_lines(tmp_path / f"{system}.jsonl", *rows)
    words = tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--audio-dir", tmp_path / "sounds"
    page = made_page(*words, output=tmp_path / "page.html")
    assert [clip.get("sound") for clip in page.clips] == ["./sounds/train/001.wav", "./sounds/002.wav"]


def test_rows_of_a_clip_that_came_before_are_counted(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "out.jsonl", *({"path": "a", "caption": text} for text in ("x", "y", "z")))
    done = textcap("page", source, "-o", tmp_path / "page.html")
    assert f"warning: {source}: left out 2 rows, whose clip came before" in done.stderr.splitlines()
    assert read_page(tmp_path / "page.html").captions == {"a": ["x"]}
    plain = write(tmp_path / "out.txt", "a\tx\na\ty\n")
    done = textcap("page", plain, "-o", tmp_path / "page.html", "--force")
    assert f"warning: {plain}: left out 1 row, whose clip came before" in done.stderr.splitlines()


def test_remote_sounds_are_shown_and_not_loaded(tmp_path: Path, no_network: None) -> None:
    source = write_lines(tmp_path / "out.jsonl", {"path": "https://example.org/a.wav", "caption": "x"})
    done = textcap("page", source, "-o", tmp_path / "page.html")
    assert (done.exit_code, done.stderr) == (0, "warning: 1 of 1 clip: a remote sound, which the page does not load\n")
    (clip,) = read_page(tmp_path / "page.html").clips
    assert clip["problem"] == "a remote sound, which the page does not load" and "sound" not in clip


@pytest.mark.parametrize("ending", ["aiff", "wma", "AMR"])
def test_forms_that_browsers_do_not_play_are_named_with_the_way_out(tmp_path: Path, ending: str) -> None:
    name = f"a.{ending}"  # what a sound is shows in its content, so this one can be read
    write_sounds(tmp_path, name)
    source = write_lines(tmp_path / "out.jsonl", {"path": name, "caption": "x"})
    (clip,) = made_page(source, output=tmp_path / "page.html").clips
    assert clip["problem"] == f"browsers do not play .{ending}: use textcap page --embed" and "sound" not in clip
    assert levels(clip["spectrogram"]).any()
    (clip,) = made_page(source, "--embed", output=tmp_path / "embedded.html").clips
    assert clip["sound"].startswith("data:audio/mpeg;base64,") and "problem" not in clip


def test_unreadable_sound_is_named_and_the_page_is_written(tmp_path: Path) -> None:
    write_sounds(tmp_path, "good.wav")
    (tmp_path / "bad.wav").write_text("no sound")
    rows = [{"path": name, "caption": "x"} for name in ("bad.wav", "good.wav")]
    source, output = write_lines(tmp_path / "out.jsonl", *rows), tmp_path / "page.html"
    done = textcap("page", source, "-o", output, "-q")
    assert (done.exit_code, done.stdout) == (3, f"{output}\n")
    assert re.fullmatch(r"skipped: \S*/bad.wav cannot be read as sound: .+", one_line(done.stderr))
    bad, good = read_page(output).clips
    assert bad["problem"].startswith("cannot be read as sound") and bad["takes"][0]["caption"] == "x"
    assert "sound" in good and "problem" not in good


def embedded(clip: dict[str, Any]) -> tuple[np.ndarray, int]:
    kind, _, data = clip["sound"].partition(",")
    assert kind == "data:audio/mpeg;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(("rate_hz", "n_channels"), [(44_100, 1), (48_000, 2), (8_000, 1)])
def test_embedded_sound_is_mono_mp3_of_the_same_sound(tmp_path: Path, rate_hz: int, n_channels: int) -> None:
    rng = np.random.default_rng(0)
    n = round(1.3 * rate_hz)
    original = np.convolve(rng.normal(0, 0.3, n + 15), np.ones(16) / 16, "valid")[:n] * np.linspace(0.2, 1, n)
    sides = np.stack([original, 0.5 * original], axis=1)[:, :n_channels]
    soundfile.write(tmp_path / "a.wav", sides, rate_hz)
    source = write_lines(tmp_path / "out.jsonl", {"path": "a.wav", "caption": "x"})
    (clip,) = made_page(source, "--embed", output=tmp_path / "page.html").clips
    samples, rate = embedded(clip)
    assert samples.ndim == 1
    assert len(samples) / rate == pytest.approx(1.3, abs=0.1) and clip["length"] == pytest.approx(1.3, abs=0.001)
    wanted = np.interp(np.arange(len(samples)) / rate, np.arange(n) / rate_hz, sides.mean(axis=1), right=0)
    spectrum = np.fft.rfft(samples, 2 * len(samples)) * np.conj(np.fft.rfft(wanted, 2 * len(samples)))
    lagged = np.fft.irfft(spectrum) / np.linalg.norm(samples) / np.linalg.norm(wanted)
    assert lagged.max() > 0.95
    lag = int(lagged.argmax())
    assert min(lag, 2 * len(samples) - lag) / rate < 0.1


def test_what_exceeds_the_limit_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, seconds in (("a.wav", 1.0), ("b.wav", 20.0), ("c.wav", 1.0), ("d.wav", 1.0)):
        soundfile.write(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, round(seconds * 8000)), 8000)
    rows = [{"path": f"{name}.wav", "caption": "x"} for name in "abcd"]
    source, output = write_lines(tmp_path / "out.jsonl", *rows), tmp_path / "page.html"
    whole = made_page(source, "--embed", output=output)
    sizes = {clip["id"]: len(clip["sound"]) for clip in whole.clips}
    most = sizes["a.wav"] + sizes["c.wav"] + sizes["d.wav"] - 10
    with caplog.at_level("WARNING", logger="textcap"):
        write_page(output, ["out"], find_clips(read_sources([str(source)])), folders=[tmp_path], embed_limit=most)
    why = "left out, as the page would exceed --embed-limit"
    assert caplog.messages == [f"2 of 4 clips: {why}"]
    clips = read_page(output).clips
    assert [clip.get("problem") for clip in clips] == [None, why, None, why]
    assert all(clip["spectrogram"] for clip in clips)
    assert sum(len(embedded(clip)[0]) > 0 for clip in clips if "sound" in clip) == 2


# Spectrograms


def spectrogram(folder: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> np.ndarray:
    soundfile.write(folder / "heard.wav", samples, rate_hz, subtype="FLOAT")
    _, packed, mp3 = hear(str(folder / "heard.wav"))
    assert mp3 is None
    return levels(packed)


@pytest.mark.parametrize("loudness", [1.0, 0.01])
def test_pure_tone_lights_its_band(tmp_path: Path, loudness: float) -> None:
    centres = np.geomspace(60, 22_050, BANDS)
    for bands, tolerance in ((range(4, 12), 2), (range(12, 31), 0)):  # a frame does not tell the lowest apart
        sound = loudness * np.concatenate([tone(centres[band], 1.0, 44_100) for band in bands])
        found = spectrogram(tmp_path, sound, 44_100)
        for place, band in enumerate(bands):
            column = found[round((place + 0.5) / len(bands) * len(found))].astype(int)
            assert abs(int(column.argmax()) - band) <= tolerance and column.max() >= 14
            assert column[np.abs(np.arange(BANDS) - band) > (8 if tolerance else 3)].max() <= 3


def test_silence_is_dark_and_what_nobody_hears_is_not_made_bright(tmp_path: Path) -> None:
    assert not spectrogram(tmp_path, np.zeros(RATE_HZ)).any()
    assert not spectrogram(tmp_path, 1e-7 * tone()).any()
    assert spectrogram(tmp_path, 1e-5 * tone()).max() < 10  # below what counts as silence
    assert spectrogram(tmp_path, 1e-3 * tone()).max() == 15


@pytest.mark.parametrize("seconds", [2.0, 30.0, 31.7])
def test_click_is_in_the_column_of_its_time(tmp_path: Path, seconds: float) -> None:
    samples = np.zeros(round(seconds * RATE_HZ))
    start = round(0.75 * len(samples))
    samples[start : start + 44] = 1.0  # 2 ms
    found = spectrogram(tmp_path, samples)
    lit = np.flatnonzero(found.max(axis=1))
    assert 1 <= len(lit) <= 3 and (np.abs(lit + 0.5 - 0.75 * len(found)) <= 2).all()
    assert found[lit].max() == 15


@pytest.mark.parametrize("seconds", [0.011, 0.1, 3.0, 3.05, 200.0])
def test_spectrogram_takes_at_most_three_kilobytes(tmp_path: Path, seconds: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * 8000)).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", noise, 8000)
    length_s, packed, _ = hear(str(tmp_path / "noise.wav"))
    assert length_s == pytest.approx(seconds, abs=0.001)
    assert len(packed) <= 3000 and 1 <= len(levels(packed)) <= 128
    assert levels(packed)[:, 8:24].any()


# Links

NAMES = st.text(st.sampled_from("ab .#%?&+'\"<>:;=@$,()[]{}|^~`!\\é漢\u0301*-_"), min_size=1, max_size=12)
POSIX = pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="file names are bytes only here")


@POSIX
@given(name=NAMES | st.binary(min_size=1, max_size=12), folder=NAMES | st.just("."), below=st.booleans())
def test_link_is_the_path_from_the_page(
    tmp_path_factory: pytest.TempPathFactory, name: str | bytes, folder: str, below: bool
) -> None:
    stem = os.fsencode(name).replace(b"/", b"_").replace(b"\0", b"_")
    root = tmp_path_factory.mktemp("links", numbered=True)
    sound = os.path.join(os.fsencode(root), os.fsencode(folder), stem + b".wav")
    page = root / ("pages" if below else ".") / "page.html"
    link = link_to(os.fsdecode(sound), page)
    assert re.fullmatch(r"[A-Za-z0-9/%._~-]+", link)  # nothing that ends a path or begins a scheme
    assert not urlsplit(link).scheme
    there = os.path.join(os.fsencode(page.parent), unquote_to_bytes(link))
    assert os.path.normpath(there) == os.path.normpath(sound)


@POSIX
@pytest.mark.parametrize("name", [b"a#1 50%.wav", b"\xe9\xff.wav", b"x:y?z.wav", b'"q"\'.wav', "é漢.wav".encode()])
def test_odd_names_are_found_and_linked(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        soundfile.write(file, tone(), RATE_HZ, format="WAV")
    source = write_lines(tmp_path / "out.jsonl", {"path": os.fsdecode(path), "caption": "x"})
    (clip,) = made_page(source, output=tmp_path / "page.html").clips
    assert unquote_to_bytes(clip["sound"]) == b"./" + name


@POSIX
def test_link_begins_where_the_page_really_is(tmp_path: Path) -> None:
    write_sounds(tmp_path, "sounds/a.wav")
    (tmp_path / "deep" / "pages").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(tmp_path / "deep" / "pages")
    source = write_lines(tmp_path / "out.jsonl", {"path": str(tmp_path / "sounds" / "a.wav"), "caption": "x"})
    (clip,) = made_page(source, output=tmp_path / "alias" / "page.html").clips
    assert clip["sound"] == "./../../sounds/a.wav"


@POSIX
def test_link_goes_through_a_folder_beside_the_page_that_is_a_link(tmp_path: Path) -> None:
    write_sounds(tmp_path / "archive", "a.wav")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "sounds").symlink_to(tmp_path / "archive")
    source = write_lines(tmp_path / "out.jsonl", {"path": str(tmp_path / "pages/sounds/a.wav"), "caption": "x"})
    (clip,) = made_page(source, output=tmp_path / "pages" / "page.html").clips
    assert clip["sound"] == "./sounds/a.wav"


# Safety

TEXTS = st.text(
    st.sampled_from("ab<>&\"'/\\\u2028\u2029\u202e\x00\x1b\n\r\t\ufeff😀é{}") | st.characters(exclude_categories=["Cs"])
)
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--",
    "]]>",
    "{data}{policy}",
    "\u2028\u2029",
    "<img src=x onerror=y>",
    "&lt;&#60;",
]


@given(name=TEXTS.filter(str.strip), caption=TEXTS | st.sampled_from(HOSTILE), said=TEXTS | st.sampled_from(HOSTILE))
@settings(max_examples=60)
def test_any_text_comes_back_from_the_block_of_data(
    tmp_path_factory: pytest.TempPathFactory, name: str, caption: str, said: str
) -> None:
    output = tmp_path_factory.mktemp("texts") / "page.html"
    piece = {"start_s": 0.0, "end_s": 1.0, "caption": caption}
    rows = [{"path": name, "caption": caption, "pieces": [piece], "notes": [said]}]
    source = source_of_rows(rows, said)
    clips = find_clips([source])
    clips[0].references = [caption, said]
    write_page(output, [source.name], clips)
    page = read_page(output)
    assert not re.search("[<>&\u2028\u2029]", page.block)
    (clip,) = page.clips
    (take,) = clip["takes"]
    assert (clip["id"], take["caption"], take["said"]) == (name, caption, said)
    assert (clip["references"], take["pieces"][0][2]) == ([caption, said], caption)
    assert page.facts["systems"] == [said]


def test_data_change_nothing_else_of_a_page(tmp_path: Path) -> None:
    plain = made_page(write(tmp_path / "a.txt", "a\tx\n"), output=tmp_path / "plain.html")
    rows = [{"path": f"{number} {text}", "caption": text, "notes": [text]} for number, text in enumerate(HOSTILE)]
    hostile = made_page(write_lines(tmp_path / "b.jsonl", *rows), output=tmp_path / "hostile.html")
    assert [clip["takes"][0]["caption"] for clip in hostile.clips] == HOSTILE
    assert not re.search("[<>&\u2028\u2029]", hostile.block)
    assert hostile.text.replace(hostile.block, "") == plain.text.replace(plain.block, "")


def test_page_loads_nothing_and_runs_only_its_own_script(tmp_path: Path) -> None:
    page = made_page(write(tmp_path / "a.txt", "a\tx\n"), output=tmp_path / "page.html")
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules["default-src"] == "'none'"
    for rule, (text,) in (("script-src", page.scripts), ("style-src", page.styles)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert rules["media-src"] == "'self' file: data:"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert page.addresses == [] and "http" not in page.text.replace("http-equiv", "")


def test_script_never_makes_elements_of_text(tmp_path: Path) -> None:
    (script,) = made_page(write(tmp_path / "a.txt", "a\tx\n"), output=tmp_path / "page.html").scripts
    banned = "innerHTML|outerHTML|insertAdjacentHTML|document.write|eval|Function|DOMParser|setHTML|srcdoc|fetch|import"
    assert re.search(rf"\b({banned})\b", script) is None
    assert script.count('getElementById("data").textContent') == 1


def test_page_is_the_same_when_it_is_made_again(tmp_path: Path) -> None:
    write_sounds(tmp_path, "a.wav", "b.wav", "c.wav")
    source = scored(tmp_path, "one", "two")
    words = ["page", source, "--sample", 2, "--embed"]
    pages = []
    for _ in range(2):
        assert textcap(*words, "-o", tmp_path / "page.html", "--force").exit_code == 0
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1] and b"audio/mpeg" in pages[0]


# What is refused

TOO_MANY = "".join(f"{number}\tx\n" for number in range(20_001))
OURS = '{"path": "a", "caption": "x"}\n'
REFUSED = {
    "too many rows": (TOO_MANY, [], "20,001 rows are too many: a page has at most 20,000 (draw some with .*--sample.*"),
    "no captions": ("", [], "SOURCE is empty .*"),
    "only a header": ("id,caption\n", [], "no clip is left to show"),
    "no known form": ("a dog barks\n", [], "SOURCE, line 1: not a known format of predictions .*"),
    "broken JSON": (OURS + '{"path": "b", "caption": \n', [], "SOURCE, line 2: not valid JSON at column .*"),
    "not a result": (OURS + '{"caption": "y"}\n', [], "SOURCE, line 2: not a result of textcap .*"),
    "not an object": (OURS + '["y"]\n', [], "SOURCE, line 2: not a result of textcap .*"),
    "path that is a number": (OURS + '{"path": 5, "caption": "y"}\n', [], "SOURCE, line 2: not a result .*"),
    "piece without an end": ('{"path": "a", "pieces": [{"start_s": 0}]}\n', [], "SOURCE, line 1: not a result .*"),
    "score that is no number": ("id,caption,spider\na,x,high\n", [], "SOURCE, line 2: not a result .*"),
    "length that is no number": ('{"path": "a", "caption": "x", "duration_s": NaN}', [], "SOURCE, line 1: not a .*"),
    "start that is infinite": (
        '{"path": "a", "caption": "x", "start_s": 1e999, "end_s": 2}', [], "SOURCE, line 1: not a .*",
    ),
    "score without end": ('{"path": "a", "caption": "x", "score": 1' + 400 * "0" + "}", [], "SOURCE, line 1: not a .*"),
    "reference that is no text": ('{"path": "a", "caption": "x", "reference_1": NaN}', [], "SOURCE, line 1: not a .*"),
    "caption that is a list": ('{"path": "a", "caption": ["x"]}', [], "SOURCE, line 1: not a .*"),
    "row of too few cells": ("id,caption,spider\na,x\n", [], "SOURCE, line 2: expected 3 cells, found 2.*"),
    "given twice": (OURS, ["SOURCE"], "SOURCE was given twice"),
    "no such file": (OURS, ["MISSING"], "MISSING does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, more, message = REFUSED[name]
    source, output = write(tmp_path / "source", content), tmp_path / "page.html"
    places = {"SOURCE": str(source), "MISSING": str(tmp_path / "missing")}
    done = textcap("page", source, *(places[one] for one in more), "-o", output)
    assert (done.exit_code, done.stdout) == (1, "")
    wanted = re.escape("textcap: ") + message.replace("(", r"\(").replace(")", r"\)")
    for place, path in places.items():
        wanted = wanted.replace(place, re.escape(path))
    assert re.fullmatch(wanted, one_line(done.stderr)), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_too_many_rows_are_shown_as_a_sample(tmp_path: Path) -> None:
    source = write(tmp_path / "source", TOO_MANY)
    assert len(made_page(source, "--sample", 30, output=tmp_path / "page.html").clips) == 30


def test_what_exists_is_replaced_only_by_force_and_never_if_it_is_an_input(tmp_path: Path) -> None:
    source, output = write(tmp_path / "a.txt", "a\tx\n"), write(tmp_path / "page.html", "mine")
    done = textcap("page", source, "-o", output)
    assert done.exit_code == 1 and f"{output} already exists" in one_line(done.stderr)
    assert output.read_text() == "mine"
    link = tmp_path / "link.html"
    link.symlink_to(source)
    done = textcap("page", source, "-o", link, "--force")
    assert done.exit_code == 1 and f"is the input file {source}" in one_line(done.stderr)
    assert source.read_text() == "a\tx\n"
    assert textcap("page", source, "-o", output, "--force").exit_code == 0
    assert read_page(output).captions == {"a": ["x"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "page.pdf"], "ends in .pdf, but must end in .html or .htm"),
        (["-o", "page.html", "--sample", "0"], "Invalid value for '--sample'"),
        (["-o", "page.html", "--embed-limit", "-1"], "Invalid value for '--embed-limit'"),
        (["-o", "page.html", "--blind", "--refs", __file__], "a blind page has no references: leave out --refs"),
        (["-o", "page.html", "--embed", "--embed-limit", "nan"], "Invalid value for '--embed-limit'"),
        (["-o", "page.html", "--embed-limit", "5"], "--embed-limit needs --embed"),
        (["-o", "-"], "must be a file, .html or .htm"),
        ([], "Missing option '-o'"),
    ],
)
def test_misuse_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = textcap("page", write(tmp_path / "a.txt", "a\tx\n"), *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_references_without_scores_are_told_how_to_get_scores(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "a\tx\n")
    references = write(tmp_path / "refs.json", '{"a": ["y", "z"]}')
    done = textcap("page", source, "--refs", references, "-o", tmp_path / "page.html")
    told = {"for scores, name the file that textcap score writes with -o", f"warning: 1 of 1 clip: {NO_SOUND}{HINT}"}
    assert set(done.stderr.splitlines()) == told
    assert read_page(tmp_path / "page.html").clip("a")["references"] == ["y", "z"]


# In one step with `textcap caption`


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_folder(tmp_path_factory.mktemp("models") / "model", "tiny")


def captioned(model: Path, *words: object, code: int = 0) -> Page:
    """Run `textcap caption -o PAGE`, and return the page; the output is the last word but the options."""
    done = textcap("caption", *words, "-m", model, "--max-length", "8")
    output = Path(done.stdout.strip())
    assert done.exit_code == code, done.stderr
    return read_page(output)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a folder of two sounds, silence, and what is none."""
    folder = tmp_path / "recordings"
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number, name in enumerate(("a#1.wav", "b.flac")):
        soundfile.write(folder / name, tone(300 + 700 * number, 1.0, 16_000) + rng.normal(0, 0.02, 16_000), 16_000)
    soundfile.write(folder / "still.wav", np.zeros(16_000), 16_000)
    (folder / "wrong.wav").write_text("no sound")
    return folder


def test_captions_of_a_folder_are_a_page_in_one_step(model: Path, recordings: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    page = captioned(model, recordings, "-o", output, code=3)
    lines = textcap("caption", recordings, "-m", model, "--max-length", "8", "--json").stdout.splitlines()
    rows = {row["path"]: row for row in map(json.loads, lines)}
    assert page.captions == {path: [row.get("caption", "")] for path, row in rows.items()}
    assert page.facts["systems"] == ["textcap"]
    a, b, still, wrong = page.clips
    assert [sound_of(output, clip).resolve().name for clip in (a, b, still)] == ["a#1.wav", "b.flac", "still.wav"]
    assert not levels(still["spectrogram"]).any() and still["takes"][0]["said"].startswith("silent")
    assert wrong["takes"][0]["said"].startswith("failed: ") and wrong["problem"].startswith("cannot be read as sound")
    assert a["takes"][0]["scores"]["score"] == pytest.approx(rows[a["id"]]["score"], abs=1e-6)


def test_page_of_a_run_that_is_resumed_equals_that_of_a_whole_one(
    model: Path, recordings: Path, tmp_path: Path
) -> None:
    shutil.copytree(recordings, tmp_path / "whole")
    os.remove(tmp_path / "whole" / "wrong.wav")
    output = tmp_path / "page.html"
    captioned(model, recordings, "-o", output, "--batch-size", 2, code=3)
    assert (tmp_path / "page.html.textcap-journal").exists()
    os.remove(recordings / "wrong.wav")
    resumed = captioned(model, recordings, "-o", output, "--batch-size", 2, "--resume")
    assert not (tmp_path / "page.html.textcap-journal").exists()
    (tmp_path / "other").mkdir()
    shutil.rmtree(recordings)
    (tmp_path / "whole").rename(recordings)
    whole = captioned(model, recordings, "-o", tmp_path / "again.html", "--batch-size", 2)
    assert resumed.text == whole.text


def test_time_line_is_a_page_of_pieces(model: Path, recordings: Path, tmp_path: Path) -> None:
    page = captioned(model, recordings / "b.flac", "--timeline", "-o", tmp_path / "page.html")
    (clip,) = page.clips
    (take,) = clip["takes"]
    ((start_s, end_s, text),) = take["pieces"]
    assert (start_s, end_s, take["caption"]) == (0.0, 1.0, "") and text
    assert "spectrogram" in clip and clip["length"] == pytest.approx(1.0)
    done = textcap("caption", recordings / "b.flac", "--format", "html", "-m", model)
    assert done.exit_code in (1, 2) and "html" in done.stderr and "-o" in done.stderr
