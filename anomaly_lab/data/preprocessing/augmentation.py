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
import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.devices import sent
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
        gammas = self._gammas(chance)
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

    def on_device(self, levels: Tensor, full: int, draws: np.ndarray, seed: int) -> Tensor:
        """Augment pictures where they lie, all at once; the draws are those of a call.

        A bilinear warp is rounded in another order there, so one pixel in some thousands may be one level off.

        Args:
            levels: [B, C, H, W], float32, whole numbers in [0, full].
            full: 255 or 65535, the largest value of the stored type.
            draws: [B], index of each draw since the start of the training.
            seed: seed of the training.

        Returns:
            Pictures like `levels`.

        Examples:
            >>> Augmentation(flip=1.0).on_device(torch.tensor([[[[1.0, 2.0]]]]), 255, np.array([0]), seed=0).tolist()
            [[[[2.0, 1.0]]]]
        """
        self.check_suits_pictures()
        device = levels.device
        if not self.degrees and not self.shift and self.gamma == 1:
            mirrored = uniforms(seed, draws, 1)[:, 0] < np.asarray(self.flip)
            return torch.where(sent(torch.from_numpy(mirrored), device).view(-1, 1, 1, 1), levels.flip(3), levels)
        chance = uniforms(seed, draws, 5)
        matrices = self._matrices(chance, *levels.shape[2:])
        depth = 1 if full == 255 else full  # pictures of 16 bits are warped in [0, 1]
        warped = warp(levels / depth, sent(torch.from_numpy(sources(matrices, *levels.shape[2:])), device))
        if self.gamma == 1:
            return (warped * depth).round()
        exponent = sent(torch.from_numpy(self._gammas(chance)), device)[:, None]
        if full == 255:  # by a table of all levels, rounded down
            table = (torch.arange(256, device=device, dtype=torch.float64) * (1 / 255)) ** exponent * 255
            chosen = warped.round().long().flatten(1)
            return table.floor().float().gather(1, chosen).view_as(levels)
        return (warped.double() ** exponent[..., None, None] * full).round().float()

    def _gammas(self, chance: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp((2 * chance[:, 4] - 1) * math.log(self.gamma)))

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


def sources(matrices: np.ndarray, height: int, width: int) -> np.ndarray:
    """Convert affine matrices of pixels to their inverses in torch's coordinates, in which pictures span [-1, 1].

    Args:
        matrices: [B, 2, 3], where a pixel (x, y) goes to.
        height, width: of the picture.

    Returns:
        float32 [B, 2, 3], where a pixel comes from.

    Examples:
        >>> one_pixel_to_the_right = np.array([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
        >>> sources(one_pixel_to_the_right, height=2, width=4).tolist()
        [[[1.0, 0.0, -0.5], [0.0, 1.0, 0.0]]]
    """
    size = np.array([width, height])
    linear = np.linalg.inv(matrices[:, :, :2])
    offset = -linear @ matrices[:, :, 2:]  # in pixels; their centres lie at (coordinate + 1) · size / 2 - 1/2
    centre = (size[:, None] - 1) / 2
    spread = linear * size / size[:, None]
    return np.concatenate([spread, (linear @ centre + offset - centre) * 2 / size[:, None]], 2).astype(np.float32)


def warp(image: Tensor, source: Tensor) -> Tensor:
    """Resample images bilinearly; what comes from outside is 0.

    Not by `affine_grid`, whose matrix product a GPU may round to ten bits.

    Args:
        image: [B, C, H, W], float32.
        source: [B, 2, 3], see `sources`.

    Examples:
        >>> right = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]])
        >>> warp(torch.tensor([[[[1.0, 2.0]]]]), right).tolist()
        [[[[0.0, 1.0]]]]
    """
    height, width = image.shape[2:]
    x = (torch.arange(width, device=image.device) * 2 + 1) / width - 1
    y = ((torch.arange(height, device=image.device) * 2 + 1) / height - 1)[:, None]
    along_x, along_y, offset = (source[:, :, i, None, None] for i in range(3))
    grid = (along_x * x + along_y * y + offset).movedim(1, -1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


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
