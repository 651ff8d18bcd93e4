"""Rules on detail, noise and traces of compression in what a detector sees: of one picture each one number, or None.

A new rule is a new public function. The first line of its docstring is its name on the pages: short, without a verb.
"""

from __future__ import annotations

import zlib

import numpy as np

from anomaly_lab.evaluation.shortcuts.view import View, block_edges

DIM = 0.05  # of full scale; noise is measured where it is brighter, since backgrounds are often clipped to black


def sharpness(view: View) -> float | None:
    """Sharpness."""
    return float(view.laplacian.std()) if view.laplacian.size else None


def detail(view: View) -> float | None:
    """Fine detail."""
    return float(np.abs(view.laplacian).mean()) if view.laplacian.size else None


def noise(view: View) -> float | None:
    """Noise."""
    high = np.diff(np.diff(view.grey, 2, axis=-1), 2, axis=-2)  # Immerkaer 1996
    lit = view.grey[..., 1:-1, 1:-1] > DIM
    if not high.size:
        return None
    kept = high[lit] if lit.sum() > lit.size / 16 else high.ravel()
    return float(np.median(np.abs(kept)) / (0.6745 * 6))  # MAD of a normal distribution; the kernel's norm is 6


def blockiness(view: View) -> float | None:
    """JPEG blocks, as seen."""
    return block_edges(view.image)


def compressed(view: View) -> float:
    """Compressed size."""
    steps = np.diff(view.image, axis=-1, prepend=np.zeros((), view.image.dtype))  # as PNG's filter “sub”
    parts = np.ascontiguousarray(steps).view(np.uint8).reshape(-1, view.image.itemsize).T  # high and low bytes apart
    return len(zlib.compress(parts.tobytes(), 1)) / view.image.size
