"""Plot the modality gap: a scatter plot of both kinds of embeddings, and a histogram of cosines (paper, Figure 1).

matplotlib is imported only when a plot is made. The same embeddings give the same file, byte for byte.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textcap.errors import DependencyError, InputError
from textcap.files import atomic_write_bytes, check_file_place
from textcap.gap.bridge.affine import AffineBridge
from textcap.gap.measure import draw_pairs
from textcap.gap.retrieval import Array, unit_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

# Two colours of the palette of Okabe and Ito, which also differ in lightness.
_AUDIO_COLOUR, _TEXT_COLOUR = "#0072B2", "#E69F00"
_MAX_POINTS = 300  # of each kind
_LINE_STREAM, _MISMATCH_STREAM, _POINT_STREAM = 2_000_000, 3_000_000, 5_000_000  # random streams of the seed
# Metadata to leave out, because it would make two files of the same plot differ.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}

After = tuple[str, AffineBridge]


def check_plot(path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Check, before any other work, that a plot can be made and written to a path.

    Args:
        force: Allow an existing file to be overwritten.
        inputs: Input files, which are never overwritten.

    Raises:
        InputError: The suffix is unknown, the path is a folder or an input, or it exists and `force` is not set.
        DependencyError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is not a valid plot file name", hint=f"use a name ending in {' or '.join(SUFFIXES)}")
    check_file_place(path, force=force, inputs=inputs)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise DependencyError("plotting needs matplotlib", hint="pip install 'textcap[plot]'") from error


def plot_gap(
    path: Path, audio: NDArray[Any], text: NDArray[Any], *, after: After | None = None, n_lines: int = 30, seed: int = 0
) -> None:
    """Plot the gap to a file, overwriting any existing one; the suffix sets the format.

    Args:
        audio: Audio embeddings, `[N, E]`, of any length.
        text: Text embeddings, `[M, E]`, of any length; row i belongs to row i of `audio`, if there are lines.
        after: Name of a bridge and the bridge: the embeddings are shown once more, as it moves them.
        n_lines: Number of randomly chosen pairs whose two points are joined by a line; 0 if the two are not paired,
            and then no cosines are shown.
        seed: Seed of that choice, and of the mismatched pairs in the histogram.

    Raises:
        InputError: The suffix is unknown, or the file cannot be written.
        DependencyError: matplotlib is not installed.
    """
    check_plot(path, force=True)
    import matplotlib

    content = io.BytesIO()
    suffix = path.suffix.lower()
    with matplotlib.rc_context({"svg.hashsalt": "textcap"}):
        figure = draw_gap(audio, text, after=after, n_lines=n_lines, seed=seed)
        figure.savefig(content, format=suffix[1:], dpi=150, metadata=_METADATA[suffix])
    atomic_write_bytes(path, content.getvalue())


def draw_gap(
    audio: NDArray[Any], text: NDArray[Any], *, after: After | None = None, n_lines: int = 30, seed: int = 0
) -> "Figure":
    """Return the figure: a scatter plot on the first two principal components, and a histogram of cosines.

    A second row shows them after a bridge.

    The arguments are those of `plot_gap`.
    """
    from matplotlib.figure import Figure

    if not n_lines:  # as many of both, so that the components are not those of one side
        n = min(len(audio), len(text), _MAX_POINTS)
        audio, text = (side[draw_pairs(len(side), n, seed, _POINT_STREAM)] for side in (audio, text))
    sounds, captions = unit_rows(audio), unit_rows(text)
    sides = {"": (sounds, captions)}
    if after is not None:
        name, bridge = after
        moved_sounds, moved_captions = bridge.moved(sounds, captions)
        sides[f" after {name}"] = unit_rows(moved_sounds), unit_rows(moved_captions)
    n_columns = 2 if n_lines else 1
    figure = Figure(figsize=(5 * n_columns, 4.2 * len(sides)), layout="constrained")
    grid = figure.subplots(len(sides), n_columns, squeeze=False)
    for row, (when, (sounds, captions)) in zip(grid, sides.items(), strict=True):
        _draw_scatter(row[0], sounds, captions, n_lines, seed, when)
        if n_lines:
            _draw_cosines(row[1], sounds, captions, seed, when)
    return figure


def _draw_scatter(axes: "Axes", sounds: Array, captions: Array, n_lines: int, seed: int, when: str) -> None:
    points, shares = _principal_components(np.concatenate([sounds, captions]))
    sound_points, caption_points = points[: len(sounds)], points[len(sounds) :]
    joined = draw_pairs(len(sounds), min(n_lines, len(sounds)), seed, _LINE_STREAM)
    for i in joined:
        ends = np.stack([sound_points[i], caption_points[i]])
        axes.plot(ends[:, 0], ends[:, 1], color="0.6", linewidth=0.7, zorder=1)
    shown = draw_pairs(len(sounds), min(_MAX_POINTS, len(sounds)), seed, _POINT_STREAM)
    axes.scatter(
        sound_points[shown, 0], sound_points[shown, 1], s=18, color=_AUDIO_COLOUR, marker="o", label="audio", zorder=2
    )
    axes.scatter(
        caption_points[shown, 0], caption_points[shown, 1], s=22, color=_TEXT_COLOUR, marker="^", label="text", zorder=2
    )
    axes.set_xlabel(f"first component ({shares[0]:.0%})")
    axes.set_ylabel(f"second component ({shares[1]:.0%})")
    axes.set_title(f"embeddings{when}" + (f", lines between {len(joined)} pairs" if n_lines else ""))
    axes.legend()


def _draw_cosines(axes: "Axes", sounds: Array, captions: Array, seed: int, when: str) -> None:
    matched = (sounds * captions).sum(axis=1)
    # Pair each sound with the caption of another: a shift by 1 to N - 1 leaves no sound with its own caption.
    shifts = np.random.default_rng([seed, _MISMATCH_STREAM]).integers(1, max(len(sounds), 2), size=min(10, len(sounds)))
    mismatched = np.concatenate([(sounds * np.roll(captions, shift, axis=0)).sum(axis=1) for shift in shifts])
    least, most = min(matched.min(), mismatched.min()), max(matched.max(), mismatched.max())
    bins = np.linspace(least, max(most, least + 1e-3), 31).tolist()
    style: dict[str, Any] = {"bins": bins, "density": True, "edgecolor": "black", "linewidth": 0.5}
    axes.hist(mismatched, color=_TEXT_COLOUR, alpha=0.7, hatch="//", label="others", **style)
    axes.hist(matched, color=_AUDIO_COLOUR, alpha=0.7, label="pairs", **style)
    axes.axvline(float(matched.mean()), color="black", linestyle="--", label=f"mean of pairs {matched.mean():.2f}")
    axes.set_xlabel("cosine of audio and text embedding")
    axes.set_ylabel("density")
    axes.set_title(f"cosines{when}")
    axes.legend()


def _principal_components(rows: Array) -> tuple[Array, Array]:
    """Return rows projected on their first two principal components, `[N, 2]`, and each component's variance share."""
    centred = rows - rows.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is arbitrary, so its largest entry is made positive.
    for direction in directions[:2]:
        direction *= np.sign(direction[np.abs(direction).argmax()])
    shares: Array = values**2 / max(float((values**2).sum()), 1e-30)
    return centred @ directions[:2].T, shares
