"""Patches of a prepared scan, picture or volume: position, selection and label of the windows.

A two-dimensional patch of a volume is a window that is one voxel thick along the axis perpendicular to its plane.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from anomaly_lab.data.preprocessing.transforms import Prepared
from anomaly_lab.types import Fraction, Range, UserError, refuse_out_of_range

VERSION = 3  # version of the rules below; a store made with another version is not reused
PLANES = {"axial": "IS", "coronal": "AP", "sagittal": "LR"}
TRIES = 100  # largest number of positions tried per random window


class Windows(NamedTuple):
    """Windows of one scan.

    Attributes:
        location: first voxel of each window, [N, D].
        label: [N], 0 normal, 1 anomalous.
        random: bool [N], True for windows drawn at random for training, False for those of the grid.
    """

    location: np.ndarray
    label: np.ndarray
    random: np.ndarray


@dataclass(frozen=True)
class PatchSampling:
    """Which windows of a scan become patches.

    Attributes:
        overlap: overlap of neighbouring windows of the grid, as a fraction of the window; 0.75 of 32 pixels is a
            stride of 8.
        label: "case" gives every window the label of the scan. "mask" labels a window without lesion pixels normal and
            one whose lesion fraction is above `lesion` anomalous; windows in between are left out.
        lesion: threshold on the fraction of a window's pixels that are lesion, for `label="mask"`.
        foreground: minimum fraction of a window's pixels that are foreground.
        plane: plane of two-dimensional patches of a volume.
        slices: first and last position along the axis perpendicular to the plane; fractions of the axis if the last is
            below 1, or 1 and the first a fraction.
        random: number of normal windows per scan that are drawn at random for training; 0 trains on the grid.
        per_scan: maximum number of windows of the grid per scan, drawn at random; 0 keeps all.

    Examples:
        >>> scan = Prepared(np.zeros((1, 4, 4), np.float32), None, None, None, 0.0)
        >>> PatchSampling(overlap=0.5).windows(scan, (2, 4), "a", label=0, across=None).location.tolist()
        [[0, 0], [1, 0], [2, 0]]
    """

    overlap: Annotated[float, Range("[0, 1)")] = 0.0
    label: Literal["case", "mask"] = "case"
    lesion: Annotated[float, Range("[0, 1)")] = 0.0
    foreground: Fraction = 0.0
    plane: Literal["axial", "coronal", "sagittal"] = "axial"
    slices: Annotated[tuple[float, float], Range("[0, 65535]")] | None = None
    random: Annotated[int, Range("[0, 65535]")] = 0
    per_scan: Annotated[int, Range("[0, 1000000]")] = 0

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))
        if self.label not in ("case", "mask") or self.plane not in PLANES:
            raise ValueError(f"label takes case or mask, plane one of {', '.join(PLANES)}; got {self}")
        if self.slices is not None and self.slices[1] > 1 and self.slices[0] % 1:
            raise ValueError(
                f"slices={[*self.slices]}: the first is a fraction, the last a number of slices; say both in one way"
            )

    def extent(self, patch_size: Sequence[int], axcodes: str | None) -> tuple[int, ...]:
        """Return the size of a window in the scan, [D].

        Args:
            patch_size: spatial sizes of a patch.
            axcodes: axis codes of a volume, None for a picture.

        Raises:
            UserError: patches have three axes and the scan is a picture.

        Examples:
            >>> PatchSampling(plane="axial").extent((64, 64), "IPL")
            (1, 64, 64)
        """
        if axcodes is None:
            if len(patch_size) != 2:
                raise UserError(
                    f"data.patch_size={list(patch_size)} has three numbers, but the scans are pictures; give two"
                )
            return tuple(patch_size)
        if len(patch_size) == 3:
            return tuple(patch_size)
        across = self.axis(axcodes)
        return (*patch_size[:across], 1, *patch_size[across:])

    def axis(self, axcodes: str) -> int:
        """Return the axis perpendicular to two-dimensional patches.

        Examples:
            >>> PatchSampling(plane="sagittal").axis("IPL")
            2
        """
        return next(i for i, code in enumerate(axcodes) if code in PLANES[self.plane])

    def windows(self, scan: Prepared, extent: Sequence[int], case: str, label: int, across: int | None) -> Windows:
        """Return the windows of the grid and the random windows that satisfy the rules.

        Args:
            scan: the prepared scan.
            extent: size of a window, [D].
            case: the case id, which seeds the random choices.
            label: label of the whole scan.
            across: axis perpendicular to two-dimensional patches of a volume, or None.

        Raises:
            UserError: the window is larger than the scan, or `label` is "mask" and an anomalous scan has no mask.
        """
        if self.label == "mask" and label == 1 and scan.mask is None:
            raise UserError(
                "it is anomalous and has no mask, which data.cut.label=mask requires; where there are no masks, set "
                "data.cut.label=case, else add this one"
            )
        shape = scan.pixels.shape[1:]
        if self == DEFAULT and shape == tuple(extent):
            return Windows(np.zeros((1, len(shape)), np.int64), np.array([label]), np.array([False]))
        location = grid(shape, extent, self.overlap)
        location = location[self.inside(location, shape, across)]
        rng = np.random.default_rng(zlib.crc32(case.encode()))
        kept, labels = self._labelled(scan, location, extent, label)
        location, labels = location[kept], labels[kept]
        if 0 < self.per_scan < len(location):
            sample = np.sort(rng.permutation(len(location))[: self.per_scan])
            location, labels = location[sample], labels[sample]
        drawn = self._drawn(rng, scan, extent, label, across)
        return Windows(
            np.concatenate([location, drawn]),
            np.concatenate([labels, np.zeros(len(drawn), np.int64)]),
            np.arange(len(location) + len(drawn)) >= len(location),
        )

    def _drawn(
        self, rng: np.random.Generator, scan: Prepared, extent: Sequence[int], label: int, across: int | None
    ) -> np.ndarray:
        """Draw normal windows, [n, D], anywhere in the scan; n is `random` or, if too few are found, lower."""
        shape = scan.pixels.shape[1:]
        if not self.random or (self.label == "case" and label == 1):
            return np.empty((0, len(shape)), np.int64)
        location = np.empty((0, len(shape)), np.int64)
        for _ in range(TRIES):
            candidates = rng.integers(0, np.subtract(shape, extent) + 1, (self.random, len(shape)))
            candidates = candidates[self.inside(candidates, shape, across)]
            kept, labels = self._labelled(scan, candidates, extent, label)
            location = np.concatenate([location, candidates[kept & (labels == 0)]])
            _, first = np.unique(location, axis=0, return_index=True)  # a window that is drawn again is the same one
            location = location[np.sort(first)]
            if len(location) >= self.random:
                break
        return location[: self.random]

    def inside(self, location: np.ndarray, shape: Sequence[int], across: int | None) -> np.ndarray:
        """Return which windows lie within `slices`, bool [N].

        Args:
            location: first voxel of each window, [N, D].
            shape: spatial sizes of the scan.
            across: axis perpendicular to two-dimensional patches of a volume, or None.

        Examples:
            >>> PatchSampling(slices=(1, 2)).inside(np.array([[0, 0], [2, 0]]), (4, 8), across=0).tolist()
            [False, True]
        """
        if self.slices is None or across is None:
            return np.ones(len(location), bool)
        low, high = self.slices
        if high < 1 or (high == 1 and low % 1):  # [0, 1] are the first two slices
            low, high = low * (shape[across] - 1), high * (shape[across] - 1)
        within: np.ndarray = (location[:, across] >= low) & (location[:, across] <= high)
        return within

    def _labelled(
        self, scan: Prepared, location: np.ndarray, extent: Sequence[int], label: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which windows are kept, bool [N], and their labels, [N]."""
        kept, labels = np.ones(len(location), bool), np.full(len(location), label, np.int64)
        if self.foreground > 0 and scan.foreground is not None:
            kept = shares(scan.foreground, location, extent) >= self.foreground
        if self.label == "mask":
            share = np.zeros(len(location)) if scan.mask is None else shares(scan.mask, location, extent)
            labels = (share > 0).astype(np.int64)
            kept = kept & ((share == 0) | (share > self.lesion))
        return kept, labels


DEFAULT = PatchSampling()


def grid(shape: Sequence[int], extent: Sequence[int], overlap: float) -> np.ndarray:
    """Return the first voxels [N, D] of windows that cover the scan; the last window of an axis ends with the scan.

    Args:
        shape: spatial sizes of the scan.
        extent: size of a window.
        overlap: overlap of neighbouring windows as a fraction of the window.

    Raises:
        UserError: the window is larger than the scan.

    Examples:
        >>> grid((5, 2), (2, 2), overlap=0.0).tolist()
        [[0, 0], [2, 0], [3, 0]]
    """
    if any(window > side for window, side in zip(extent, shape, strict=True)):
        sizes = "×".join(map(str, extent)), "×".join(map(str, shape))
        raise UserError(f"a patch of {sizes[0]} is larger than the scan of {sizes[1]}; reduce data.patch_size")
    axes = []
    for side, window in zip(shape, extent, strict=True):
        step = max(1, round(window * (1 - overlap)))
        starts = np.arange(0, side - window + 1, step)
        axes.append(starts if starts[-1] == side - window else np.append(starts, side - window))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def shares(values: np.ndarray, location: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Return the fraction of True voxels in each window, [N].

    Args:
        values: bool [1, *S].
        location: first voxel of each window, [N, D].
        extent: size of a window, [D].

    Examples:
        >>> mask = np.array([[[True, False, False, False]]])
        >>> shares(mask, np.array([[0, 0], [0, 2]]), (1, 2)).tolist()
        [0.5, 0.0]
    """
    views = _views(values, extent)
    axes = tuple(range(1, 1 + len(extent)))
    size, fractions = int(np.prod(extent)), np.empty(len(location))
    for start in range(0, len(location), 1024):
        block = location[start : start + 1024]
        fractions[start : start + 1024] = np.count_nonzero(views[(0, *block.T)], axis=axes) / size
    return fractions


def cut(
    values: np.ndarray, location: np.ndarray, extent: Sequence[int], across: int | None, at_once: int = 1024
) -> Iterator[np.ndarray]:
    """Yield the patches of a scan in blocks [n, C, *P].

    Args:
        values: [C, *S].
        location: first voxel of each window, [N, D].
        extent: size of a window, [D].
        across: axis perpendicular to two-dimensional patches of a volume, which is removed; None keeps all axes.
        at_once: maximum number of patches in a block.

    Examples:
        >>> blocks = list(cut(np.arange(6).reshape(1, 2, 3), np.array([[0, 0], [0, 1]]), (2, 2), across=None))
        >>> blocks[0].shape, blocks[0][1, 0].tolist()
        ((2, 1, 2, 2), [[1, 2], [4, 5]])
    """
    if len(location) == 1 and values.shape[1:] == tuple(extent):  # fast path for a whole picture
        yield values[None] if across is None else values[None].squeeze(2 + across)
        return
    views = _views(values, extent)
    for start in range(0, len(location), at_once):
        block = views[(slice(None), *location[start : start + at_once].T)].swapaxes(0, 1)  # a copy
        yield np.ascontiguousarray(block if across is None else block.squeeze(2 + across))


def _views(values: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Return all windows of [C, *S] as a view [C, *(S - extent + 1), *extent]."""
    return sliding_window_view(values, tuple(extent), axis=tuple(range(1, values.ndim)))
