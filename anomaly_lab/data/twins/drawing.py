"""Shapes that several twins draw with."""

from __future__ import annotations

import cv2
import numpy as np


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth standard normal noise, float32 [H, W], with about `cells` bumps along each side."""
    grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def soft_step(x: np.ndarray, width: float) -> np.ndarray:
    """Step from 0 to 1 at x = 0, a ramp of the given width."""
    return np.clip(x / width + 0.5, 0, 1)


def ellipse(
    shape: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> np.ndarray:
    """Distance from `centre` in units of `radii`, float32 [H, W]: below 1 inside.

    Args:
        shape: H and W in pixels.
        centre: row and column, in pixels.
        radii: along rows and columns before the turn, in pixels.
        angle: of the turn, in radians.
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    down, right = y - np.float32(centre[0]), x - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.asarray(np.hypot((down * cos + right * sin) / radii[0], (right * cos - down * sin) / radii[1]))
