"""Voxel geometry: reorient a volume to the working orientation, resample it, and map values back to the scan's grid.

An affine, float64 [4, 4], maps voxel indices to mm with axes right, anterior, superior (RAS+).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from anomaly_lab.types import UserError

WORKING = "IPL"  # [C, D from superior to inferior, H from anterior to posterior, W from right to left]
SAME_LATTICE = 0.01  # largest distance, in voxels, between corresponding voxels of grids that count as equal
SAME_SPACING = 1e-3  # largest relative difference of spacings that count as equal

Mode = Literal["bilinear", "nearest"]


def are_axcodes(text: str) -> bool:
    """Return whether a text consists of one each of L or R, P or A, I or S.

    Examples:
        >>> are_axcodes("IPL"), are_axcodes("IPP")
        (True, False)
    """
    return sorted(text.translate(str.maketrans("LPI", "RAS"))) == ["A", "R", "S"]


def oriented(pixels: np.ndarray, affine: np.ndarray, axcodes: str = WORKING) -> tuple[np.ndarray, np.ndarray]:
    """Flip and permute the spatial axes so that they point in the directions `axcodes`; no resampling takes place.

    Axes of an oblique volume get the orientation nearest to the requested one.

    Args:
        pixels: [C, *S], three spatial axes.
        affine: the affine of `pixels`.
        axcodes: the direction in which each axis points, one each of L or R, P or A, I or S.

    Returns:
        A view of `pixels` and its affine.

    Raises:
        UserError: `axcodes` is not valid.

    Examples:
        >>> pixels = np.arange(3).reshape(1, 3, 1, 1)  # the first axis points to the right
        >>> flipped, affine = oriented(pixels, np.eye(4), "LAS")
        >>> flipped.ravel().tolist(), affine[0].tolist()
        ([2, 1, 0], [-1.0, 0.0, 0.0, 2.0])
    """
    if not are_axcodes(axcodes):
        raise UserError(f"data.volume.axcodes={axcodes}: it takes one each of L or R, P or A, I or S, as in {WORKING}")
    orientations = _orientations()
    wanted = orientations.axcodes2ornt(tuple(axcodes))
    turn = orientations.ornt_transform(orientations.io_orientation(affine), wanted)
    return _turned(pixels, turn), affine @ orientations.inv_ornt_aff(turn, pixels.shape[1:])


def is_sheared(affine: np.ndarray) -> bool:
    """Return whether the axes of a volume are not at right angles to each other, as under a tilted gantry.

    Examples:
        >>> is_sheared(np.diag([1.0, 2, 3, 1])), is_sheared(np.diag([1.0, 2, 3, 1]) + np.eye(4, k=1))
        (False, True)
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return not np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=SAME_SPACING)


def unsheared(affine: np.ndarray) -> np.ndarray:
    """Return an affine with the same planes, spacing and first voxel, whose third axis is perpendicular to the planes.

    A second axis that is not at right angles to the first is turned within its plane.

    Examples:
        >>> tilted = np.array([[1.0, 0, 0, 7], [0, 1, 3, 8], [0, 0, 4, 9], [0, 0, 0, 1]])
        >>> unsheared(tilted).tolist()
        [[1.0, 0.0, 0.0, 7.0], [0.0, 1.0, 0.0, 8.0], [0.0, 0.0, 5.0, 9.0], [0.0, 0.0, 0.0, 1.0]]
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    first, second, third = (affine[:3, :3] / spacing).T
    normal = np.cross(first, second)
    normal *= np.sign(normal @ third) / np.linalg.norm(normal)
    second = second - (second @ first) * first
    upright = affine.copy()
    upright[:3, :3] = np.stack([first, second / np.linalg.norm(second), normal], axis=1) * spacing
    return upright


def resampled(
    pixels: np.ndarray, affine: np.ndarray, spacing: Sequence[float], mode: Mode = "bilinear"
) -> tuple[np.ndarray, np.ndarray]:
    """Resample to another voxel size; the axes keep their directions.

    Args:
        pixels: [C, *S], three spatial axes.
        affine: the affine of `pixels`.
        spacing: edge lengths of the new voxels in mm, one per axis of the array.
        mode: interpolation; "nearest" for masks.

    Returns:
        The resampled values, float32 or, with "nearest", in the type of `pixels`, and their affine. The inputs are
        returned unchanged if they already have this spacing.

    Raises:
        UserError: `spacing` is not three positive numbers.

    Examples:
        >>> values, affine = resampled(np.ones((1, 4, 4, 4)), np.eye(4), spacing=(1, 1, 2))
        >>> values.shape, np.diag(affine).tolist()
        ((1, 4, 4, 2), [1.0, 1.0, 2.0, 1.0])
    """
    if len(spacing) != 3 or min(spacing) <= 0:
        raise UserError(f"data.volume.spacing={list(spacing)}: it takes three numbers above 0, in mm")
    if np.allclose(np.linalg.norm(affine[:3, :3], axis=0), spacing, rtol=SAME_SPACING, atol=0):
        return pixels, affine
    from monai.transforms.spatial.array import Spacing

    space = Spacing(tuple(spacing), mode=mode, padding_mode="border", dtype=np.float32)
    moved: Any = space(_meta_tensor(pixels, affine))
    return _as_numpy(moved, pixels.dtype, mode), np.asarray(moved.affine, np.float64)


def onto(
    values: np.ndarray,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: Sequence[int],
    mode: Mode = "bilinear",
) -> np.ndarray:
    """Map values onto another voxel grid, by flips and permutations alone if both grids have the same voxels.

    Args:
        values: [C, *S], three spatial axes.
        affine: the affine of `values`.
        target_affine: the affine of the target grid, such as the original grid of the scan.
        target_shape: the sizes of the target grid.
        mode: interpolation; "nearest" for masks.

    Returns:
        [C, *target_shape]. If both grids have the same voxels, a view of `values`; otherwise resampled values, float32
        or, with "nearest", in the type of `values`, and 0 where the centre of a target voxel lies outside `values`.

    Examples:
        >>> values = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
        >>> target_affine = np.array([[-1.0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # mirrored
        >>> onto(values, np.eye(4), target_affine, (3, 1, 1)).ravel().tolist()
        [3.0, 2.0, 1.0]
    """
    turn = _turn(affine, values.shape[1:], target_affine, tuple(target_shape))
    if turn is not None:
        return _turned(values, turn)
    covered = _resample(np.ones((1, *values.shape[1:]), bool), affine, target_affine, target_shape, "nearest", "zeros")
    moved = _resample(values, affine, target_affine, target_shape, mode, "border")
    return np.where(covered, moved, moved.dtype.type(0))


def displacement(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Return the largest distance along an axis, in voxels of `affine`, between the voxel positions of two affines.

    Args:
        affine: the reference affine.
        other: the affine to compare.
        shape: sizes of the voxel grid that both affines describe.

    Examples:
        >>> displacement(np.diag([2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1]) + np.eye(4, k=3), (5, 5, 5))  # 1 mm off
        0.5
    """
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.abs(np.linalg.solve(affine, other @ corners) - corners).max())


def _orientations() -> Any:
    """Return nibabel's module for flips and permutations, which is untyped."""
    from nibabel import orientations

    return orientations


def _turned(pixels: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return a view of `pixels` with a nibabel orientation applied to its spatial axes."""
    turned = _orientations().apply_orientation(np.moveaxis(pixels, 0, -1), turn)
    return np.moveaxis(turned, -1, 0)


def _turn(
    affine: np.ndarray, shape: tuple[int, ...], target_affine: np.ndarray, target_shape: tuple[int, ...]
) -> np.ndarray | None:
    """Return the nibabel orientation that maps one grid to the other; None if they do not have the same voxels."""
    axes = np.rint(np.linalg.solve(affine, target_affine)[:3, :3])  # target indices -> indices of the values
    if not np.array_equal(axes @ axes.T, np.eye(3)):
        return None
    target_axis = np.abs(axes).argmax(axis=1)  # the target axis of each axis of the values
    turn = np.stack([target_axis, axes[range(3), target_axis]], axis=1)
    if tuple(np.asarray(target_shape)[target_axis]) != shape:
        return None
    turned = affine @ _orientations().inv_ornt_aff(turn, shape)
    return turn if displacement(turned, target_affine, target_shape) < SAME_LATTICE else None


def _resample(
    values: np.ndarray,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: Sequence[int],
    mode: Mode,
    outside: Literal["zeros", "border"],
) -> np.ndarray:
    import torch
    from monai.transforms.spatial.array import SpatialResample

    resample = SpatialResample(mode=mode, padding_mode=outside, dtype=np.float32)
    target = torch.from_numpy(np.asarray(target_affine, np.float64))
    moved = resample(_meta_tensor(values, affine), dst_affine=target, spatial_size=tuple(target_shape))
    return _as_numpy(moved, values.dtype, mode)


def _meta_tensor(pixels: np.ndarray, affine: np.ndarray) -> Any:
    import torch
    from monai.data.meta_tensor import MetaTensor

    return MetaTensor(torch.from_numpy(np.ascontiguousarray(pixels, np.float32)), affine=torch.from_numpy(affine))


def _as_numpy(moved: Any, dtype: np.dtype, mode: Mode) -> np.ndarray:
    return np.asarray(moved).astype(dtype if mode == "nearest" else np.float32, copy=False)
