"""Resize pictures with numpy as torch does: the same weights, in the same order, rounded alike.

Stored pixels are whole numbers, so a difference in the last digit may become one of a whole grey value. What torch
computes is therefore repeated step by step: horizontally first, then vertically, one tap after another. As its compiled
loops do on today's processors, blocks of four products are rounded before they are added, what is left over is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TOGETHER = 4  # products of a block


class Taps(NamedTuple):
    """What each place of a resized axis is made of.

    Attributes:
        place: indices of the places that are read, [n, taps].
        weight: their weights, [n, taps]; 0 where a place has fewer taps.
        length: number of taps of each place, [n].
    """

    place: NDArray[np.int64]
    weight: Floats
    length: NDArray[np.int64]


def averaging(before: int, after: int) -> Taps:
    """Return the taps of linear interpolation with antialiasing, torch's `antialias=True`.

    Examples:
        >>> [round(weight, 3) for weight in averaging(4, 2).weight[0].tolist()]
        [0.429, 0.429, 0.143, 0.0, 0.0]
    """
    one, half = np.float32(1), np.float32(0.5)
    scale = np.float32(before) / np.float32(after)
    support = max(scale, one)  # half the width of the triangle
    centre = scale * (np.arange(after).astype(np.float32) + half)
    first = np.maximum((centre - support + half).astype(np.int64), 0)
    length = np.minimum((centre + support + half).astype(np.int64), before) - first
    step = np.arange(int(np.ceil(support)) * 2 + 1)
    distance = ((step + first[:, None]).astype(np.float32) - centre[:, None] + half) * (one / support)
    weight = np.where(step < length[:, None], np.maximum(one - np.abs(distance), 0), 0).astype(np.float32)
    total = np.zeros(after, np.float32)
    for column in weight.T:
        total += column
    return Taps(np.minimum(first[:, None] + step, before - 1), weight / total[:, None], length)


def interpolating(before: int, after: int) -> Taps:
    """Return the taps of linear interpolation, torch's `align_corners=False`.

    Examples:
        >>> interpolating(2, 4).weight.tolist()[:3]
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75]]
    """
    scale = np.float32(before) / np.float32(after)
    at = (np.float64(scale) * (np.arange(after) + 0.5) - 0.5).clip(0).astype(np.float32)
    first = np.minimum(at.astype(np.int64), before - 1)
    upper = np.clip(at - first.astype(np.float32), np.float32(0), np.float32(1))
    place = np.stack([first, np.minimum(first + 1, before - 1)], 1)
    return Taps(place, np.stack([np.float32(1) - upper, upper], 1), np.full(after, 2))


def resized(pixels: Floats, size: Sequence[int], antialias: bool) -> Floats:
    """Resize a picture.

    Args:
        pixels: float32 [C, H, W].
        size: the new height and width.
        antialias: whether every pixel counts when the picture becomes smaller.

    Returns:
        float32 [C, *size].

    Examples:
        >>> resized(np.array([[[0, 1, 2, 3]]], np.float32), (1, 2), antialias=False).tolist()
        [[[0.5, 2.5]]]
    """
    taps = averaging if antialias else interpolating
    for axis in (2, 1):
        before, after = pixels.shape[axis], size[axis - 1]
        if before != after:
            pixels = _applied(pixels, axis, taps(before, after))
    return pixels


def _applied(pixels: Floats, axis: int, taps: Taps) -> Floats:
    along = [1, 1, 1]
    along[axis] = len(taps.place)
    rounded_apart = (taps.length - 1) // TOGETHER * TOGETHER  # the taps up to this one; those after it are fused
    total = np.zeros(1, np.float32)
    for tap, (place, weight) in enumerate(zip(taps.place.T, taps.weight.T, strict=True)):
        values, weights = np.take(pixels, place, axis), weight.reshape(along)
        apart = total + values * weights
        fused = (total.astype(np.float64) + values.astype(np.float64) * weights).astype(np.float32)
        total = np.where((tap <= rounded_apart).reshape(along), apart, fused)
    return total
