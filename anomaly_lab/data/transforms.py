"""From a file to the pixels a detector sees: read, pad to the patch's shape, resize, quantise, scale.

The same steps serve the store and new files given to `predict`. MONAI is imported on first use: that takes
seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly_lab.data.readers import picture_size, read_image, read_mask
from anomaly_lab.types import UserError

VERSION = 1  # of the steps below; a store made by other steps is not reused


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a picture before a detector sees it.

    Attributes:
        patch_size: height and width of the result, in pixels.
        in_channels: 1 grey or 3 colour.
    """

    patch_size: tuple[int, ...]
    in_channels: int

    def image(self, path: Path) -> np.ndarray:
        """Read, pad with black around it, resize with antialias: float32 [C, *S] in [0, 1]."""
        pixels = read_image(path, self.in_channels)
        return self._resize(pixels / np.float32(np.iinfo(pixels.dtype).max), "bilinear").clip(0, 1)

    def mask(self, path: Path, image: Path) -> np.ndarray:
        """Take the lesion mask of `image` along the same way, by nearest neighbours: bool [1, *S]."""
        lesion = read_mask(path)
        mine, its = lesion.shape[1:], picture_size(image)
        if mine != its:
            raise UserError(f"{path}: the mask is {mine} pixels, its image {its}; make them equal")
        return self._resize(lesion.astype(np.float32), "nearest-exact") > 0.5

    def _resize(self, pixels: np.ndarray, mode: str) -> np.ndarray:
        from monai.transforms.compose import Compose
        from monai.transforms.croppad.array import SpatialPad
        from monai.transforms.spatial.array import Resize

        scale = max(side / target for side, target in zip(pixels.shape[1:], self.patch_size, strict=True))
        padded = [math.ceil(scale * target) for target in self.patch_size]
        antialias = mode == "bilinear"
        chain = Compose([SpatialPad(padded), Resize(self.patch_size, mode=mode, anti_aliasing=antialias)])
        return np.asarray(chain(torch.from_numpy(pixels)), np.float32)


def quantise(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round [0, 1] to the full range of an unsigned integer type."""
    return np.rint(pixels * np.float64(np.iinfo(dtype).max)).astype(dtype)


def to_float(pixels: np.ndarray) -> Tensor:
    """Scale stored pixels, uint8 or uint16, to float32 in [-1, 1]; canonical strides whatever came in."""
    half = np.iinfo(pixels.dtype).max / 2
    return torch.from_numpy(pixels.astype(np.float32, order="C")).div_(half).sub_(1)
