"""Write captions of scenes, read the sounds back from captions, and score captions by the sounds they name.

Parsing needs no model: it looks for the phrases that all captions are built from, so event F1 is exact.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from textcap.demo.phrases import ADJECTIVES, ADVERBS, SENTENCES, WORDINGS
from textcap.demo.scenes import Event, Scene

_TRIES = 16
_ARTICLES = ("a", "an", "the")


@dataclass(frozen=True)
class EventScore:
    """How well captions name the sounds of their clips, counted over all clips together."""

    precision: float  # share of the named sounds that are in the clip, 0 to 1
    recall: float  # share of the clips' sounds that are named, 0 to 1
    f1: float  # harmonic mean of the two, 0 to 1


@dataclass(frozen=True)
class _Wording:
    article: str  # empty if the subject has none
    subject: str
    verb: str
    participle: str

    @property
    def copula(self) -> str:
        return "is" if self.verb.split()[0].endswith("s") else "are"

    @property
    def phrases(self) -> tuple[str, ...]:
        """The forms of the wording that appear unchanged in a caption, whatever the attributes."""
        return tuple(
            f"{self.subject} {form}" for form in (self.verb, self.participle, f"{self.copula} {self.participle}")
        )


def _read_wording(text: str) -> _Wording:
    subject, verb, participle = (part.strip() for part in text.split("|"))
    first, _, rest = subject.partition(" ")
    return _Wording(first, rest, verb, participle) if first in _ARTICLES else _Wording("", subject, verb, participle)


_KIND_OF_PHRASE = {
    phrase: kind for kind, texts in WORDINGS.items() for text in texts for phrase in _read_wording(text).phrases
}
# Longest first, so that a phrase never hides a longer one that contains it.
_PHRASES = re.compile(
    r"\b(?:" + "|".join(re.escape(p) for p in sorted(_KIND_OF_PHRASE, key=lambda p: (-len(p), p))) + r")\b"
)


@dataclass(frozen=True)
class Grammar:
    """The phrases to choose from, in the form of `textcap.demo.phrases`.

    Attributes:
        wordings: Wordings of each kind of sound, "subject | finite verb | participle".
        sentences: Sentences for each layout and number of events.
        adverbs: Adverbs for each attribute.
        least_words, most_words: Length of a caption, if one of that length is drawn in a few tries.
    """

    wordings: Mapping[str, Sequence[str]] = field(default_factory=lambda: WORDINGS)
    sentences: Mapping[tuple[str, int], Sequence[str]] = field(default_factory=lambda: SENTENCES)
    adverbs: Mapping[str, Sequence[str]] = field(default_factory=lambda: ADVERBS)
    least_words: int = 4
    most_words: int = 16

    def word(self, scene: Scene, rng: np.random.Generator) -> str:
        """Return one of many captions of a scene."""
        for _ in range(_TRIES):
            caption = self._draw(scene, rng)
            if self.least_words <= len(caption.split()) <= self.most_words:
                return caption
        # The shortest of many, for scenes with more attributes than a caption has room for.
        drawn = [self._draw(scene, rng) for _ in range(8 * _TRIES)]
        return min((c for c in drawn if len(c.split()) >= self.least_words), key=lambda c: len(c.split()))

    @cached_property
    def _read(self) -> dict[str, tuple[_Wording, ...]]:
        return {kind: tuple(map(_read_wording, texts)) for kind, texts in self.wordings.items()}

    def _draw(self, scene: Scene, rng: np.random.Generator) -> str:
        sentences = self.sentences[scene.layout, len(scene.events)]
        events = list(scene.events)
        if scene.layout == "together":
            events = [events[i] for i in rng.permutation(len(events))]
        sentence, words = sentences[rng.integers(len(sentences))], {}
        for place, event in enumerate(events):
            words[f"c{place}"] = self._word_event(event, rng, clause=True)
            words[f"p{place}"] = self._word_event(event, rng, clause=False)
        caption = sentence.format(**words)
        return caption[0].upper() + caption[1:]

    def _word_event(self, event: Event, rng: np.random.Generator, *, clause: bool) -> str:
        wordings = self._read[event.kind]
        wording = wordings[rng.integers(len(wordings))]
        values = [v for v in (event.level, event.distance, event.pace, "repeated" if event.repeated else None) if v]
        article, adjective, adverbs = wording.article, "", []
        for value in values:
            if value in ADJECTIVES and wording.subject != "someone" and rng.random() < 0.4:
                adjective = ADJECTIVES[value]
            else:
                adverbs.append(self.adverbs[value][rng.integers(len(self.adverbs[value]))])
        if adjective and article == "an":
            article = "a"
        verb = wording.participle
        if clause:
            verb = wording.verb if rng.random() < 0.75 else f"{wording.copula} {wording.participle}"
        return " ".join(part for part in (article, adjective, wording.subject, verb, *adverbs) if part)


PLAIN = Grammar()


def word_scene(scene: Scene, rng: np.random.Generator) -> str:
    """Return one of many possible captions of a scene.

    Scenes from `sample_scene` get captions of 4 to 16 words; a scene with more attributes can need more.
    """
    return PLAIN.word(scene, rng)


def parse_events(caption: str) -> tuple[str, ...]:
    """Return the kinds of sound that a caption names, in the order of its words; empty if it names none."""
    return tuple(_KIND_OF_PHRASE[match.group()] for match in _PHRASES.finditer(caption.lower()))


def event_f1(captions: Sequence[str], references: Sequence[Scene | str]) -> EventScore:
    """Score the sounds that captions name against the sounds in their clips.

    Args:
        captions: One caption for each clip.
        references: The scene of each clip, or a caption that names its sounds.

    Raises:
        ValueError: The numbers of captions and references differ.
    """
    n_named = n_correct = n_present = 0
    for caption, reference in zip(captions, references, strict=True):
        named = Counter(parse_events(caption))
        present = Counter(parse_events(reference) if isinstance(reference, str) else reference.kinds)
        n_named += named.total()
        n_present += present.total()
        n_correct += (named & present).total()
    precision, recall = n_correct / max(n_named, 1), n_correct / max(n_present, 1)
    return EventScore(precision, recall, 2 * n_correct / max(n_named + n_present, 1))
