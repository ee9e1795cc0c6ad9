"""The means and covariances of two sets of embeddings that are not paired: what bridges can be computed from.

Shapes: N rows, E embedding width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textcap.gap.retrieval import Array, unit_rows

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of unit-length embeddings."""

    mean: Array  # [E]
    covariance: Array  # [E, E], divided by n
    shrinkage: float  # Ledoit and Wolf's, 0 to 1

    @property
    def spread(self) -> float:
        """Mean squared distance to the mean: the trace of the covariance."""
        return float(np.trace(self.covariance))

    @property
    def shrunk(self) -> Array:
        """The covariance drawn towards a multiple of the identity, `[E, E]`, as far as so few rows ask for."""
        width = len(self.mean)
        return (1 - self.shrinkage) * self.covariance + self.shrinkage * self.spread / width * np.eye(width)


def measure_moments(embeddings: NDArray[Any]) -> Moments:
    """Return the moments of embeddings `[N, E]` of any length, which are made unit length first.

    The shrinkage is that of Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
    (2004), which scikit-learn's `ledoit_wolf` computes as well. Rows are read in parts, so a memory-mapped array is
    never in memory as a whole.
    """
    n, width = embeddings.shape
    total, products, fourth = np.zeros(width), np.zeros((width, width)), 0.0
    for start in range(0, n, _ROWS_AT_ONCE):
        total += unit_rows(embeddings[start : start + _ROWS_AT_ONCE]).sum(axis=0)
    mean = total / n
    for start in range(0, n, _ROWS_AT_ONCE):
        rows = unit_rows(embeddings[start : start + _ROWS_AT_ONCE]) - mean
        products += rows.T @ rows
        fourth += float((np.square(rows).sum(axis=1) ** 2).sum())
    covariance = products / n
    squared = float(np.square(covariance).sum())
    error = (fourth / n - squared) / n  # of the covariance's entries, all together
    distance = squared - float(np.trace(covariance)) ** 2 / width  # of the covariance to a multiple of the identity
    shrinkage = min(max(error, 0.0), distance) / distance if distance > 1e-12 else 1.0
    return Moments(mean, covariance, shrinkage)
