"""Rules on what a detector sees: each public function turns one picture into one number, or None if it has none.

A new rule is a new function. The first line of its docstring is its name on the pages, so it is short and has no verb.
"""

from __future__ import annotations

import zlib

import numpy as np

from anomaly_lab.evaluation.shortcuts.view import View, block_edges

RIM = 1 / 8  # of each axis, at either end
DIM = 0.05  # of full scale; noise is measured where it is brighter, since backgrounds are often clipped to black


def mean(view: View) -> float:
    """Mean grey."""
    return float(view.grey.mean())


def deviation(view: View) -> float:
    """Contrast (sd of grey)."""
    return float(view.grey.std())


def percentile_1(view: View) -> float:
    """1st percentile of grey."""
    return view.percentile(1)


def percentile_5(view: View) -> float:
    """5th percentile of grey."""
    return view.percentile(5)


def percentile_25(view: View) -> float:
    """25th percentile of grey."""
    return view.percentile(25)


def percentile_50(view: View) -> float:
    """Median grey."""
    return view.percentile(50)


def percentile_75(view: View) -> float:
    """75th percentile of grey."""
    return view.percentile(75)


def percentile_95(view: View) -> float:
    """95th percentile of grey."""
    return view.percentile(95)


def percentile_99(view: View) -> float:
    """99th percentile of grey."""
    return view.percentile(99)


def black(view: View) -> float:
    """Share of black pixels."""
    return float(view.counts[0] / view.counts.sum())


def white(view: View) -> float:
    """Share of white pixels."""
    return float(view.counts[-1] / view.counts.sum())


def entropy(view: View) -> float:
    """Entropy of the greys."""
    share = view.counts[view.counts > 0] / view.counts.sum()
    return float(-(share * np.log2(share)).sum())


def middle(view: View) -> float:
    """Mean of the middle."""
    return mean(view.middle)


def middle_peak(view: View) -> float:
    """Middle’s 99th percentile."""
    return view.middle.percentile(99)


def middle_dark(view: View) -> float:
    """Middle half’s 5th percentile."""
    return view.half.percentile(5)


def border(view: View) -> float:
    """Mean of the border."""
    inner = view.grey[tuple(slice(max(1, round(RIM * n)), n - max(1, round(RIM * n))) for n in view.grey.shape)]
    rest = view.grey.size - inner.size
    return float((view.grey.sum(dtype=np.float64) - inner.sum(dtype=np.float64)) / rest)


def middle_minus_border(view: View) -> float:
    """Middle minus border."""
    return middle(view) - border(view)


def top_left(view: View) -> float:
    """Mean of top left corner."""
    return view.corner(top=True, left=True)


def top_right(view: View) -> float:
    """Mean of top right corner."""
    return view.corner(top=True, left=False)


def bottom_left(view: View) -> float:
    """Mean of lower left corner."""
    return view.corner(top=False, left=True)


def bottom_right(view: View) -> float:
    """Mean of lower right corner."""
    return view.corner(top=False, left=False)


def corner_spread(view: View) -> float:
    """Range of the corners."""
    corners = (top_left(view), top_right(view), bottom_left(view), bottom_right(view))
    return max(corners) - min(corners)


def left_minus_right(view: View) -> float:
    """Left minus right half."""
    half = view.grey.shape[-1] // 2
    return float(view.grey[..., :half].mean() - view.grey[..., -half:].mean()) if half else 0.0


def top_minus_bottom(view: View) -> float:
    """Top minus bottom half."""
    half = view.grey.shape[-2] // 2
    return float(view.grey[..., :half, :].mean() - view.grey[..., -half:, :].mean()) if half else 0.0


def asymmetry(view: View) -> float:
    """Left-right asymmetry."""
    return float(np.abs(view.grey - view.grey[..., ::-1]).mean())


def sharpness(view: View) -> float | None:
    """Sharpness (Laplacian sd)."""
    return float(view.laplacian.std()) if view.laplacian.size else None


def detail(view: View) -> float | None:
    """Detail (mean Laplacian)."""
    return float(np.abs(view.laplacian).mean()) if view.laplacian.size else None


def noise(view: View) -> float | None:
    """Noise (robust sd)."""
    high = np.diff(np.diff(view.grey, 2, axis=-1), 2, axis=-2)  # Immerkaer 1996
    lit = view.grey[..., 1:-1, 1:-1] > DIM
    if not high.size:
        return None
    kept = high[lit] if lit.sum() > lit.size / 16 else high.ravel()
    return float(np.median(np.abs(kept)) / (0.6745 * 6))  # MAD of a normal distribution; the kernel's norm is 6


def blockiness(view: View) -> float | None:
    """Blocks of JPEG, as seen."""
    return block_edges(view.image)


def compressed(view: View) -> float:
    """Compressed size, as seen."""
    steps = np.diff(view.image, axis=-1, prepend=np.zeros((), view.image.dtype))  # as PNG's filter “sub”
    parts = np.ascontiguousarray(steps).view(np.uint8).reshape(-1, view.image.itemsize).T  # high and low bytes apart
    return len(zlib.compress(parts.tobytes(), 1)) / view.image.size


def red_minus_blue(view: View) -> float | None:
    """Red minus blue."""
    return _colour(view, 0, 2)


def red_minus_green(view: View) -> float | None:
    """Red minus green."""
    return _colour(view, 0, 1)


def saturation(view: View) -> float | None:
    """Saturation of colours."""
    if len(view.image) != 3:
        return None
    return float((view.image.max(0) - view.image.min(0)).mean() / view.white)


def _colour(view: View, one: int, other: int) -> float | None:
    """Return the difference of two channels' means in [-1, 1]; None for a grey picture."""
    if len(view.image) != 3:
        return None
    return float((view.image[one].mean() - view.image[other].mean()) / view.white)
