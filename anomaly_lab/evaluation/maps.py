"""Merge the maps of a scan's windows into one map of the scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.evaluation.stitching import Stitcher


def whole_map(
    maps: NDArray[np.float32],
    locations: NDArray[np.int64],
    shape: tuple[int, ...],
    across: int | None = None,
    foreground: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Merge the maps of a scan's windows: averaged where windows overlap, 0 where there is no window.

    Args:
        maps: maps of the windows, [n, *P].
        locations: first pixel of each window, [n, D].
        shape: size *S of the scan, D axes.
        across: axis of a volume that its two-dimensional windows are perpendicular to; None for windows of D axes.
        foreground: [*S]; the map is set to 0 outside the foreground with its holes filled. None keeps the whole map.

    Returns:
        float32 [*S].

    Examples:
        >>> whole_map(np.ones((2, 1, 2), np.float32), np.array([[0, 0], [0, 1]]), (2, 4)).tolist()
        [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    stitcher = Stitcher(shape)
    stitcher.add(maps, locations, across)
    whole: NDArray[np.float32] = stitcher.result()
    return whole if foreground is None else whole * filled(foreground)


def filled(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the foreground [*S] with its holes filled; in a CT's brain window, fluid is as dark as the air outside.

    Examples:
        >>> ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
        >>> filled(ring).astype(int).tolist()
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    """
    from scipy.ndimage import binary_fill_holes  # only volumes need it: an export scores pictures without scipy

    without_holes: NDArray[np.bool_] = binary_fill_holes(foreground)
    return without_holes
