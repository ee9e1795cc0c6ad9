"""Match the predictions of each system with the references of the same clip, and report what does not match.

Returns lists of captions of equal length. If some clips do not match, the others are returned only if that is allowed,
with a note of how many they are.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from textcap.data.tables import YOUTUBE_ID
from textcap.data.text import counted
from textcap.errors import InputError
from textcap.scoring.readers import ClipCaptions, quoted

# The endings that a sound file or a film may have; other parts of a name after a dot belong to it.
SOUND_ENDING = re.compile(
    r"\.(3gp|aac|aiff?|amr|ape|au|avi|caf|flac|flv|m4[av]|mk[av]|mov|mp[234]|mpe?g|oga|ogg|opus|w64|wave?|webm|wma)$",
    re.IGNORECASE,
)

_SHOWN = 3  # names that a message lists for each kind of problem
_NEAR_MISSES = 2  # similar names that a message lists for each of these
_MIN_SIMILARITY = 0.7  # of a similar name, as difflib measures it
_COMPARED_CHARACTERS = 100
_COMPARED_NAMES = 20_000  # takes about a second
_ANY_ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}$")
_AUDIOCAPS_NAME = re.compile(r"Y?([A-Za-z0-9_-]{11})(?:_(\d{1,9})(?:_(\d{1,9}))?)?")
_ID_CHARACTERS = 11  # of a YouTube id
_UNITS_PER_S = {10: 1, 10_000: 1000}  # of a start and an end, by their difference: a clip has ten seconds
_EXACT = "exact name"

# What allows each kind of problem.
_MISSING = "--allow-missing to score the clips that match"
_EMPTY = "--allow-empty to score empty predictions as they are"


@dataclass(frozen=True)
class Matched:
    """References and predictions of the same clips, in the order of the references.

    Attributes:
        ids: Names of the clips, as in the references; if a clip has several kinds of names, the kind that the first
            system's predictions use.
        references: Captions of each clip: at least one, none of them empty.
        predictions: For each system, one caption of each clip, which may be empty.
        n_references: Number of clips in the file of references, scored or not.
        matched_by: For each system, how many predictions were matched by "exact name", "base name" and so on.
        notes: Lines to print about how names were matched, and about empty references.
        problems: Lines to print about what does not match; empty if everything does.
    """

    ids: list[str]
    references: list[list[str]]
    predictions: list[list[str]]
    n_references: int
    matched_by: list[dict[str, int]]
    notes: list[str]
    problems: list[str]


@dataclass(frozen=True)
class Pairing:
    """How the names in predictions match the clips of references.

    Attributes:
        system: The predictions.
        found: By clip, the names of its predictions: one, unless a clip has several names of one kind.
        matches: By name of a prediction, that in the references and how the two match.
        unused: Names of the predictions that match no clip.
    """

    system: ClipCaptions
    found: dict[str, list[str]]
    matches: dict[str, tuple[str, str]]
    unused: list[str]


def match(
    references: ClipCaptions, systems: Sequence[ClipCaptions], *, allow_missing: bool, allow_empty: bool
) -> Matched:
    """Match predictions with references by the names of their clips.

    Names match exactly, else by base name (without folders, in composed Unicode), else by base name without the ending
    of a sound file, else by the YouTube id and start time that files of AudioCaps have in their names; each of these
    only if it is unique on both sides. Empty references are skipped.

    Args:
        references: Result of `read_references`.
        systems: Result of `read_predictions` for each system.
        allow_missing: Score the clips that match in all systems. Clips without prediction or without a non-empty
            reference are skipped. Of repeated clips the first counts.
        allow_empty: Keep empty predictions, and score them as they are.

    Raises:
        InputError: Something does not match and is not allowed, or no clip matches.
        ValueError: `systems` is empty.
    """
    if not systems:
        raise ValueError("match needs the predictions of at least one system")
    kept = {clip: [text for text in texts if text.strip()] for clip, texts in references.captions.items()}
    pairings = [pair(references, system) for system in systems]
    found = _problems(references, kept, pairings)
    allowed = {_MISSING: allow_missing, _EMPTY: allow_empty}
    blocking = {problem: remedy for problem, remedy in found.items() if not allowed[remedy]}
    if blocking:
        hint = f"fix the files, or use {' and '.join(dict.fromkeys(blocking.values()))}"
        raise InputError("; ".join(blocking), hint=hint)
    problems = list(found)
    clips = [clip for clip in kept if kept[clip] and all(clip in pairing.found for pairing in pairings)]
    if not clips:
        raise InputError("; ".join([*problems, "no clip is left to score"]))
    if len(clips) < len(kept):
        problems.append(f"scoring {len(clips):,} of {counted(len(kept), 'clip')} of {references.path}")
    return Matched(
        ids=[pairings[0].matches[pairings[0].found[clip][0]][0] for clip in clips],
        references=[kept[clip] for clip in clips],
        predictions=[[one.system.captions[one.found[clip][0]][0] for clip in clips] for one in pairings],
        n_references=len(kept),
        matched_by=[dict(Counter(way for _, way in pairing.matches.values())) for pairing in pairings],
        notes=_notes(references, kept, pairings),
        problems=problems,
    )


def pair(references: ClipCaptions, system: ClipCaptions) -> Pairing:
    """Match the names in predictions with clips by the kind of name that matches most of them; ids win a tie."""
    kinds = {"id": {clip: clip for clip in references.captions}, **references.names}
    # In a table with start times, the same YouTube id with another start time is another clip.
    ways = {YOUTUBE_ID: _WAYS[:-1]}
    pairings = [_pair_by(names, system, ways.get(kind, _WAYS)) for kind, names in kinds.items()]
    return min(pairings, key=lambda pairing: len(pairing.unused))


def _base_name(name: str) -> str:
    # Both separators, as predictions may come from Windows; composed Unicode, as macOS decomposes file names.
    return unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])


def _stem(name: str) -> str:
    return SOUND_ENDING.sub("", _base_name(name))


def _audiocaps_name(name: str) -> str:
    """Return `<youtube_id>_<start_time>`, or the id if the name has no start time; empty if it is no such name.

    Files of AudioCaps are also named with a Y before the id, and with the start and end of their ten seconds, mostly
    in milliseconds.
    """
    parts = _AUDIOCAPS_NAME.fullmatch(_stem(name))
    if parts is None:
        return ""
    video, start, end = parts.groups()
    if end is None:
        return f"{video}_{start}" if start else video
    units_per_s = _UNITS_PER_S.get(int(end) - int(start))
    return f"{video}_{int(start) / units_per_s:.15g}" if units_per_s else ""


def _youtube_id(name: str) -> str:
    return _audiocaps_name(name)[:_ID_CHARACTERS]


_Way = tuple[str, Callable[[str], str], Callable[[str], str]]
# How names that are not equal match, best first: what must be equal of a name in the references and in the predictions.
_WAYS: tuple[_Way, ...] = (
    ("base name", _base_name, _base_name),
    ("base name without ending", _stem, _stem),
    ("AudioCaps name", _audiocaps_name, _audiocaps_name),
    ("YouTube id", _audiocaps_name, _youtube_id),  # of references whose names have no start time
)


def _pair_by(names: dict[str, str], system: ClipCaptions, ways: Sequence[_Way]) -> Pairing:
    """Pair predictions with clips by one kind of name.

    A base name that two names of one side share is not used, even if one of the two matches exactly: the other could
    be meant. The same is true of the other ways.

    Args:
        names: The clip of each name of this kind.
        system: The predictions.
        ways: Those of `_WAYS` to try.
    """
    matches = {name: (name, _EXACT) for name in system.captions if name in names}
    for way, reference_key, prediction_key in ways:
        theirs = _by_key(names, reference_key)
        for key, predicted in _by_key(system.captions, prediction_key).items():
            if len(predicted) == len(theirs.get(key, ())) == 1 and predicted[0] not in matches:
                matches[predicted[0]] = (theirs[key][0], way)
    found: dict[str, list[str]] = {}
    for name in system.captions:
        if name in matches:
            found.setdefault(names[matches[name][0]], []).append(name)
    return Pairing(system, found, matches, [name for name in system.captions if name not in matches])


def _by_key(names: Iterable[str], key_of: Callable[[str], str]) -> dict[str, list[str]]:
    """Group names by key, without those whose key is empty."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if key := key_of(name):
            groups.setdefault(key, []).append(name)
    return groups


def _notes(references: ClipCaptions, kept: dict[str, list[str]], pairings: Sequence[Pairing]) -> list[str]:
    notes = []
    n_empty = sum(len(references.captions[clip]) - len(texts) for clip, texts in kept.items() if texts)
    if n_empty:
        notes.append(f"{references.path}: skipped {counted(n_empty, 'empty reference')} of clips that have others")
    for pairing in pairings:
        inexact = [(name, label, way) for name, (label, way) in pairing.matches.items() if way != _EXACT]
        if inexact:
            name, label, _ = inexact[0]
            share = f"{len(inexact):,} of {counted(len(pairing.system.captions), 'name')}"
            example = f"{quoted(name)} for {quoted(label)}"
            ways = " or ".join(dict.fromkeys(way for _, _, way in inexact))
            notes.append(f"{pairing.system.path}: matched {share} only by {ways}, such as {example}")
    return notes


def _problems(references: ClipCaptions, kept: dict[str, list[str]], pairings: Sequence[Pairing]) -> dict[str, str]:
    """Return a line about each thing that does not match, and by it what allows the problem."""
    n_clips = counted(len(kept), "clip")
    without = [quoted(clip) for clip, texts in kept.items() if not texts]
    again = _repeated(references)
    problems = [
        (f"{references.path} contains {counted(len(again), 'clip')} more than once", again, _MISSING),
        (f"{references.path} has no reference for {len(without):,} of {n_clips}", without, _MISSING),
    ]
    for pairing in pairings:
        path, unused = pairing.system.path, pairing.unused
        n_predictions = counted(len(pairing.system.captions), "prediction")
        missing = [clip for clip in kept if clip not in pairing.found]
        share = f"{len(missing):,} of {n_clips} of {references.path}"
        problems.append((f"{path} has no prediction for {share}", _with_near_misses(missing, unused), _MISSING))
        # Clips that have a prediction come last, but are compared too: an unused name may be meant for one of them.
        near = _with_near_misses(unused, [*missing, *pairing.found])
        share = f"{len(unused):,} of {n_predictions} of {path}"
        problems.append((f"{references.path} has no reference for {share}", near, _MISSING))
        again = _repeated(pairing.system)
        again += [" and ".join(map(quoted, names[:2])) for names in pairing.found.values() if len(names) > 1]
        problems.append((f"{path} contains {counted(len(again), 'clip')} more than once", again, _MISSING))
        empty = [quoted(name) for name in pairing.matches if not pairing.system.captions[name][0].strip()]
        problems.append((f"{path} has empty captions in {len(empty):,} of {n_predictions}", empty, _EMPTY))
    return {f"{problem}: {_list(names)}": remedy for problem, names, remedy in problems if names}


def _repeated(file: ClipCaptions) -> list[str]:
    return [f"{quoted(clip)} again in {place}" for clip, place in file.repeated.items()]


def _with_near_misses(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the names; those that a message will show are quoted, with the most similar names of the other side."""
    keys = _by_key(others[:_COMPARED_NAMES], _comparable)
    listed = []
    for name in names[:_SHOWN]:
        key = _comparable(name)
        near = keys.get(key) or [
            keys[k][0] for k in difflib.get_close_matches(key, keys, _NEAR_MISSES, _MIN_SIMILARITY)
        ]
        note = f" (near: {', '.join(map(quoted, near[:_NEAR_MISSES]))})" if near else ""
        listed.append(f"{quoted(name)}{note}")
    return [*listed, *names[_SHOWN:]]


def _comparable(name: str) -> str:
    """Return a name in a form in which near misses are equal or similar."""
    return _ANY_ENDING.sub("", _base_name(name).strip()).casefold().strip()[:_COMPARED_CHARACTERS]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
