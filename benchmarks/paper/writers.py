"""Writers: grammars that caption the scenes of the sound world, each with its own phrases and sentence structures.

Every phrase for an event is one that `textcap.demo.grammar` can parse, so event F1 is exact for all writers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from textcap.demo.grammar import parse_events, word_scene
from textcap.demo.phrases import ADJECTIVES, ADVERBS, SENTENCES, WORDINGS
from textcap.demo.scenes import Event, Scene

# Two words are enough ("Rain falls"), because otherwise the first writer would not have five captions of every scene.
MIN_WORDS, MAX_WORDS = 2, 20
_TRIES, _REFERENCE_TRIES = 16, 1000
_ARTICLES = ("a", "an", "the")
_ADJECTIVE_SHARE, _PLAIN_VERB_SHARE = 0.4, 0.75  # the same as in textcap.demo.grammar

Sentences = Mapping[tuple[str, int], tuple[str, ...]]

# The first writer's part of the sound world's sentences; the second writer has the rest.
FIRST_SENTENCES: Sentences = {
    ("alone", 1): ("{c0}", "there is {p0}", "the sound of {p0}", "{p0} can be heard"),
    ("sequence", 2): ("{c0}, then {c1}", "{c0} followed by {p1}", "{c0} before {c1}", "{p0} and then {p1}"),
    ("together", 2): ("{c0} while {c1}", "{c0} and {c1} together", "{c0} with {p1}", "{p0} while {c1}"),
    ("background", 2): (
        "{c0} while {c1} in the background",
        "{c0} with {p1} in the background",
        "{p0} and {p1} in the background",
    ),
    ("sequence", 3): (
        "{c0}, then {c1}, then {c2}",
        "{c0}, followed by {p1} and {p2}",
        "{p0} followed by {p1}, then {p2}",
    ),
    ("together", 3): ("{c0} while {c1} and {c2}", "{c0}, {c1} and {c2} together"),
    ("background", 3): (
        "{c0}, then {c1} with {p2} in the background",
        "{p0}, then {p1} with {p2} in the background",
    ),
}

# The structures are new, but the words are the sound world's: the embedded models were trained on no others.
STYLED_SENTENCES: Sentences = {
    ("alone", 1): ("there is only {p0}", "first there is only {p0}", "there is only the sound of {p0}"),
    ("sequence", 2): (
        "first there is {p0}, and finally there is {p1}",
        "first there is {p0}, then there is only {p1}",
    ),
    ("together", 2): (
        "at the same time there is {p0} and {p1}",
        "there is {p0} and there is {p1}, all at the same time",
    ),
    ("background", 2): (
        "there is {p0}, and in the background there is {p1}",
        "there is {p0} while in the background there is {p1}",
    ),
    ("sequence", 3): (
        "first there is {p0}, then there is {p1}, and finally {p2}",
        "first there is {p0}, then {p1}, and finally there is {p2}",
    ),
    ("together", 3): (
        "at the same time there is {p0}, {p1} and {p2}",
        "there is {p0}, {p1} and {p2}, all at the same time",
    ),
    ("background", 3): (
        "first there is {p0}, then {p1}, and in the background there is {p2}",
        "there is {p0}, then {p1} while in the background there is {p2}",
    ),
}


@dataclass(frozen=True)
class Writer:
    """The phrases that a writer chooses from, in the form of `textcap.demo.phrases`.

    Attributes:
        wordings: Wordings of each kind of sound, "subject | finite verb | participle".
        sentences: Sentences for each layout and number of events.
        adverbs: Adverbs for each attribute.
    """

    wordings: Mapping[str, tuple[str, ...]]
    sentences: Sentences
    adverbs: Mapping[str, tuple[str, ...]]

    def word(self, scene: Scene, rng: np.random.Generator) -> str:
        """Return one of many captions of a scene, of 2 to 20 words if one is drawn in a few tries."""
        drawn = []
        for _ in range(_TRIES):
            drawn.append(self._draw(scene, rng))
            if MIN_WORDS <= len(drawn[-1].split()) <= MAX_WORDS:
                return drawn[-1]
        return min(drawn, key=lambda caption: abs(len(caption.split()) - MAX_WORDS / 2))

    @cached_property
    def _split_wordings(self) -> dict[str, list[list[str]]]:
        return {
            kind: [[part.strip() for part in text.split("|")] for text in texts]
            for kind, texts in self.wordings.items()
        }

    def _draw(self, scene: Scene, rng: np.random.Generator) -> str:
        sentences = self.sentences[scene.layout, len(scene.events)]
        events = list(scene.events)
        if scene.layout == "together":
            events = [events[i] for i in rng.permutation(len(events))]
        words = {}
        for place, event in enumerate(events):
            words[f"c{place}"] = self._word_event(event, rng, clause=True)
            words[f"p{place}"] = self._word_event(event, rng, clause=False)
        caption = sentences[rng.integers(len(sentences))].format(**words)
        return caption[0].upper() + caption[1:]

    def _word_event(self, event: Event, rng: np.random.Generator, *, clause: bool) -> str:
        wordings = self._split_wordings[event.kind]
        subject, verb, participle = wordings[rng.integers(len(wordings))]
        article, _, rest = subject.partition(" ")
        article, subject = (article, rest) if article in _ARTICLES else ("", subject)
        values = [v for v in (event.level, event.distance, event.pace, "repeated" if event.repeated else None) if v]
        adjective, adverbs = "", []
        for value in values:
            if value in ADJECTIVES and subject != "someone" and rng.random() < _ADJECTIVE_SHARE:
                adjective = ADJECTIVES[value]
                article = "a" if article == "an" else article
            else:
                adverbs.append(self.adverbs[value][rng.integers(len(self.adverbs[value]))])
        verb_phrase = participle
        if clause:
            copula = "is" if verb.split()[0].endswith("s") else "are"
            verb_phrase = verb if rng.random() < _PLAIN_VERB_SHARE else f"{copula} {participle}"
        return " ".join(part for part in (article, adjective, subject, verb_phrase, *adverbs) if part)


def _remaining_sentences(taken: Sentences) -> Sentences:
    rest = {key: tuple(s for s in SENTENCES[key] if s not in taken[key]) for key in SENTENCES}
    # Only one structure is left for a single sound, so two new ones are added.
    return {**rest, ("alone", 1): (*rest["alone", 1], "{p0} is heard", "first only {p0} is heard")}


FIRST = Writer(
    {kind: texts[:1] for kind, texts in WORDINGS.items()},
    FIRST_SENTENCES,
    {value: texts[:1] for value, texts in ADVERBS.items()},
)
SECOND = Writer(
    {kind: texts[1:] for kind, texts in WORDINGS.items()},
    _remaining_sentences(FIRST_SENTENCES),
    {value: texts[-1:] for value, texts in ADVERBS.items()},
)
STYLED = Writer(WORDINGS, STYLED_SENTENCES, ADVERBS)
WRITERS = {"first": FIRST, "second": SECOND, "styled": STYLED}


def word(writer: str, scene: Scene, rng: np.random.Generator) -> str:
    """Return a caption by one of `WRITERS`, or by "plain", the sound world's own grammar."""
    return word_scene(scene, rng) if writer == "plain" else WRITERS[writer].word(scene, rng)


def references(writer: str, scene: Scene, n: int, rng: np.random.Generator) -> list[str]:
    """Return n captions of a scene in the order drawn, all different if the writer has that many."""
    different: dict[str, None] = {}
    drawn = []
    while len(different) < n and len(drawn) < _REFERENCE_TRIES:
        drawn.append(word(writer, scene, rng))
        different[drawn[-1]] = None
    return [*different, *drawn][:n]


def is_styled(caption: str) -> bool:
    """Return whether a caption begins like the styled writer's captions and unlike all others."""
    if not re.match(r"(first |at the same time )?there is ", caption.lower()):
        return False
    return len(parse_events(caption)) > 1 or "there is only" in caption.lower()
