"""From patches back to whole scans: maps averaged where patches overlap, scores gathered by a named rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Rule = Literal["max", "mean", "top_k"]


class Stitcher:
    """Averages the maps of overlapping patches into the map of the scan they were cut from.

    Sums are kept in float64: 12 bytes a voxel in all, and equal values average to exactly themselves.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Start with nothing covered.

        Args:
            shape: sizes *S of the scan the locations refer to.
        """
        self._sum = np.zeros(shape, np.float64)
        self._count = np.zeros(shape, np.int32)

    def add(self, patches: np.ndarray, locations: np.ndarray, axis: int | None = None) -> None:
        """Put patches where they began.

        Args:
            patches: [n, *extent]; an extent may be 1 along an axis.
            locations: [n, D], first voxel of each patch.
            axis: of the scan, across which 2-D patches [n, h, w] of a volume lie.

        Raises:
            ValueError: the counts differ, or a patch does not lie in the scan.
        """
        if axis is not None:
            patches = np.expand_dims(patches, 1 + axis)
        ends = np.asarray(locations) + patches.shape[1:]
        if (np.asarray(locations) < 0).any() or (ends > self._sum.shape).any():
            raise ValueError(f"a patch of {patches.shape[1:]} does not lie in the scan of {self._sum.shape}")
        for patch, start, end in zip(patches, locations, ends, strict=True):
            window = tuple(map(slice, start, end))
            self._sum[window] += patch
            self._count[window] += 1

    def result(self) -> np.ndarray:
        """The map so far: float32 [*S], 0 where no patch was."""
        return np.divide(self._sum, self._count, out=np.zeros_like(self._sum), where=self._count > 0).astype(np.float32)


def case_scores(score: np.ndarray, case: np.ndarray, rule: Rule, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Score cases by their patches.

    Args:
        score: [N], of the patches; a NaN makes its case NaN under every rule.
        case: [N], the case each was cut from: ids or numbers.
        rule: the highest, the mean of all, or the mean of the k highest (of all, where a case has fewer).
        k: patches that "top_k" takes.

    Returns:
        The cases, sorted, [M], and their scores, float64 [M].
    """
    if rule not in ("max", "mean", "top_k") or k < 1:
        raise ValueError(f"no rule {rule!r} with k={k}: max, mean or top_k, k from 1 on")
    cases, number, count = np.unique(np.asarray(case), return_inverse=True, return_counts=True)
    taken = np.minimum(count, {"max": 1, "mean": len(score), "top_k": k}[rule])
    order = np.lexsort((score, number))  # the highest last in its case, NaN after it
    ranked = np.asarray(score, np.float64)[order]
    below = np.repeat(np.cumsum(count) - taken, count)
    kept = np.flatnonzero(np.arange(len(ranked)) >= below)
    total = np.bincount(number[order][kept], weights=ranked[kept], minlength=len(cases))
    return cases, total / taken


def score_maps(score: np.ndarray, extent: Sequence[int], zero: float, one: float) -> np.ndarray:
    """Maps of windows that have but a score each: it fills the whole window, measured between two known scores.

    Raw scores have neither a sign nor a size in common; as shares of what normals reach, 0 is as normal as it gets,
    also where a scan has no window.

    Args:
        score: [n], of the windows.
        extent: size *P of each.
        zero: score that becomes 0, as do those below: the least of the held-out normals.
        one: score that becomes 1: the threshold; where it is the same, differences stay as they are.

    Returns:
        float32 [n, *P], a read-only view; not bounded above.
    """
    share = (np.asarray(score, np.float64) - zero).clip(0) / ((one - zero) or 1.0)
    column = share.astype(np.float32).reshape(-1, *[1] * len(extent))
    return np.broadcast_to(column, (len(column), *extent))
