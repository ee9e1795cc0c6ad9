"""Cut a recording into the pieces that sound alike; captioning them is left to `captioner`.

A recording comes as the embeddings of its windows. Windows overlap, so one that straddles a border between two sounds
has an embedding that is like neither; such windows neither become pieces nor take part in a caption if others can.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from textcap.embedding.recordings import WindowEmbeddings
from textcap.results import Piece

# A join is unusual if it costs so many times what this share of all joins stays below. The share is small, because in a
# recording of short pieces most joins cross a border; the factor is from the sound world (docs/experiments.md).
_USUAL_SHARE, _UNUSUAL = 1 / 3, 25.0
# Squared distances of unit vectors below this are rounding, or differences that nobody hears.
_SAME = 1e-4

_Stretch = tuple[int, int]  # the first window, and the one after the last


@dataclass(frozen=True)
class Span:
    """A stretch of a recording that sounds alike throughout, or that is silent."""

    start_s: float
    end_s: float
    embedding: NDArray[np.float32]  # [E], unit length
    is_silent: bool


def find_pieces(windows: WindowEmbeddings) -> list[Span]:
    """Cut a recording where what is heard changes, and where silence begins and ends.

    Every window starts as a stretch of its own. Then the two neighbours are joined that differ least, again and again,
    as in Ward's clustering. A join that costs far more than is usual in this recording is a border between two pieces.
    Nothing is random, and there is no distance that is fixed in advance. For W windows this takes O(W log W) time and
    one copy of the embeddings.

    Returns:
        Spans that cover the recording in order and without gaps.
    """
    starts_s, ends_s, silent = windows.starts_s, windows.ends_s, windows.is_silent
    stretches = _without_blurs(windows, _find_stretches(windows))
    borders_s = [float(starts_s[0])]
    for (_, stop), (first, _) in pairwise(stretches):
        # A silent window is silent from its start to its end. Two sounds may meet anywhere in what lies between them.
        left_s = starts_s[first] if silent[first] else ends_s[stop - 1]
        right_s = ends_s[stop - 1] if silent[stop - 1] else starts_s[first]
        borders_s.append(max(borders_s[-1], float(left_s + right_s) / 2))
    borders_s.append(float(ends_s[-1]))
    return [
        Span(start_s, end_s, _mean_inside(windows, slice(*own), start_s, end_s), bool(silent[own[0]]))
        for own, (start_s, end_s) in zip(stretches, pairwise(borders_s), strict=True)
        if start_s < end_s
    ]


def join_equal(pieces: Iterable[Piece]) -> list[Piece]:
    """Join pieces that follow one another without a gap and have the same caption.

    The score and the embedding of a joined piece are the means of theirs, weighted by their lengths.
    """
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is None or (last.end_s, last.caption) != (piece.start_s, piece.caption):
            joined.append(piece)
            continue
        share = (last.end_s - last.start_s) / (piece.end_s - last.start_s)
        score = share * last.score + (1 - share) * piece.score
        embedding = None
        if last.embedding is not None and piece.embedding is not None:
            embedding = _unit(np.float32(share) * last.embedding + np.float32(1 - share) * piece.embedding)
        joined[-1] = Piece(last.start_s, piece.end_s, piece.caption, score, embedding)
    return joined


def _find_stretches(windows: WindowEmbeddings) -> list[_Stretch]:
    """Return the stretches that are left when every join of usual cost is made, in order."""
    silent = windows.is_silent
    turns = np.flatnonzero(silent[1:] != silent[:-1]) + 1
    # The embeddings of silence mean nothing. As zeros they are joined at no cost.
    costs = _join_costs(np.where(silent[:, None], np.float32(0), windows.vectors), frozenset(turns.tolist()))
    usual = costs[1:][~silent[1:] & ~silent[:-1]]
    limit = _SAME
    if usual.size:
        limit = max(limit, _UNUSUAL * float(np.quantile(usual, _USUAL_SHARE, method="lower")))
    is_first = costs > limit
    return list(pairwise((*np.flatnonzero(is_first).tolist(), len(silent))))


def _without_blurs(windows: WindowEmbeddings, stretches: list[_Stretch]) -> list[_Stretch]:
    """Leave out stretches that are nothing but windows which straddle the border between their neighbours."""
    kept = stretches[:1]
    for stretch, right in pairwise(stretches[1:]):
        if not _is_blur(windows, kept[-1], stretch, right):
            kept.append(stretch)
    return kept + stretches[1:][-1:]


def _is_blur(windows: WindowEmbeddings, left: _Stretch, own: _Stretch, right: _Stretch) -> bool:
    """Return whether a stretch is taken for windows that straddle the border between its neighbours."""
    starts_s, ends_s, silent = windows.starts_s, windows.ends_s, windows.is_silent
    (first, stop), quiet_left, quiet_right = own, silent[left[0]], silent[right[0]]
    if quiet_left or quiet_right:
        overlaps = starts_s[stop - 1] < ends_s[left[1] - 1] if quiet_left else ends_s[first] > starts_s[right[0]]
        return bool(overlaps and quiet_left != quiet_right)
    if silent[first] or starts_s[stop - 1] >= ends_s[left[1]]:
        return False
    a, mean, b = (windows.vectors[slice(*stretch)].mean(axis=0) for stretch in (left, own, right))
    # An encoder hears something new where two sounds meet: a window that straddles their border is not on the line
    # between them, but nearly as different from both as they are from each other. Then it has 3/4 of their squared
    # distance from the middle between them; a mean of the two would have at most 1/4. A short sound of its own mostly
    # has more than all of it, and always if its neighbours sound alike (docs/experiments.md).
    return bool(np.sum((mean - (a + b) / 2) ** 2) < np.sum((a - b) ** 2))


def _join_costs(vectors: NDArray[np.float32], fixed: frozenset[int]) -> NDArray[np.float64]:
    """Join neighbouring stretches until only the fixed borders are left, cheapest first.

    Args:
        vectors: The embeddings of the windows, `[W, E]`; overwritten.
        fixed: Windows that must start a stretch.

    Returns:
        For each window `[W]`, what it cost to join the stretch that started with it to the one before: the growth of
        the sum of squared distances from the stretches' means. Infinite for the first window and those in `fixed`.
    """
    n = len(vectors)
    sums, sizes = vectors, np.ones(n, np.float32)
    previous, following = list(range(-1, n - 1)), list(range(1, n + 1))
    costs = np.full(n, np.inf)
    heap: list[tuple[float, int]] = []

    def offer(right: int) -> None:
        if 0 < right < n and right not in fixed:
            left = previous[right]
            apart = sums[left] / sizes[left] - sums[right] / sizes[right]
            costs[right] = sizes[left] * sizes[right] / (sizes[left] + sizes[right]) * float(apart @ apart)
            heapq.heappush(heap, (float(costs[right]), right))

    for right in range(1, n):
        offer(right)
    while heap:
        cost, right = heapq.heappop(heap)
        if cost != costs[right] or not sizes[right]:  # the offer is out of date
            continue
        left, after = previous[right], following[right]
        sums[left] += sums[right]
        sizes[left] += sizes[right]
        sizes[right] = 0
        following[left] = after
        if after < n:
            previous[after] = left
        offer(left)
        offer(after)
    return costs


def _mean_inside(windows: WindowEmbeddings, own: slice, start_s: float, end_s: float) -> NDArray[np.float32]:
    """Return the mean, at unit length `[E]`, of the windows wholly inside a span, or of all its own if none is."""
    inside = (windows.starts_s[own] >= start_s - 1e-6) & (windows.ends_s[own] <= end_s + 1e-6)
    vectors = windows.vectors[own][inside if inside.any() else slice(None)]
    return _unit(vectors.mean(axis=0))


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12))
