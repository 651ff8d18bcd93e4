"""Synthetic twin of a user's folder: grey and colour pictures of a woven fabric, some with a scratch or a stain.

It has nested folders, names with spaces and accents, and several file formats, as user data have.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step

SIDES = (56, 120)  # range of height and width in pixels
CLASSES = ("scratch", "dark stain")
_NORMAL = ("normal/série 1", "normal/série 2")  # the inner folders are not labels
_SUFFIXES = (".png", ".png", ".jpg", ".bmp", ".JPG")


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` pictures, half of them anomalous, in one sub-folder per class, and their masks in `masks/`.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each picture depends on (seed, its number) only.
        size: number of pictures.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=4)
        ...     sorted(path.name for path in (Path(folder) / "masks").iterdir())
        ['dark stain', 'scratch']
    """
    for number in range(size):
        rng = np.random.default_rng([seed, number])
        normal = number % 2 == 0
        folder = (_NORMAL if normal else CLASSES)[number // 2 % 2]
        image = _cloth(rng)
        if not normal:
            image, lesion = (_scratch if folder == CLASSES[0] else _stain)(rng, image)
            mask = root / "masks" / folder / f"picture {number:04d}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(lesion.astype(np.uint8) * 255).save(mask, compress_level=1)
        path = root / folder / f"picture {number:04d}{_SUFFIXES[number % len(_SUFFIXES)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        (grey.convert("RGB") if rng.random() < 0.3 else grey).save(path)


def _cloth(rng: np.random.Generator) -> np.ndarray:
    """Draw grey levels [H, W]: crossing threads under uneven light."""
    shape = tuple(int(side) for side in rng.integers(*SIDES, 2))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    turn, pitch = math.radians(rng.normal(0, 5)), rng.uniform(7, 11)
    down, right = y * math.cos(turn) + x * math.sin(turn), x * math.cos(turn) - y * math.sin(turn)
    threads = np.sin(down * (2 * math.pi / pitch)) + np.sin(right * (2 * math.pi / pitch))
    light = rng.uniform(125, 145) + rng.uniform(3, 9) * smooth_noise(rng, (shape[0], shape[1]), 3)
    grain = rng.uniform(2, 5) * rng.standard_normal(shape, np.float32)
    return np.asarray(light + rng.uniform(10, 22) * threads + grain, np.float32)


def _scratch(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add a bright line; return image and mask, bool [H, W]."""
    height, width = image.shape
    centre = (height * rng.uniform(0.25, 0.75), width * rng.uniform(0.25, 0.75))
    radii = (min(image.shape) * rng.uniform(0.15, 0.4), rng.uniform(1.2, 2.5))
    cover = soft_step(1 - ellipse((height, width), centre, radii, rng.uniform(0, math.pi)), 0.5)
    return image + rng.uniform(30, 110) * cover, cover > 0.5


def _stain(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add a dark blot; return image and mask, bool [H, W]."""
    height, width = image.shape
    centre = (height * rng.uniform(0.2, 0.8), width * rng.uniform(0.2, 0.8))
    size = min(image.shape) * rng.uniform(0.06, 0.22)
    radius = ellipse((height, width), centre, (size, size * rng.uniform(0.6, 1)), rng.uniform(0, math.pi))
    cover = soft_step(1 - radius + 0.15 * smooth_noise(rng, (height, width), 9), 0.3)
    return image * (1 - rng.uniform(0.25, 0.75) * cover), cover > 0.5
