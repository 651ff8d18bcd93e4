"""Synthetic twin of Head-CT: heads with ventricles and midline, half of them with a known haemorrhage.

For simple detectors it is about as hard as the real data set (64×64, 67 training normals, ten splits: AUROC .62 for the
distance from the mean image, .81 for PCA-32 reconstruction). It does not depict any patient.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anomaly_lab.data.twins.drawing import smooth_noise, soft_step

_RGBA_SHARE = 0.06  # 12 of the 200 real pictures have an alpha channel
SIDES = (134, 290)  # range of the shorter side in pixels


class _Head(NamedTuple):
    """A slice without lesion.

    image: [H, W] grey levels. across, along: [H, W], coordinates in the head, -1 to 1 (to the right, to the back).
    radius: [H, W], 1 at the outer surface of the skull. inside: radius of the inner surface.
    """

    image: np.ndarray
    across: np.ndarray
    along: np.ndarray
    radius: np.ndarray
    inside: float


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` slices, the first half anomalous, in the official layout, plus masks/NNN.png.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each slice depends on (seed, its number) only.
        size: number of slices.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=2)
        ...     sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.png"))
        ['head_ct/head_ct/000.png', 'head_ct/head_ct/001.png', 'masks/000.png']
    """
    pictures, masks = root / "head_ct" / "head_ct", root / "masks"
    pictures.mkdir(parents=True)
    masks.mkdir()
    labels = ["id, hemorrhage"]  # the official header has this space
    for number in range(size):
        rng = np.random.default_rng([seed, number])
        head = _head(rng)
        image, label = head.image, int(number < size // 2)
        if label:
            image, lesion = _bleed(rng, head)
            Image.fromarray((lesion * 255).astype(np.uint8)).save(masks / f"{number:03d}.png")
        image = image + 3 * rng.standard_normal(image.shape, np.float32) * (image > 8)
        grey = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        picture = grey.convert("RGBA" if rng.random() < _RGBA_SHARE else "RGB")
        picture.save(pictures / f"{number:03d}.png", compress_level=1)
        labels.append(f"{number},{label}")
    (root / "labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")


def _head(rng: np.random.Generator) -> _Head:
    width = int(rng.integers(*SIDES))
    height = int(width * rng.uniform(1.16, 1.24))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    turn = math.radians(rng.normal(0, 3))
    fill, offset = rng.uniform(0.945, 0.98), rng.normal(0, 0.008, 2).tolist()  # Python floats keep float32
    across = ((x - offset[0]) * math.cos(turn) + (y - offset[1]) * math.sin(turn)) / fill
    along = ((y - offset[1]) * math.cos(turn) - (x - offset[0]) * math.sin(turn)) / fill
    squash = 1 + rng.uniform(-0.05, 0.1) * along  # front or back is narrower
    radius = np.hypot(across / squash, along) + 0.01 * smooth_noise(rng, x.shape, 4)
    inside = rng.uniform(0.86, 0.91)
    image = np.where(radius < inside, _brain(rng, across, along, radius), rng.uniform(225, 255))
    image = image + (10 - image) * soft_step(radius - 1, 0.012)
    return _Head(image * soft_step(1.04 - radius, 0.02), across, along, radius, inside)


def _brain(rng: np.random.Generator, across: np.ndarray, along: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Draw grey levels [H, W]: texture, dark sulci near the edge, bright falx, dark ventricles."""
    shape = across.shape
    brain = rng.uniform(85, 120) + rng.uniform(3, 8) * smooth_noise(rng, shape, 12)
    brain += rng.uniform(0, 8) * smooth_noise(rng, shape, 3)
    brain -= rng.uniform(0, 45) * soft_step(smooth_noise(rng, shape, 22) - 0.8, 0.3) * soft_step(radius - 0.55, 0.1)
    brain += rng.uniform(0, 35) * soft_step(0.02 - np.abs(across), 0.01) * soft_step(np.abs(along) - 0.35, 0.05)
    return np.asarray(brain + (rng.uniform(15, 60) - brain) * _ventricles(rng, across, along))


def _ventricles(rng: np.random.Generator, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Draw [H, W] in [0, 1]: two frontal and two posterior horns, tilted away from the midline."""
    size, gap, level = rng.uniform(0.25, 1.25), rng.uniform(0.06, 0.13), rng.normal(0, 0.06)
    shape = np.zeros_like(across)
    for side in (-1, 1):
        for centre, lean, length in ((-0.22, -0.5, 0.2), (0.28, 0.6, 0.24)):
            v = (along - centre - level) / (length * size)
            u = (side * across - gap - lean * (along - centre - level) - 0.03) / (0.075 * size)
            shape = np.maximum(shape, soft_step(1 - np.hypot(u, v), 0.15))
    return shape


def _bleed(rng: np.random.Generator, head: _Head) -> tuple[np.ndarray, np.ndarray]:
    """Add a haemorrhage, a blob or a crescent under the skull; return image and mask, bool [H, W]."""
    rough = 0.18 * smooth_noise(rng, head.image.shape, 9)
    if rng.random() < 0.7:
        angle, far, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6), rng.uniform(0.04, 0.65)
        u, v = head.across - far * math.cos(angle), head.along - far * math.sin(angle)
        long = rng.uniform(1, 1.7)
        depth = 1 - np.hypot(u * long, v) / size + rough
    else:
        angle, half, thick = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.5), rng.uniform(0.04, 0.3)
        away = np.abs((np.arctan2(head.along, head.across) - angle + np.pi) % (2 * np.pi) - np.pi) / half
        depth = (head.radius - head.inside) / thick + 1 - away**2 + rough
    cover = soft_step(depth, 0.12) * (head.radius < head.inside)
    contrast = 10 + 140 * rng.random() ** 1.3
    blood = head.image + contrast + 6 * smooth_noise(rng, head.image.shape, 14)
    return head.image + (blood - head.image) * cover, cover > 0.5
