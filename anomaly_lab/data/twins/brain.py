"""Synthetic FLAIR brain without skull, with dark ventricles and sulci, into which several twins draw lesions."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomaly_lab.data.twins.drawing import smooth_noise, soft_step

RADII = (68.0, 84.0, 60.0)  # half the width, length and height of a brain in mm
_VENTRICLE = (0.09, 0.34, 0.20)  # radii of a ventricle, in radii of the brain
_PLACE = (0.15, -0.05, 0.08)  # its position, in radii of the brain


class Brain(NamedTuple):
    """A brain without lesion; X is the left-right axis, Y the front-back axis, Z the vertical axis.

    Attributes:
        image: float32 [X, Y, Z], 0 outside, about 1 inside.
        radius: [X, Y, Z], relative distance from the centre, 1 at the surface.
        reach: half of the grid along each axis, in radii of the brain.
    """

    image: np.ndarray
    radius: np.ndarray
    reach: tuple[float, ...]


def draw_brain(rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, ...]) -> Brain:
    """Draw a brain in the middle of the grid.

    Args:
        rng: source of the random variation.
        shape: voxels along each axis.
        spacing: edge lengths of a voxel in mm.

    Examples:
        >>> brain = draw_brain(np.random.default_rng(0), (32, 40, 28), (5.0, 5.0, 5.0))
        >>> brain.image.shape, float(brain.image[0, 0, 0]), bool(brain.image[16, 20, 24] > 0)
        ((32, 40, 28), 0.0, True)
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
    """Return the distance from `centre` in units of `radii`, float32 [X, Y, Z].

    Args:
        shape: voxels along each axis.
        reach: half of the grid along each axis, in radii of the brain.
        centre: position relative to the middle of the brain, in radii of the brain.
        radii: in radii of the brain.

    Examples:
        >>> distance((3, 1, 1), reach=(2, 0, 0), centre=(0, 0, 0), radii=(0.5, 1, 1)).ravel().tolist()
        [4.0, 0.0, 4.0]
    """
    squares = np.zeros((1, 1, 1), np.float32)
    for axis, (extent, middle, radius) in enumerate(zip(reach, centre, radii, strict=True)):
        along = (np.linspace(-extent, extent, shape[axis], dtype=np.float32) - np.float32(middle)) / np.float32(radius)
        squares = squares + (along**2).reshape([-1 if other == axis else 1 for other in range(3)])
    return np.asarray(np.sqrt(squares))


def noise(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Return smooth, approximately standard normal noise, float32 [X, Y, Z], with about `cells` bumps per axis.

    Examples:
        >>> noise(np.random.default_rng(0), (16, 16, 8), cells=4).shape
        (16, 16, 8)
    """
    knots = max(2, min(cells, shape[2]))
    planes = np.stack([smooth_noise(rng, (shape[0], shape[1]), cells) for _ in range(knots)])
    place = np.linspace(0, knots - 1, shape[2], dtype=np.float32)
    weights = np.clip(1 - np.abs(place - np.arange(knots, dtype=np.float32)[:, None]), 0, None)
    weights /= np.sqrt((weights**2).sum(0))  # same variance between two planes as in a plane
    return np.asarray(np.einsum("kxy,kz->xyz", planes, weights, optimize=True))


def write_volume(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI file in the type of `values`; its folder must exist.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_volume(Path(folder) / "a.nii.gz", np.zeros((2, 2, 2), np.int16), np.eye(4))
        ...     (Path(folder) / "a.nii.gz").is_file()
        True
    """
    nibabel: Any = import_module("nibabel")  # its types are incomplete
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
