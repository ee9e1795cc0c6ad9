"""Write the tables of the experiments in Markdown, from the scores of the parts.

A row of several seeds shows the mean and the standard deviation. A dash stands for a part without a result or a metric
that could not be computed.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.parts import part_path
from benchmarks.paper.plan import (
    ADAPTER_PAIRS,
    SEEDS,
    SWEPT_VARIANCES,
    TESTED_STYLES,
    Part,
    adapter_part,
    audio_part,
    default_part,
    no_noise_part,
    styled_part,
    swept_part,
    text_part,
    writer_parts,
)
from benchmarks.paper.plot import draw_sweep
from benchmarks.paper.scores import Scored
from textcap.files import atomic_write_text

COLUMNS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "spice": "SPICE",
    "spider": "SPIDEr",
    "event_f1": "F1",
    "unseen": "F1 unseen",
    "distinct": "distinct",
}
SWEEP_COLUMNS = {name: COLUMNS[name] for name in ("bleu_4", "meteor", "cider_d", "event_f1", "unseen", "distinct")}
_WRITERS = ("first", "second")
STYLE_COLUMNS = {**COLUMNS, "styled": "in style"}

Figures = dict[tuple[str, str], dict[str, float]]  # keyed by name of the part and writer of the references


def write_tables(work: Path, scored: Sequence[Scored], plot_path: Path) -> str:
    """Return the tables of all experiments, write them to the work folder, and draw the noise sweep."""
    figures: Figures = {(one.part.name, one.references): one.figures for one in scored}
    text = "\n".join(
        [
            text_against_audio(figures),
            noise_sweep(work, figures, plot_path),
            adapter_against_noise(work, figures),
            second_writer(figures),
            style(figures),
        ]
    )
    atomic_write_text(work / "results.md", text)
    rows = [{"part": one.part.name, "references": one.references, **one.figures} for one in scored]
    atomic_write_text(work / "results.json", json.dumps(rows, indent=1))
    return text


def text_against_audio(figures: Figures) -> str:
    """Return the table of experiment 1, and the share of the audio-text scores that text alone reaches."""
    default, text, audio = ([make(seed) for seed in SEEDS] for make in (default_part, text_part, audio_part))
    rows = {"text, default bridge": default, "text, noise": text}
    rows |= {"text, no noise": [no_noise_part(seed) for seed in SEEDS], "audio-text": audio}
    lines = ["## 1. Text-only against audio-text", table(rows, "plain", figures, COLUMNS), ""]
    for name in ("cider_d", "spice", "spider", "event_f1"):
        means = [mean([part.name for part in parts], "plain", name, figures) for parts in (default, text, audio)]
        if all(means):
            shares = " and ".join(f"{value / means[-1]:.1%}" for value in means[:-1])
            lines.append(f"{COLUMNS[name]}: text with the default bridge and with noise has {shares} of audio-text")
    return "\n".join(lines) + "\n"


def noise_sweep(work: Path, figures: Figures, plot_path: Path) -> str:
    """Return the table of experiment 2, and draw the sweep."""
    calibrated = text_part(0)
    parts = [calibrated, *(swept_part(variance) for variance in SWEPT_VARIANCES)]
    made = [part for part in parts if (part.name, "plain") in figures]
    variances = {part.name: float(facts_of(work, part)["noise_variance"]) for part in made}
    made.sort(key=lambda part: variances[part.name])
    rows = {f"{variances[part.name]:.4g}{' (calibrated)' if part == calibrated else ''}": [part] for part in made}
    lines = ["## 2. Noise variance", table(rows, "plain", figures, SWEEP_COLUMNS, first="variance"), ""]
    if calibrated in made:
        for name in ("cider_d", "event_f1"):
            values = {part.name: figures[part.name, "plain"][name] for part in made}
            best = max(values, key=lambda part: values[part])
            share = values[calibrated.name] / values[best]
            lines.append(f"{COLUMNS[name]}: best at {variances[best]:.4g}; the calibrated value has {share:.1%} of it")
        points = [(variances[part.name], figures[part.name, "plain"]) for part in made]
        lines.append(draw_sweep(plot_path, points, variances[calibrated.name]))
    return "\n".join(lines) + "\n"


def adapter_against_noise(work: Path, figures: Figures) -> str:
    """Return the table of experiment 3, and the facts of its adapters."""
    rows = {"noise alone": [text_part(seed) for seed in SEEDS]}
    for n_pairs in ADAPTER_PAIRS:
        rows[f"adapter on {n_pairs:,} pairs"] = [adapter_part(n_pairs, seed) for seed in SEEDS]
    lines = ["## 3. Linear adapter against noise", table(rows, "plain", figures, COLUMNS), ""]
    for label, parts in rows.items():
        made = [facts_of(work, part) for part in parts if part_path(work, part).exists()]
        stds = ", ".join(f"{facts['noise_variance'] ** 0.5:.3f}" for facts in made)
        lines.append(f"{label}: noise of standard deviation {stds}")
        for facts in made:
            if adapter := facts["adapter"]:
                lines.append(
                    f"  strength {adapter['strength']:.2g}, cosine {adapter['cosine_before']:.3f} to "
                    f"{adapter['cosine_after']:.3f}, recall@1 {adapter['recall_at_1_before']:.3f} to "
                    f"{adapter['recall_at_1_after']:.3f} among {adapter['n_held_out']}"
                )
    return "\n".join(lines) + "\n"


def second_writer(figures: Figures) -> str:
    """Return the table of experiment 4."""
    rows = {label: [writer_parts(seed)[label] for seed in SEEDS] for label in writer_parts(0)}
    tested = (
        f"On the {writer} writer's references\n\n{table(rows, writer, figures, COLUMNS)}\n" for writer in _WRITERS
    )
    return "## 4. Text of a second writer\n" + "\n".join(tested)


def style(figures: Figures) -> str:
    """Return the tables of experiment 5, one for each style."""
    found = []
    for name in TESTED_STYLES:
        rows = {
            "plain captions": [default_part(seed) for seed in SEEDS],
            "styled captions": [styled_part(name, seed) for seed in SEEDS],
        }
        found.append(f"{name}\n\n{table(rows, name, figures, STYLE_COLUMNS)}\n")
    return "## 5. Style\n" + "\n".join(found)


def table(
    rows: dict[str, list[Part]], writer: str, figures: Figures, columns: dict[str, str], *, first: str = "trained on"
) -> str:
    """Return a table with one row per label, scored against the references of one writer."""
    lines = [f"| {first} | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for label, parts in rows.items():
        found = [figures[part.name, writer] for part in parts if (part.name, writer) in figures]
        cells = [show([one[name] for one in found if name in one]) for name in columns]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def show(values: Sequence[float]) -> str:
    """Return the mean with three decimal places, with the standard deviation if there are several values."""
    if not values:
        return "–"
    spread = f" ± {short(statistics.stdev(values))}" if len(values) > 1 else ""
    return short(statistics.mean(values)) + spread


def short(value: float) -> str:
    """Return a number with three decimal places, without a zero before the point."""
    return f"{value:.3f}".removeprefix("0")


def mean(names: Sequence[str], writer: str, metric: str, figures: Figures) -> float | None:
    """Return the mean of a metric over the parts that have it; None if no part has it."""
    values = [figures[name, writer][metric] for name in names if metric in figures.get((name, writer), {})]
    return statistics.mean(values) if values else None


def facts_of(work: Path, part: Part) -> dict[str, Any]:
    """Return the facts of a part's training."""
    facts: dict[str, Any] = json.loads(part_path(work, part).read_text(encoding="utf-8"))["facts"]
    return facts
