"""Rules on the greys and colours that a detector sees, wherever they are: of one picture each one number, or None.

A new rule is a new public function. The first line of its docstring is its name on the pages: short, without a verb.
"""

from __future__ import annotations

import numpy as np

from anomaly_lab.evaluation.shortcuts.view import View


def mean(view: View) -> float:
    """Mean grey."""
    return float(view.grey.mean())


def deviation(view: View) -> float:
    """Contrast."""
    return float(view.grey.std())


def percentile_1(view: View) -> float:
    """1st percentile."""
    return view.percentile(1)


def percentile_5(view: View) -> float:
    """5th percentile."""
    return view.percentile(5)


def percentile_25(view: View) -> float:
    """25th percentile."""
    return view.percentile(25)


def percentile_50(view: View) -> float:
    """Median grey."""
    return view.percentile(50)


def percentile_75(view: View) -> float:
    """75th percentile."""
    return view.percentile(75)


def percentile_95(view: View) -> float:
    """95th percentile."""
    return view.percentile(95)


def percentile_99(view: View) -> float:
    """99th percentile."""
    return view.percentile(99)


def black(view: View) -> float:
    """Share of black."""
    return float(view.counts[0] / view.counts.sum())


def white(view: View) -> float:
    """Share of white."""
    return float(view.counts[-1] / view.counts.sum())


def entropy(view: View) -> float:
    """Entropy of the greys."""
    share = view.counts[view.counts > 0] / view.counts.sum()
    return float(-(share * np.log2(share)).sum())


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
