"""Blind pages and `textcap votes`: what raters do not see, how sides are drawn, and what their votes add up to."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from page_files import Page, made_page, read_page, textcap, write_lines
from textcap.page.sources import read_sources
from textcap.page.votes import FIRST, SECOND, TIE, Tally, count_votes, draw_ballot

SIDES = {"left": "right", "right": "left", "tie": "tie"}


def write_systems(folder: Path, n: int, *, n_equal: int = 0) -> tuple[Path, Path]:
    """Write the captions of two systems; those of the last clips are equal."""
    paths = (folder / "ours.jsonl", folder / "theirs.jsonl")
    for path, word in zip(paths, ("dog", "cat"), strict=True):
        says = [f"a {'bird' if number >= n else word} {number}" for number in range(n + n_equal)]
        write_lines(path, *({"path": f"{number}.wav", "caption": text} for number, text in enumerate(says)))
    return paths


def blind_page(folder: Path, sources: Sequence[Path], *options: object, name: str = "vote.html") -> Page:
    return made_page(*sources, "--blind", *options, output=folder / name)


def is_first_left(page: Page) -> dict[str, bool]:
    """Return whether the first system, which says "dog", stands left, by clip."""
    return {clip: texts[0].split()[1] == "dog" for clip, texts in page.captions.items() if texts[0]}


def vote(folder: Path, name: str, page: Page, for_systems: dict[str, int | None]) -> Path:
    """Write the votes of a rater, as the page exports them, for systems: 1, 2, or 0 for neither."""
    first_left = is_first_left(page)
    votes: dict[str, Any] = {}
    for clip, system in for_systems.items():
        side = {1: "left", 2: "right", 0: "tie", None: None}[system]
        votes[clip] = {"vote": side if side is None or first_left[clip] else SIDES[side], "note": ""}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**page.facts["blind"], "votes": votes}), encoding="utf-8")
    return path


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


# Blind pages


def test_blind_page_holds_no_system_score_or_reference(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.sin(np.arange(8000) / 5), 8000)
    for number in (1, 2):
        name = f"system{number}"
        write_lines(
            tmp_path / f"{name}.jsonl",
            *(
                {"path": clip, "caption": f"{clip} {number}", "score": -1.25 - number / 8, "similarity": 0.4375}
                | {"reference_1": "what people say", "notes": [f"noted by {number}"]}
                for clip in ("x.wav", "y.wav")
            ),
        )
    sources = [tmp_path / f"system{number}.jsonl" for number in (1, 2)]
    assert "system1" in made_page(*sources, output=tmp_path / "open.html").text
    page = blind_page(tmp_path, sources)
    for secret in ("system1", "system2", "jsonl", "-1.375", "-1.5", "0.4375", "what people say", "noted by"):
        assert secret not in page.text
    assert page.facts["systems"] == page.facts["numbers"] == []
    assert [clip["references"] for clip in page.clips] == [[], []]
    assert all(take["scores"] == {} for clip in page.clips for take in clip["takes"])
    assert page.clip("x.wav")["sound"] == "./x.wav" and page.clip("x.wav")["spectrogram"]


def test_blind_page_of_the_scores_of_clips_hides_them(tmp_path: Path) -> None:
    sources = []
    for number, name in enumerate(("alpha", "beta")):
        rows = ["id,predictions,caption,reference_1,spider"]
        rows += [f"{clip},{name}.csv,{clip} by {number},a reference,0.73{number}" for clip in "ab"]
        sources.append(tmp_path / f"scores {number}.csv")
        sources[-1].write_text("\n".join(rows), encoding="utf-8")
    data = blind_page(tmp_path, sources).block
    assert '"a by 0"' in data
    assert not [secret for secret in ("alpha", "beta", "scores ", "a reference", "0.73", "spider") if secret in data]


def test_sides_are_drawn_for_each_clip_about_half_and_half(tmp_path: Path) -> None:
    sources = write_systems(tmp_path, 400)
    lefts = list(is_first_left(blind_page(tmp_path, sources)).values())
    assert len(lefts) == 400
    assert binomtest(sum(lefts), 400).pvalue > 1e-4
    changes = sum(a != b for a, b in itertools.pairwise(lefts))
    assert binomtest(changes, 399).pvalue > 1e-4  # nor does one follow from another


def test_same_seed_draws_the_same_page_and_another_another(tmp_path: Path) -> None:
    sources = write_systems(tmp_path, 40)
    first, again = (blind_page(tmp_path, sources, name=name) for name in ("a.html", "b.html"))
    other = blind_page(tmp_path, sources, "--seed", 1, name="c.html")
    assert first.text == again.text
    assert first.facts["blind"] | {"page": ""} == {"page": "", "seed": 0, "sample": None}
    assert other.facts["blind"]["seed"] == 1 and other.facts["blind"]["page"] != first.facts["blind"]["page"]
    assert is_first_left(first) != is_first_left(other)
    assert list(first.captions) == list(other.captions)


def test_sides_do_not_follow_from_the_seed_without_the_captions(tmp_path: Path) -> None:
    sources = write_systems(tmp_path, 60)
    before = is_first_left(blind_page(tmp_path, sources))
    lines = sources[0].read_text().splitlines()
    sources[0].write_text("\n".join([*lines[:-1], json.dumps({"path": "59.wav", "caption": "a dog again"})]))
    after = is_first_left(blind_page(tmp_path, sources, name="other.html"))
    assert sum(before[clip] != after[clip] for clip in before) > 10


def test_rows_with_equal_or_missing_captions_are_left_out_and_counted(tmp_path: Path) -> None:
    sources = write_systems(tmp_path, 3, n_equal=1)
    more = {"path": "only ours.wav", "caption": "a dog"}, {"path": "silent.wav", "caption": "", "silent": True}
    sources[0].write_text(sources[0].read_text() + "".join(json.dumps(row) + "\n" for row in more))
    sources[1].write_text(sources[1].read_text() + json.dumps({"path": "silent.wav", "caption": "a cat"}) + "\n")
    done = textcap("page", *sources, "--blind", "-o", tmp_path / "vote.html")
    assert done.exit_code == 0
    assert set(done.stderr.splitlines()) == {
        "left out 1 of 6 clips, with two equal captions",
        "left out 2 of 6 clips, without two captions",
        "warning: 3 of 3 clips: no sound was found (--audio-dir names a folder to look in)",
    }
    assert list(read_page(tmp_path / "vote.html").captions) == ["0.wav", "1.wav", "2.wav"]


def test_time_lines_are_compared_as_well(tmp_path: Path) -> None:
    for path, word in ((tmp_path / "a.jsonl", "dog"), (tmp_path / "b.jsonl", "cat")):
        pieces = [{"start_s": 0.0, "end_s": 2.0, "caption": f"a {word}"}]
        write_lines(path, {"path": "x.wav", "pieces": pieces}, {"path": "y.wav", "pieces": []})
    page = blind_page(tmp_path, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    (clip,) = page.clips
    assert sorted(take["pieces"][0][2] for take in clip["takes"]) == ["a cat", "a dog"]


def test_sample_of_a_blind_page_keeps_the_order_and_its_votes_are_counted(tmp_path: Path) -> None:
    sources = write_systems(tmp_path, 100)
    page = blind_page(tmp_path, sources, "--sample", 35)
    numbers = [int(clip.removesuffix(".wav")) for clip in page.captions]
    assert len(numbers) == 35 and numbers == sorted(numbers)
    rater = vote(tmp_path, "anna", page, {clip: 1 for clip in page.captions})
    done = textcap("votes", *sources, rater)
    assert done.stdout.splitlines()[1].split("\t")[1:4] == ["35", "0", "0"]


@pytest.mark.parametrize("n_files", [1, 3])
def test_blind_page_takes_two_files(tmp_path: Path, n_files: int) -> None:
    sources = [*write_systems(tmp_path, 3), tmp_path / "third.jsonl"]
    sources[2].write_text(sources[0].read_text())
    done = textcap("page", *sources[:n_files], "--blind", "-o", tmp_path / "vote.html")
    assert (done.exit_code, done.stdout) == (2, "") and "--blind takes two files" in done.stderr
    assert not (tmp_path / "vote.html").exists()


def test_blind_page_needs_two_systems_that_differ(tmp_path: Path) -> None:
    first, second = write_systems(tmp_path, 0, n_equal=2)
    done = textcap("page", first, second, "--blind", "-o", tmp_path / "vote.html")
    message = "textcap: no clip has two captions that differ (a blind page needs some)"
    assert (done.exit_code, done.stdout, one_line(done.stderr)) == (1, "", message)
    second.write_text("id,predictions,caption\na,one,x\na,two,y\n")
    done = textcap("page", first, second, "--blind", "-o", tmp_path / "vote.html")
    message = "textcap: a blind page compares two systems, found 3 (name two files)"
    assert (done.exit_code, done.stdout, one_line(done.stderr)) == (1, "", message)
    assert not (tmp_path / "vote.html").exists()


# Counting


def test_votes_are_told_for_each_rater_and_the_majority(tmp_path: Path) -> None:
    sources = write_systems(tmp_path, 40)
    page = blind_page(tmp_path, sources)
    clips = list(page.captions)
    choices: dict[str, list[int | None]] = {
        "anna": [1] * 30 + [2] * 5 + [0] * 5,
        "ben": [1] * 20 + [2] * 12 + [0] * 6 + [None] * 2,
        "carl": [2] * 2 + [1] * 28,
    }
    raters = [vote(tmp_path, name, page, dict(zip(clips, by, strict=False))) for name, by in choices.items()]
    done = textcap("votes", *sources, *raters)
    header, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert (done.exit_code, header) == (0, ["rater", "ours.jsonl", "theirs.jsonl", "ties", "p"])
    majority: Counter[int] = Counter()
    for number in range(40):
        ranked = Counter(by[number] for by in choices.values() if number < len(by) and by[number] is not None)
        most = [choice for choice, n in ranked.items() if n == max(ranked.values())]
        majority[most[0] or 0 if len(most) == 1 else 0] += 1
    wanted = [
        [str(path), *(str(by.count(one)) for one in (1, 2, 0))]
        for path, by in zip(raters, choices.values(), strict=True)
    ]
    wanted.append(["majority", *(str(majority[one]) for one in (1, 2, 0))])
    assert [line[:4] for line in lines] == wanted
    for line in lines:
        p = binomtest(int(line[1]), int(line[1]) + int(line[2])).pvalue
        assert float(line[4]) == pytest.approx(p, rel=0.01)
    verdict, agreement = done.stderr.splitlines()
    assert verdict.startswith("ours.jsonl is better than theirs.jsonl: p = ")
    assert verdict.endswith(", 40 judged clips")
    units = [[by[number] for by in choices.values() if number < len(by)] for number in range(40)]
    shared = [[one for one in unit if one is not None] for unit in units]
    pairs = [a == b for unit in shared for a, b in itertools.combinations(unit, 2)]
    alpha = coincidences([[{1: FIRST, 2: SECOND, 0: TIE}[one] for one in unit] for unit in shared if len(unit) > 1])
    share = f"{sum(pairs) / len(pairs):.0%} of their votes on 38 clips"
    assert agreement == f"raters agree in {share}, Krippendorff's alpha {alpha:.2f}"


def test_report_as_json_has_the_same_numbers(tmp_path: Path) -> None:
    sources = write_systems(tmp_path, 31)
    page = blind_page(tmp_path, sources)
    raters = [
        vote(tmp_path, "anna", page, {clip: 2 for clip in page.captions}),
        vote(tmp_path, "ben", page, {clip: 2 if number else 1 for number, clip in enumerate(page.captions)}),
    ]
    done = textcap("votes", *sources, *raters, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    report = json.loads(one_line(done.stdout))
    assert report["systems"] == ["ours.jsonl", "theirs.jsonl"] and report["n_shared"] == 31
    assert report["agreement"] == pytest.approx(30 / 31)
    anna, ben, majority = report["tallies"]
    assert anna == {"rater": str(raters[0]), "first": 0, "second": 31, "ties": 0, "verdict": "worse"} | {
        "p_value": pytest.approx(2 / 2**31)
    }
    assert [ben[name] for name in ("first", "second", "ties")] == [1, 30, 0]
    assert [majority[name] for name in ("rater", "first", "second", "ties")] == ["majority", 0, 30, 1]


@pytest.mark.parametrize(
    ("n", "wins", "words"),
    [
        (29, 29, "ours.jsonl and theirs.jsonl: no verdict below 30 clips, as chance would decide too often"),
        (30, 30, "ours.jsonl is better than theirs.jsonl: p = 1.9e-09, 30 judged clips"),
        (30, 0, "ours.jsonl is worse than theirs.jsonl: p = 1.9e-09, 30 judged clips"),
        (30, 15, "ours.jsonl does not differ reliably from theirs.jsonl: p = 1, 30 judged clips"),
    ],
)
def test_verdict_needs_thirty_judged_rows(tmp_path: Path, n: int, wins: int, words: str) -> None:
    sources = write_systems(tmp_path, 35)
    page = blind_page(tmp_path, sources)
    clips = list(page.captions)[:n]
    rater = vote(tmp_path, "anna", page, {clip: 1 if index < wins else 2 for index, clip in enumerate(clips)})
    done = textcap("votes", *sources, rater)
    assert one_line(done.stderr) == words
    assert len(done.stdout.splitlines()) == 2  # no majority of one
    assert "null" in textcap("votes", *sources, rater, "--json").stdout


def test_ties_count_as_judged_but_not_in_the_test() -> None:
    tally = Tally("anna", 9, 1, 25)
    assert tally.n_judged == 35 and tally.verdict == "better"
    assert tally.p_value == pytest.approx(binomtest(9, 10).pvalue)
    assert Tally("ben", 0, 0, 35).p_value == 1.0
    assert Tally("ben", 0, 0, 35).verdict == "not significantly different"


@given(first=st.integers(0, 400), second=st.integers(0, 400), ties=st.integers(0, 50))
@settings(max_examples=60)
def test_sign_test_is_that_of_scipy(first: int, second: int, ties: int) -> None:
    wanted = binomtest(first, first + second).pvalue if first + second else 1.0
    assert Tally("anna", first, second, ties).p_value == pytest.approx(wanted, rel=1e-9)


def test_sign_test_of_thousands_is_exact() -> None:
    assert Tally("anna", 10_200, 9_800, 0).p_value == pytest.approx(binomtest(10_200, 20_000).pvalue, rel=1e-9)


# Agreement


def coincidences(units: Sequence[Sequence[int]]) -> float | None:
    """Return the nominal alpha from the matrix of coincidences (Krippendorff 2011)."""
    values = [FIRST, TIE, SECOND]
    matrix = np.zeros((3, 3))
    for unit in units:
        for i, j in itertools.permutations(range(len(unit)), 2):
            matrix[values.index(unit[i]), values.index(unit[j])] += 1 / (len(unit) - 1)
    totals = matrix.sum(axis=1)
    n = totals.sum()
    observed = n - np.trace(matrix)
    expected = (n * n - (totals**2).sum()) / (n - 1) if n else 0.0
    return 1 - observed / expected if expected else None


def counted(folder: Path, units: Sequence[Sequence[int | None]]) -> Any:
    """Count the votes of several raters on clips: each a list of what the raters choose, FIRST, TIE, SECOND or None."""
    sources = write_systems(folder, len(units))
    page = blind_page(folder, sources)
    systems = {FIRST: 1, SECOND: 2, TIE: 0, None: None}
    raters = [
        vote(folder, f"rater {number}", page, {f"{row}.wav": systems[unit[number]] for row, unit in enumerate(units)})
        for number in range(max(map(len, units)))
    ]
    return count_votes(read_sources([str(path) for path in sources]), raters)


@settings(max_examples=25)
@given(
    units=st.integers(2, 5).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([FIRST, TIE, SECOND, None]), min_size=n, max_size=n), min_size=1, max_size=12
        )
    )
)
def test_agreement_of_raters_is_that_of_the_matrix(
    tmp_path_factory: pytest.TempPathFactory, units: list[list[int | None]]
) -> None:
    count = counted(tmp_path_factory.mktemp("raters"), units)
    given_ = [[one for one in unit if one is not None] for unit in units]
    shared = [unit for unit in given_ if len(unit) > 1]
    assert count.n_shared == len(shared)
    pairs = [a == b for unit in shared for a, b in itertools.combinations(unit, 2)]
    assert count.agreement == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    alpha = coincidences(shared)
    assert count.alpha == (None if alpha is None else pytest.approx(alpha))
    assert count.tallies[-1].n_judged == sum(bool(unit) for unit in given_)


def test_alpha_of_small_cases_by_hand(tmp_path: Path) -> None:
    cases = {
        "all agree": ([[1, 1], [-1, -1], [0, 0]], 1.0, 1.0),
        "no variation": ([[1, 1], [1, 1]], 1.0, None),  # of one value alone, chance cannot be told
        # Two raters, two values, four clips, one disagreement: observed 2 of 8; expected (5 * 3 + 3 * 5) / 7.
        "one of four": ([[1, 1], [1, 1], [-1, -1], [1, -1]], 0.75, 1 - 2 / (30 / 7)),
        # Nobody agrees: observed 4 of 4, expected (2 * 2 + 2 * 2) / 3.
        "never": ([[1, -1], [-1, 1]], 0.0, 1 - 4 / (8 / 3)),
        "nothing shared": ([[1, None], [None, -1]], None, None),
    }
    for name, (units, agreement, alpha) in cases.items():
        (tmp_path / name).mkdir()
        count = counted(tmp_path / name, units)
        assert count.agreement == (None if agreement is None else pytest.approx(agreement)), name
        assert count.alpha == (None if alpha is None else pytest.approx(alpha)), name


# Krippendorff (2011), section C: four observers, twelve units, five values; the nominal alpha is 0.743.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_alpha_of_the_published_example() -> None:
    from textcap.page.votes import _agreement  # votes have three values, the example five

    units = [[value for value in unit if value is not None] for unit in zip(*PUBLISHED, strict=True)]
    _, alpha = _agreement([unit for unit in units if len(unit) > 1])
    assert alpha is not None and round(alpha, 3) == 0.743


# What is refused

HINT = "name the files that the page was made of, in the same order"
NO_VOTES = "is not a file of votes (export it from a blind page)"


@pytest.fixture
def ballot(tmp_path: Path) -> tuple[tuple[Path, Path], Path]:
    """Return the files of two systems, and votes on their page."""
    sources = write_systems(tmp_path, 5)
    page = blind_page(tmp_path, sources)
    return sources, vote(tmp_path, "anna", page, {"0.wav": 1})


def refusal(*words: object) -> str:
    done = textcap("votes", *words)
    assert (done.exit_code, done.stdout) == (1, "")
    return one_line(done.stderr)


def test_votes_of_other_files_or_another_order_are_refused(ballot: Any, tmp_path: Path) -> None:
    (first, second), rater = ballot
    wanted = f"textcap: {rater} has votes of another page ({HINT})"
    assert refusal(second, first, rater) == wanted
    second.write_text(second.read_text().replace("cat 3", "cat 4"))
    assert refusal(first, second, rater) == wanted


@pytest.mark.parametrize("change", [{"seed": 1}, {"sample": 3}, {"page": "0123456789abcdef"}, {"page": None}])
def test_votes_whose_page_does_not_follow_are_refused(ballot: Any, change: dict[str, Any]) -> None:
    sources, rater = ballot
    rater.write_text(json.dumps(json.loads(rater.read_text()) | change))
    assert refusal(*sources, rater) == f"textcap: {rater} has votes of another page ({HINT})"


@pytest.mark.parametrize(
    "change",
    [
        {"votes": {"0.wav": {"vote": "middle", "note": ""}}},
        {"votes": {"0.wav": {"vote": ["left"], "note": ""}}},
        {"votes": {"9.wav": {"vote": "left", "note": ""}}},
        {"votes": {"0.wav": "left"}},
        {"votes": ["left"]},
        {"votes": None},
        {"sample": "many"},
        {"sample": -1},
    ],
)
def test_what_is_not_votes_is_refused(ballot: Any, change: dict[str, Any]) -> None:
    sources, rater = ballot
    content = json.loads(rater.read_text())
    rater.write_text(json.dumps(content | change))
    assert refusal(*sources, rater) == f"textcap: {rater} {NO_VOTES}"


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"page": "x", "seed": 0}'])
def test_json_of_something_else_is_refused(ballot: Any, content: str) -> None:
    sources, rater = ballot
    rater.write_text(content)
    assert refusal(*sources, rater) == f"textcap: {rater} {NO_VOTES}"


def test_files_of_votes_that_cannot_be_read_are_named(ballot: Any, tmp_path: Path) -> None:
    sources, rater = ballot
    rater.write_text('{"page": ')
    assert refusal(*sources, rater).startswith(f"textcap: {rater} is not valid JSON: ")
    assert refusal(*sources, tmp_path / "gone.json") == f"textcap: {tmp_path / 'gone.json'} does not exist"


def test_rater_who_is_given_twice_is_refused(ballot: Any, tmp_path: Path) -> None:
    sources, rater = ballot
    again = tmp_path / "." / ".." / tmp_path.name / rater.name
    for other in (rater, again):
        assert refusal(*sources, rater, other).endswith(f"{rater.name} was given twice")
    assert refusal(sources[0], sources[0], rater) == f"textcap: {sources[0]} was given twice"


def test_votes_need_a_rater(ballot: Any) -> None:
    sources, _ = ballot
    done = textcap("votes", *sources)
    assert (done.exit_code, done.stdout) == (2, "")


def test_ballot_keeps_the_sides_of_a_page(tmp_path: Path) -> None:
    sources = write_systems(tmp_path, 50)
    drawn = draw_ballot(read_sources([str(path) for path in sources]), seed=3)
    page = blind_page(tmp_path, sources, "--seed", 3)
    assert page.facts["blind"] == drawn.facts
    assert is_first_left(page) == {clip: side == FIRST for clip, side in drawn.left.items()}
    assert math.isclose(sum(drawn.left.values()) / 50, 0, abs_tol=0.6) and set(drawn.left.values()) == {FIRST, SECOND}
