"""Draw the modality gap: both clouds of embeddings, and the cosines of pairs and of others (paper, Figure 1).

Knows arrays only. matplotlib is imported when something is drawn, never at import; the same embeddings give the same
file.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textcap.errors import DependencyError, InputError
from textcap.files import atomic_write_bytes, check_file_place
from textcap.gap.measure import draw_pairs
from textcap.gap.retrieval import Array, unit_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

# Two colours of Okabe and Ito's, which differ in lightness, too.
_AUDIO_COLOUR, _TEXT_COLOUR = "#0072B2", "#E69F00"
_MOST_POINTS = 300
_LINE_STREAM, _OTHER_STREAM = 2_000_000, 3_000_000
# What would make two files of the same picture differ.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def check_plot(path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Make sure that a picture can be drawn and written at a path, before any work is done for it.

    Raises:
        InputError: The form is not known, the path is taken and `force` is not set, or it is an input.
        DependencyError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is no name of a picture", hint=f"let it end in {', '.join(SUFFIXES)}")
    check_file_place(path, force=force, inputs=inputs)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise DependencyError("drawing needs matplotlib", hint="pip install 'textcap[plot]'") from error


def plot_gap(path: Path, audio: NDArray[Any], text: NDArray[Any], *, n_lines: int = 30, seed: int = 0) -> None:
    """Draw the gap into a file.

    Args:
        audio: `[N, E]`, any length.
        text: `[N, E]`, row i for row i of the audio.
        n_lines: Pairs that are joined by a line.

    Raises:
        InputError: The file cannot be written.
        DependencyError: matplotlib is not installed.
    """
    check_plot(path, force=True)
    import matplotlib

    content = io.BytesIO()
    suffix = path.suffix.lower()
    with matplotlib.rc_context({"svg.hashsalt": "textcap"}):
        figure = draw_gap(audio, text, n_lines=n_lines, seed=seed)
        figure.savefig(content, format=suffix[1:], dpi=150, metadata=_METADATA[suffix])
    atomic_write_bytes(path, content.getvalue())


def draw_gap(audio: NDArray[Any], text: NDArray[Any], *, n_lines: int = 30, seed: int = 0) -> "Figure":
    """Return the picture: clouds on their first two principal components, beside a histogram of cosines."""
    from matplotlib.figure import Figure

    sounds, captions = unit_rows(audio), unit_rows(text)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_clouds(left, sounds, captions, n_lines, seed)
    _draw_cosines(right, sounds, captions, seed)
    return figure


def _draw_clouds(axes: "Axes", sounds: Array, captions: Array, n_lines: int, seed: int) -> None:
    points, shares = _principal(np.concatenate([sounds, captions]))
    of_sounds, of_captions = points[: len(sounds)], points[len(sounds) :]
    joined = draw_pairs(len(sounds), min(n_lines, len(sounds)), seed, _LINE_STREAM)
    for i in joined:
        ends = np.stack([of_sounds[i], of_captions[i]])
        axes.plot(ends[:, 0], ends[:, 1], color="0.6", linewidth=0.7, zorder=1)
    shown = slice(0, _MOST_POINTS)
    axes.scatter(
        of_sounds[shown, 0], of_sounds[shown, 1], s=18, color=_AUDIO_COLOUR, marker="o", label="audio", zorder=2
    )
    axes.scatter(
        of_captions[shown, 0], of_captions[shown, 1], s=22, color=_TEXT_COLOUR, marker="^", label="text", zorder=2
    )
    axes.set_xlabel(f"first component ({shares[0]:.0%})")
    axes.set_ylabel(f"second component ({shares[1]:.0%})")
    axes.set_title(f"embeddings, lines between {len(joined)} pairs")
    axes.legend()


def _draw_cosines(axes: "Axes", sounds: Array, captions: Array, seed: int) -> None:
    own = (sounds * captions).sum(axis=1)
    # Each sound with the caption of another: a shift by 1 to N - 1 leaves none with its own.
    shifts = np.random.default_rng([seed, _OTHER_STREAM]).integers(1, max(len(sounds), 2), size=min(10, len(sounds)))
    others = np.concatenate([(sounds * np.roll(captions, shift, axis=0)).sum(axis=1) for shift in shifts])
    least, most = min(own.min(), others.min()), max(own.max(), others.max())
    bins = np.linspace(least, max(most, least + 1e-3), 31).tolist()
    style: dict[str, Any] = {"bins": bins, "density": True, "edgecolor": "black", "linewidth": 0.5}
    axes.hist(others, color=_TEXT_COLOUR, alpha=0.7, hatch="//", label="others", **style)
    axes.hist(own, color=_AUDIO_COLOUR, alpha=0.7, label="pairs", **style)
    axes.axvline(float(own.mean()), color="black", linestyle="--", label=f"mean of pairs {own.mean():.2f}")
    axes.set_xlabel("cosine of audio and text embedding")
    axes.set_ylabel("density")
    axes.set_title("cosines")
    axes.legend()


def _principal(rows: Array) -> tuple[Array, Array]:
    """Return rows on their first two principal components `[N, 2]`, and the share of variance of each."""
    centred = rows - rows.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is arbitrary: its largest entry is made positive.
    for direction in directions[:2]:
        direction *= np.sign(direction[np.abs(direction).argmax()])
    shares: Array = values**2 / max(float((values**2).sum()), 1e-30)
    return centred @ directions[:2].T, shares
