"""Writers: grammars that caption the scenes of the sound world, each with its own phrases and sentence structures.

Every phrase for an event is one that `textcap.demo.grammar` can parse, so event F1 is exact for all writers. The first
and the second writer share as much as Clotho and AudioCaps: of 10,000 captions each, 94 % of the first's words and 62 %
of its pairs of words are in the second's, and 97 % and 75 % the other way round (Clotho and AudioCaps: 94, 58, 98 and
74 %).
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from textcap.demo.grammar import Grammar
from textcap.demo.phrases import SENTENCES, WORDINGS
from textcap.demo.scenes import Scene
from tiny.styles import STYLES

_REFERENCE_TRIES = 1000

Sentences = Mapping[tuple[str, int], tuple[str, ...]]

# What only the first writer uses of the sound world's sentences; the second has all others.
_FIRST_ONLY: Sentences = {
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


# What the second writer has in common with the first.
_SHARED: Sentences = {
    ("alone", 1): ("only {p0} is heard",),
    ("sequence", 2): ("first {c0}, then {c1}", "{c1} after {c0}"),
    ("together", 2): ("{c0} as {c1}", "{c0} at the same time as {p1}"),
    ("background", 2): ("{c0} over {p1}",),
    ("sequence", 3): ("{c0}, {c1} and finally {c2}",),
}
_OWN_WORDS = tuple(WORDINGS)[::6]  # kinds of sound for which each writer has words of its own


def _second_sentences() -> Sentences:
    rest = {key: tuple(s for s in SENTENCES[key] if s not in _FIRST_ONLY[key]) for key in SENTENCES}
    # Only one structure is left for a single sound, so two new ones are added.
    return {**rest, ("alone", 1): (*rest["alone", 1], "{p0} is heard", "first only {p0} is heard")}


def _definite(texts: Iterable[str]) -> tuple[str, ...]:
    """Return wordings with the definite article in place of the indefinite one."""
    return tuple(re.sub(r"^an? ", "the ", text) for text in texts)


FIRST = Grammar(
    {kind: texts[:1] if kind in _OWN_WORDS else texts for kind, texts in WORDINGS.items()},
    {key: (*_FIRST_ONLY[key], *_SHARED.get(key, ())) for key in SENTENCES},
    # Two words are enough ("Rain falls"), because otherwise this writer would not have five captions of every scene.
    least_words=2,
    most_words=20,
)
SECOND = Grammar(
    {kind: _definite(texts[1:] if kind in _OWN_WORDS else texts) for kind, texts in WORDINGS.items()},
    _second_sentences(),
    least_words=2,
    most_words=20,
)
# "plain" is the sound world's own grammar.
WRITERS = {**STYLES, "first": FIRST, "second": SECOND}


def references(writer: str, scene: Scene, n: int, rng: np.random.Generator) -> list[str]:
    """Return n captions of a scene in the order drawn, all different if the writer has that many."""
    different: dict[str, None] = {}
    drawn = []
    while len(different) < n and len(drawn) < _REFERENCE_TRIES:
        drawn.append(WRITERS[writer].word(scene, rng))
        different[drawn[-1]] = None
    return [*different, *drawn][:n]
