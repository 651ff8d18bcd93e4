"""Augmentation of training patches of volumes: MONAI's transforms with parameters drawn here.

As for pictures (`augmentation`), each parameter is a pure function of (seed, draw, parameter), so that a patch is
augmented in the same way with any number of workers and after a resume. Rotation, shift and scale are one resampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from anomaly_lab.data.preprocessing.augmentation import Augmentation, uniforms

AXES = 3


@dataclass(frozen=True)
class VolumeAugmentation(Augmentation):
    """Random flip, rotation, shift, scale and gamma of volumes; areas from outside the patch are black.

    `flip`, `degrees` and `shift` take one number, or three for the axes of the patch in the order of `volume.axcodes`.
    `scale` is the same along all axes. Gamma is relative to the full range of the type, as for pictures, whereas MONAI
    uses the range of each patch.

    Examples:
        >>> along_last_axis = VolumeAugmentation(flip=(0.0, 0.0, 1.0))
        >>> along_last_axis(np.array([[[[[1, 2], [3, 4]]]]], np.uint8), np.array([0]), seed=0).tolist()
        [[[[[2, 1], [4, 3]]]]]
    """

    def __call__(self, images: np.ndarray, draws: np.ndarray, seed: int) -> np.ndarray:
        """Augment each volume independently.

        Args:
            images: [B, C, D, H, W], uint8 or uint16.
            draws: [B], index of each draw since the start of the training.
            seed: seed of the training.

        Returns:
            Volumes of the same shape and type.
        """
        changed = np.empty_like(images)
        for i, chance in enumerate(uniforms(seed, draws, 3 * AXES + 2)):
            changed[i] = self._change(images[i], chance)
        return changed

    def _change(self, image: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """Augment one volume [C, D, H, W] with the random numbers `chance`, [11] in [0, 1)."""
        flip, degrees, shift = (
            np.broadcast_to(np.asarray(v, float), AXES) for v in (self.flip, self.degrees, self.shift)
        )
        turned = np.flip(image, tuple(1 + int(axis) for axis in np.flatnonzero(chance[:3] < flip)))
        spread = 2 * chance[3:] - 1
        if degrees.any() or shift.any() or self.scale != 1:
            turn = _rotation(np.radians(degrees) * spread[:3]) / self.scale ** spread[6]
            turned = _resample(turned, turn, shift * image.shape[1:] * spread[3:6])
        if self.gamma != 1:
            full = np.iinfo(image.dtype).max
            turned = full * (turned / np.float32(full)) ** np.float32(self.gamma ** spread[7])
        return np.asarray(turned if turned.dtype == image.dtype else np.rint(turned).astype(image.dtype))


def _rotation(radians: np.ndarray) -> np.ndarray:
    """Return the matrix [3, 3] that rotates about the first, then the second, then the third axis."""
    turn = np.eye(AXES)
    for axis, angle in enumerate(radians):
        i, j = (a for a in range(AXES) if a != axis)
        step = np.eye(AXES)
        step[[i, j], [i, j]] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        turn = step @ turn
    return turn


def _resample(image: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Rotate and scale a volume about its centre, then shift it.

    Args:
        image: the volume, [C, D, H, W].
        turn: [3, 3], maps axes of the result to axes of the volume.
        shift: [3], in voxels.

    Returns:
        float32 [C, D, H, W] within the range of the type of `image`.
    """
    from monai.transforms.spatial.array import Affine  # slow to import

    affine = np.eye(AXES + 1, dtype=np.float32)
    affine[:AXES, :AXES], affine[:AXES, AXES] = turn, -turn @ shift
    warp = Affine(affine=torch.from_numpy(affine), mode="bilinear", padding_mode="zeros", image_only=True)
    warped = warp(torch.from_numpy(image.astype(np.float32)))
    return np.asarray(warped).clip(0, np.iinfo(image.dtype).max)
