"""Synthetic twin of SIXray: bags in the colours of the scanner: orange cloth, green plastic, blue metal, on white.

Classes are less imbalanced than in the real data set: a fifth of the bags has an item. Per bag with an item, list 10
has two bags without item and list 100 has four; list 1000 has the same bags without item as list 100 and a tenth of
those with an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step

CATEGORIES = ("Gun", "Knife", "Wrench", "Pliers", "Scissors")
_SHARES = (0.25, 0.16, 0.18, 0.33, 0.08)
_SECOND = 0.25  # fraction of the bags with an item that have a second one
_METAL, _PLASTIC, _CLOTH = (0.95, 0.55, 0.15), (0.55, 0.12, 0.65), (0.12, 0.45, 0.95)  # absorption of red, green, blue
# parts of each item: the ends (along, across) and the thickness of a line, in units of the item's length
_SHAPES: dict[str, tuple[tuple[tuple[float, float], tuple[float, float], float], ...]] = {
    "Gun": (((0, 0), (1, 0), 0.16), ((0.08, 0), (0, 0.42), 0.2), ((0.25, 0.16), (0.38, 0.02), 0.05)),
    "Knife": (((0, 0), (0.4, 0), 0.12), ((0.4, 0), (1, -0.02), 0.08)),
    "Wrench": (
        ((0.1, 0), (0.9, 0), 0.08),
        ((0.9, 0), (1, 0.1), 0.08),
        ((0.9, 0), (1, -0.1), 0.08),
        ((0, 0), (0.1, 0), 0.16),
    ),
    "Pliers": (((0, 0.16), (0.65, -0.03), 0.07), ((0, -0.16), (0.65, 0.03), 0.07), ((0.65, 0), (1, 0), 0.13)),
    "Scissors": (
        ((0.2, 0.12), (1, -0.06), 0.05),
        ((0.2, -0.12), (1, 0.06), 0.05),
        ((0, 0.17), (0.2, 0.12), 0.12),
        ((0, -0.17), (0.2, -0.12), 0.12),
    ),
}


class _Box(NamedTuple):
    """An item and its bounding box: first and last column and row, counted from 1."""

    item: str
    xmin: int
    ymin: int
    xmax: int
    ymax: int


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` bags in the official layout, with lists and with boxes of the items in the test split.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each bag depends on (seed, its number) only.
        size: number of bags; half of those with an item and a fifth of the others are in the test split.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=5)
        ...     sorted(path.stem for path in (Path(folder) / "JPEGImage").iterdir())
        ['N0000003', 'N0000004', 'N0000005', 'P00001', 'P00002']
    """
    for folder in ("JPEGImage", "Annotation", *(f"ImageSet/{subset}" for subset in (10, 100, 1000))):
        (root / folder).mkdir(parents=True)
    items = max(2, size // 5)
    with_items: list[str] = []
    without: list[str] = []
    for number in range(size):
        rng = np.random.default_rng([seed, number])
        row = f"P{number + 1:05d}" if number < items else f"N{number + 1:07d}"
        chosen = _items(rng, number) if number < items else []
        image, boxes = _bag(rng, chosen)
        Image.fromarray(image).save(root / "JPEGImage" / f"{row}.jpg", quality=90)
        if boxes and number % 2:
            _annotate(root / "Annotation" / f"{row}.xml", image.shape, boxes)
        values = ",".join("1" if item in chosen else "-1" for item in CATEGORIES)
        (with_items if chosen else without).append(f"{row},{values}")
    twice_as_many, tenth = without[: 2 * items], with_items[: max(2, items // 10)]
    for subset, rows, normal in ((10, with_items, twice_as_many), (100, with_items, without), (1000, tenth, without)):
        _list(root / "ImageSet" / str(subset) / "train.csv", [*rows[::2], *(r for i, r in enumerate(normal) if i % 5)])
        _list(root / "ImageSet" / str(subset) / "test.csv", [*rows[1::2], *normal[::5]])


def _list(path: Path, rows: Sequence[str]) -> None:
    path.write_text("\n".join([",".join(("name", *CATEGORIES)), *rows]) + "\n", encoding="utf-8")


def _annotate(path: Path, shape: tuple[int, ...], boxes: Sequence[_Box]) -> None:
    """Write boxes in the Pascal VOC format."""
    objects = "".join(
        f"<object><name>{box.item}</name><bndbox><xmin>{box.xmin}</xmin><ymin>{box.ymin}</ymin>"
        f"<xmax>{box.xmax}</xmax><ymax>{box.ymax}</ymax></bndbox></object>"
        for box in boxes
    )
    size = f"<size><width>{shape[1]}</width><height>{shape[0]}</height><depth>3</depth></size>"
    text = f"<annotation><filename>{path.stem}.jpg</filename>{size}{objects}</annotation>\n"
    path.write_text(text, encoding="utf-8")


def _items(rng: np.random.Generator, number: int) -> list[str]:
    """Draw one or two different items; in the first ten bags one is given, so that small twins train and test each."""
    count = 2 if rng.random() < _SECOND else 1
    drawn = [str(item) for item in rng.choice(CATEGORIES, count, replace=False, p=_SHARES)]
    given = CATEGORIES[number // 2 % len(CATEGORIES)]
    if number >= 2 * len(CATEGORIES) or given in drawn:
        return drawn
    return [given, *drawn[1:]]


def _bag(rng: np.random.Generator, items: Sequence[str]) -> tuple[np.ndarray, list[_Box]]:
    """Draw a bag with items; return the picture, uint8 [H, W, 3], and the boxes of the items."""
    width = int(rng.integers(110, 200))
    shape = (int(width * rng.uniform(0.55, 1)), width)
    thick = _contents(rng, shape)
    boxes = []
    for item in items:
        drawn = _item(rng, shape, item)
        thick = thick + rng.uniform(0.7, 1.5) * drawn[..., None] * np.array(_METAL, np.float32)
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        corners = (columns[0] + 1, rows[0] + 1, columns[-1] + 1, rows[-1] + 1)
        boxes.append(_Box(item, *(int(corner) for corner in corners)))
    light = 255 * np.exp(-thick) + 1.5 * rng.standard_normal(thick.shape, np.float32)
    return light.clip(0, 255).astype(np.uint8), boxes


def _contents(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw the absorption of red, green and blue, [H, W, 3], by a bag without items: case, cloth and other objects."""
    height, width = shape
    centre, half = (height / 2, width / 2), (height * 0.46, width * 0.46)
    y, x = np.ogrid[0:height, 0:width]
    square = ((np.abs(y - centre[0]) / half[0]) ** 6 + (np.abs(x - centre[1]) / half[1]) ** 6) ** (1 / 6)
    inside, rim = soft_step(1 - square, 0.03), soft_step(0.03 - np.abs(square - 0.97), 0.03)
    cloth = np.clip(0.45 + 0.35 * smooth_noise(rng, shape, 5) + 0.12 * smooth_noise(rng, shape, 22), 0.05, None)
    thick = (inside * cloth * rng.uniform(0.4, 1.1))[..., None] * np.array(_CLOTH, np.float32)
    thick = thick + 0.5 * rim[..., None] * np.array(_CLOTH, np.float32)
    for _ in range(int(rng.integers(3, 9))):
        where = (rng.uniform(0.2, 0.8) * height, rng.uniform(0.2, 0.8) * width)
        radii = (rng.uniform(0.04, 0.18) * width, rng.uniform(0.04, 0.18) * width)
        blob = soft_step(1 - ellipse(shape, where, radii, rng.uniform(0, 3)), 0.15) * rng.uniform(0.2, 0.8)
        thick = thick + (blob * inside)[..., None] * np.array((_PLASTIC, _CLOTH)[int(rng.integers(2))], np.float32)
    return np.asarray(thick + _fittings(rng, shape)[..., None] * np.array(_METAL, np.float32))


def _fittings(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw metal that any bag may contain, [H, W] in [0, 1]: rails, zips, coins."""
    canvas = np.zeros(shape, np.uint8)
    height, width = shape
    for _ in range(int(rng.integers(0, 3))):
        row = rng.uniform(0.2, 0.8) * height
        ends = [(0.12 * width, row), (0.88 * width, row + rng.normal(0, 5))]
        _line(canvas, ends, rng.uniform(1, 4), int(rng.integers(90, 200)))
    for _ in range(int(rng.integers(4, 14))):
        start = np.array([rng.uniform(0.08, 0.92) * width, rng.uniform(0.1, 0.9) * height])
        _line(canvas, [start, start + rng.normal(0, 0.03 * width, 2)], rng.uniform(1, 3), int(rng.integers(120, 255)))
    return canvas.astype(np.float32) / 255


def _item(rng: np.random.Generator, shape: tuple[int, int], item: str) -> np.ndarray:
    """Draw an item as its coverage of each pixel, [H, W] in [0, 1]."""
    canvas = np.zeros(shape, np.uint8)
    height, width = shape
    length, angle = width * rng.uniform(0.2, 0.36), rng.uniform(0, 2 * np.pi)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    middle = np.array([rng.uniform(0.38, 0.62) * width, rng.uniform(0.38, 0.62) * height])
    for *ends, thickness in _SHAPES[item]:
        points = [middle + length * ((a - 0.5) * along + b * across) for a, b in ends]
        _line(canvas, points, thickness * length, 255)
    return canvas.astype(np.float32) / 255


def _line(canvas: np.ndarray, ends: Sequence[Sequence[float] | np.ndarray], thickness: float, value: int) -> None:
    first, last = (
        (round(16 * float(x)), round(16 * float(y))) for x, y in ends
    )  # OpenCV's fixed-point coordinates, 1/16 pixel
    cv2.line(canvas, first, last, value, max(1, round(thickness)), cv2.LINE_AA, shift=4)
