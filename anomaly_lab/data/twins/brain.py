"""A brain on FLAIR that several twins draw lesions into: no skull, dark ventricles and furrows; nobody's."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomaly_lab.data.twins.drawing import smooth_noise, soft_step

RADII = (68.0, 84.0, 60.0)  # mm, of half a brain's width, length and height
_VENTRICLE = (0.09, 0.34, 0.20)  # radii and place of the left one, in the brain's coordinates
_PLACE = (0.15, -0.05, 0.08)


class Brain(NamedTuple):
    """A brain without lesion; X to the right or left, Y to the front or back, Z up or down.

    Attributes:
        image: float32 [X, Y, Z], 0 outside, about 1 inside.
        radius: [X, Y, Z], 1 at its surface.
        reach: half of the grid along each axis, in radii of the brain.
    """

    image: np.ndarray
    radius: np.ndarray
    reach: tuple[float, ...]


def draw_brain(rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, ...]) -> Brain:
    """Draw a brain in the middle of the grid.

    Args:
        rng: every call draws another one.
        shape: voxels along each axis.
        spacing: edges of a voxel, in mm.
    """
    radii = np.array(RADII) * rng.uniform(0.92, 1.05, 3)
    reach = tuple((np.multiply(shape, spacing) / 2 / radii).tolist())
    wobble = noise(rng, shape, 5)
    radius = distance(shape, reach, (0, 0, 0), (1, 1, 1)) + 0.02 * wobble
    folds = soft_step(noise(rng, shape, 22) - 0.9, 0.8) * soft_step(radius - 0.72, 0.15)
    deep = soft_step(0.80 + 0.08 * noise(rng, shape, 12) - radius, 0.08)  # white matter
    image = 1.05 - 0.22 * deep - 0.5 * folds + 0.05 * wobble
    size = rng.uniform(0.8, 1.25)
    for side in (-1, 1):
        place = (side * _PLACE[0], *_PLACE[1:])
        within = distance(shape, reach, place, tuple(size * r for r in _VENTRICLE)) + 0.1 * wobble
        image -= 0.55 * soft_step(1 - within, 0.25) * image
    image += 0.035 * rng.standard_normal(shape, np.float32)
    image *= radius < 1
    return Brain(image.clip(0, None), radius, reach)


def distance(
    shape: tuple[int, ...], reach: tuple[float, ...], centre: tuple[float, ...], radii: tuple[float, ...]
) -> np.ndarray:
    """Distance from `centre` in units of `radii`, float32 [X, Y, Z]; both in radii of the brain, from its middle."""
    squares = np.zeros((1, 1, 1), np.float32)
    for axis, (extent, middle, radius) in enumerate(zip(reach, centre, radii, strict=True)):
        along = (np.linspace(-extent, extent, shape[axis], dtype=np.float32) - np.float32(middle)) / np.float32(radius)
        squares = squares + (along**2).reshape([-1 if other == axis else 1 for other in range(3)])
    return np.asarray(np.sqrt(squares))


def noise(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Smooth noise, float32 [X, Y, Z], about standard normal, with about `cells` bumps along each axis."""
    knots = max(2, min(cells, shape[2]))
    planes = np.stack([smooth_noise(rng, (shape[0], shape[1]), cells) for _ in range(knots)])
    place = np.linspace(0, knots - 1, shape[2], dtype=np.float32)
    weights = np.clip(1 - np.abs(place - np.arange(knots, dtype=np.float32)[:, None]), 0, None)
    weights /= np.sqrt((weights**2).sum(0))  # between two planes as loud as in one
    return np.asarray(np.einsum("kxy,kz->xyz", planes, weights, optimize=True))


def write_volume(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Write NIfTI in the type of `values`; its folder is there."""
    nibabel: Any = import_module("nibabel")  # its types are half there
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
