"""What every reader returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scan:
    """One case in memory, as its file has it.

    Attributes:
        pixels: [C, *S]. A picture: uint8 or uint16, S = (H, W), C = 1 or 3. A volume: its own numbers (HU for CT), of
            any real type, C = 1, S in the order of `affine`.
        mask: known lesion, bool [1, *S], or None.
        affine: voxel indices to mm, axes right, anterior, superior (RAS+), float64 [4, 4]; None for a picture.
        foreground: where there is something to see, bool [1, *S]; None leaves it to the preprocessing.
        window: centre and width that the file asks to be shown with, in the numbers of `pixels`, or None.
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
        """Edges of a voxel in mm; None for a picture."""
        if self.affine is None:
            return None
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())
