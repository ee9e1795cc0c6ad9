"""Tests of the sound world's captions: every caption of every scene names its sounds and nothing else."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcap.demo.grammar import event_f1, parse_events, word_scene
from textcap.demo.phrases import WORDINGS
from textcap.demo.scenes import DISTANCES, LEVELS, PACES, Event, Scene, sample_scene
from textcap.demo.sounds import KINDS

_ATTRIBUTE_WORDS = {
    "loud": "loudly|noisily",
    "faint": "faintly|softly",
    "near": "nearby|close by",
    "distant": "distant|in the distance|far away",
    "fast": "quickly|rapidly",
    "slow": "slowly",
    "repeated": "repeatedly|several times",
}


@st.composite
def _events(draw: st.DrawFn, kind: str) -> Event:
    return Event(
        kind,
        level=draw(st.sampled_from((None, *LEVELS))),
        distance=draw(st.sampled_from((None, *DISTANCES))),
        pace=draw(st.sampled_from((None, *PACES))) if KINDS[kind].paced else None,
        repeated=draw(st.booleans()) if KINDS[kind].short else False,
    )


@st.composite
def _scenes(draw: st.DrawFn) -> Scene:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3, unique=True))
    layout = "alone" if len(kinds) == 1 else draw(st.sampled_from(("sequence", "together", "background")))
    return Scene(tuple(draw(_events(kind)) for kind in kinds), layout)


@given(scene=_scenes(), seed=st.integers(0, 2**32))
def test_captions_parse_back_to_the_sounds_of_their_scene(scene: Scene, seed: int) -> None:
    caption = word_scene(scene, np.random.default_rng(seed))
    assert sorted(parse_events(caption)) == sorted(scene.kinds)


@given(scene=_scenes(), seed=st.integers(0, 2**32))
def test_captions_name_every_attribute(scene: Scene, seed: int) -> None:
    caption = word_scene(scene, np.random.default_rng(seed))
    for event in scene.events:
        values = (event.level, event.distance, event.pace, "repeated" if event.repeated else None)
        for value in filter(None, values):
            assert re.search(rf"\b(?:{_ATTRIBUTE_WORDS[value]})\b", caption.lower()), (value, caption)


@given(scene=_scenes(), seed=st.integers(0, 2**32))
def test_captions_are_well_formed(scene: Scene, seed: int) -> None:
    caption = word_scene(scene, np.random.default_rng(seed))
    assert re.fullmatch(r"[A-Z][a-z]*(?:,? [a-z]+)*", caption)
    assert not re.search(r"\b(\w+) \1\b", caption), "the same word twice in a row"
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption.lower()), "a wrong article"


def test_captions_of_drawn_scenes_have_4_to_16_words() -> None:
    rng = np.random.default_rng(3)
    lengths = [len(word_scene(sample_scene(rng, unseen=i % 2 == 0), rng).split()) for i in range(4000)]
    assert 4 <= min(lengths) and max(lengths) <= 16


def test_order_of_a_sequence_can_be_parsed() -> None:
    rng = np.random.default_rng(4)
    scene = Scene((Event("dog_barking"), Event("rain_falling"), Event("car_horn")), "sequence")
    assert {parse_events(word_scene(scene, rng)) for _ in range(100)} == {scene.kinds}


def test_captions_place_the_last_sound_in_the_background() -> None:
    rng = np.random.default_rng(4)
    scene = Scene((Event("dog_barking"), Event("rain_falling")), "background")
    captions = {word_scene(scene, rng) for _ in range(100)}
    assert all(re.search(r"rain\w* [a-z ]*in the background| over rain", c.lower()) for c in captions)


def test_a_scene_has_many_captions() -> None:
    rng = np.random.default_rng(5)
    scene = Scene((Event("dog_barking", level="loud"), Event("rain_falling")), "together")
    captions = {word_scene(scene, rng) for _ in range(300)}
    assert len(captions) > 100
    for word in ("while", "as", "with", "and"):
        assert any(f" {word} " in caption for caption in captions)


def test_every_kind_has_two_to_four_wordings() -> None:
    assert set(WORDINGS) == set(KINDS)
    assert all(2 <= len(set(wordings)) <= 4 for wordings in WORDINGS.values())


def test_no_phrase_is_part_of_a_phrase_of_another_kind() -> None:
    phrases = []
    for kind, wordings in WORDINGS.items():
        for wording in wordings:
            subject, verb, participle = (part.strip() for part in wording.split("|"))
            subject = re.sub(r"^(?:an?|the) ", "", subject)
            phrases += [(kind, f"{subject} {form}") for form in (verb, participle)]
    for kind, phrase in phrases:
        clashes = [p for k, p in phrases if k != kind and re.search(rf"\b{re.escape(phrase)}\b", p)]
        assert not clashes, (phrase, clashes)


def test_parse_events_reads_captions_from_elsewhere() -> None:
    assert parse_events("A dog barks and a cat is meowing") == ("dog_barking", "cat_meowing")
    assert parse_events("a dog barks, a dog barks") == ("dog_barking", "dog_barking")
    assert parse_events("The manager speaks") == ()
    assert parse_events("") == ()


def test_event_f1_equals_hand_computed_scores() -> None:
    rain_and_dog = Scene((Event("dog_barking"), Event("rain_falling")), "together")
    phone = Scene((Event("telephone_ringing"),), "alone")
    # Named 3, present 3, correct 2; the dog that is named twice counts once.
    score = event_f1(["A dog barks and a dog barks", "A phone is ringing"], [rain_and_dog, phone])
    assert (score.precision, score.recall, score.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    # Named 1, present 3, correct 1.
    score = event_f1(["Rain falls", "Silence"], [rain_and_dog, phone])
    assert (score.precision, score.recall, score.f1) == pytest.approx((1, 1 / 3, 0.5))


def test_event_f1_accepts_captions_as_references() -> None:
    assert event_f1(["Rain pours while a dog barks"], ["A puppy yaps in the rain while rain falls"]).f1 == 1


def test_event_f1_is_zero_if_no_sound_is_named() -> None:
    score = event_f1(["Silence"], ["A dog barks loudly"])
    assert (score.precision, score.recall, score.f1) == (0, 0, 0)


def test_event_f1_requires_a_reference_for_each_caption() -> None:
    with pytest.raises(ValueError):
        event_f1(["A dog barks loudly"], [])
