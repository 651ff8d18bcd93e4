"""`Scan`, the return type of every reader, and `Origin`, where a part of a picture was cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

MAX_VOXELS = 1_000_000_000  # 1000³; as float32 it takes 4 GB


@dataclass(frozen=True)
class Origin:
    """Where the pixels of a cropped, mirrored or framed picture lie in the picture of the file.

    Attributes:
        shape: height and width of the picture of the file.
        rows: row of the file that each row shows, [H]; out of range for a row that was added as a margin.
        columns: the same for columns, [W].

    Examples:
        >>> origin = Origin((2, 3), rows=range(1, 2), columns=range(2, 0, -1))  # the last row, mirrored and cropped
        >>> origin.cut(np.array([[1, 2, 3], [4, 5, 6]])).tolist()
        [[6, 5]]
        >>> origin.back(np.array([[60, 50]])).tolist()
        [[0, 0, 0], [0, 50, 60]]
    """

    shape: tuple[int, int]
    rows: Sequence[int]
    columns: Sequence[int]

    def cut(self, own: np.ndarray) -> np.ndarray:
        """Cut values of the picture of the file, [..., H, W], as the picture was cut; margins become 0."""
        values = np.zeros((*own.shape[:-2], len(self.rows), len(self.columns)), own.dtype)
        (here, there), (across, over) = self._inside()
        values[..., here[:, None], across] = own[..., there[:, None], over]
        return values

    def back(self, values: np.ndarray) -> np.ndarray:
        """Carry values of the cut picture, [H, W], back to the picture of the file; they are 0 outside."""
        own = np.zeros(self.shape, values.dtype)
        (here, there), (across, over) = self._inside()
        own[there[:, None], over] = values[here[:, None], across]
        return own

    def _inside(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for rows and columns, which are no margin and where they lie in the file."""
        pairs = []
        for indices, size in zip((self.rows, self.columns), self.shape, strict=True):
            place = np.asarray(indices, np.int64)
            inside = np.flatnonzero((place >= 0) & (place < size))
            pairs.append((inside, place[inside]))
        return pairs


class Grid(NamedTuple):
    """The voxels of a volume: how many there are, and where.

    Examples:
        >>> Grid(np.eye(4), (2, 3, 4)).shape
        (2, 3, 4)
    """

    affine: np.ndarray
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Scan:
    """One case in memory, as stored in its file, before any preprocessing.

    Attributes:
        pixels: [C, *S]. A picture is uint8 or uint16 with S = (H, W) and C = 1 or 3. A volume keeps its original
            values (HU for CT) in any real type, with C = 1 and its axes in the order of `affine`.
        mask: the annotated lesion, bool [1, *S], or None.
        affine: float64 [4, 4], maps voxel indices to mm with axes right, anterior, superior (RAS+); None for a picture.
        foreground: bool [1, *S], True inside the imaged object; None lets the preprocessing determine it.
        window: display window (centre, width) from the file, in the units of `pixels`, or None.
        origin: where the pixels lie in the picture of the file; None if they are that picture.
        whole: the grid of the volume that this one was cropped from; None if it was not.
        uncropped: whether the scan was to be cropped and nothing was found to crop it to.
        lesion_cut_away: whether the lesion of the mask was cropped away, all of it.

    Examples:
        >>> Scan(np.zeros((1, 64, 64, 20)), affine=np.diag([0.5, 0.5, 5.0, 1.0])).spacing
        (0.5, 0.5, 5.0)
    """

    pixels: np.ndarray
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None
    foreground: np.ndarray | None = None
    window: tuple[float, float] | None = None
    origin: Origin | None = None
    whole: Grid | None = None
    uncropped: bool = False
    lesion_cut_away: bool = False

    @property
    def own_grid(self) -> Grid:
        """The grid of the volume of the file."""
        assert self.affine is not None
        return self.whole or Grid(self.affine, self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the spatial axes, *S."""
        return self.pixels.shape[1:]

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Edge lengths of a voxel in mm; None for a picture."""
        if self.affine is None:
            return None
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())


@dataclass(frozen=True)
class Tolerance:
    """What the readers of volumes let pass.

    Attributes:
        nan: "error" refuses a volume with NaN voxels, "background" takes them for background.
        max_voxels: the largest volume that is read; the header is compared with it before memory is taken.

    Examples:
        >>> Tolerance().max_voxels
        1000000000
    """

    nan: Literal["error", "background"] = "error"
    max_voxels: int = MAX_VOXELS


STRICT = Tolerance()
