"""Draw event F1 across the main bridges against the share of the gap that is a shift.

Readable in greyscale: lines differ in marker and dash, not only in colour.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plotting import draw

# Marker, dash and colour of each line, from the best expected to the worst.
_STYLES = (
    ("D", "-", "black"),
    ("s", "-", "#0072B2"),
    ("^", "--", "#009E73"),
    ("v", "-.", "#D55E00"),
    ("o", ":", "#CC79A7"),
    ("x", ":", "0.45"),
)

Point = tuple[float, float, float]  # share of the shift, mean event F1, standard deviation over seeds


def draw_dial(path: Path, lines: Mapping[str, Sequence[Point]]) -> str:
    """Draw a line for each bridge; return a line that names the file, or says why there is none.

    Args:
        path: File to write: SVG, or another format that matplotlib supports.
        lines: Points of each bridge by its label, at most six bridges; without seeds, the standard deviation is 0.
    """

    def figure_of(pyplot: Any) -> Any:
        figure, axis = pyplot.subplots(figsize=(7.0, 3.8), layout="constrained")
        for (label, points), (marker, dash, colour) in zip(lines.items(), _STYLES, strict=False):
            if not points:
                continue
            shares, values, spreads = zip(*points, strict=True)
            axis.errorbar(
                shares,
                values,
                yerr=spreads,
                marker=marker,
                linestyle=dash,
                color=colour,
                markersize=5,
                capsize=3,
                label=label,
            )
        axis.set_xticks(sorted({share for points in lines.values() for share, *_ in points}))
        axis.set_xlim(0, 1)
        axis.set_xlabel("share of the mean squared distance that is a shift")
        axis.set_ylabel("event F1")
        axis.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False)
        return figure

    return draw(path, figure_of)
