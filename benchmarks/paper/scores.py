"""Score the captions of parts with textcap's metrics, and with those that only the sound world has.

Scores are kept beside the parts. A metric that could not be computed is tried again in the next run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper.parts import part_path
from benchmarks.paper.plan import N_SEEN, Part
from benchmarks.paper.worlds import clips_for_testing, references_path
from textcap.demo.grammar import event_f1
from textcap.files import atomic_write_text
from textcap.scoring import ScoreSettings, score_files
from tiny.styles import STYLES, is_in_style

QUICK = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider_d")
SLOW = ("spice", "spider")
_AT_ONCE = 3  # parts scored with one start of SPICE; an interrupted run loses at most so many


@dataclass(frozen=True)
class Scored:
    """The figures of a part against the references of a writer, without metrics that could not be computed."""

    part: Part
    references: str  # the writer of the references
    figures: dict[str, float]


def score_parts(work: Path, parts: Sequence[Part]) -> list[Scored]:
    """Return the figures of every part that has a result, scoring those that have no scores yet."""
    wanted = [(part, writer) for part in parts if part_path(work, part).exists() for writer in part.references]
    missing = [pair for pair in wanted if not _is_scored(work, *pair)]
    groups: dict[tuple[str, bool], list[Part]] = {}
    for part, writer in missing:
        groups.setdefault((writer, part.all_metrics), []).append(part)
    for (writer, all_metrics), several in groups.items():
        for start in range(0, len(several), _AT_ONCE):
            _score(work, several[start : start + _AT_ONCE], writer, all_metrics=all_metrics)
    return [
        Scored(
            part, writer, {**_read(_score_path(work, part, writer)), **world_figures(captions_by(work, part), writer)}
        )
        for part, writer in wanted
    ]


def captions_by(work: Path, part: Part) -> list[str]:
    """Return a part's captions of the test clips."""
    captions: list[str] = _read(part_path(work, part))["captions"]
    return captions


def world_figures(captions: list[str], writer: str) -> dict[str, float]:
    """Return event F1 over all clips, over seen and unseen combinations, and the share of distinct captions.

    If the writer of the references has a style, also the share of captions in that style.
    """
    scenes = [clip.scene for clip in clips_for_testing()]
    return {
        "event_f1": event_f1(captions, scenes).f1,
        "seen": event_f1(captions[:N_SEEN], scenes[:N_SEEN]).f1,
        "unseen": event_f1(captions[N_SEEN:], scenes[N_SEEN:]).f1,
        "distinct": len(set(captions)) / len(captions),
    } | (
        {"styled": float(np.mean([is_in_style(one, writer) for one in captions]))}
        if writer in STYLES and writer != "plain"
        else {}
    )


def _is_scored(work: Path, part: Part, writer: str) -> bool:
    path = _score_path(work, part, writer)
    return path.exists() and set(QUICK + SLOW if part.all_metrics else QUICK) <= set(_read(path))


def _score(work: Path, parts: Sequence[Part], writer: str, *, all_metrics: bool) -> None:
    files = []
    for part in parts:
        path = work / "scores" / f"{part.name}.predictions.json"
        path.parent.mkdir(exist_ok=True)
        predictions = {f"{i:03d}": caption for i, caption in enumerate(captions_by(work, part))}
        atomic_write_text(path, json.dumps(predictions, indent=1))
        files.append(path)
    names = QUICK + SLOW if all_metrics else QUICK
    settings = ScoreSettings(cache_folder=work / "spice")
    report = score_files(references_path(work, writer), files, metrics=",".join(names), settings=settings)
    for failed in report.failed:
        print(f"{failed.name} is skipped: {failed.problem}", flush=True)
    for part, system in zip(parts, report.scoring.systems, strict=True):
        values = {name: score.value for name, score in system.items() if score.value is not None}
        atomic_write_text(_score_path(work, part, writer), json.dumps(values, indent=1))
        print(f"scored {part.name} against the references of writer {writer}", flush=True)


def _score_path(work: Path, part: Part, writer: str) -> Path:
    return work / "scores" / f"{part.name}.{writer}.json"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
