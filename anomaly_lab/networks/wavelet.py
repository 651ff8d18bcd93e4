"""Geometric transforms without aliasing: an image is resampled at twice its resolution, between two wavelet filters.

Karras, Aittala, Hellsten, Laine, Lehtinen, Aila 2020, NeurIPS, appendix B. The filter is the symlet of 12 taps
(Daubechies 1992, "Ten Lectures on Wavelets", section 8.1.1), whose frequencies above half the band are suppressed.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SYM6 = (  # low-pass, sum √2
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
REACH = 5  # taps before the pixel at which the filter is applied
CENTRE = sum(i * tap for i, tap in enumerate(SYM6)) / math.sqrt(2) - REACH - 0.5  # of the filter, off its middle tap


def smoothly_warped(image: Tensor, matrix: Tensor) -> Tensor:
    """Resample images at the coordinates given by affine matrices, mirrored at the border, without aliasing.

    Args:
        image: [B, C, H, W], sides of at least 4 pixels.
        matrix: maps output to input coordinates (x, y) in [-1, 1], [B, 2, 3].

    Returns:
        [B, C, H, W].

    Examples:
        >>> x = torch.rand(1, 1, 16, 16)
        >>> same = torch.eye(2, 3)[None]
        >>> torch.allclose(smoothly_warped(x, same)[..., 6:-6, 6:-6], x[..., 6:-6, 6:-6], atol=1e-5)
        True
    """
    large = doubled(image)
    height, width = large.shape[2:]
    shape = [height + 2 * REACH, width + 2 * REACH]  # what the filter needs to halve it
    # The filter is not symmetric: its centre is CENTRE pixels from where a pixel is, before and after the transform.
    rows, columns = (
        ((torch.arange(size, device=image.device) - (size - 1) / 2 - CENTRE) * 2 / side).to(image)
        for size, side in zip(shape, (height, width), strict=True)
    )
    places = torch.stack([columns.expand(shape), rows[:, None].expand(shape), torch.ones_like(columns).expand(shape)])
    grid = (matrix.to(image) @ places.flatten(1)).view(-1, 2, *shape).permute(0, 2, 3, 1)
    grid = torch.stack([grid[..., 0] + 2 * CENTRE / width, grid[..., 1] + 2 * CENTRE / height], 3)
    return halved(F.grid_sample(large, grid, mode="bilinear", padding_mode="reflection", align_corners=False))


def doubled(image: Tensor) -> Tensor:
    """Double the resolution: [B, C, H, W] -> [B, C, 2 H, 2 W]; the border is mirrored.

    Examples:
        >>> doubled(torch.ones(1, 1, 4, 4)).mean().item()
        1.0
    """
    x = F.pad(image, [3] * 4, mode="reflect").flatten(0, 1)[:, None]
    taps = math.sqrt(2) * _taps(image.device, image.dtype)
    x = F.conv_transpose2d(x, taps.view(1, 1, -1, 1), stride=(2, 1), padding=(2 * REACH + 1, 0))
    x = F.conv_transpose2d(x, taps.view(1, 1, 1, -1), stride=(1, 2), padding=(0, 2 * REACH + 1))
    return x.view(*image.shape[:2], *x.shape[2:])


def halved(image: Tensor) -> Tensor:
    """Halve the resolution: [B, C, 2 H + 10, 2 W + 10] -> [B, C, H, W]; 5 pixels on each side are the filter's margin.

    Examples:
        >>> round(halved(torch.ones(1, 1, 18, 18)).mean().item(), 4)
        1.0
    """
    x = image.flatten(0, 1)[:, None]
    taps = _taps(image.device, image.dtype) / math.sqrt(2)
    x = F.conv2d(F.conv2d(x, taps.view(1, 1, -1, 1), stride=(2, 1)), taps.view(1, 1, 1, -1), stride=(1, 2))
    return x.view(*image.shape[:2], *x.shape[2:])


def _taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.stack([torch.full((), tap, device=device, dtype=dtype) for tap in SYM6])  # made on the device
