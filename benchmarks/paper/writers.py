"""Writers: grammars that caption the scenes of the sound world, each with its own phrases and sentence structures.

Every phrase for an event is one that `textcap.demo.grammar` can parse, so event F1 is exact for all writers.
"""

from collections.abc import Mapping

import numpy as np
from tiny.styles import STYLES

from textcap.demo.grammar import Grammar
from textcap.demo.phrases import ADVERBS, SENTENCES, WORDINGS
from textcap.demo.scenes import Scene

_REFERENCE_TRIES = 1000

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


def _remaining_sentences(taken: Sentences) -> Sentences:
    rest = {key: tuple(s for s in SENTENCES[key] if s not in taken[key]) for key in SENTENCES}
    # Only one structure is left for a single sound, so two new ones are added.
    return {**rest, ("alone", 1): (*rest["alone", 1], "{p0} is heard", "first only {p0} is heard")}


FIRST = Grammar(
    {kind: texts[:1] for kind, texts in WORDINGS.items()},
    FIRST_SENTENCES,
    {value: texts[:1] for value, texts in ADVERBS.items()},
    # Two words are enough ("Rain falls"), because otherwise this writer would not have five captions of every scene.
    least_words=2,
    most_words=20,
)
SECOND = Grammar(
    {kind: texts[1:] for kind, texts in WORDINGS.items()},
    _remaining_sentences(FIRST_SENTENCES),
    {value: texts[-1:] for value, texts in ADVERBS.items()},
    least_words=2,
    most_words=20,
)
WRITERS = {**STYLES, "first": FIRST, "second": SECOND}


def word(writer: str, scene: Scene, rng: np.random.Generator) -> str:
    """Return a caption by one of `WRITERS`; "plain" is the sound world's own grammar."""
    return WRITERS[writer].word(scene, rng)


def references(writer: str, scene: Scene, n: int, rng: np.random.Generator) -> list[str]:
    """Return n captions of a scene in the order drawn, all different if the writer has that many."""
    different: dict[str, None] = {}
    drawn = []
    while len(different) < n and len(drawn) < _REFERENCE_TRIES:
        drawn.append(word(writer, scene, rng))
        different[drawn[-1]] = None
    return [*different, *drawn][:n]
