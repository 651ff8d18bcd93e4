"""From the maps of a scan's windows to one map of the scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from anomaly_lab.evaluation.stitching import Stitcher


def whole_map(
    maps: NDArray[np.float32],
    locations: NDArray[np.int64],
    shape: tuple[int, ...],
    across: int | None = None,
    foreground: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """The windows' maps as one, averaged where they overlap, 0 where there is no window.

    Args:
        maps: [n, *P].
        locations: first pixel of each window, [n, D].
        shape: sizes *S of the scan.
        across: axis that two-dimensional windows of a volume are perpendicular to; None for windows of D axes.
        foreground: [*S]; the map is 0 outside it.

    Returns:
        float32 [*S].

    Example:
        >>> whole_map(np.ones((2, 1, 2), np.float32), np.array([[0, 0], [0, 1]]), (2, 4)).tolist()
        [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    stitcher = Stitcher(shape)
    stitcher.add(maps, locations, across)
    whole: NDArray[np.float32] = stitcher.result()
    return whole if foreground is None else whole * filled(foreground)


def filled(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Foreground [*S] without holes: fluid in a CT's brain window is as dark as air."""
    without_holes: NDArray[np.bool_] = binary_fill_holes(foreground)
    return without_holes
