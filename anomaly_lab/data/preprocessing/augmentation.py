"""Augmentation of training pictures with albumentations 2.0.8 (pinned: its successor is AGPL).

Only its functions are used, not its random transforms. The parameters are drawn here, each as a pure function of
(seed, draw, parameter), so that a picture is augmented in the same way with any number of workers and after a resume;
seeding a `Compose` for every picture would take longer than everything else. Flip, rotation and shift are one warp.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from anomaly_lab.types import Range, refuse_out_of_range


@dataclass(frozen=True)
class Augmentation:
    """Random flip, rotation, shift and gamma of pictures; areas from outside the picture are black.

    Patches of volumes have the same settings (`VolumeAugmentation`). Settings of three numbers, and `scale`, apply to
    volumes only.

    Attributes:
        flip: probability of a left-right flip; for volumes, of a flip along each axis.
        degrees: rotation angle, uniform in [-degrees, degrees]; for volumes, about each axis.
        shift: shift along each axis as a fraction of the side, uniform in [-shift, shift].
        scale: zoom factor of volumes, log-uniform in [1 / scale, scale]; 1 for none.
        gamma: exponent of the intensities, log-uniform in [1 / gamma, gamma]; 1 for none.

    Examples:
        >>> Augmentation(flip=1.0)(np.array([[[[1, 2], [3, 4]]]], np.uint8), np.array([0]), seed=0).tolist()
        [[[[2, 1], [4, 3]]]]
    """

    flip: Annotated[float | tuple[float, ...], Range("[0, 1]", counts=(3,))] = 0.0
    degrees: Annotated[float | tuple[float, ...], Range("[0, 360]", counts=(3,))] = 0.0
    shift: Annotated[float | tuple[float, ...], Range("[0, 1)", counts=(3,))] = 0.0
    scale: Annotated[float, Range("[1, 100]")] = 1.0
    gamma: Annotated[float, Range("[1, 100]")] = 1.0

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))

    def check_suits_pictures(self) -> None:
        """Raise ValueError if a setting applies to volumes only."""
        if self.scale != 1 or any(isinstance(value, tuple) for value in (self.flip, self.degrees, self.shift)):
            raise ValueError(
                "scale, and settings of three numbers, are for patches of volumes; data.patch_size has two numbers"
            )

    def __call__(self, images: np.ndarray, draws: np.ndarray, seed: int) -> np.ndarray:
        """Augment each picture independently.

        Args:
            images: [B, C, H, W], uint8 or uint16.
            draws: [B], index of each draw since the start of the training.
            seed: seed of the training.

        Returns:
            Pictures of the same shape and type.
        """
        self.check_suits_pictures()
        if not self.degrees and not self.shift and self.gamma == 1:  # a flip needs no interpolation
            flipped = images.copy()
            mirrored = uniforms(seed, draws, 1)[:, 0] < np.asarray(self.flip)
            flipped[mirrored] = images[mirrored][..., ::-1]
            return flipped
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # prevents its online check for a new version
        import cv2
        from albumentations.augmentations.geometric.functional import warp_affine_with_value_extension
        from albumentations.augmentations.pixel.functional import gamma_transform

        chance = uniforms(seed, draws, 5)
        height, width = images.shape[2:]
        edges = (cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, 0)
        matrices = self._matrices(chance, height, width)
        gammas = np.exp((2 * chance[:, 4] - 1) * math.log(self.gamma))
        full = 1 if images.dtype == np.uint8 else 65535  # albumentations supports uint8 and float32 in [0, 1]
        changed = np.empty_like(images)
        for i, (image, matrix) in enumerate(zip(images, matrices, strict=True)):
            pixels = image.transpose(1, 2, 0)
            pixels = pixels if full == 1 else pixels.astype(np.float32) / full
            pixels = warp_affine_with_value_extension(pixels, matrix, (width, height), *edges)
            if self.gamma != 1:
                pixels = gamma_transform(pixels, gammas[i])
            changed[i] = np.atleast_3d(pixels if full == 1 else np.rint(pixels * full)).transpose(2, 0, 1)
        return changed

    def _matrices(self, chance: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return affine matrices [B, 2, 3], x before y, that flip, rotate about the centre and shift, in this order."""
        degrees, shift = np.asarray(self.degrees), np.asarray(self.shift)
        angle = np.radians(degrees * (2 * chance[:, 1] - 1))
        mirror = np.where(chance[:, 0] < np.asarray(self.flip), -1.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        matrices = np.empty((len(chance), 2, 3))
        matrices[:, 0, :2] = np.stack([cos * mirror, -sin], 1)
        matrices[:, 1, :2] = np.stack([sin * mirror, cos], 1)
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        move = shift * (2 * chance[:, 2:4] - 1) * (width, height)
        matrices[:, :, 2] = centre - matrices[:, :, :2] @ centre + move
        return matrices


def uniforms(seed: int, draws: np.ndarray, count: int) -> np.ndarray:
    """Return random numbers that depend only on (seed, draw, position) (SplitMix64, Steele et al., OOPSLA 2014).

    Args:
        seed: seed of the training.
        draws: [B], indices of the draws.
        count: number of random numbers per draw.

    Returns:
        Uniform random numbers [B, count] in [0, 1).

    Examples:
        >>> values = uniforms(0, np.array([3, 7]), 2)
        >>> values.shape, bool((values[1] == uniforms(0, np.array([7]), 2)[0]).all())
        ((2, 2), True)
    """
    place = _mix(_mix(np.array([seed], np.uint64)) + draws.astype(np.uint64)[:, None])
    return np.asarray((_mix(place + np.arange(count, dtype=np.uint64)) >> np.uint64(11)) * 2.0**-53)


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
