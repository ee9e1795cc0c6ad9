"""Matching predictions with references by clip name, and the messages about what does not match."""

import json
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcap.errors import InputError
from textcap.scoring.formats import ClipCaptions, read_predictions, read_references
from textcap.scoring.matching import Matched, match

AUDIOCAPS = """audiocap_id,youtube_id,start_time,caption
7,abc,30,a dog barks
8,abc,30,a dog
9,-x_,0,rain falls
10,-x_,0,it rains
"""


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
        match(references, systems, allow_missing=False)
    assert "\n" not in str(raised.value)
    assert "--allow-missing" in str(raised.value)
    return str(raised.value)


def audiocaps(folder: Path) -> ClipCaptions:
    path = folder / "test.csv"
    path.write_text(AUDIOCAPS, encoding="utf-8")
    return read_references(path)


def test_exact_names_match_in_the_order_of_the_references() -> None:
    matched = match(refs(" a.wav", "b.wav"), [preds("b.wav", " a.wav"), preds(" a.wav", "b.wav")], allow_missing=False)
    assert matched.ids == [" a.wav", "b.wav"]
    assert matched.references == [[" a.wav is heard", "a sound"], ["b.wav is heard", "a sound"]]
    assert predicted(matched, 0) == predicted(matched, 1) == {" a.wav": " a.wav", "b.wav": "b.wav"}
    assert (matched.n_references, matched.by_base_name, matched.notes, matched.problems) == (2, False, [], [])


@pytest.mark.parametrize("folder", ["clips/", "./", "/data/of mine/", "C:\\clips\\"])
def test_unique_base_names_match_and_are_noted(folder: str) -> None:
    names = ["a.wav", "b.wav", " c.wav"]
    matched = match(refs(*names), [preds(*(folder + name for name in names))], allow_missing=False)
    assert predicted(matched) == {name: folder + name for name in names}
    assert matched.by_base_name
    assert matched.notes == ["preds: 3 of 3 names match only by base name"]
    back = match(refs(*(folder + name for name in names)), [preds(*names)], allow_missing=False)
    assert predicted(back) == {folder + name: name for name in names}


def test_exact_names_take_precedence_over_base_names() -> None:
    matched = match(refs("a/x.wav", "y.wav"), [preds("q/y.wav", "a/x.wav")], allow_missing=False)
    assert predicted(matched) == {"a/x.wav": "a/x.wav", "y.wav": "q/y.wav"}
    assert matched.notes == ["preds: 1 of 2 names match only by base name"]


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
    matched = match(refs(name), [preds(f"clips/{decomposed}")], allow_missing=False)
    assert list(predicted(matched)) == [name]


@pytest.mark.parametrize("near", ["A.WAV", "clips/a.flac", "a", " a.wav"])
def test_near_misses_are_listed_and_not_used(near: str) -> None:
    message = rejection(refs("a.wav", "b.wav"), preds(near, "b.wav"))
    assert f"preds has no prediction for 1 of 2 clips of refs: 'a.wav' (near: '{near}')" in message
    assert f"refs has no reference for 1 of 2 predictions of preds: '{near}' (near: 'a.wav')" in message


def test_many_names_are_counted_and_a_few_listed() -> None:
    message = rejection(refs("clip", *(f"{i:04}-q" for i in range(1500))), preds("clip"))
    assert "no prediction for 1,500 of 1,501 clips of refs: '0000-q', '0001-q', '0002-q' and 1,497 more" in message
    assert len(message) < 300


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
    matched = match(references, [system], allow_missing=True)
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
    matched = match(refs("a", "b", "c"), systems, allow_missing=True)
    assert (matched.ids, matched.predictions) == (["b"], [["heard: b"], ["heard: b"]])
    assert matched.problems[-1] == "scoring 1 of 3 clips of refs"


@pytest.mark.parametrize("allow_missing", [False, True])
def test_files_without_a_common_clip_are_rejected(allow_missing: bool) -> None:
    with pytest.raises(InputError, match=r"no prediction for 1 of 1 clips of refs: 'a\.wav' \(near: 'A\.wav'\)"):
        match(refs("a.wav"), [preds("A.wav")], allow_missing=allow_missing)
    with pytest.raises(InputError, match="no clip is left to score"):
        match(refs("a.wav"), [preds("b.flac")], allow_missing=True)


def test_repeated_clips_are_reported_and_the_first_counts() -> None:
    system = ClipCaptions("preds", "text", {"a": ["first"]}, repeated={"a": 7})
    references = ClipCaptions("refs", "clotho", {"a": ["x"]}, repeated={"a": 9})
    message = rejection(references, system)
    assert "preds contains 1 clip more than once: 'a' again in line 7" in message
    assert "refs contains 1 clip more than once: 'a' again in line 9" in message
    matched = match(references, [system], allow_missing=True)
    assert (matched.references, matched.predictions, len(matched.problems)) == ([["x"]], [["first"]], 2)


def test_empty_predictions_are_reported_and_scored_as_they_are() -> None:
    system = ClipCaptions("preds", "text", {"a": [" \u2028"], "b": ["x"]})
    assert "preds has empty captions in 1 of 2 predictions: 'a'" in rejection(refs("a", "b"), system)
    matched = match(refs("a", "b"), [system], allow_missing=True)
    assert (matched.ids, matched.predictions) == (["a", "b"], [[" \u2028", "x"]])


def test_empty_references_are_reported_and_skipped() -> None:
    references = ClipCaptions("refs", "clotho", {"a": ["x", "", " "], "b": ["", "\n"], "c": [], "d": ["y"]})
    message = rejection(references, preds("a", "b", "c", "d"))
    assert "refs has empty references for 1 of 4 clips: 'a'" in message
    assert "refs has no reference for 2 of 4 clips: 'b', 'c'" in message
    matched = match(references, [preds("a", "b", "c", "d")], allow_missing=True)
    assert (matched.ids, matched.references) == (["a", "d"], [["x"], ["y"]])
    assert matched.problems[-1] == "scoring 2 of 4 clips of refs"


@pytest.mark.parametrize(
    ("names", "ids", "by_base_name"),
    [
        (["abc_30", "-x__0"], ["abc_30", "-x__0"], False),
        (["-x__0.wav", "abc_30.flac"], ["abc_30", "-x__0"], False),
        (["clips/abc_30.wav", "clips/-x__0.wav"], ["abc_30", "-x__0"], True),
        (["abc", "-x_"], ["abc", "-x_"], False),
        (["abc.wav", "-x_.wav"], ["abc", "-x_"], False),
        (["7.wav", "10.wav"], ["7", "10"], False),
    ],
)
def test_audiocaps_clips_match_by_each_kind_of_name(
    tmp_path: Path, names: list[str], ids: list[str], by_base_name: bool
) -> None:
    matched = match(audiocaps(tmp_path), [preds(*names)], allow_missing=False)
    assert (matched.ids, matched.by_base_name) == (ids, by_base_name)
    assert matched.references == [["a dog barks", "a dog"], ["rain falls", "it rains"]]
    assert [name.split("/")[-1].split(".")[0] for name in predicted(matched).values()] == ids


def test_fractions_of_start_times_are_not_extensions(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("youtube_id,start_time,caption\nabc,30.5,a dog\nabc,30.7,a cat\n", encoding="utf-8")
    matched = match(read_references(path), [preds("clips/abc_30.7", "clips/abc_30.5.wav")], allow_missing=False)
    assert predicted(matched) == {"abc_30.5": "clips/abc_30.5.wav", "abc_30.7": "clips/abc_30.7"}


def test_each_system_may_use_another_kind_of_audiocaps_name(tmp_path: Path) -> None:
    systems = [preds("-x_", "abc"), preds("abc_30.wav", "-x__0.wav")]
    matched = match(audiocaps(tmp_path), systems, allow_missing=False)
    assert predicted(matched, 0) == {"abc": "abc", "-x_": "-x_"}
    assert predicted(matched, 1) == {"abc": "abc_30.wav", "-x_": "-x__0.wav"}


def test_predictions_for_each_audiocaps_row_are_repeated_clips(tmp_path: Path) -> None:
    message = rejection(audiocaps(tmp_path), preds("7", "8", "9"))
    assert "preds contains 1 clip more than once: '7' and '8'" in message
    matched = match(audiocaps(tmp_path), [preds("8", "7", "9")], allow_missing=True)
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
    by_name = match(references, [preds("clips/rain.wav", "clips/dog.wav")], allow_missing=False)
    assert (by_name.ids, by_name.references) == (["dog.wav", "rain.wav"], [["a dog"], ["rain"]])
    assert match(references, [preds("1", "2")], allow_missing=False).ids == ["1", "2"]


def test_names_with_control_characters_stay_on_one_line() -> None:
    message = rejection(refs("a\nb\x1b[2J", "x" * 500), preds("\udce9.wav"))
    assert "'a\\x0ab\\x1b[2J'" in message
    assert "x" * 81 not in message
    message.encode()


def test_matching_without_a_system_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        match(refs("a"), [], allow_missing=False)


def test_clotho_names_match_paths_in_a_folder(test_data: Path, tmp_path: Path) -> None:
    references = read_references(test_data / "references" / "clotho_eval_refs.json")
    wanted = json.loads((test_data / "references" / "clotho_eval_refs.json").read_text(encoding="utf-8"))
    path = tmp_path / "captions.txt"
    path.write_text(
        "".join(f"clips/{name}\t{texts[0]}\n" for name, texts in reversed(wanted.items())), encoding="utf-8"
    )
    matched = match(references, [read_predictions(path)], allow_missing=False)
    assert matched.ids == list(wanted)
    assert matched.predictions == [[texts[0] for texts in wanted.values()]]
    assert matched.by_base_name


NAMES = st.lists(st.one_of(st.text("ab/.\\é ", max_size=4), st.text()), unique=True, min_size=1, max_size=8)


@given(left=NAMES, right=NAMES, in_common=NAMES)
def test_each_clip_gets_its_own_prediction_or_none_for_any_names(
    left: list[str], right: list[str], in_common: list[str]
) -> None:
    references, system = refs(*{*left, *in_common}), preds(*{*right, *in_common})
    matched = match(references, [system], allow_missing=True)
    pairs = predicted(matched)
    assert len(set(pairs.values())) == len(pairs) == len(matched.references) == len(matched.predictions[0])
    assert set(in_common) <= set(pairs)  # names that match exactly are always paired
    for clip, name in pairs.items():
        assert name in system.captions and clip in references.captions
        tail = unicodedata.normalize("NFC", clip.replace("\\", "/").split("/")[-1])
        assert clip == name or unicodedata.normalize("NFC", name.replace("\\", "/").split("/")[-1]) == tail
    is_whole = len(pairs) == len(references.captions) == len(system.captions)
    assert is_whole == (not matched.problems)
