"""Draw a figure to a file. Needs matplotlib, an optional dependency."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def draw(path: Path, figure_of: Callable[[Any], Any]) -> str:
    """Write a figure; return a line that names the file, or says why there is none.

    Args:
        path: File to write: SVG, or another format that matplotlib supports.
        figure_of: Takes `matplotlib.pyplot` and returns the figure.
    """
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is not installed (run pip install 'textcap[plot]')"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Keep text as text, and write the same file for the same figures.
    style = {"svg.fonttype": "none", "svg.hashsalt": "textcap", "font.size": 10, "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        figure = figure_of(pyplot)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata)
        pyplot.close(figure)
    return f"drew {path}"
