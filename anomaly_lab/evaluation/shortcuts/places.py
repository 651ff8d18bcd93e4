"""Rules on where it is bright in what a detector sees: of one picture each one number, or None.

A new rule is a new public function. The first line of its docstring is its name on the pages: short, without a verb.
"""

from __future__ import annotations

import numpy as np

from anomaly_lab.evaluation.shortcuts.view import View

RIM = 1 / 8  # of each axis, at either end


def middle(view: View) -> float:
    """Mean of the middle."""
    return float(view.middle.grey.mean())


def middle_peak(view: View) -> float:
    """Peak of the middle."""
    return view.middle.percentile(99)


def middle_dark(view: View) -> float:
    """Darkest of the middle."""
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
    """Top left corner."""
    return view.corner(top=True, left=True)


def top_right(view: View) -> float:
    """Top right corner."""
    return view.corner(top=True, left=False)


def bottom_left(view: View) -> float:
    """Bottom left corner."""
    return view.corner(top=False, left=True)


def bottom_right(view: View) -> float:
    """Bottom right corner."""
    return view.corner(top=False, left=False)


def corner_spread(view: View) -> float:
    """Range of the corners."""
    corners = (top_left(view), top_right(view), bottom_left(view), bottom_right(view))
    return max(corners) - min(corners)


def left_minus_right(view: View) -> float:
    """Left minus right."""
    half = view.grey.shape[-1] // 2
    return float(view.grey[..., :half].mean() - view.grey[..., -half:].mean()) if half else 0.0


def top_minus_bottom(view: View) -> float:
    """Top minus bottom."""
    half = view.grey.shape[-2] // 2
    return float(view.grey[..., :half, :].mean() - view.grey[..., -half:, :].mean()) if half else 0.0


def asymmetry(view: View) -> float:
    """Left-right asymmetry."""
    return float(np.abs(view.grey - view.grey[..., ::-1]).mean())
