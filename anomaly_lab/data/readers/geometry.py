"""Where voxels lie: turn a volume to a working order, resample it, and carry values back onto a scan's own grid.

An affine takes voxel indices to mm, axes right, anterior, superior (RAS+), float64 [4, 4].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from anomaly_lab.types import UserError

WORKING = "IPL"  # [C, D from superior to inferior, H from anterior to posterior, W from right to left]
SAME_LATTICE = 0.01  # how far two grids' voxels may lie apart to be the same, in voxels
SAME_SPACING = 1e-3  # relative

Mode = Literal["bilinear", "nearest"]


def are_axcodes(text: str) -> bool:
    """Whether a text has one each of L or R, P or A, I or S.

    >>> are_axcodes("IPL"), are_axcodes("IPP")
    (True, False)
    """
    return sorted(text.translate(str.maketrans("LPI", "RAS"))) == ["A", "R", "S"]


def oriented(pixels: np.ndarray, affine: np.ndarray, axcodes: str = WORKING) -> tuple[np.ndarray, np.ndarray]:
    """Flip and permute the axes, exactly, so that they run the way `axcodes` says or as near to it as axes can.

    Args:
        pixels: [C, *S], three spatial axes.
        affine: of `pixels`.
        axcodes: where each axis runs to, one each of L or R, P or A, I or S.

    Returns:
        A view of `pixels`, and its affine.
    """
    if not are_axcodes(axcodes):
        raise UserError(f"data.volume.axcodes={axcodes}: it takes one each of L or R, P or A, I or S, as in {WORKING}")
    orientations = _orientations()
    wanted = orientations.axcodes2ornt(tuple(axcodes))
    turn = orientations.ornt_transform(orientations.io_orientation(affine), wanted)
    return _turned(pixels, turn), affine @ orientations.inv_ornt_aff(turn, pixels.shape[1:])


def resampled(
    pixels: np.ndarray, affine: np.ndarray, spacing: Sequence[float], mode: Mode = "bilinear"
) -> tuple[np.ndarray, np.ndarray]:
    """Resample to another voxel size, the axes keep their directions.

    Args:
        pixels: [C, *S], three spatial axes.
        affine: of `pixels`.
        spacing: edges of the new voxels in mm, one for each axis of the array.
        mode: "nearest" for masks.

    Returns:
        float32, or the type of `pixels` when "nearest"; as it came where it has that spacing. And its affine.
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
    """Carry values onto another grid: exactly where both grids have the same voxels, else resampled.

    Args:
        values: [C, *S], three spatial axes.
        affine: of `values`.
        target_affine: of the grid that is wanted, such as the scan's own.
        target_shape: its sizes.
        mode: "nearest" for masks.

    Returns:
        [C, *target_shape]; a view of `values`, or resampled, float32 or the type of `values` when "nearest", and 0
        where a target voxel's centre lies outside every voxel of `values`.
    """
    turn = _turn(affine, values.shape[1:], target_affine, tuple(target_shape))
    if turn is not None:
        return _turned(values, turn)
    covered = _resample(np.ones((1, *values.shape[1:]), bool), affine, target_affine, target_shape, "nearest", "zeros")
    moved = _resample(values, affine, target_affine, target_shape, mode, "border")
    return np.where(covered, moved, moved.dtype.type(0))


def displacement(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """How far apart two affines put the voxels of one grid: the most along an axis, in voxels of `affine`."""
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.abs(np.linalg.solve(affine, other @ corners) - corners).max())


def _orientations() -> Any:
    """Nibabel's arithmetic of flips and permutations, which has no types."""
    from nibabel import orientations

    return orientations


def _turned(pixels: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Apply a nibabel orientation to the spatial axes; a view."""
    turned = _orientations().apply_orientation(np.moveaxis(pixels, 0, -1), turn)
    return np.moveaxis(turned, -1, 0)


def _turn(
    affine: np.ndarray, shape: tuple[int, ...], target_affine: np.ndarray, target_shape: tuple[int, ...]
) -> np.ndarray | None:
    """The nibabel orientation that takes one grid to the other, None where they do not have the same voxels."""
    axes = np.rint(np.linalg.solve(affine, target_affine)[:3, :3])  # target indices -> indices of the values
    if not np.array_equal(axes @ axes.T, np.eye(3)):
        return None
    target_axis = np.abs(axes).argmax(axis=1)  # of each axis of the values
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
