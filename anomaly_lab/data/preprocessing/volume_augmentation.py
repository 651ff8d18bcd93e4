"""Random changes to training patches of volumes, by MONAI's transforms with parameters drawn here.

As for pictures (`augmentation`), each parameter is a pure function of (seed, draw, which parameter): a patch looks the
same with any number of workers and after a resume. Rotation, shift and scale are one resampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from anomaly_lab.data.preprocessing.augmentation import Augmentation, uniforms

AXES = 3


@dataclass(frozen=True)
class VolumeAugmentation(Augmentation):
    """Flip, rotate, shift, scale and change the gamma of volumes; what comes in from outside is black.

    `flip`, `degrees` and `shift` take one number, or three for the patch's axes (their order: `volume.axcodes`). The
    size is the same along all axes. The gamma is over the whole range of the type, as for pictures (MONAI's is over
    each patch's own).
    """

    def __call__(self, images: np.ndarray, draws: np.ndarray, seed: int) -> np.ndarray:
        """Change each volume in its own way.

        Args:
            images: [B, C, D, H, W], uint8 or uint16.
            draws: [B], number of each draw since the start of the training.
            seed: of the training.

        Returns:
            Volumes of the same shape and type.
        """
        changed = np.empty_like(images)
        for i, chance in enumerate(uniforms(seed, draws, 3 * AXES + 2)):
            changed[i] = self._change(images[i], chance)
        return changed

    def _change(self, image: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """Change one volume [C, D, H, W] by random numbers, [11] in [0, 1)."""
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
    """Rotate about the first, then the second, then the third axis: [3, 3]."""
    turn = np.eye(AXES)
    for axis, angle in enumerate(radians):
        one, other = (a for a in range(AXES) if a != axis)
        step = np.eye(AXES)
        step[[one, other], [one, other]] = np.cos(angle)
        step[one, other], step[other, one] = -np.sin(angle), np.sin(angle)
        turn = step @ turn
    return turn


def _resample(image: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Turn a volume [C, D, H, W] about its centre, then shift it; float32 within the range of its type.

    Args:
        image: the volume.
        turn: [3, 3], from the result's axes to the volume's.
        shift: [3], in voxels.
    """
    from monai.transforms.spatial.array import Affine  # loads slowly

    affine = np.eye(AXES + 1, dtype=np.float32)
    affine[:AXES, :AXES], affine[:AXES, AXES] = turn, -turn @ shift
    warp = Affine(affine=torch.from_numpy(affine), mode="bilinear", padding_mode="zeros", image_only=True)
    warped = warp(torch.from_numpy(image.astype(np.float32)))
    return np.asarray(warped).clip(0, np.iinfo(image.dtype).max)
