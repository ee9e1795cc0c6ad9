"""Find the prediction of each system for each clip that has references, and tell what does not fit.

Knows no files and no metrics. Returns captions in lists of equal length; a part of the clips is only ever returned
when that was allowed, and then with how many of how many.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textcap.errors import InputError
from textcap.scoring.csv_forms import AUDIOCAPS
from textcap.scoring.entries import ClipCaptions, quoted

_SHOWN = 3  # names of each kind of problem
_NEAR_MISSES = 2
_NEAR_ENOUGH = 0.7
_COMPARED_CHARACTERS = 100
_COMPARED_NAMES = 20_000  # a second's work
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$")


@dataclass(frozen=True)
class Matched:
    """References and predictions of the same clips, in the order of the references.

    Attributes:
        ids: The clips as the references name them; where they have several kinds of names, that of the first
            system's predictions.
        references: Captions of each clip, at least one and none of them empty.
        predictions: For each system one caption for each clip; it may be empty.
        n_references: Clips in the file of references, scored or not.
        by_base_name: Some names fit only without their folders.
        notes: Lines to show about how names were matched.
        problems: Lines to show about what does not fit; empty when all of it does.
    """

    ids: list[str]
    references: list[list[str]]
    predictions: list[list[str]]
    n_references: int
    by_base_name: bool
    notes: list[str]
    problems: list[str]


def match(references: ClipCaptions, systems: Sequence[ClipCaptions], *, allow_missing: bool) -> Matched:
    """Match the predictions of systems with references by the names of their clips.

    Names match exactly, else by base name (without folders, composed Unicode) where it is unique on both sides;
    those of AudioCaps's table also without extension.

    Args:
        references: What `read_references` returned.
        systems: What `read_predictions` returned for each system.
        allow_missing: Go on with what fits all systems. Then clips without prediction, without reference or
            with empty references only are left out, empty references too, of repeated clips the first counts, and
            empty predictions are kept as they are.

    Raises:
        InputError: Something does not fit and that was not allowed, or no clip fits.
        ValueError: There is no system.
    """
    if not systems:
        raise ValueError("match needs the predictions of at least one system")
    problems = _reference_problems(references)
    kept = {clip: [text for text in texts if text.strip()] for clip, texts in references.captions.items()}
    pairings = [_pair(references, system) for system in systems]
    for system, pairing in zip(systems, pairings, strict=True):
        problems += _system_problems(references, system, pairing)
    clips = [clip for clip in kept if kept[clip] and all(clip in pairing.found for pairing in pairings)]
    if problems and not allow_missing:
        hint = "mend the files, or score what fits with --allow-missing"
        raise InputError("; ".join(problems), hint=hint)
    if not clips:
        raise InputError("; ".join([*problems, "no clip is left to score"]))
    if len(clips) < len(kept):
        problems.append(f"scoring {len(clips):,} of {len(kept):,} clips of {references.path}")
    return Matched(
        ids=[pairings[0].labels.get(clip, clip) for clip in clips],
        references=[kept[clip] for clip in clips],
        predictions=[
            [system.captions[pairing.found[clip][0]][0] for clip in clips]
            for system, pairing in zip(systems, pairings, strict=True)
        ],
        n_references=len(kept),
        by_base_name=any(pairing.n_by_base_name for pairing in pairings),
        notes=[
            f"{system.path}: {pairing.n_by_base_name:,} of {len(system.captions):,} names match only by base name"
            for system, pairing in zip(systems, pairings, strict=True)
            if pairing.n_by_base_name
        ],
        problems=problems,
    )


@dataclass(frozen=True)
class _Pairing:
    """Which predictions of one system belong to which clip."""

    found: dict[str, list[str]]  # clip -> names of its predictions; one, unless a clip has several names of a kind
    labels: dict[str, str]  # clip -> its name of the kind that the predictions use
    unused: list[str]  # names of predictions
    n_by_base_name: int


def _pair(references: ClipCaptions, system: ClipCaptions) -> _Pairing:
    """Pair by the kind of name that fits most predictions; ids before other names when they fit equally many."""
    kinds = [{clip: clip for clip in references.captions}, *references.names.values()]
    without_extension = references.form == AUDIOCAPS
    pairings = [_pair_by(names, system, without_extension=without_extension) for names in kinds]
    return max(pairings, key=lambda pairing: len(system.captions) - len(pairing.unused))


def _pair_by(names: dict[str, str], system: ClipCaptions, *, without_extension: bool) -> _Pairing:
    """Pair with the clips that `names` stands for.

    A base name that two names of a side share is not used, though one of the two may match exactly: the other could
    be meant.
    """
    base_names = {name: _base_name(name) for name in names}
    of_base_name = {base: name for name, base in base_names.items()}
    n_references = Counter(base_names.values())
    predicted = {name: _base_name(name) for name in system.captions}
    if without_extension:
        predicted = {
            name: base if base in of_base_name else _EXTENSION.sub("", base) for name, base in predicted.items()
        }
    n_predictions = Counter(predicted.values())
    found: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    unused: list[str] = []
    n_by_base_name = 0
    for name, base in predicted.items():
        label: str | None = name
        if name not in names:
            is_unique = base != "" and n_references[base] == n_predictions[base] == 1
            label = of_base_name[base] if is_unique else None
            # A missing extension is how AudioCaps names its clips; only other differences are worth a word.
            bare = _EXTENSION.sub("", name) if without_extension else name
            n_by_base_name += is_unique and label not in (name, bare)
        if label is None:
            unused.append(name)
            continue
        found.setdefault(names[label], []).append(name)
        labels.setdefault(names[label], label)
    return _Pairing(found, labels, unused, n_by_base_name)


def _base_name(name: str) -> str:
    # Both separators: predictions may come from a Windows machine. Macs hand out names in decomposed Unicode.
    base = re.split(r"[/\\]", name)[-1]
    return unicodedata.normalize("NFC", base)


def _reference_problems(references: ClipCaptions) -> list[str]:
    n_clips = len(references.captions)
    problems = []
    if references.repeated:
        listing = _list(f"{quoted(clip)} again in line {line}" for clip, line in references.repeated.items())
        problems.append(f"{references.path} gives {_count(references.repeated, 'clip')} more than once: {listing}")
    has_words = {clip: [bool(text.strip()) for text in texts] for clip, texts in references.captions.items()}
    partly = [clip for clip, words in has_words.items() if any(words) and not all(words)]
    if partly:
        listing = _list(map(quoted, partly))
        problems.append(f"{references.path} has empty references for {len(partly):,} of {n_clips:,} clips: {listing}")
    without = [clip for clip, words in has_words.items() if not any(words)]
    if without:
        listing = _list(map(quoted, without))
        problems.append(f"{references.path} has no reference for {len(without):,} of {n_clips:,} clips: {listing}")
    return problems


def _system_problems(references: ClipCaptions, system: ClipCaptions, pairing: _Pairing) -> list[str]:
    problems = []
    missing = [clip for clip in references.captions if clip not in pairing.found]
    if missing:
        listing = _list(_with_near_misses(missing, pairing.unused))
        counted = f"{len(missing):,} of {len(references.captions):,} clips of {references.path}"
        problems.append(f"{system.path} has no prediction for {counted}: {listing}")
    if pairing.unused:
        # Those that have a prediction come last, but they come: it may be this name that was meant for one of them.
        clips = [*missing, *(clip for clip in references.captions if clip in pairing.found)]
        listing = _list(_with_near_misses(pairing.unused, clips))
        counted = f"{len(pairing.unused):,} of {len(system.captions):,} predictions of {system.path}"
        problems.append(f"{references.path} has no reference for {counted}: {listing}")
    twice = [f"{quoted(name)} again in line {line}" for name, line in system.repeated.items()]
    twice += [" and ".join(map(quoted, names[:2])) for names in pairing.found.values() if len(names) > 1]
    if twice:
        problems.append(f"{system.path} gives {_count(twice, 'clip')} more than once: {_list(twice)}")
    empty = [name for name, texts in system.captions.items() if not texts[0].strip()]
    if empty:
        counted = f"{len(empty):,} of {len(system.captions):,} predictions"
        problems.append(f"{system.path} has empty captions in {counted}: {_list(map(quoted, empty))}")
    return problems


def _with_near_misses(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the names in quotes, those that will be shown with the names of the other side that are nearest."""
    keys: dict[str, list[str]] = {}
    for other in others[:_COMPARED_NAMES]:
        keys.setdefault(_comparable(other), []).append(other)
    listed = []
    for name in names[:_SHOWN]:
        key = _comparable(name)
        same = keys.get(key) or []
        near = same or [keys[k][0] for k in difflib.get_close_matches(key, keys, _NEAR_MISSES, _NEAR_ENOUGH)]
        note = f" (near: {', '.join(map(quoted, near[:_NEAR_MISSES]))})" if near else ""
        listed.append(f"{quoted(name)}{note}")
    return [*listed, *names[_SHOWN:]]


def _comparable(name: str) -> str:
    return _EXTENSION.sub("", _base_name(name)).casefold().strip()[:_COMPARED_CHARACTERS]


def _list(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _count(items: Sequence[object] | dict[str, int], noun: str) -> str:
    return f"{len(items):,} {noun}{'' if len(items) == 1 else 's'}"
