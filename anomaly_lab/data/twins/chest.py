"""Synthetic frontal chest X-rays for the twins of RSNA and CheXpert; they do not depict any patient."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step


class Chest(NamedTuple):
    """A frontal chest X-ray without findings.

    Attributes:
        image: [H, W] grey levels.
        lungs: [H, W] in [0, 1], fraction of air.
        across, along: [H, W], coordinates in the chest, -1 to 1 (to the right, downwards).
    """

    image: np.ndarray
    lungs: np.ndarray
    across: np.ndarray
    along: np.ndarray


def draw_chest(rng: np.random.Generator, shape: tuple[int, int], heart: float = 1.0) -> Chest:
    """Draw body, lungs, heart, diaphragm and ribs with random variation of anatomy and exposure.

    Args:
        rng: source of the random variation.
        shape: H and W in pixels.
        heart: width of the heart relative to a normal one; from about 1.4 it counts as enlarged.

    Examples:
        >>> chest = draw_chest(np.random.default_rng(0), (64, 64))
        >>> chest.image.shape, bool(chest.image[chest.lungs > 0.5].mean() < chest.image.mean())  # air is dark
        ((64, 64), True)
    """
    across, along = _coordinates(rng, shape)
    lungs = _lungs(rng, across, along)
    tissue = rng.uniform(140, 175) + rng.uniform(4, 10) * smooth_noise(rng, shape, 4)
    tissue += rng.uniform(25, 45) * soft_step(0.14 - np.abs(across), 0.2)  # spine and vessels
    heart_width = 0.27 * rng.uniform(0.85, 1.1) * heart
    silhouette = np.hypot((across - 0.13 - 0.25 * heart_width) / heart_width, (along - 0.22) / 0.33)
    lungs = lungs * soft_step(silhouette - 1, 0.12)
    air = rng.uniform(40, 70) + rng.uniform(5, 12) * smooth_noise(rng, shape, 7)
    image = tissue + (air - tissue) * lungs
    image += _bones(rng, across, along) * (0.35 + 0.65 * lungs)
    image += rng.uniform(10, 25) * lungs * np.exp(-((np.abs(across) - 0.2) ** 2 + (along + 0.02) ** 2) / 0.03)  # hila
    image *= _body(rng, across, along)
    image = 255 * (image / 255).clip(0, 1) ** rng.uniform(0.85, 1.2)
    return Chest(image, lungs, across, along)


def draw_opacity(rng: np.random.Generator, chest: Chest) -> tuple[Chest, np.ndarray]:
    """Draw an opacity into a lung; return the chest with it and its mask, bool [H, W].

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> chest = draw_chest(rng, (64, 64))
        >>> clouded, mask = draw_opacity(rng, chest)
        >>> bool((clouded.image[mask] > chest.image[mask]).all())
        True
    """
    rows, columns = np.nonzero(chest.lungs > 0.8)
    place = rng.integers(len(rows))
    centre, height = (int(rows[place]), int(columns[place])), len(chest.image)
    radii = (height * rng.uniform(0.06, 0.17), height * rng.uniform(0.05, 0.13))
    rough = 0.25 * smooth_noise(rng, chest.image.shape, 9)
    cover = soft_step(1 - ellipse(chest.image.shape, centre, radii, rng.uniform(-0.5, 0.5)) + rough, 0.6)
    return _cloud(rng, chest, cover * chest.lungs)


def draw_effusion(rng: np.random.Generator, chest: Chest) -> tuple[Chest, np.ndarray]:
    """Draw a pleural effusion into one lung, from below; return the chest with it and its mask, bool [H, W].

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> _, mask = draw_effusion(rng, draw_chest(rng, (64, 64)))
        >>> mask.shape, bool(mask[:20].any())
        ((64, 64), False)
    """
    side = chest.across * rng.choice([-1, 1]) > 0
    level = rng.uniform(0.05, 0.35) - 0.5 * (np.abs(chest.across) - 0.4) ** 2  # higher at the chest wall
    return _cloud(rng, chest, soft_step(chest.along - level, 0.12) * side * chest.lungs)


def add_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add noise and sometimes a side marker or a wire, which are not findings; return uint8 [H, W].

    Examples:
        >>> add_noise(np.random.default_rng(0), np.full((32, 32), 100.0)).dtype
        dtype('uint8')
    """
    image = image.astype(np.float32)  # a copy: OpenCV draws in place
    height, width = image.shape
    if rng.random() < 0.4:
        row, column = int(rng.uniform(0.03, 0.1) * height), int(rng.uniform(0.84, 0.94) * width)
        image[row : row + max(2, height // 24), column : column + max(2, height // 40)] = 250
    if rng.random() < 0.15:
        ends = (rng.uniform((0.2, 0.0), (0.8, 0.1), (1, 2)), rng.uniform((0.3, 0.4), (0.7, 0.7), (2, 2)))
        points = np.rint(np.concatenate(ends) * (width, height)).astype(np.int32)
        cv2.polylines(image, [points], isClosed=False, color=225.0, thickness=1, lineType=cv2.LINE_AA)
    image = image + rng.uniform(2, 4) * rng.standard_normal(image.shape, np.float32)
    return np.asarray(np.rint(image).clip(0, 255), np.uint8)


def _coordinates(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in the chest, [H, W] to the right and downwards, with random position, size and rotation."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
    turn, size = math.radians(rng.normal(0, 1.5)), rng.uniform(0.88, 1.02)
    right, down = rng.normal(0, 0.03, 2).tolist()  # Python floats keep the arrays float32
    x, y = x - right, y - down
    return (x * math.cos(turn) + y * math.sin(turn)) / size, (y * math.cos(turn) - x * math.sin(turn)) / size


def _lungs(rng: np.random.Generator, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Draw [H, W] in [0, 1]: two lungs, narrower at the top, limited below by the domes of the diaphragm."""
    lungs = np.zeros_like(across)
    inhaled = rng.uniform(0.4, 0.6)
    for side in (-1, 1):
        centre = 0.42 + 0.09 * along + rng.normal(0, 0.012)
        field = np.hypot((side * across - centre) / rng.uniform(0.28, 0.33), (along + 0.02) / rng.uniform(0.74, 0.82))
        dome = inhaled + 0.06 * (side > 0) + 0.9 * (side * across - 0.4) ** 2
        lungs = np.maximum(lungs, soft_step(1 - field, 0.1) * soft_step(dome - along, 0.05))
    return lungs


def _bones(rng: np.random.Generator, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Draw grey levels to add, [H, W]: ribs sloping outwards and collar bones above them."""
    slope = along - rng.uniform(0.3, 0.45) * np.abs(across) ** 1.5
    ribs = np.cos(slope * rng.uniform(22, 26) + rng.uniform(0, 2 * np.pi)) * soft_step(0.85 - np.abs(across), 0.1)
    collar = np.abs(along + 0.68 - 0.12 * np.abs(across))
    return np.asarray(
        rng.uniform(5, 11) * ribs
        + rng.uniform(15, 30) * soft_step(0.03 - collar, 0.03) * soft_step(0.75 - np.abs(across), 0.1)
    )


def _body(rng: np.random.Generator, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Draw the body, [H, W] in [0, 1], with shoulders sloping from the neck; the air beside it is 0."""
    shoulder = -0.98 + 0.75 * (np.abs(across) - 0.3).clip(0) ** 1.5
    flank = rng.uniform(0.86, 0.98) + 0.06 * np.cos(2.5 * along)
    return np.asarray(soft_step(along - shoulder, 0.08) * soft_step(flank - np.abs(across), 0.05))


def _cloud(rng: np.random.Generator, chest: Chest, cover: np.ndarray) -> tuple[Chest, np.ndarray]:
    """Brighten the chest by the opacity `cover`, [H, W] in [0, 1]; return it and the mask, bool [H, W]."""
    contrast = rng.uniform(25, 85) + 8 * smooth_noise(rng, chest.image.shape, 12)
    return chest._replace(image=chest.image + contrast * cover), cover > 0.4
