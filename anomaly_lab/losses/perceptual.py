"""Perceptual distance of images: that of the feature maps of a network, with each pixel's features scaled to length 1.

Zhang, Isola, Efros, Shechtman, Wang 2018, CVPR ("LPIPS"), eq. 1. ≠ paper: all channels have the weight 1, its variant
without calibration.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def perceptual_maps(taps: Sequence[Tensor], other: Sequence[Tensor]) -> list[Tensor]:
    """Return the squared distances of two images' features at each place, one map [B, 1, h, w] a tap; in float32.

    Args:
        taps: feature maps of the images, each [B, C, h, w].
        other: those of the images they are compared with.

    Examples:
        >>> one, two = torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[5.0]]]])
        >>> round(perceptual_maps([one], [two])[0].item(), 4)  # two unit vectors at a right angle
        2.0
    """
    pairs = zip(taps, other, strict=True)
    return [(_directions(one) - _directions(two)).square().sum(1, keepdim=True) for one, two in pairs]


def perceptual_distance(taps: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Return the mean of `perceptual_maps` over places and taps, [B].

    Examples:
        >>> one, two = torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[5.0]]]])
        >>> [round(value, 4) for value in perceptual_distance([one, one], [two, one]).tolist()]
        [1.0]
    """
    return torch.stack([each.flatten(1).mean(1) for each in perceptual_maps(taps, other)]).mean(0)


def perceptual_map(taps: Sequence[Tensor], other: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Return `perceptual_maps`, enlarged to `size` and averaged over taps, [B, 1, H, W].

    Examples:
        >>> one, two = torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[5.0]]]])
        >>> perceptual_map([one], [two], (4, 4)).shape
        torch.Size([1, 1, 4, 4])
    """
    maps = perceptual_maps(taps, other)
    return torch.stack([F.interpolate(each, size=tuple(size), mode="bilinear") for each in maps]).mean(0)


def _directions(tap: Tensor) -> Tensor:
    tap = tap.to(torch.promote_types(tap.dtype, torch.float32))
    return tap / (tap.square().sum(1, keepdim=True) + 1e-10).sqrt()
