"""Synthetic twin of OCT2017: layered retinas with fluid, drusen and new vessels at known positions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step

SIZES = ((124, 192), (124, 128), (124, 256), (126, 126))  # height and width, a quarter of the real ones
_MARGIN_SHARE = 0.2  # fraction of images with a white margin
_SHARED = 6  # one in this many normal test images is of a training patient, about as in the real data set
# relative depth at which a layer starts, from the surface (0) to below the pigment epithelium (1), and its brightness
_LAYERS = ((0.0, 150), (0.14, 95), (0.3, 120), (0.42, 70), (0.55, 105), (0.66, 60), (0.82, 190), (1.0, 110))


class _Retina(NamedTuple):
    """A healthy B-scan.

    image: [H, W] grey levels. depth: [H, W], 0 at the surface of the retina, 1 below its pigment epithelium.
    lifted: bool [H, W], between the lifted pigment epithelium and its original position. thickness: in pixels.
    """

    image: np.ndarray
    depth: np.ndarray
    lifted: np.ndarray
    thickness: float


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write about `size` B-scans in the official layout, plus masks/<split>/<name>.png of the lesions.

    Half of them are training normals; a fortieth per disease is in train, and a tenth per class is in test.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each image depends on (seed, its number) only.
        size: number of images, about.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=8)
        ...     sorted(path.name for path in (Path(folder) / "OCT2017" / "test" / "DME").iterdir())[:2]
        ['DME-200022-23.jpeg', 'DME-200023-24.jpeg']
    """
    number = 0
    for split, class_name, count in _plan(size):
        folder, masks = root / "OCT2017" / split / class_name, root / "OCT2017" / "masks" / split
        folder.mkdir(parents=True)
        masks.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            rng = np.random.default_rng([seed, number])
            image, lesion = _scan(rng, class_name)
            name = f"{class_name}-{_patient(split, class_name, number, i)}-{number + 1}"
            _save(rng, image, lesion, folder / f"{name}.jpeg", masks / f"{name}.png")
            number += 1


def _plan(size: int) -> list[tuple[str, str, int]]:
    """Return split, class and number of images, starting with the training normals."""
    diseases = ("CNV", "DME", "DRUSEN")
    per_test_class, per_train_disease = max(4, size // 10), max(2, size // 40)
    train = [("train", "NORMAL", max(8, size // 2)), *(("train", disease, per_train_disease) for disease in diseases)]
    val = [("val", class_name, 1) for class_name in (*diseases, "NORMAL")]
    test = [("test", class_name, per_test_class) for class_name in (*diseases, "NORMAL")]
    return [*train, *val, *test]


def _patient(split: str, class_name: str, number: int, i: int) -> int:
    """Return the number of the patient, who has three images in train or one in test."""
    if split == "train":
        return 100000 + number // 3
    return 100000 if class_name == "NORMAL" and i % _SHARED == 0 else 200000 + number


def _scan(rng: np.random.Generator, class_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image [H, W] and its lesion mask, bool [H, W]."""
    shape = SIZES[int(rng.integers(len(SIZES)))]
    thickness = shape[0] * rng.uniform(0.24, 0.32)
    bulge = _bulge(rng, shape[1], thickness, class_name)
    retina = _retina(rng, shape, thickness, bulge)
    image, lesion = _fluid(rng, retina) if class_name == "DME" else _filled(rng, retina)
    speckle = rng.gamma(6, 1 / 6, shape).astype(np.float32)
    return np.clip(image * (0.45 + 0.55 * speckle), 0, 245), lesion


def _retina(rng: np.random.Generator, shape: tuple[int, int], thickness: float, bulge: np.ndarray) -> _Retina:
    """Draw layers along a curved surface with a foveal pit; `bulge` [W], in pixels, lifts the deepest ones."""
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


def _bulge(rng: np.random.Generator, width: int, thickness: float, class_name: str) -> np.ndarray:
    """Draw the elevation of the pigment epithelium in pixels, [W]: one wide bulge (CNV) or several small ones."""
    x, lift = np.linspace(-1, 1, width, dtype=np.float32), np.zeros(width, np.float32)
    many, height, half = {
        "CNV": (1, (0.3, 1.2), (0.1, 0.35)),
        "DRUSEN": (int(rng.integers(2, 7)), (0.1, 0.3), (0.04, 0.1)),
    }.get(class_name, (0, (0.0, 0.0), (1.0, 1.0)))
    for _ in range(many):
        away = (x - rng.uniform(-0.7, 0.7)) / rng.uniform(*half)
        lift = np.maximum(lift, thickness * rng.uniform(*height) * np.exp(-(away**2)))
    return lift


def _filled(rng: np.random.Generator, retina: _Retina) -> tuple[np.ndarray, np.ndarray]:
    """Fill the space under the lifted pigment epithelium with grey; return image and lesion mask."""
    matter = rng.uniform(90, 170) * (1 + 0.1 * smooth_noise(rng, retina.image.shape, 14))
    return np.where(retina.lifted, matter, retina.image), retina.lifted


def _fluid(rng: np.random.Generator, retina: _Retina) -> tuple[np.ndarray, np.ndarray]:
    """Draw dark cysts into the middle layers; return image and lesion mask."""
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
    """Write a grey JPEG, sometimes with a white margin, and the lesion mask."""
    if rng.random() < _MARGIN_SHARE:
        above, left = (int(n) for n in rng.integers(4, 20, 2))
        left *= int(rng.random() < 0.5)
        border = ((above, 0), (left, 0))
        image, lesion = np.pad(image, border, constant_values=255), np.pad(lesion, border)
    Image.fromarray(image.astype(np.uint8)).save(picture, quality=92)
    if lesion.any():
        Image.fromarray((lesion * 255).astype(np.uint8)).save(mask)
