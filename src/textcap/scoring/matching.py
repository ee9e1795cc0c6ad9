"""Match the predictions of each system with the references of the same clip, and report what does not match.

Returns lists of captions of equal length. If some clips do not match, the others are returned only if that is allowed,
with a note of how many they are.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textcap.data.text import counted
from textcap.errors import InputError
from textcap.scoring.csv_forms import AUDIOCAPS
from textcap.scoring.entries import ClipCaptions, quoted

_SHOWN = 3  # names that a message lists for each kind of problem
_NEAR_MISSES = 2  # similar names that a message lists for each of these
_MIN_SIMILARITY = 0.7  # of a similar name, as difflib measures it
_COMPARED_CHARACTERS = 100
_COMPARED_NAMES = 20_000  # takes about a second
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$")


@dataclass(frozen=True)
class Matched:
    """References and predictions of the same clips, in the order of the references.

    Attributes:
        ids: Names of the clips, as in the references; if a clip has several kinds of names, the kind that the first
            system's predictions use.
        references: Captions of each clip: at least one, none of them empty.
        predictions: For each system, one caption of each clip, which may be empty.
        n_references: Number of clips in the file of references, scored or not.
        by_base_name: Whether some names match only without their folders.
        notes: Lines to print about how names were matched.
        problems: Lines to print about what does not match; empty if everything does.
    """

    ids: list[str]
    references: list[list[str]]
    predictions: list[list[str]]
    n_references: int
    by_base_name: bool
    notes: list[str]
    problems: list[str]


def match(references: ClipCaptions, systems: Sequence[ClipCaptions], *, allow_missing: bool) -> Matched:
    """Match predictions with references by the names of their clips.

    Names match exactly, else by base name (without folders, in composed Unicode) if it is unique on both sides. Names
    in AudioCaps' table also match without extension.

    Args:
        references: Result of `read_references`.
        systems: Result of `read_predictions` for each system.
        allow_missing: Score the clips that match in all systems. Clips without prediction or without a non-empty
            reference are skipped, and so are empty references. Of repeated clips the first counts. Empty predictions
            are kept.

    Raises:
        InputError: Something does not match and `allow_missing` is not set, or no clip matches.
        ValueError: `systems` is empty.
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
        hint = "fix the files, or use --allow-missing to score the clips that match"
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
    """The predictions of one system by clip."""

    found: dict[str, list[str]]  # clip -> names of its predictions; one, unless a clip has several names of one kind
    labels: dict[str, str]  # clip -> its name, of the kind that the predictions use
    unused: list[str]  # names of the predictions that match no clip
    n_by_base_name: int  # predictions whose name matches only by base name


def _pair(references: ClipCaptions, system: ClipCaptions) -> _Pairing:
    """Pair by the kind of name that matches most predictions; ids win a tie."""
    kinds = [{clip: clip for clip in references.captions}, *references.names.values()]
    without_extension = references.form == AUDIOCAPS
    pairings = [_pair_by(names, system, without_extension=without_extension) for names in kinds]
    return max(pairings, key=lambda pairing: len(system.captions) - len(pairing.unused))


def _pair_by(names: dict[str, str], system: ClipCaptions, *, without_extension: bool) -> _Pairing:
    """Pair predictions with clips by one kind of name.

    A base name that two names of one side share is not used, even if one of the two matches exactly: the other could
    be meant.

    Args:
        names: The clip of each name of this kind.
        system: The predictions.
        without_extension: Whether predictions may add a file extension to these names.
    """
    base_names = {name: _base_name(name) for name in names}
    by_base_name = {base: name for name, base in base_names.items()}
    n_references = Counter(base_names.values())
    predicted = {name: _base_name(name) for name in system.captions}
    if without_extension:
        predicted = {
            name: base if base in by_base_name else _EXTENSION.sub("", base) for name, base in predicted.items()
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
            label = by_base_name[base] if is_unique else None
            # AudioCaps' own names have no extension, so only other differences are counted.
            bare = _EXTENSION.sub("", name) if without_extension else name
            n_by_base_name += is_unique and label not in (name, bare)
        if label is None:
            unused.append(name)
            continue
        found.setdefault(names[label], []).append(name)
        labels.setdefault(names[label], label)
    return _Pairing(found, labels, unused, n_by_base_name)


def _base_name(name: str) -> str:
    # Both separators, as predictions may come from Windows; composed Unicode, as macOS decomposes file names.
    base = re.split(r"[/\\]", name)[-1]
    return unicodedata.normalize("NFC", base)


def _reference_problems(references: ClipCaptions) -> list[str]:
    n_clips = len(references.captions)
    problems = []
    if references.repeated:
        listing = _list(f"{quoted(clip)} again in line {line}" for clip, line in references.repeated.items())
        counted_clips = counted(len(references.repeated), "clip")
        problems.append(f"{references.path} contains {counted_clips} more than once: {listing}")
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
        share = f"{len(missing):,} of {len(references.captions):,} clips of {references.path}"
        problems.append(f"{system.path} has no prediction for {share}: {listing}")
    if pairing.unused:
        # Clips that have a prediction come last, but are compared too: an unused name may be meant for one of them.
        clips = [*missing, *(clip for clip in references.captions if clip in pairing.found)]
        listing = _list(_with_near_misses(pairing.unused, clips))
        share = f"{len(pairing.unused):,} of {len(system.captions):,} predictions of {system.path}"
        problems.append(f"{references.path} has no reference for {share}: {listing}")
    repeated = [f"{quoted(name)} again in line {line}" for name, line in system.repeated.items()]
    repeated += [" and ".join(map(quoted, names[:2])) for names in pairing.found.values() if len(names) > 1]
    if repeated:
        counted_clips = counted(len(repeated), "clip")
        problems.append(f"{system.path} contains {counted_clips} more than once: {_list(repeated)}")
    empty = [name for name, texts in system.captions.items() if not texts[0].strip()]
    if empty:
        share = f"{len(empty):,} of {len(system.captions):,} predictions"
        problems.append(f"{system.path} has empty captions in {share}: {_list(map(quoted, empty))}")
    return problems


def _with_near_misses(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the names; those that a message will show are quoted, with the most similar names of the other side."""
    keys: dict[str, list[str]] = {}
    for other in others[:_COMPARED_NAMES]:
        keys.setdefault(_comparable(other), []).append(other)
    listed = []
    for name in names[:_SHOWN]:
        key = _comparable(name)
        same = keys.get(key) or []
        near = same or [keys[k][0] for k in difflib.get_close_matches(key, keys, _NEAR_MISSES, _MIN_SIMILARITY)]
        note = f" (near: {', '.join(map(quoted, near[:_NEAR_MISSES]))})" if near else ""
        listed.append(f"{quoted(name)}{note}")
    return [*listed, *names[_SHOWN:]]


def _comparable(name: str) -> str:
    """Return a name in a form in which near misses are equal or similar."""
    return _EXTENSION.sub("", _base_name(name)).casefold().strip()[:_COMPARED_CHARACTERS]


def _list(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
