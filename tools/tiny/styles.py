"""Styles of the sound world: sentences about its scenes that begin and end in words of their own.

The language model reads them, so that a mapper trained on captions in a style can make it write in that style.
"""

from itertools import product

from textcap.demo.grammar import PLAIN, Grammar

# Layout and number of events -> structures without a finite verb, which fit between the words of every style.
_STRUCTURES: dict[tuple[str, int], tuple[str, ...]] = {
    ("alone", 1): ("{p0}",),
    ("sequence", 2): ("{p0} and then {p1}", "{p0} followed by {p1}"),
    ("together", 2): ("{p0} and {p1} together", "{p0} at the same time as {p1}"),
    ("background", 2): ("{p0} and {p1} in the background", "{p0} over {p1}"),
    ("sequence", 3): ("{p0} followed by {p1}, then {p2}", "{p0}, {p1} and finally {p2}"),
    ("together", 3): ("{p0}, {p1} and {p2} all together", "{p0} with {p1} and {p2} together"),
    ("background", 3): ("{p0} followed by {p1} over {p2}", "{p0}, then {p1} with {p2} in the background"),
}
# Style -> how its captions begin, and how they end.
_MANNERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "humorous": (("guess what, it is", "of all things,", "nobody ordered"), (", what a party", ", how charming")),
    "headline": (("breaking news:", "live report:", "exclusive:"), ("", ", experts say")),
    "question": (("can you hear", "is that really", "who else hears"), ("?",)),
    "log": (("log entry:", "event recorded:", "status:"), ("; end of entry", "; no action taken")),
    "address": (("you hear", "you are listening to", "around you there is"), ("", ", so you stop and listen")),
}


def _grammar(openings: tuple[str, ...], closings: tuple[str, ...]) -> Grammar:
    sentences = {
        key: tuple(
            f"{opening} {structure}{closing}" for opening, structure, closing in product(openings, structures, closings)
        )
        for key, structures in _STRUCTURES.items()
    }
    return Grammar(sentences=sentences, most_words=24)


STYLES = {"plain": PLAIN} | {name: _grammar(*manner) for name, manner in _MANNERS.items()}


def is_in_style(caption: str, style: str) -> bool:
    """Return whether a caption begins and ends as those of a style that is not plain."""
    openings, closings = _MANNERS[style]
    return caption.lower().startswith(openings) and caption.endswith(closings)
