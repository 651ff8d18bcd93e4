"""Synthetic twin of MNIST: digits drawn with varying stroke width, slant and size, in IDX files.

It contains no squares, because ab-MNIST draws them when a digit is read.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import cv2
import numpy as np

SIDE = 28  # side of a digit in pixels, as in the real data set
_ZOOM = 4  # digits are drawn this much larger and averaged down
_PENS: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] = (  # strokes of 0 to 9: corners (x, y) in [0, 1]
    (((0.5, 0), (0.1, 0.1), (0, 0.5), (0.1, 0.9), (0.5, 1), (0.9, 0.9), (1, 0.5), (0.9, 0.1), (0.5, 0)),),
    (((0.35, 0.15), (0.55, 0), (0.5, 1)),),
    (((0, 0.2), (0.2, 0), (0.8, 0), (0.95, 0.3), (0.6, 0.65), (0, 1), (0.4, 0.95), (1, 1)),),
    (((0, 0), (0.9, 0), (0.9, 0.4), (0.35, 0.48), (1, 0.55), (1, 0.95), (0.4, 1), (0, 0.9)),),
    (((0.2, 0), (0, 0.6), (1, 0.55)), ((0.8, 0), (0.7, 1))),
    (((0.95, 0), (0.2, 0), (0.1, 0.45), (0.6, 0.4), (1, 0.6), (0.8, 1), (0.3, 1), (0, 0.9)),),
    (((0.8, 0), (0.3, 0.2), (0, 0.7), (0.2, 1), (0.8, 1), (0.9, 0.65), (0.5, 0.5), (0.05, 0.75)),),
    (((0, 0.05), (1, 0), (0.7, 0.4), (0.4, 1)),),
    (((0.9, 0.1), (0.3, 0), (0.1, 0.3), (0.9, 0.65), (0.8, 1), (0.2, 1), (0.1, 0.7), (0.8, 0.35), (0.9, 0.1)),),
    (((0.9, 0.2), (0.5, 0), (0.1, 0.15), (0.2, 0.45), (0.7, 0.45), (0.95, 0.1), (0.85, 0.5), (0.6, 1)),),
)


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` // 2 training and `size` // 4 test digits; ab-MNIST uses the latter twice, for `size` cases in all.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each digit depends on (seed, its file, its number in it) only.
        size: number of cases.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=8)
        ...     sorted(path.name for path in Path(folder).glob("*images*"))
        ['t10k-images-idx3-ubyte', 'train-images-idx3-ubyte.gz']
    """
    for part, name in enumerate(("train", "t10k")):
        drawn = [_digit(np.random.default_rng([seed, part, number])) for number in range(size // (2 + 2 * part))]
        images = np.stack([image for image, _ in drawn]) if drawn else np.zeros((0, SIDE, SIDE), np.uint8)
        labels = np.array([label for _, label in drawn], np.uint8)
        _write(root / f"{name}-images-idx3-ubyte", images, zipped=part == 0)  # one part is gzipped, one is not
        _write(root / f"{name}-labels-idx1-ubyte", labels, zipped=part == 0)


def _write(path: Path, values: np.ndarray, zipped: bool) -> None:
    magic = 2048 + values.ndim  # uint8, number of axes
    content = struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.tobytes()
    if zipped:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, mtime=0))  # reproducible bytes
    else:
        path.write_bytes(content)


def _digit(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draw a random digit; return the image, uint8 [28, 28], and the digit."""
    label = int(rng.integers(10))
    width, height, slant = rng.uniform(8, 14), rng.uniform(15, 18), rng.normal(0, 0.18)
    canvas = np.zeros((SIDE * _ZOOM, SIDE * _ZOOM), np.uint8)
    pen = int(rng.uniform(1.6, 3.6) * _ZOOM)
    for stroke in _PENS[label]:
        corners = np.array(stroke) - 0.5 + rng.normal(0, 0.04, (len(stroke), 2))
        x, y = (_rounded(corners) * (width, height)).T
        points = np.stack([x - slant * y, y], 1) + SIDE / 2
        cv2.polylines(canvas, [np.rint(points * _ZOOM).astype(np.int32)], False, 255, pen, cv2.LINE_AA)
    image = cv2.resize(cv2.GaussianBlur(canvas, (0, 0), _ZOOM / 3), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8), label


def _rounded(corners: np.ndarray) -> np.ndarray:
    """Round the corners of a polyline [N, 2] by three corner-cutting steps (Chaikin 1974); its ends stay."""
    for _ in range(3):
        near, far = corners[:-1], corners[1:]
        cut = np.stack([0.75 * near + 0.25 * far, 0.25 * near + 0.75 * far], 1).reshape(-1, 2)
        corners = np.concatenate([corners[:1], cut, corners[-1:]])
    return corners
