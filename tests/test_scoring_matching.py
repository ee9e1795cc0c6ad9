"""Matching predictions with references by clip name, and the messages about what does not match."""

import json
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcap.errors import InputError
from textcap.scoring.matching import Matched, match
from textcap.scoring.readers import ClipCaptions, read_predictions, read_references

AUDIOCAPS = """audiocap_id,youtube_id,start_time,caption
7,abc,30,a dog barks
8,abc,30,a dog
9,-x_,0,rain falls
10,-x_,0,it rains
"""


def match_all(references: ClipCaptions, systems: Sequence[ClipCaptions]) -> Matched:
    return match(references, systems, allow_missing=False, allow_empty=False)


def match_some(references: ClipCaptions, systems: Sequence[ClipCaptions]) -> Matched:
    return match(references, systems, allow_missing=True, allow_empty=False)


def refs(*names: str) -> ClipCaptions:
    return ClipCaptions("refs", "plain", {name: [f"{name} is heard", "a sound"] for name in names})


def preds(*names: str, path: str = "preds") -> ClipCaptions:
    return ClipCaptions(path, "text", {name: [f"heard: {name}"] for name in names})


def predicted(matched: Matched, system: int = 0) -> dict[str, str]:
    """Return the name of the prediction that each clip was matched with."""
    heard = [text.removeprefix("heard: ") for text in matched.predictions[system]]
    return dict(zip(matched.ids, heard, strict=True))


def rejection(references: ClipCaptions, *systems: ClipCaptions) -> str:
    with pytest.raises(InputError) as raised:
        match_all(references, systems)
    assert "\n" not in str(raised.value)
    assert "(fix the files, or use --allow-missing to score the clips that match)" in str(raised.value)
    return str(raised.value)


def audiocaps(folder: Path) -> ClipCaptions:
    path = folder / "test.csv"
    path.write_text(AUDIOCAPS, encoding="utf-8")
    return read_references(path)


def test_exact_names_match_in_the_order_of_the_references() -> None:
    matched = match_all(refs(" a.wav", "b.wav"), [preds("b.wav", " a.wav"), preds(" a.wav", "b.wav")])
    assert matched.ids == [" a.wav", "b.wav"]
    assert matched.references == [[" a.wav is heard", "a sound"], ["b.wav is heard", "a sound"]]
    assert predicted(matched, 0) == predicted(matched, 1) == {" a.wav": " a.wav", "b.wav": "b.wav"}
    assert (matched.n_references, matched.matched_by) == (2, [{"exact name": 2}, {"exact name": 2}])
    assert (matched.notes, matched.problems) == ([], [])


@pytest.mark.parametrize("folder", ["clips/", "./", "/data/of mine/", "C:\\clips\\"])
def test_unique_base_names_match_and_are_noted(folder: str) -> None:
    names = ["a.wav", "b.wav", " c.wav"]
    matched = match_all(refs(*names), [preds(*(folder + name for name in names))])
    assert predicted(matched) == {name: folder + name for name in names}
    assert matched.matched_by == [{"base name": 3}]
    assert matched.notes == [f"preds: matched 3 of 3 names only by base name, such as '{folder}a.wav' for 'a.wav'"]
    back = match_all(refs(*(folder + name for name in names)), [preds(*names)])
    assert predicted(back) == {folder + name: name for name in names}


def test_exact_names_take_precedence_over_base_names() -> None:
    matched = match_all(refs("a/x.wav", "y.wav"), [preds("q/y.wav", "a/x.wav")])
    assert predicted(matched) == {"a/x.wav": "a/x.wav", "y.wav": "q/y.wav"}
    assert matched.notes == ["preds: matched 1 of 2 names only by base name, such as 'q/y.wav' for 'y.wav'"]


@pytest.mark.parametrize(
    ("names", "predictions", "message"),
    [
        (["x.wav"], ["a/x.wav", "b/x.wav"], "'x.wav' (near: 'a/x.wav', 'b/x.wav')"),
        (["a/x.wav", "b/x.wav"], ["x.wav"], "'x.wav' (near: 'a/x.wav', 'b/x.wav')"),
        # One of them matches exactly, but the other could be meant for either clip.
        (
            ["a/x.wav", "x.wav"],
            ["x.wav", "b/x.wav"],
            "no prediction for 1 of 2 clips of refs: 'a/x.wav' (near: 'b/x.wav')",
        ),
    ],
)
def test_base_name_that_is_not_unique_is_not_used(names: list[str], predictions: list[str], message: str) -> None:
    assert message in rejection(refs(*names), preds(*predictions))


def test_folders_without_a_base_name_do_not_match() -> None:
    assert "no prediction for 1 of 2 clips of refs: 'a/'" in rejection(refs("a/", "x"), preds("b/", "x"))


def test_names_in_decomposed_unicode_match() -> None:
    name = "clé à molette.wav"
    decomposed = unicodedata.normalize("NFD", name)
    assert decomposed != name
    matched = match_all(refs(name), [preds(f"clips/{decomposed}")])
    assert list(predicted(matched)) == [name]


@pytest.mark.parametrize("near", ["A.WAV", "clips/a.npy", "a.b", " a.wav", "a.wav "])
def test_near_misses_are_listed_and_not_used(near: str) -> None:
    message = rejection(refs("a.wav", "b.wav"), preds(near, "b.wav"))
    assert f"preds has no prediction for 1 of 2 clips of refs: 'a.wav' (near: '{near}')" in message
    assert f"refs has no reference for 1 of 2 predictions of preds: '{near}' (near: 'a.wav')" in message


def test_many_names_are_counted_and_a_few_listed() -> None:
    message = rejection(refs("clip", *(f"{i:04}-q" for i in range(1500))), preds("clip"))
    assert "no prediction for 1,500 of 1,501 clips of refs: '0000-q', '0001-q', '0002-q' and 1,497 more" in message
    assert len(message) < 300


@pytest.mark.long
def test_near_misses_of_many_long_names_are_found_quickly() -> None:
    names = [f"{i} " + "ab" * 2000 for i in range(20_000)]
    start = time.perf_counter()
    rejection(refs("ok", *names), preds("ok", *(f"{name} ba" for name in names)))
    assert time.perf_counter() - start < 60


def test_missing_and_surplus_clips_are_skipped_if_allowed_and_counted() -> None:
    references, system = refs("a", "b", "c"), preds("c", "a", "zzz")
    message = rejection(references, system)
    assert "preds has no prediction for 1 of 3 clips of refs: 'b'" in message
    assert "refs has no reference for 1 of 3 predictions of preds: 'zzz'" in message
    matched = match_some(references, [system])
    assert predicted(matched) == {"a": "a", "c": "c"}
    assert matched.n_references == 3
    assert matched.problems == [
        "preds has no prediction for 1 of 3 clips of refs: 'b'",
        "refs has no reference for 1 of 3 predictions of preds: 'zzz'",
        "scoring 2 of 3 clips of refs",
    ]


def test_several_systems_are_scored_on_the_clips_that_all_have() -> None:
    systems = [preds("a", "b", path="one"), preds("b", "c", path="two")]
    message = rejection(refs("a", "b", "c"), *systems)
    assert "one has no prediction for 1 of 3 clips of refs: 'c'" in message
    assert "two has no prediction for 1 of 3 clips of refs: 'a'" in message
    matched = match_some(refs("a", "b", "c"), systems)
    assert (matched.ids, matched.predictions) == (["b"], [["heard: b"], ["heard: b"]])
    assert matched.problems[-1] == "scoring 1 of 3 clips of refs"


@pytest.mark.parametrize("allow_missing", [False, True])
def test_files_without_a_common_clip_are_rejected(allow_missing: bool) -> None:
    with pytest.raises(InputError, match=r"no prediction for 1 of 1 clip of refs: 'a\.wav' \(near: 'A\.wav'\)"):
        match(refs("a.wav"), [preds("A.wav")], allow_missing=allow_missing, allow_empty=False)
    with pytest.raises(InputError, match="no clip is left to score"):
        match_some(refs("a.wav"), [preds("b.flac")])


def test_repeated_clips_are_reported_and_the_first_counts() -> None:
    system = ClipCaptions("preds", "text", {"a": ["first"]}, repeated={"a": "item 7"})
    references = ClipCaptions("refs", "clotho", {"a": ["x"]}, repeated={"a": "line 9"})
    message = rejection(references, system)
    assert "preds contains 1 clip more than once: 'a' again in item 7" in message
    assert "refs contains 1 clip more than once: 'a' again in line 9" in message
    matched = match_some(references, [system])
    assert (matched.references, matched.predictions, len(matched.problems)) == ([["x"]], [["first"]], 2)


def test_empty_predictions_are_allowed_by_an_option_of_their_own() -> None:
    system = ClipCaptions("preds", "text", {"a": [" \u2028"], "b": ["x"]})
    with pytest.raises(InputError) as raised:
        match_some(refs("a", "b"), [system])
    assert str(raised.value) == (
        "preds has empty captions in 1 of 2 predictions: 'a' "
        "(fix the files, or use --allow-empty to score empty predictions as they are)"
    )
    matched = match(refs("a", "b"), [system], allow_missing=False, allow_empty=True)
    assert (matched.ids, matched.predictions) == (["a", "b"], [[" \u2028", "x"]])
    assert matched.problems == ["preds has empty captions in 1 of 2 predictions: 'a'"]


def test_message_names_the_options_that_help_with_its_problems() -> None:
    system = ClipCaptions("preds", "text", {"a": [""], "b": ["x"]})
    with pytest.raises(InputError) as raised:
        match_all(refs("a", "b", "c"), [system])
    message = str(raised.value)
    assert "no prediction for 1 of 3 clips of refs: 'c'" in message and "empty captions in 1 of 2" in message
    assert "--allow-missing to score the clips that match and --allow-empty to score" in message
    with pytest.raises(InputError) as raised:  # --allow-empty does not hide clips that are missing
        match(refs("a", "b", "c"), [system], allow_missing=False, allow_empty=True)
    assert "--allow-missing" in str(raised.value) and "empty" not in str(raised.value)


def test_empty_reference_of_a_clip_that_has_others_is_skipped_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "ragged.csv"
    path.write_text("file_name,caption_1,caption_2,caption_3\na,x,, \nb,y,z,\n", encoding="utf-8")
    matched = match_all(read_references(path), [preds("a", "b")])
    assert (matched.ids, matched.references) == (["a", "b"], [["x"], ["y", "z"]])
    assert matched.notes == [f"{path}: skipped 3 empty references of clips that have others"]
    assert matched.problems == []


def test_clips_whose_references_are_all_empty_have_no_reference() -> None:
    references = ClipCaptions("refs", "clotho", {"a": ["x", ""], "b": ["", "\n"], "c": [], "d": ["y"]})
    message = rejection(references, preds("a", "b", "c", "d"))
    assert "refs has no reference for 2 of 4 clips: 'b', 'c'" in message
    matched = match_some(references, [preds("a", "b", "c", "d")])
    assert (matched.ids, matched.references) == (["a", "d"], [["x"], ["y"]])
    assert matched.notes == ["refs: skipped 1 empty reference of clips that have others"]
    assert matched.problems[-1] == "scoring 2 of 4 clips of refs"


STEM = "base name without ending"
VIDEO = "7fmOlUlwoNg"
ROWS = "".join(f"{i},{VIDEO},30,a dog\n" for i in range(5)) + "9,Y-x_4567890,7,rain\n"


@pytest.mark.parametrize(
    ("name", "prediction", "way"),
    [
        ("x.wav", "x", STEM),
        ("x", "x.wav", STEM),
        ("x.wav", "clips/x.flac", STEM),
        ("x.wav", "x.MP4", STEM),
        (" x.wav", " x", STEM),
        ("x.wav", "x.wav.flac", None),
        ("x.wav", "x.npy", None),
        ("x.wav", "x.wav ", None),
        (" x.wav", "x", None),
        ("take 1.5", "take 1", None),
        (VIDEO, f"Y{VIDEO}.wav", "AudioCaps name"),
        (f"Y{VIDEO}.wav", f"{VIDEO}.flac", "AudioCaps name"),
        (f"{VIDEO}_30", f"clips/{VIDEO}_30000_40000.wav", "AudioCaps name"),
        (f"{VIDEO}_30", f"Y{VIDEO}_30000_40000.wav", "AudioCaps name"),
        (f"{VIDEO}_0.wav", f"{VIDEO}_0_10000.wav", "AudioCaps name"),
        (f"Y{VIDEO}_30", f"{VIDEO}_30.wav", "AudioCaps name"),
        (f"{VIDEO}_30", f"{VIDEO}_30_40.wav", "AudioCaps name"),
        (f"{VIDEO}_30", f"{VIDEO}_30000_39000.wav", None),
        (f"{VIDEO}_30", f"{VIDEO}_60000_70000.wav", None),
        (f"{VIDEO}_30", f"{VIDEO}.wav", None),
        (VIDEO, f"{VIDEO}_30000_40000.wav", "YouTube id"),
        ("Ystar.wav", "star.wav", None),
    ],
)
def test_names_that_differ_in_known_ways_match_and_are_noted(name: str, prediction: str, way: str | None) -> None:
    references, system = refs(name, "other.wav"), preds("other.wav", prediction)
    if way is None:
        assert f"no prediction for 1 of 2 clips of refs: '{name}'" in rejection(references, system)
        return
    matched = match_all(references, [system])
    assert predicted(matched) == {name: prediction, "other.wav": "other.wav"}
    assert matched.matched_by == [{"exact name": 1, way: 1}]
    assert matched.notes == [f"preds: matched 1 of 2 names only by {way}, such as '{prediction}' for '{name}'"]


@pytest.mark.parametrize(
    ("names", "predictions", "unmatched"),
    [
        (["x.wav"], ["x.mp3", "x.flac"], "x.wav"),
        (["x.wav", "x.flac"], ["x", "y"], "x.wav"),
        (["x.wav", "y/x.flac"], ["x.wav", "x.mp3"], "y/x.flac"),  # x.mp3 could be meant for either clip
        ([VIDEO], [f"Y{VIDEO}.wav", f"{VIDEO}_30_40.wav", f"{VIDEO}_60_70.wav", "z"], "z"),
        ([f"{VIDEO}_30"], [f"Y{VIDEO}_30.wav", f"{VIDEO}_30_40.wav"], f"{VIDEO}_30"),
    ],
)
def test_names_that_could_be_meant_for_two_clips_are_not_used(
    names: list[str], predictions: list[str], unmatched: str
) -> None:
    assert f"'{unmatched}'" in rejection(refs(*names), preds(*predictions))


def test_different_ways_of_matching_share_one_note() -> None:
    matched = match_all(refs("a.wav", "b.wav", "c.wav"), [preds("b", "dir/a.wav", "c.wav")])
    assert matched.matched_by == [{"exact name": 1, "base name": 1, STEM: 1}]
    note = f"preds: matched 2 of 3 names only by base name or {STEM}, such as 'dir/a.wav' for 'a.wav'"
    assert matched.notes == [note]


@pytest.mark.parametrize(
    ("predictions", "ids", "way"),
    [
        ([f"Y{VIDEO}.wav", "YY-x_4567890.wav"], [VIDEO, "Y-x_4567890"], "AudioCaps name"),
        ([f"{VIDEO}.wav", "Y-x_4567890.wav"], [VIDEO, "Y-x_4567890"], STEM),
        ([f"{VIDEO}_30000_40000.wav", "Y-x_4567890_7000_17000.wav"], [f"{VIDEO}_30", "Y-x_4567890_7"], None),
    ],
)
def test_files_of_audiocaps_match_its_table(
    tmp_path: Path, predictions: list[str], ids: list[str], way: str | None
) -> None:
    path = tmp_path / "test.csv"
    path.write_text(f"audiocap_id,youtube_id,start_time,caption\n{ROWS}", encoding="utf-8")
    matched = match_all(read_references(path), [preds(*predictions)])
    assert matched.matched_by == [{way or "AudioCaps name": 2}]
    assert predicted(matched) == dict(zip(ids, predictions, strict=True))
    other_start = preds(f"{VIDEO}_40000_50000.wav", "Y-x_4567890_7")
    assert f"no prediction for 1 of 2 clips of {path}: '{VIDEO}_30'" in rejection(read_references(path), other_start)


@pytest.mark.parametrize(
    ("names", "ids", "way"),
    [
        (["abc_30", "-x__0"], ["abc_30", "-x__0"], "exact name"),
        (["-x__0.wav", "abc_30.flac"], ["abc_30", "-x__0"], STEM),
        (["clips/abc_30.wav", "clips/-x__0.wav"], ["abc_30", "-x__0"], STEM),
        (["clips/abc", "clips/-x_"], ["abc", "-x_"], "base name"),
        (["abc", "-x_"], ["abc", "-x_"], "exact name"),
        (["abc.wav", "-x_.wav"], ["abc", "-x_"], STEM),
        (["7.wav", "10.wav"], ["7", "10"], STEM),
    ],
)
def test_audiocaps_clips_match_by_each_kind_of_name(tmp_path: Path, names: list[str], ids: list[str], way: str) -> None:
    matched = match_all(audiocaps(tmp_path), [preds(*names)])
    assert (matched.ids, matched.matched_by) == (ids, [{way: 2}])
    assert matched.references == [["a dog barks", "a dog"], ["rain falls", "it rains"]]
    assert [name.split("/")[-1].split(".")[0] for name in predicted(matched).values()] == ids


def test_fractions_of_start_times_are_not_extensions(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("youtube_id,start_time,caption\nabc,30.5,a dog\nabc,30.7,a cat\n", encoding="utf-8")
    matched = match_all(read_references(path), [preds("clips/abc_30.7", "clips/abc_30.5.wav")])
    assert predicted(matched) == {"abc_30.5": "clips/abc_30.5.wav", "abc_30.7": "clips/abc_30.7"}


def test_each_system_may_use_another_kind_of_audiocaps_name(tmp_path: Path) -> None:
    systems = [preds("-x_", "abc"), preds("abc_30.wav", "-x__0.wav")]
    matched = match_all(audiocaps(tmp_path), systems)
    assert predicted(matched, 0) == {"abc": "abc", "-x_": "-x_"}
    assert predicted(matched, 1) == {"abc": "abc_30.wav", "-x_": "-x__0.wav"}


def test_predictions_for_each_audiocaps_row_are_repeated_clips(tmp_path: Path) -> None:
    message = rejection(audiocaps(tmp_path), preds("7", "8", "9"))
    assert "preds contains 1 clip more than once: '7' and '8'" in message
    matched = match_some(audiocaps(tmp_path), [preds("8", "7", "9")])
    assert predicted(matched) == {"8": "8", "9": "9"}


def test_two_files_of_one_audiocaps_clip_do_not_match(tmp_path: Path) -> None:
    message = rejection(audiocaps(tmp_path), preds("abc_30.wav", "abc_30.flac", "-x__0.wav"))
    assert "no prediction for 1 of 2 clips" in message
    assert "'abc_30' (near: 'abc_30.wav', 'abc_30.flac')" in message


def test_file_names_of_coco_images_match(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "dog.wav"}, {"id": 2, "file_name": "rain.wav"}],
        "annotations": [{"image_id": 2, "caption": "rain"}, {"image_id": 1, "caption": "a dog"}],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    references = read_references(path)
    by_name = match_all(references, [preds("clips/rain.wav", "clips/dog.wav")])
    assert (by_name.ids, by_name.references) == (["dog.wav", "rain.wav"], [["a dog"], ["rain"]])
    assert match_all(references, [preds("1", "2")]).ids == ["1", "2"]


def test_names_with_control_characters_stay_on_one_line() -> None:
    message = rejection(refs("a\nb\x1b[2J", "x" * 500), preds("\udce9.wav"))
    assert "'a\\x0ab\\x1b[2J'" in message
    assert "x" * 81 not in message
    message.encode()


def test_matching_without_a_system_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        match_all(refs("a"), [])


def test_clotho_names_match_paths_in_a_folder(test_data: Path, tmp_path: Path) -> None:
    references = read_references(test_data / "references" / "clotho_eval_refs.json")
    wanted = json.loads((test_data / "references" / "clotho_eval_refs.json").read_text(encoding="utf-8"))
    path = tmp_path / "captions.txt"
    path.write_text(
        "".join(f"clips/{name}\t{texts[0]}\n" for name, texts in reversed(wanted.items())), encoding="utf-8"
    )
    matched = match_all(references, [read_predictions(path)])
    assert matched.ids == list(wanted)
    assert matched.predictions == [[texts[0] for texts in wanted.values()]]
    assert matched.matched_by == [{"base name": len(wanted)}]


NAMES = st.lists(
    st.one_of(st.text("ab/.\\é ", max_size=4), st.sampled_from(["a.wav", "b/a.flac", "a.flac", "é.wav"]), st.text()),
    unique=True,
    min_size=1,
    max_size=8,
)


@given(left=NAMES, right=NAMES, in_common=NAMES)
def test_each_clip_gets_its_own_prediction_or_none_for_any_names(
    left: list[str], right: list[str], in_common: list[str]
) -> None:
    references, system = refs(*{*left, *in_common}), preds(*{*right, *in_common})
    matched = match_some(references, [system])
    pairs = predicted(matched)
    assert len(set(pairs.values())) == len(pairs) == len(matched.references) == len(matched.predictions[0])
    assert set(in_common) <= set(pairs)  # names that match exactly are always paired
    for clip, name in pairs.items():
        assert name in system.captions and clip in references.captions
        assert clip == name or stem(clip) == stem(name)
    is_whole = len(pairs) == len(references.captions) == len(system.captions)
    assert is_whole == (not matched.problems)


def stem(name: str) -> str:
    tail = unicodedata.normalize("NFC", name.replace("\\", "/").split("/")[-1])
    return tail.removesuffix(".wav").removesuffix(".flac")


@given(names=NAMES, data=st.data())
def test_order_of_predictions_does_not_matter(names: list[str], data: st.DataObject) -> None:
    left = data.draw(st.lists(st.sampled_from(names), unique=True))
    right = data.draw(st.lists(st.sampled_from([*names, *(f"c/{name}.wav" for name in names)]), unique=True))
    shuffled = data.draw(st.permutations(right))
    first, second = (match_some(refs("common", *left), [preds("common", *order)]) for order in (right, shuffled))
    assert (first.ids, first.references, first.predictions) == (second.ids, second.references, second.predictions)
    assert first.matched_by == second.matched_by
