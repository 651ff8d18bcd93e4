"""Synthetic twin of OCT2017: layered retinas; fluid, drusen and new vessels at known places."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step

SIZES = ((124, 192), (124, 128), (124, 256), (126, 126))  # height and width; the real 496 × 768, 512, 1024 by 4
_MARGIN_SHARE = 0.2
_SHARED = 6  # every sixth normal image of test is of a patient of train, as many are in the real set
# depth in the retina from its surface (0) to under the pigment epithelium (1), and brightness from there on
_LAYERS = ((0.0, 150), (0.14, 95), (0.3, 120), (0.42, 70), (0.55, 105), (0.66, 60), (0.82, 190), (1.0, 110))


class _Retina(NamedTuple):
    """A healthy B-scan.

    image: [H, W] grey levels. depth: [H, W], 0 at the surface of the retina, 1 under its pigment epithelium.
    lifted: bool [H, W], between the pigment epithelium and the place it was lifted from. thickness: pixels.
    """

    image: np.ndarray
    depth: np.ndarray
    lifted: np.ndarray
    thickness: float


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write about `size` B-scans in the official layout, plus masks/<split>/<name>.png of the lesions.

    Half of them are normals of train, which has a tenth more of each disease; test has as many of each class.

    Args:
        root: an empty folder.
        seed: of everything; each image depends on (seed, its number) alone.
        size: number of images, about.
    """
    number = 0
    for split, kind, count in _plan(size):
        folder, masks = root / "OCT2017" / split / kind, root / "OCT2017" / "masks" / split
        folder.mkdir(parents=True)
        masks.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            rng = np.random.default_rng([seed, number])
            image, lesion = _scan(rng, kind)
            name = f"{kind}-{_patient(split, kind, number, i)}-{number + 1}"
            _save(rng, image, lesion, folder / f"{name}.jpeg", masks / f"{name}.png")
            number += 1


def _plan(size: int) -> list[tuple[str, str, int]]:
    """Split, class and number of images; the normals of train first."""
    diseases = ("CNV", "DME", "DRUSEN")
    some, few = max(4, size // 10), max(2, size // 40)
    judged = [("test", kind, some) for kind in (*diseases, "NORMAL")]
    watched = [("val", kind, 1) for kind in (*diseases, "NORMAL")]
    return [("train", "NORMAL", max(8, size // 2)), *(("train", kind, few) for kind in diseases), *watched, *judged]


def _patient(split: str, kind: str, number: int, i: int) -> int:
    """Three images a patient in train, one in test."""
    if split == "train":
        return 100000 + number // 3
    return 100000 if kind == "NORMAL" and i % _SHARED == 0 else 200000 + number


def _scan(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W] and lesion, bool [H, W]."""
    shape = SIZES[int(rng.integers(len(SIZES)))]
    thickness = shape[0] * rng.uniform(0.24, 0.32)
    bulge = _bulge(rng, shape[1], thickness, kind)
    retina = _retina(rng, shape, thickness, bulge)
    image, lesion = _fluid(rng, retina) if kind == "DME" else _filled(rng, retina)
    speckle = rng.gamma(6, 1 / 6, shape).astype(np.float32)
    return np.clip(image * (0.45 + 0.55 * speckle), 0, 245), lesion


def _retina(rng: np.random.Generator, shape: tuple[int, int], thickness: float, bulge: np.ndarray) -> _Retina:
    """Layers along a bent surface with a foveal pit; `bulge` [W] lifts the deepest of them, in pixels."""
    height, width = shape
    y, x = np.mgrid[0:height, -1 : 1 : width * 1j].astype(np.float32)
    pit = rng.uniform(0.15, 0.4) * np.exp(-(((x - rng.normal(0, 0.12)) / rng.uniform(0.12, 0.25)) ** 2))
    floor = height * rng.uniform(0.6, 0.72) + height * rng.uniform(-0.12, 0.05) * x**2 + rng.normal(0, 6) * x
    floor = floor + smooth_noise(rng, shape, 5)[:1]
    top = floor - thickness * (1 - pit)
    flat = (y - top) / (floor - top) + 0.02 * smooth_noise(rng, shape, 12)
    depth = flat + bulge * np.clip(flat, 0, 1.3) ** 3 / thickness
    image = np.full(shape, rng.uniform(8, 20), np.float32)
    for start, brightness in _LAYERS:
        level = brightness * rng.uniform(0.85, 1.15)
        image = image + (level - image) * soft_step(depth - start, 0.05)
    image = image * np.exp(-np.clip(depth - 1, 0, None) * rng.uniform(0.6, 1.5))
    return _Retina(image * (1 + 0.08 * smooth_noise(rng, shape, 20)), depth, (depth > 1) & (flat < 1), thickness)


def _bulge(rng: np.random.Generator, width: int, thickness: float, kind: str) -> np.ndarray:
    """How far the pigment epithelium is lifted, pixels [W]: once and wide, or often and little."""
    x, lift = np.linspace(-1, 1, width, dtype=np.float32), np.zeros(width, np.float32)
    many, height, half = {
        "CNV": (1, (0.3, 1.2), (0.1, 0.35)),
        "DRUSEN": (int(rng.integers(2, 7)), (0.1, 0.3), (0.04, 0.1)),
    }.get(kind, (0, (0.0, 0.0), (1.0, 1.0)))
    for _ in range(many):
        away = (x - rng.uniform(-0.7, 0.7)) / rng.uniform(*half)
        lift = np.maximum(lift, thickness * rng.uniform(*height) * np.exp(-(away**2)))
    return lift


def _filled(rng: np.random.Generator, retina: _Retina) -> tuple[np.ndarray, np.ndarray]:
    """Grey matter under a lifted pigment epithelium: image and lesion."""
    matter = rng.uniform(90, 170) * (1 + 0.1 * smooth_noise(rng, retina.image.shape, 14))
    return np.where(retina.lifted, matter, retina.image), retina.lifted


def _fluid(rng: np.random.Generator, retina: _Retina) -> tuple[np.ndarray, np.ndarray]:
    """Dark cysts in the middle layers: image and lesion."""
    height, width = retina.image.shape
    image, lesion = retina.image, np.zeros(retina.image.shape, bool)
    for _ in range(int(rng.integers(2, 7))):
        column = int(rng.integers(width // 8, width - width // 8))
        row = int(np.argmin(np.abs(retina.depth[:, column] - rng.uniform(0.25, 0.65))))
        size = retina.thickness * rng.uniform(0.06, 0.2)
        radius = ellipse((height, width), (row, column), (size, size * rng.uniform(0.8, 2.2)), rng.normal(0, 0.3))
        cover = soft_step(1 - radius, 0.3) * (retina.depth < 0.8)
        image = image + (rng.uniform(10, 35) - image) * cover
        lesion |= cover > 0.5
    return image, lesion


def _save(rng: np.random.Generator, image: np.ndarray, lesion: np.ndarray, picture: Path, mask: Path) -> None:
    """Write a grey JPEG, some with a white margin, and the lesion's mask."""
    if rng.random() < _MARGIN_SHARE:
        above, left = (int(n) for n in rng.integers(4, 20, 2))
        left *= int(rng.random() < 0.5)
        border = ((above, 0), (left, 0))
        image, lesion = np.pad(image, border, constant_values=255), np.pad(lesion, border)
    Image.fromarray(image.astype(np.uint8)).save(picture, quality=92)
    if lesion.any():
        Image.fromarray((lesion * 255).astype(np.uint8)).save(mask)
