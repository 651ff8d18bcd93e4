"""Drawing functions shared by the synthetic twins."""

from __future__ import annotations

import cv2
import numpy as np


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Return smooth, approximately standard normal noise, float32 [H, W], with about `cells` bumps per side.

    Examples:
        >>> smooth_noise(np.random.default_rng(0), (32, 48), cells=4).shape
        (32, 48)
    """
    grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def soft_step(x: np.ndarray, width: float) -> np.ndarray:
    """Return a step from 0 to 1 at x = 0 as a linear ramp of the given width.

    Examples:
        >>> soft_step(np.array([-2.0, -0.5, 0.0, 0.5, 2.0]), width=2.0).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return np.clip(x / width + 0.5, 0, 1)


def ellipse(
    shape: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> np.ndarray:
    """Return the distance from `centre` in units of `radii`, [H, W]: below 1 inside the ellipse.

    Args:
        shape: H and W in pixels.
        centre: row and column in pixels.
        radii: vertical and horizontal radius before rotation, in pixels.
        angle: rotation angle in radians.

    Examples:
        >>> ellipse((1, 5), centre=(0, 2), radii=(1, 2)).tolist()
        [[1.0, 0.5, 0.0, 0.5, 1.0]]
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    down, right = y - np.float32(centre[0]), x - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.asarray(np.hypot((down * cos + right * sin) / radii[0], (right * cos - down * sin) / radii[1]))
