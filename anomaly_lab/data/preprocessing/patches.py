"""Windows of a prepared scan: where they lie, which are kept, what label they bear. Pictures and volumes alike.

A two-dimensional patch of a volume is a window one voxel thick along the axis of its plane.
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

VERSION = 1  # of the rules below; a store cut by other rules is not reused
PLANES = {"axial": "IS", "coronal": "AP", "sagittal": "LR"}
TRIES = 100  # positions looked at for each random window that is wanted


class Windows(NamedTuple):
    """Windows of one scan.

    Attributes:
        location: first voxel of each, [N, D].
        label: [N], 0 normal, 1 anomalous.
        random: [N], drawn at random for training; the others lie on the grid.
    """

    location: np.ndarray
    label: np.ndarray
    random: np.ndarray


@dataclass(frozen=True)
class PatchSampling:
    """Which windows of a scan become patches.

    Attributes:
        overlap: of neighbours on the grid, as a fraction of the window; .75 of 32 pixels is a stride of 8.
        label: "case" gives every window the scan's label; "mask" makes a window without lesion normal and one with
            more than `lesion` of it anomalous, those in between are left out.
        lesion: share of a window's pixels.
        foreground: least share of a window's pixels that are foreground.
        plane: of two-dimensional patches of a volume.
        slices: first and last position along that plane's axis; fractions of the axis if both are below 1.
        random: windows drawn for training in each scan, normal ones; 0 trains on the grid.
        per_scan: most windows kept of a grid, drawn at random; 0 keeps all.
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
            raise ValueError(f"label is case or mask, plane one of {', '.join(PLANES)}; got {self}")

    def extent(self, patch_size: Sequence[int], axcodes: str | None) -> tuple[int, ...]:
        """Size of a window, [D]; `axcodes` are those of a volume, None for a picture.

        Raises:
            UserError: patches have three axes and scans two.
        """
        if axcodes is None:
            if len(patch_size) != 2:
                raise UserError(f"data.patch_size={list(patch_size)} has three numbers, but the scans are pictures")
            return tuple(patch_size)
        if len(patch_size) == 3:
            return tuple(patch_size)
        across = self.axis(axcodes)
        return (*patch_size[:across], 1, *patch_size[across:])

    def axis(self, axcodes: str) -> int:
        """Axis that two-dimensional patches are perpendicular to."""
        return next(i for i, code in enumerate(axcodes) if code in PLANES[self.plane])

    def windows(self, scan: Prepared, extent: Sequence[int], case: str, label: int, across: int | None) -> Windows:
        """Lay the grid, draw the random windows and leave out what the rules refuse.

        Args:
            scan: the scan.
            extent: size of a window, [D].
            case: its id, which seeds whatever is drawn.
            label: of the whole scan.
            across: axis that two-dimensional patches of a volume are perpendicular to, or None.

        Raises:
            UserError: the window is larger than the scan; labels come from masks and an anomalous scan has none.
        """
        if self.label == "mask" and label == 1 and scan.mask is None:
            raise UserError(
                "it is anomalous and has no mask, which data.cut.label=mask needs; where there are no masks, set "
                "data.cut.label=case, else add this one"
            )
        shape = scan.pixels.shape[1:]
        if self == PatchSampling() and shape == tuple(extent):
            return Windows(np.zeros((1, len(shape)), np.int64), np.array([label]), np.array([False]))
        location = self._within(grid(shape, extent, self.overlap), shape, across)
        rng = np.random.default_rng(zlib.crc32(case.encode()))
        kept, labels = self._judged(scan, location, extent, label)
        location, labels = location[kept], labels[kept]
        if 0 < self.per_scan < len(location):
            some = np.sort(rng.permutation(len(location))[: self.per_scan])
            location, labels = location[some], labels[some]
        drawn = self._drawn(rng, scan, extent, label, across)
        return Windows(
            np.concatenate([location, drawn]),
            np.concatenate([labels, np.zeros(len(drawn), np.int64)]),
            np.arange(len(location) + len(drawn)) >= len(location),
        )

    def _drawn(
        self, rng: np.random.Generator, scan: Prepared, extent: Sequence[int], label: int, across: int | None
    ) -> np.ndarray:
        """`random` normal windows anywhere in the scan, [n, D], fewer where they are hard to find."""
        shape = scan.pixels.shape[1:]
        if not self.random or (self.label == "case" and label == 1):
            return np.empty((0, len(shape)), np.int64)
        found = np.empty((0, len(shape)), np.int64)
        for _ in range(TRIES):
            some = rng.integers(0, np.subtract(shape, extent) + 1, (self.random, len(shape)))
            some = self._within(some, shape, across)
            kept, labels = self._judged(scan, some, extent, label)
            found = np.concatenate([found, some[kept & (labels == 0)]])
            if len(found) >= self.random:
                break
        return found[: self.random]

    def _within(self, location: np.ndarray, shape: Sequence[int], across: int | None) -> np.ndarray:
        if self.slices is None or across is None:
            return location
        low, high = self.slices
        if high < 1:
            low, high = low * (shape[across] - 1), high * (shape[across] - 1)
        return location[(location[:, across] >= low) & (location[:, across] <= high)]

    def _judged(
        self, scan: Prepared, location: np.ndarray, extent: Sequence[int], label: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which windows are kept, bool [N], and their labels, [N]."""
        kept, labels = np.ones(len(location), bool), np.full(len(location), label, np.int64)
        if self.foreground > 0 and scan.foreground is not None:
            kept = shares(scan.foreground, location, extent) >= self.foreground
        if self.label == "mask":
            share = np.zeros(len(location)) if scan.mask is None else shares(scan.mask, location, extent)
            labels = (share > 0).astype(np.int64)
            kept = kept & ((share == 0) | (share > self.lesion))
        return kept, labels


def grid(shape: Sequence[int], extent: Sequence[int], overlap: float) -> np.ndarray:
    """First voxels [N, D] of windows that cover everything; the last along an axis ends where the scan ends.

    Raises:
        UserError: the window is larger than the scan.
    """
    if any(window > side for window, side in zip(extent, shape, strict=True)):
        sizes = "×".join(map(str, extent)), "×".join(map(str, shape))
        raise UserError(f"a patch of {sizes[0]} is larger than the scan's {sizes[1]}; set data.patch_size lower")
    axes = []
    for side, window in zip(shape, extent, strict=True):
        step = max(1, round(window * (1 - overlap)))
        starts = np.arange(0, side - window + 1, step)
        axes.append(starts if starts[-1] == side - window else np.append(starts, side - window))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def shares(values: np.ndarray, location: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Share of true voxels in each window, [N]; values: bool [1, *S]."""
    views = _views(values, extent)
    axes = tuple(range(1, 1 + len(extent)))
    size, found = int(np.prod(extent)), np.empty(len(location))
    for start in range(0, len(location), 1024):
        some = location[start : start + 1024]
        found[start : start + 1024] = np.count_nonzero(views[(0, *some.T)], axis=axes) / size
    return found


def cut(
    values: np.ndarray, location: np.ndarray, extent: Sequence[int], across: int | None, at_once: int = 1024
) -> Iterator[np.ndarray]:
    """Patches [n, C, *P] of values [C, *S] in blocks; a plane loses the axis `across` it, of one voxel."""
    if len(location) == 1 and values.shape[1:] == tuple(extent):  # a whole picture: most sets are of these
        yield values[None] if across is None else values[None].squeeze(2 + across)
        return
    views = _views(values, extent)
    for start in range(0, len(location), at_once):
        some = views[(slice(None), *location[start : start + at_once].T)].swapaxes(0, 1)  # a copy
        yield np.ascontiguousarray(some if across is None else some.squeeze(2 + across))


def _views(values: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Every window of [C, *S] as a view: [C, *(S - extent + 1), *extent]."""
    return sliding_window_view(values, tuple(extent), axis=tuple(range(1, values.ndim)))
