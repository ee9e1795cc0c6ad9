"""The figures of the dial: what each gap is, and what captions across each bridge are worth.

Rows of several seeds show the mean and the standard deviation.
"""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.dial.plan import NARROW, SHARES, WORLD_SEED, Part, Plan, World, clips, parts_of
from benchmarks.dial.plot import Point, draw_dial
from benchmarks.sound_world import cider_d, show
from textcap.demo.grammar import event_f1
from textcap.files import atomic_write_text
from textcap.gap.compare import best_bridge, compare_bridges
from textcap.gap.measure import measure_gap
from textcap.gap.retrieval import measure_retrieval

COLUMNS = ("F1", "seen", "unseen", "CIDEr-D", "F1 for tuning")
_Captions = dict[str, dict[str, list[str]]]  # by bridge and role
_MAIN = {  # of the plot, in the order of its legend
    "CORAL, noise": (Part(0.0), "coral"),
    "adapter, noise": (Part(0.0, "adapter"), "adapter"),
    "centring, noise": (Part(0.0, "centre"), "centre"),
    "noise": (Part(0.0), "none"),
    "none": (Part(0.0, noise_std=0.0), "none"),
}
_Rows = dict[tuple[Part, str], list[dict[str, float]]]  # figures of each seed, by the part with seed 0 and the bridge


def results(plan: Plan, work: Path, worlds: Mapping[float | str, World], plot_path: Path) -> str:
    """Return a paragraph for each gap, and a table of all bridges across it.

    Writes the text to results.md in the work folder and the figures of each seed to results.tsv, and draws the plot.
    """
    rows: _Rows = {}
    lines = ["\t".join(("part", "bridge", *COLUMNS))]
    for part in parts_of(plan):
        path = work / "parts" / f"{part.name}.json"
        if path.exists():
            captions: _Captions = json.loads(path.read_text(encoding="utf-8"))["captions"]
            for bridge, values in _kept_figures(plan, path, captions).items():
                rows.setdefault((replace(part, seed=0), bridge), []).append(values)
                lines.append("\t".join((part.name, bridge, *(f"{values[name]:.4f}" for name in COLUMNS))))
    atomic_write_text(work / "results.tsv", "\n".join(lines) + "\n")
    paragraphs = [_of_one_gap(plan, gap, worlds[gap], rows) for gap in (*SHARES, NARROW) if gap in worlds]
    text = "\n".join([*paragraphs, draw_dial(plot_path, main_bridges(rows))])
    atomic_write_text(work / "results.md", text)
    return text


def main_bridges(rows: _Rows) -> dict[str, list[Point]]:
    """Return event F1 of the main bridges against the share of the shift."""
    found: dict[str, list[Point]] = {label: [] for label in ("audio-text", *_MAIN)}
    for share in SHARES:
        wanted = {label: (replace(part, gap=share), bridge) for label, (part, bridge) in _MAIN.items()}
        best = _best_audio(share, rows)
        for label, key in (({"audio-text": best} if best else {}) | wanted).items():
            if key in rows:
                values = [one["F1"] for one in rows[key]]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                found[label].append((share, statistics.mean(values), spread))
    return found


def _best_audio(gap: float | str, rows: _Rows) -> tuple[Part, str] | None:
    """Return the row that was trained on audio with the learning rate that is best on the clips for tuning."""
    audio = [key for key in rows if key[0].gap == gap and key[0].trained_on == "audio" and key[0].n_times == 1]
    return max(audio, key=lambda key: _mean(rows[key], "F1 for tuning"), default=None)


def _kept_figures(plan: Plan, path: Path, captions: _Captions) -> dict[str, dict[str, float]]:
    """Return the figures of a part by bridge, and keep them beside its captions; a missing CIDEr-D is tried again."""
    kept = path.with_suffix(".figures")
    if kept.exists():
        loaded: dict[str, dict[str, float]] = json.loads(kept.read_text(encoding="utf-8"))
        if not any(math.isnan(one["CIDEr-D"]) for one in loaded.values()):
            return loaded
    cider = cider_d(clips(plan)["test"], {bridge: by_role["test"] for bridge, by_role in captions.items()})
    found = {
        bridge: {
            **figures(plan, by_role["test"]),
            "CIDEr-D": cider[bridge],
            "F1 for tuning": figures(plan, by_role["tuning"], "tuning")["F1"],
        }
        for bridge, by_role in captions.items()
    }
    atomic_write_text(kept, json.dumps(found, indent=1))
    return found


def figures(plan: Plan, captions: Sequence[str], role: str = "test") -> dict[str, float]:
    """Return event F1 over all clips, over seen and over unseen combinations."""
    scenes, n = [clip.scene for clip in clips(plan)[role]], plan.n_seen
    return {
        "F1": event_f1(captions, scenes).f1,
        "seen": event_f1(captions[:n], scenes[:n]).f1,
        "unseen": event_f1(captions[n:], scenes[n:]).f1,
    }


def _of_one_gap(plan: Plan, gap: float | str, world: World, rows: _Rows) -> str:
    here = {key: several for key, several in rows.items() if key[0].gap == gap}
    best = _best_audio(gap, here)
    of_audio = _mean(here[best], "F1") if best else None
    lines = [describe(plan, gap, world), "", f"| trained on | captions across | {' | '.join(COLUMNS)} | of audio |"]
    lines.append("|---" * (len(COLUMNS) + 3) + "|")
    for (part, bridge), several in here.items():
        share = f"{_mean(several, 'F1') / of_audio:.1%}" if of_audio and part.n_times == 1 else ""
        label = part.name.removeprefix(f"{gap}-").removesuffix("-0")
        lines.append(f"| {label} | {bridge} | {' | '.join(_show(several, name) for name in COLUMNS)} | {share} |")
    if best:
        lines += ["", f"Shares are of audio-text at {best[0].rate:g} times the learning rate, the best for tuning."]
    return "\n".join([*lines, "", _picks(plan, gap, world, here), ""])


def describe(plan: Plan, gap: float | str, world: World) -> str:
    """Return in a line what a gap is, and the noise of the paper's rule."""
    shift = float(np.square(world.audio.mean(axis=0) - world.text.mean(axis=0)).sum())
    distance = float(np.square(world.audio - world.text).sum(axis=1).mean())
    recall, rule = measure_retrieval(world.test, world.test_text), noise_by_the_rule(world)
    return (
        f"## Gap {gap}\n\nMean cosine {recall.cosine:.3f}, shift {shift / distance:.2f} of the squared distance, "
        f"recall@1 {recall.recall_at_1:.3f} among {len(world.test)}. Noise by the rule on 30 pairs: "
        f"standard deviation {rule[0]:.3f}; with the shift on three coordinates {rule[1]:.3f}."
    )


def noise_by_the_rule(world: World) -> tuple[float, float]:
    """Return the noise of the 30-pair rule, and that in a basis in which the shift has three coordinates."""
    audio, text = world.sounds, world.sounds_text
    shift = audio.mean(axis=0) - text.mean(axis=0)
    wanted = np.zeros(len(shift))
    wanted[:3] = 3**-0.5
    mirror = shift / np.linalg.norm(shift) - wanted  # Householder's: exchanges the two directions
    mirror /= np.linalg.norm(mirror)
    sides = (audio, text), tuple(rows - 2 * np.outer(rows @ mirror, mirror) for rows in (audio, text))
    first, second = (measure_gap(*side).sample.noise_std for side in sides)
    return first, second


def bridges_picked(plan: Plan, world: World, n_draws: int = 10) -> dict[str, int]:
    """Return how often `textcap gap` picks each bridge on other pairs, as many as the plan's."""
    picked: Counter[str] = Counter()
    for draw in range(n_draws):
        rows = np.random.default_rng([WORLD_SEED, draw]).choice(len(world.sounds), plan.n_pairs, replace=False)
        picked[best_bridge(compare_bridges(world.sounds[rows], world.sounds_text[rows], seed=draw))] += 1
    return dict(picked)


def _picks(plan: Plan, gap: float | str, world: World, rows: _Rows) -> str:
    """Return what `textcap gap` picks, and how often that is within .02 F1 of the best of what it compares."""
    made = {name: (Part(gap), name) for name in ("none", "coral")}
    made |= {name: (Part(gap, name), name) for name in ("centre", "adapter")}  # as they are trained on
    values = {name: _mean(rows[key], "F1") for name, key in made.items() if key in rows}
    picked = bridges_picked(plan, world)
    good = sum(n for name, n in picked.items() if name in values and values[name] >= max(values.values()) - 0.02)
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    return f"Picked on {plan.n_pairs:,} pairs: {picked}; {good} within .02 F1 of the best ({shown})."


def _mean(several: Sequence[Mapping[str, float]], name: str) -> float:
    return statistics.mean(one[name] for one in several)


def _show(several: Sequence[Mapping[str, float]], name: str) -> str:
    values = [one[name] for one in several]
    return "–" if any(map(math.isnan, values)) else show(values)
