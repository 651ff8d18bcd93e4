"""`Scan`, the return type of every reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

MAX_VOXELS = 1_000_000_000  # 1000³; as float32 it takes 4 GB


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

    Examples:
        >>> Scan(np.zeros((1, 64, 64, 20)), affine=np.diag([0.5, 0.5, 5.0, 1.0])).spacing
        (0.5, 0.5, 5.0)
    """

    pixels: np.ndarray
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None
    foreground: np.ndarray | None = None
    window: tuple[float, float] | None = None

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
