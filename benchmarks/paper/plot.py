"""Draw the noise sweep: scores against noise variance, with the calibrated value marked.

Readable in greyscale: lines differ in marker and dash, not only in colour.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plotting import draw

PANELS = {"cider_d": "CIDEr-D", "event_f1": "event F1"}
_SMALLEST = 0.0005  # the axis is linear up to this variance and logarithmic above it
_WITHIN = 0.95  # share of the best score that a horizontal line marks


def draw_sweep(path: Path, points: Sequence[tuple[float, Mapping[str, float]]], calibrated: float) -> str:
    """Draw scores against noise variance; return a line that names the file, or says why there is none.

    Args:
        path: File to write: SVG, or another format that matplotlib supports.
        points: Variance and figures of each part, by increasing variance.
        calibrated: The variance from the 30 pairs; one of the points.
    """

    def figure_of(pyplot: Any) -> Any:
        figure, axes = pyplot.subplots(1, len(PANELS), figsize=(8.0, 3.2), layout="constrained")
        for axis, (name, label) in zip(axes, PANELS.items(), strict=True):
            values = [figures[name] for _, figures in points]
            axis.plot([variance for variance, _ in points], values, "o-", color="#0072B2", markersize=4)
            chosen = next(figures[name] for variance, figures in points if variance == calibrated)
            axis.plot([calibrated], [chosen], "D", color="black", markersize=8, fillstyle="none", markeredgewidth=1.5)
            axis.axvline(
                calibrated, color="black", linestyle="--", linewidth=1, label=f"from 30 pairs: {calibrated:.4f}"
            )
            axis.axhline(_WITHIN * max(values), color="0.45", linestyle=":", linewidth=1.5, label="95 % of the best")
            axis.set_xscale("symlog", linthresh=_SMALLEST, linscale=0.5)
            ticks = [0, 0.001, 0.01, 0.1, 1]
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_xticks([], minor=True)
            axis.set_xlim(-_SMALLEST / 4, 1.4)
            axis.set_ylim(0, 1.08 * max(values))
            axis.set_xlabel("noise variance")
            axis.set_ylabel(label)
            axis.spines[["top", "right"]].set_visible(False)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
        return figure

    return draw(path, figure_of)
