"""Gaussian low-pass filter of images of any size and dimension, as one matrix product along each axis."""

from functools import cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor


@cache
def _filter(length: int, sigma: float) -> Tensor:
    """Return the filter of a line of `length` values as a matrix, float32 [length, length]."""
    return torch.from_numpy(gaussian_filter1d(np.eye(length), sigma, axis=0, mode="reflect")).float()


def low_pass(image: Tensor, sigma: float) -> Tensor:
    """Blur images by a Gaussian; at the border they are mirrored (scipy's `gaussian_filter`, mode "reflect").

    Args:
        image: [B, C, *S], of two or three spatial dimensions.
        sigma: standard deviation, pixels; 0 leaves the images as they are.

    Returns:
        [B, C, *S], float32.

    Examples:
        >>> line = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 5)
        >>> [round(value, 2) for value in low_pass(line, sigma=0.5).flatten().tolist()]
        [0.0, 0.11, 0.79, 0.11, 0.0]
    """
    blurred = image.float()
    if sigma <= 0:
        return blurred
    for axis in range(2, image.ndim):
        matrix = _filter(image.shape[axis], float(sigma)).to(image.device, non_blocking=True)
        blurred = (blurred.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return blurred
