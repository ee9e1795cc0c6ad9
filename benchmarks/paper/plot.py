"""Draw the noise sweep: scores against variance, with the calibrated value marked.

Knows matplotlib, an extra, and numbers. Readable in grey: lines differ in marker and dash, not in colour alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

PANELS = {"cider_d": "CIDEr-D", "event_f1": "event F1"}
_SMALLEST = 0.0005  # the axis is linear from 0 to here, and logarithmic beyond
_WITHIN = 0.95


def draw_sweep(path: Path, points: Sequence[tuple[float, Mapping[str, float]]], calibrated: float) -> str:
    """Draw scores by noise variance; return a line that says where the picture is, or why there is none.

    Args:
        path: SVG, or what else matplotlib writes.
        points: Variance and figures, by rising variance.
        calibrated: The variance that the 30 pairs gave.
    """
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is missing; pip install 'textcap[plot]'"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Text stays text, and the same figures give the same file.
    style = {"svg.fonttype": "none", "svg.hashsalt": "textcap", "font.size": 10, "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
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
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata)
        pyplot.close(figure)
    return f"drawn: {path}"
