"""Reading references and predictions: every format is detected from the content, and bad files give clear errors."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcap.errors import InputError
from textcap.outputs.rows import csv_header, csv_lines, json_line, row_of, text_lines
from textcap.results import Candidate, CaptionResult
from textcap.scoring.readers import FORMS, ClipCaptions, read_predictions, read_references

TWO = {" dog.wav": ["a dog barks", "a dog"], "rain.wav": ["rain falls", "it rains"]}
ONE = {" dog.wav": ["a dog barks"], "rain.wav": ["rain falls"]}

CLOTHO = "file_name,caption_1,caption_2\n dog.wav,a dog barks,a dog\nrain.wav,rain falls,it rains\n"
DCASE = (
    "file_name,caption_reference_01,caption_reference_02\n dog.wav,a dog barks,a dog\nrain.wav,rain falls,it rains\n"
)
AUDIOCAPS = """audiocap_id,youtube_id,start_time,caption
7,abc,30,a dog barks
9,-x_,0,rain falls
8,abc,30,a dog
"""
COCO = {
    "images": [{"id": 1}, {"id": 2}],
    "annotations": [
        {"id": 5, "image_id": 1, "caption": "a dog barks"},
        {"id": 6, "image_id": 2, "caption": "rain falls"},
        {"id": 7, "image_id": 1, "caption": "a dog"},
    ],
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def references(path: Path, content: str | bytes, form: str | None = None) -> ClipCaptions:
    return read_references(write(path / "refs", content), form)


def predictions(path: Path, content: str | bytes, form: str | None = None) -> ClipCaptions:
    return read_predictions(write(path / "preds", content), form)


def as_csv(rows: list[list[str]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("indent", [None, 2])
def test_plain_references_are_recognised(tmp_path: Path, indent: int | None) -> None:
    read = references(tmp_path, json.dumps(TWO, indent=indent))
    assert (read.form, read.captions, read.repeated) == ("plain", TWO, {})
    assert read.path == str(tmp_path / "refs")
    single = references(tmp_path, json.dumps({"a": "one caption", "b": ["b"]}))
    assert single.captions == {"a": ["one caption"], "b": ["b"]}


def test_coco_references_keep_images_without_annotation_and_their_file_names(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "dog.wav"}, {"id": 2, "file_name": "rain.wav"}, {"id": 3, "file_name": "rain.wav"}]
    read = references(tmp_path, json.dumps({**COCO, "images": images}))
    assert (read.form, read.captions) == ("coco", {"1": ["a dog barks", "a dog"], "2": ["rain falls"], "3": []})
    assert read.names == {"file_name": {"dog.wav": "1"}}  # "rain.wav" stands for two


def test_json_lines_references_are_lists_or_single_captions(tmp_path: Path) -> None:
    lists = "\n".join(json.dumps({"file_name": name, "captions": texts}) for name, texts in TWO.items())
    assert references(tmp_path, lists).captions == TWO
    singly = [json.dumps({"id": name, "caption": text}) for name, texts in TWO.items() for text in texts]
    read = references(tmp_path, "\n\n".join(singly) + "\r\n")
    assert (read.form, read.captions, read.repeated) == ("jsonl", TWO, {})


@pytest.mark.parametrize(("form", "content"), [("clotho", CLOTHO), ("dcase", DCASE)])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_keep_leading_spaces(tmp_path: Path, form: str, content: str, delimiter: str, end: str) -> None:
    read = references(tmp_path, content.replace(",", delimiter).replace("\n", end))
    assert (read.form, read.captions, read.repeated) == (form, TWO, {})


@pytest.mark.parametrize("column", ["file_name", "file", "audio", "audio_path", "path", "id"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_references_may_have_a_row_for_each_caption(tmp_path: Path, column: str, delimiter: str) -> None:
    rows = [[name, text] for name, texts in TWO.items() for text in texts]
    read = references(tmp_path, as_csv([[column, "caption"], *rows[::2], *rows[1::2]], delimiter))
    assert (read.form, read.captions, read.repeated) == ("captions", TWO, {})


def test_table_of_rows_keeps_the_other_names_of_audiocaps_clips(tmp_path: Path) -> None:
    content = "caption,file_name,youtube_id\na dog,a.wav,abc\nrain,b.wav,def\na hound,a.wav,abc\n"
    read = references(tmp_path, content)
    assert (read.form, read.captions) == ("captions", {"a.wav": ["a dog", "a hound"], "b.wav": ["rain"]})
    assert read.names == {"youtube_id": {"abc": "a.wav", "def": "b.wav"}}


@pytest.mark.parametrize("role", list(FORMS))
@pytest.mark.parametrize("content", ["", "no known format"])
def test_hint_at_an_unknown_file_lists_every_format_with_its_look(tmp_path: Path, role: str, content: str) -> None:
    with pytest.raises(InputError) as raised:
        {"references": references, "predictions": predictions}[role](tmp_path, content)
    for form, look in FORMS[role].items():
        assert f"{look} ({form})" in str(raised.value)


def test_audiocaps_rows_are_grouped_by_clip_under_its_three_names(tmp_path: Path) -> None:
    read = references(tmp_path, AUDIOCAPS)
    assert (read.form, read.captions) == ("audiocaps", {"abc_30": ["a dog barks", "a dog"], "-x__0": ["rain falls"]})
    assert read.names == {
        "youtube_id": {"abc": "abc_30", "-x_": "-x__0"},
        "audiocap_id": {"7": "abc_30", "8": "abc_30", "9": "-x__0"},
    }
    assert references(tmp_path, AUDIOCAPS.replace(",30,", ",30.0,")).captions == read.captions


def test_youtube_id_with_two_start_times_is_not_a_name(tmp_path: Path) -> None:
    read = references(tmp_path, AUDIOCAPS + "10,abc,60,a cat\n11,abc,30,a hound\n")
    assert list(read.captions) == ["abc_30", "-x__0", "abc_60"]
    assert read.names["youtube_id"] == {"-x_": "-x__0"}


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("plain", '{" dog.wav": "a dog barks", "rain.wav": ["rain falls"]}'),
        ("coco", '[{"image_id": " dog.wav", "caption": "a dog barks"},{"image_id":"rain.wav","caption":"rain falls"}]'),
        ("jsonl", '{"path": " dog.wav", "caption": "a dog barks"}\n{"id": "rain.wav", "caption": "rain falls"}'),
        ("dcase", "file_name,caption_predicted\n dog.wav,a dog barks\nrain.wav,rain falls"),
        ("dcase", "caption,file_name\na dog barks, dog.wav\nrain falls,rain.wav\n,\n"),
        ("text", " dog.wav\ta dog barks\n\nrain.wav\train falls\n"),
    ],
)
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_predictions_are_recognised(tmp_path: Path, form: str, content: str, forced: bool, mark: str) -> None:
    read = predictions(tmp_path, mark + content, form if forced else None)
    assert (read.form, read.captions, read.repeated) == (form, ONE, {})


def test_coco_ids_that_are_numbers_become_text(tmp_path: Path) -> None:
    content = '[{"image_id": 12, "id": 1, "caption": "a"}, {"image_id": -3, "id": 2, "caption": "b"}]'
    assert predictions(tmp_path, content).captions == {"12": ["a"], "-3": ["b"]}
    assert references(tmp_path, json.dumps(COCO)).captions["1"] == ["a dog barks", "a dog"]


def test_table_with_predictions_and_references_is_read_as_either(tmp_path: Path) -> None:
    content = "file_name,caption_predicted,caption_reference_01\na.wav,guess,truth\n"
    assert predictions(tmp_path, content).captions == {"a.wav": ["guess"]}
    assert references(tmp_path, content).captions == {"a.wav": ["truth"]}


@pytest.mark.parametrize("form", ["jsonl", "csv", "text"])
@pytest.mark.parametrize("names", [["clips/a b.wav"], ["[1] a.wav", "{é}\u2028.wav", " c,d;e.wav"]])
def test_output_of_textcap_caption_is_read(tmp_path: Path, names: list[str], form: str) -> None:
    results = [CaptionResult(name, (Candidate(f"a dog, “barks” {i}", -0.5),)) for i, name in enumerate(names)]
    rows = [row_of(result) for result in [CaptionResult("gone.wav", error=InputError("gone")), *results]]
    write = {"jsonl": json_line, "csv": lambda row: csv_lines(row, 1), "text": text_lines}[form]
    header = csv_header(False, 1) if form == "csv" else ""
    read = predictions(tmp_path, header + "".join(map(write, rows)))
    assert read.form == {"csv": "dcase"}.get(form, form)
    wanted = names if form == "jsonl" else [name.replace("\u2028", "\\u2028") for name in names]
    assert read.captions == {name: [result.caption] for name, result in zip(wanted, results, strict=True)}


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1c", "\t", '"', ","])
def test_only_line_ends_end_a_line(tmp_path: Path, inside: str) -> None:
    wanted = {"a.wav": [f"a dog{inside}barks"], "b.wav": ["rain"]}
    assert predictions(tmp_path, f"a.wav\ta dog{inside}barks\nb.wav\train\n").captions == wanted
    lines = [json.dumps({"id": name, "caption": texts[0]}, ensure_ascii=False) for name, texts in wanted.items()]
    assert predictions(tmp_path, "\n".join(lines)).captions == wanted


def test_single_record_is_json_lines_even_if_it_spans_several_lines(tmp_path: Path) -> None:
    record = {"path": "a.wav", "caption": "a dog", "score": -0.5}
    for indent in (None, 2):
        read = predictions(tmp_path, json.dumps(record, indent=indent))
        assert (read.form, read.captions) == ("jsonl", {"a.wav": ["a dog"]})
    forced = predictions(tmp_path, '{"path": "a.wav", "caption": "a dog"}', "plain")
    assert forced.captions == {"path": ["a.wav"], "caption": ["a dog"]}


def test_clip_named_annotations_is_a_clip(tmp_path: Path) -> None:
    assert references(tmp_path, '{"annotations": ["a pen scratches"]}').form == "plain"


def test_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a.wav\tthe café\n".encode()), encoding="ascii"))
    read = read_predictions(Path("-"))
    assert (read.path, read.captions) == ("standard input", {"a.wav": ["the café"]})
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        read_predictions(Path("-"))


@pytest.mark.parametrize(
    ("content", "captions", "place"),
    [
        ('{"a": "first",\n "b": "other",\n "a": "second"}', {"a": ["first"], "b": ["other"]}, "item 3"),
        ('{"id": "a", "caption": "first"}\n{"id": "a", "caption": "first"}', {"a": ["first"]}, "line 2"),
        ('[{"image_id": 1, "caption": "x"},\n\n{"image_id": 1, "caption": "y"}]', {"1": ["x"]}, "item 2"),
        (
            'file_name,caption_predicted\na,"first\nline"\n\nb,x\na,second\na,third',
            {"a": ["first\nline"], "b": ["x"]},
            "line 6",
        ),
        ("a\tfirst\n\na\tsecond\n", {"a": ["first"]}, "line 3"),
    ],
)
def test_repeated_prediction_is_reported_with_its_place(
    tmp_path: Path, content: str, captions: dict[str, list[str]], place: str
) -> None:
    read = predictions(tmp_path, content)
    assert read.captions == captions
    assert list(read.repeated.values()) == [place]
    assert set(read.repeated) <= set(captions)


@pytest.mark.parametrize(
    ("content", "captions", "repeated"),
    [
        ('{"a": ["x"], "b": ["y"],\n"a": ["z"]}', {"a": ["x"], "b": ["y"]}, {"a": "item 3"}),
        ('{"id": "a", "captions": ["x"]}\n{"id": "a", "captions": ["x"]}', {"a": ["x"]}, {"a": "line 2"}),
        ("file_name,caption_1\na,x\nb,y\na,z\n", {"a": ["x"], "b": ["y"]}, {"a": "line 4"}),
        # The same caption from two people counts twice, a repeated row does not.
        (
            "audiocap_id,youtube_id,start_time,caption\n1,a,0,x\n2,a,0,x\n1,a,0,x\n",
            {"a_0": ["x", "x"]},
            {"a_0": "line 4"},
        ),
    ],
)
def test_repeated_reference_does_not_count_twice(
    tmp_path: Path, content: str, captions: dict[str, list[str]], repeated: dict[str, str]
) -> None:
    read = references(tmp_path, content)
    assert (read.captions, read.repeated) == (captions, repeated)


def test_empty_captions_are_kept(tmp_path: Path) -> None:
    assert references(tmp_path, "file_name,caption_1,caption_2\na,x,\n").captions == {"a": ["x", ""]}
    assert references(tmp_path, '{"a": [], "b": ["x"]}').captions == {"a": [], "b": ["x"]}
    assert predictions(tmp_path, "a\t\nb\t \n").captions == {"a": [""], "b": [" "]}
    assert predictions(tmp_path, '{"a": [], "b": "x"}').captions == {"b": ["x"]}


BAD = [
    (b"", r"refs is empty"),
    (b"\xef\xbb\xbf \r\n", r"refs is empty"),
    ("a dog".encode("utf-16"), r"refs is UTF-16 text \(save it as UTF-8\)"),
    ('{"a": "x"}'.encode("utf-16-le"), r"refs, line 1: byte 0x00 does not belong in text"),
    (b'{"a": "x",\n"b": "caf\xe9"}', r"refs, line 2: byte 0xe9 is not UTF-8 \(if the file is cp1252"),
    (b'{"a": "x",\n "b" "y"}', r"refs, line 2: not valid JSON at column 6: expecting ':'"),
    (b'{"a": ["x"],\n"b": ["y"', r"refs, line 2: not valid JSON at column 10"),
    (b'{"id": "a", "caption": "x"}\n{"id": "b", "caption": }', r"refs, line 2: not valid JSON at column 24"),
    (
        b'{"id": "a", "caption": "x"}\n{"id": "b", "text": "x"}',
        r"refs, line 2: expected JSON Lines of .*, found an object with 'id', 'text'",
    ),
    (b'{"id": "a", "caption": "x"}\n["b"]', r"refs, line 2: expected JSON Lines of .*, found a list"),
    (
        b'{"id": "a", "caption": "x"}\n{"id": null, "caption": "x"}',
        r"line 2: expected a string .* for \"id\", found null",
    ),
    (
        b'{"id": "a", "caption": "x"}\n{"id": "b", "caption": "x", "captions": ["y"]}\n',
        r"refs, line 2: both 'captions' and 'caption' are given",
    ),
    (b'{"a": ["x"],\n\n "b": [3]}', r"refs, item 2: expected a caption or a list of captions for 'b', found a number"),
    (b'{"a": {"caption": "x"}}', r"refs, item 1: expected a caption .* for 'a', found an object with 'caption'"),
    (
        b'[{"image_id": 1, "caption": "x"},\n{"image_id": true, "caption": "x"}]',
        r"refs, item 2: .*\"image_id\", found true",
    ),
    (b'["a dog barks"]', r"refs, item 1: expected JSON with .*, found a string"),
    (
        b'{"images": [{"id": 1}],\n"annotations": [{"image_id": 2, "caption": "x"}]}',
        r"refs, item 1 of \"annotations\": '2' is not among the \"images\"",
    ),
    (b'{"images": [\n{"id": 1.5}], "annotations": []}', r"refs, item 1 of \"images\": .*for \"id\", found a number"),
    (b'{"images": 5, "annotations": []}', r"refs, line 1: expected a list for \"images\""),
    (
        b'{"images": [7], "annotations": []}',
        r"refs, item 1 of \"images\": expected an object with \"id\", found a number",
    ),
    (b"[" * 100_000, r"refs, line 1: nested too deeply"),
    (b'{"a": ' + b"9" * 5000 + b"}", r"refs.*(cannot be read as JSON: .* digits|found a number)"),
    (b"[]", r"refs contains no captions"),
    (b'{"a": []}', r"refs contains no captions"),
    (b"file_name,caption_1\n", r"refs contains no captions"),
    (
        b"file_name,caption_1\na.wav,a dog, barking\n",
        r"refs, line 2: expected 2 cells, found 3 \(put quotes around cells",
    ),
    (b'file_name,caption_1\na.wav,"x\ny"\nb.wav\n', r"refs, line 4: expected 2 cells, found 1$"),
    (
        b'file_name,caption_1\na.wav,x\nb.wav,"a dog\nc.wav,y\n',
        r"refs, line 3: not a valid table row: .*\(close every quote",
    ),
    (b"file_name,caption_1\n,x\n", r"refs, line 2: expected the name of a clip, found none"),
    (b"audiocap_id,youtube_id,start_time,caption\n1,,0,x\n", r"refs, line 2: expected a youtube_id and a start_time"),
    (b"file_name,caption_1\na," + b"x" * 200_000, r"refs, line 2: not a valid table row: field larger"),
    (
        b"<html><body>404</body></html>",
        r"refs, line 1: not a known format of references \(expected one of: JSON .* \(plain\)",
    ),
    (b"a dog barks\na cat\n", r"refs, line 1: not a known format of references"),
    (
        b"file_name,caption_predicted\na,x\n",
        r"not a known format of references \(give references first, then predictions\)",
    ),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_references_give_one_line_with_place_and_problem(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        references(tmp_path, content)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.wav\tx\n \t \n\nno tab here\n", r"preds, line 4: expected path, tab, caption, found no tab"),
        (b"\tx\n", r"preds, line 1: expected the name of a clip"),
        (
            b'{"a": "x",\n"b": ["y", "z"]}',
            r"preds, item 2: expected one caption for 'b', found 2 \(give references first",
        ),
        (CLOTHO.encode(), r"preds, line 1: not a known format of predictions \(give references first"),
        (b"a dog barks\n", r"preds, line 1: not a known format of predictions .*path, tab, caption"),
        (b"file_name;caption_predicted\na;b;c\n", r"preds, line 2: expected 2 cells, found 3"),
    ],
)
def test_bad_predictions_give_one_line_with_place_and_problem(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        predictions(tmp_path, content)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        (
            "clotho",
            DCASE,
            r"line 1: expected CSV file_name,caption_1,.*, found columns 'file_name', 'caption_reference_01'",
        ),
        ("audiocaps", CLOTHO, r"line 1: expected CSV youtube_id,start_time,caption, found columns 'file_name'"),
        ("plain", "[]", r"line 1: expected JSON {\"clip\": .*, found a list"),
        ("coco", '{"a": "x"}', r"line 1: expected JSON with \"annotations\", .*, found an object with 'a'"),
        ("jsonl", '{"a": "x"}', r"line 1: expected JSON Lines of {\"id\" or \"file_name\""),
        ("plain", CLOTHO, r"line 1: not valid JSON"),
        ("text", CLOTHO, r"unknown format of references 'text' \(use one of plain, coco, jsonl, clotho"),
    ],
)
def test_only_the_requested_format_is_accepted(tmp_path: Path, form: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        references(tmp_path, content, form)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json does not exist"):
        read_references(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="is a folder"):
        read_references(tmp_path)
    with pytest.raises(InputError, match="is not a valid file name"):
        read_references(Path("a\0b"))


@pytest.mark.parametrize("name", ["audiocaps_test", "audiocaps_val", "clotho_eval", "clotho_val"])
def test_references_of_known_datasets_are_read_completely(test_data: Path, tmp_path: Path, name: str) -> None:
    path = test_data / "references" / f"{name}_refs.json"
    wanted = json.loads(path.read_text(encoding="utf-8"))
    assert read_references(path).captions == wanted
    rows = [["file_name", *(f"caption_{i}" for i in range(1, 6))], *([clip, *texts] for clip, texts in wanted.items())]
    assert references(tmp_path, as_csv(rows)).captions == wanted


def written(captions: dict[str, list[str]], role: str, form: str) -> str:
    """Return captions as a file in one of the formats."""
    singly = [(name, text) for name, texts in captions.items() for text in texts]
    width = max(map(len, captions.values()))
    if form == "plain":
        return json.dumps(captions, ensure_ascii=False, indent=1)
    if form == "jsonl":
        return "\n".join(json.dumps({"id": name, "caption": text}, ensure_ascii=False) for name, text in singly)
    if form == "coco":
        annotations = [{"image_id": name, "caption": text} for name, text in singly]
        images = [{"id": name} for name in captions]
        document = {"images": images, "annotations": annotations} if role == "references" else annotations
        return json.dumps(document, ensure_ascii=False)
    if form == "text":
        return "\n".join(f"{name}\t{text}" for name, text in singly)
    if form == "captions":
        return as_csv([["file_name", "caption"], *map(list, singly)])
    if form == "audiocaps":
        rows = [[*name.rsplit("_", 1), text] for name, text in singly]
        return as_csv([["youtube_id", "start_time", "caption"], *rows])
    columns = {"clotho": "caption_{}", "dcase": "caption_reference_{:02}"}[form] if role == "references" else "caption"
    header = ["file_name", *(columns.format(i + 1) for i in range(width))]
    return as_csv([header, *([name, *texts, *[""] * (width - len(texts))] for name, texts in captions.items())])


JSON_KEYS = {"image_id", "file_name", "file", "audio", "audio_path", "path", "id", "annotations", "captions", "caption"}


@pytest.mark.parametrize(("role", "form"), [(role, form) for role in FORMS for form in FORMS[role]])
@given(data=st.data())
def test_captions_in_any_unicode_are_read_unchanged_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, role: str, form: str, data: st.DataObject
) -> None:
    left_out = {"text": "\0\t\r\n", "plain": "", "coco": "", "jsonl": ""}.get(form, "\0")  # csv has no NUL
    texts = st.text(st.characters(exclude_characters=left_out, exclude_categories=["Cs"]))
    names = texts.filter(str.strip)
    if form == "audiocaps":
        names = st.builds("{}_{}".format, names, st.integers(0, 9999))
    lists = st.lists(texts, min_size=1, max_size=4 if role == "references" else 1)
    captions = data.draw(st.dictionaries(names, lists, min_size=1))
    read = {"references": references, "predictions": predictions}[role]
    folder, content = tmp_path_factory.mktemp("any"), written(captions, role, form)
    if form == "text" and content.startswith("\ufeff"):
        content = "\ufeff" + content  # the first is a byte order mark
    found = read(folder, content, form)
    without_padding = {
        name: texts[: len(captions[name])] if form in ("clotho", "dcase") else texts
        for name, texts in found.captions.items()
    }
    assert without_padding == captions and found.repeated == {}
    if form != "text" and not JSON_KEYS & set(captions):
        assert read(folder, content).form == form


@given(content=st.one_of(st.binary(), st.text().map(str.encode), st.text('{}[]",:\\\t\n\rab0').map(str.encode)))
def test_any_bytes_are_read_or_rejected_with_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for role in (references, predictions):
        for form in (None, *FORMS[role.__name__]):
            try:
                read = role(tmp_path_factory.mktemp("any"), content, form)
            except InputError as error:
                assert len(str(error).splitlines()) == 1
            else:
                assert read.captions
