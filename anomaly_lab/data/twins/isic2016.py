"""Synthetic twin of ISIC 2016: skin with a pigmented lesion and dark corners, some with hair, a few with blue ink."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step

PICTURES = "ISBI2016_ISIC_Part1_Training_Data"
MASKS = "ISBI2016_ISIC_Part1_Training_GroundTruth"
HEIGHTS = (150, 260)  # range of the height in pixels
_HAIRY, _MARKED = 0.22, 0.05  # fractions of the pictures with hair and with ink
_SKIN = ((228, 182, 152), (170, 118, 96), (236, 206, 192), (150, 104, 88), (196, 148, 128))  # red, green, blue
_PIGMENT = ((120, 74, 52), (84, 52, 46), (150, 88, 66), (70, 62, 72))
_HAIR, _INK = (52, 38, 34), (96, 70, 150)


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` pictures with their masks in the official layout.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each picture depends on (seed, its number) only.
        size: number of pictures.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=2)
        ...     sorted(path.name for path in (Path(folder) / PICTURES).iterdir())
        ['ISIC_0000000.jpg', 'ISIC_0000002.jpg']
    """
    for folder in (PICTURES, MASKS):
        (root / folder).mkdir()
    for number in range(size):
        image, mask = _picture(np.random.default_rng([seed, number]))
        name = f"ISIC_{2 * number:07d}"  # with gaps, like the official numbers
        Image.fromarray(image).save(root / PICTURES / f"{name}.jpg", quality=92)
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / MASKS / f"{name}_Segmentation.png", compress_level=1)


def _picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture, uint8 [H, W, 3], and the mask of its lesion, bool [H, W]."""
    height = int(rng.integers(*HEIGHTS))
    shape = (height, int(height * rng.uniform(1.25, 1.5)))
    skin = _skin(rng, shape)
    cover = _lesion(rng, shape)
    pigment = _tone(rng, _PIGMENT) + (24 * rng.random() + 6) * smooth_noise(rng, shape, 14)[..., None]
    strength = rng.uniform(0.2, 0.75)  # from barely darker than the skin to brown
    image = skin + strength * cover[..., None] * (pigment - skin)
    if rng.random() < _HAIRY:
        image = _blend(image, _hairs(rng, shape), _HAIR)
    if rng.random() < _MARKED:
        image = _blend(image, _mark(rng, shape), _INK)
    image = image * _corners(rng, shape)[..., None]
    image = image + 2.5 * rng.standard_normal(image.shape, np.float32)
    return image.clip(0, 255).astype(np.uint8), cover > 0.5


def _skin(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw grey levels [H, W, 3]: a skin tone, uneven light, fine texture and sometimes freckles."""
    light = rng.uniform(4, 12) * smooth_noise(rng, shape, 3) + rng.uniform(2, 5) * smooth_noise(rng, shape, 40)
    freckles = rng.uniform(0, 26) * soft_step(smooth_noise(rng, shape, 18) - 1.6, 0.5)
    skin = _tone(rng, _SKIN) + light[..., None]
    return np.asarray(skin - freckles[..., None] * np.array((0.6, 1.0, 1.0), np.float32))


def _tone(rng: np.random.Generator, tones: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Return one of the tones with a small random change, float32 [3]."""
    return np.asarray(tones[rng.integers(len(tones))] + rng.normal(0, 8, 3), np.float32)


def _lesion(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw [H, W] in [0, 1]: an irregular ellipse well inside the picture."""
    height, width = shape
    centre = (height * rng.uniform(0.4, 0.6), width * rng.uniform(0.4, 0.6))
    long = height * rng.uniform(0.18, 0.4)
    radius = ellipse(shape, centre, (long, long * rng.uniform(0.6, 1)), rng.uniform(0, math.pi))
    return soft_step(1 - radius + 0.12 * smooth_noise(rng, shape, 8), rng.uniform(0.05, 0.25))


def _hairs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw [H, W] in [0, 1]: curved lines across the picture."""
    height, width = shape
    canvas = np.zeros(shape, np.uint8)
    lean = rng.uniform(0, math.pi)
    for _ in range(int(rng.integers(6, 30))):
        angle, length = lean + rng.normal(0, 0.4), width * rng.uniform(0.3, 0.9)
        along = np.linspace(-0.5, 0.5, 24) * length
        bend = rng.normal(0, 0.4) * along**2 / length
        x = width * rng.random() + along * math.cos(angle) - bend * math.sin(angle)
        y = height * rng.random() + along * math.sin(angle) + bend * math.cos(angle)
        points = np.rint(np.stack([x, y], 1)).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, int(rng.integers(1, 3)), cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def _mark(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw [H, W] in [0, 1]: ink of a skin marker at one side."""
    height, width = shape
    side = width * float(rng.choice([0.0, 1.0]))
    radius = ellipse(shape, (height * rng.random(), side), (height * 0.25, width * rng.uniform(0.08, 0.16)))
    return np.asarray(0.8 * soft_step(1 - radius + 0.2 * smooth_noise(rng, shape, 16), 0.1))


def _corners(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw [H, W] in [0, 1]: the dark corners outside the circular field of view of a dermatoscope."""
    height, width = shape
    far = rng.uniform(0.56, 0.85)
    radius = ellipse(shape, (height / 2, width / 2), (width * far, width * far))
    return np.asarray(1 - 0.85 * soft_step(radius - 1, 0.12))


def _blend(image: np.ndarray, cover: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Blend an image [H, W, 3] with a colour by the opacity `cover`, [H, W] in [0, 1]."""
    return np.asarray(image + cover[..., None] * (np.array(colour, np.float32) - image))
