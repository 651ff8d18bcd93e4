"""Combine patches into scans: average maps where patches overlap, and combine scores by a named rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Rule = Literal["max", "mean", "top_k"]


class Stitcher:
    """Averages the maps of overlapping patches into the map of the scan that they were cut from.

    Sums are kept in float64, so equal values average to exactly that value; a voxel takes 12 bytes in all.

    Args:
        shape: size *S of the scan.

    Examples:
        >>> stitcher = Stitcher((1, 4))
        >>> stitcher.add(np.array([[[1.0, 1.0]], [[3.0, 3.0]]]), np.array([[0, 0], [0, 1]]))
        >>> stitcher.result().tolist()
        [[1.0, 2.0, 3.0, 0.0]]
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum = np.zeros(shape, np.float64)
        self._count = np.zeros(shape, np.int32)

    def add(self, patches: np.ndarray, locations: np.ndarray, axis: int | None = None) -> None:
        """Add patches at their locations.

        Args:
            patches: [n, *P]; the size may be 1 along an axis.
            locations: first voxel of each patch, [n, D].
            axis: axis of a volume that its 2-D patches [n, h, w] are perpendicular to; None for patches of D axes.

        Raises:
            ValueError: the numbers of patches and locations differ, or a patch exceeds the scan.
        """
        if axis is not None:
            patches = np.expand_dims(patches, 1 + axis)
        ends = np.asarray(locations) + patches.shape[1:]
        if (np.asarray(locations) < 0).any() or (ends > self._sum.shape).any():
            raise ValueError(
                f"a patch of size {patches.shape[1:]} does not fit in the scan of size {self._sum.shape} there"
            )
        for patch, start, end in zip(patches, locations, ends, strict=True):
            window = tuple(map(slice, start, end))
            self._sum[window] += patch
            self._count[window] += 1

    def result(self) -> np.ndarray:
        """Return the average of the patches added so far: float32 [*S], 0 where there is no patch."""
        return np.divide(self._sum, self._count, out=np.zeros_like(self._sum), where=self._count > 0).astype(np.float32)


def case_scores(score: np.ndarray, case: np.ndarray, rule: Rule, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Combine the scores of patches into one score per case.

    Args:
        score: scores of the patches, [N]; a NaN makes its case NaN under every rule.
        case: case of each patch, [N]: ids or numbers.
        rule: "max", "mean" of all patches, or "top_k": mean of the k highest (of all, where a case has fewer).
        k: number of patches for "top_k".

    Returns:
        The cases, sorted, [M], and their scores, float64 [M].

    Raises:
        ValueError: the rule is unknown, or k is less than 1.

    Examples:
        >>> cases, scores = case_scores(np.array([1.0, 5.0, 3.0]), np.array(["b", "a", "a"]), "mean")
        >>> cases.tolist(), scores.tolist()
        (['a', 'b'], [4.0, 1.0])
    """
    if rule not in ("max", "mean", "top_k") or k < 1:
        raise ValueError(f"cannot combine scores by rule {rule!r} with k={k}: use max, mean or top_k, and k >= 1")
    cases, number, count = np.unique(np.asarray(case), return_inverse=True, return_counts=True)
    taken = np.minimum(count, {"max": 1, "mean": len(score), "top_k": k}[rule])
    order = np.lexsort((score, number))  # by case, then ascending by score, with NaN last
    ranked = np.asarray(score, np.float64)[order]
    first_taken = np.repeat(np.cumsum(count) - taken, count)
    kept = np.flatnonzero(np.arange(len(ranked)) >= first_taken)
    total = np.bincount(number[order][kept], weights=ranked[kept], minlength=len(cases))
    return cases, total / taken


def score_maps(score: np.ndarray, extent: Sequence[int], zero: float, one: float) -> np.ndarray:
    """Make maps for a detector without anomaly maps: fill each window with its score, rescaled from two known scores.

    Raw scores of different detectors share neither sign nor scale. After rescaling, 0 is the most normal value, which
    is also the value where a scan has no window.

    Args:
        score: scores of the windows, [n].
        extent: size *P of a window.
        zero: score that is mapped to 0, as are lower ones: the lowest score of the validation normals.
        one: score that is mapped to 1: the threshold. Unless it exceeds `zero`, differences to `zero` are not scaled.

    Returns:
        float32 [n, *P], a read-only view, non-negative without upper bound.

    Examples:
        >>> score_maps(np.array([2.0, 4.0, 8.0]), extent=(1, 2), zero=2.0, one=6.0).tolist()
        [[[0.0, 0.0]], [[0.5, 0.5]], [[1.5, 1.5]]]
    """
    rescaled = (np.asarray(score, np.float64) - zero).clip(0) / (one - zero if one > zero else 1.0)
    column = rescaled.astype(np.float32).reshape(-1, *[1] * len(extent))
    return np.broadcast_to(column, (len(column), *extent))
