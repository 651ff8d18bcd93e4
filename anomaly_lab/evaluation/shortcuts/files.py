"""Rules on files: each public function turns the facts of one scan's file into a number, a text, or None.

The facts are those that a store keeps of every scan: `size`, `spacing`, `range`, `blocks`, and under `header` what the
file says of itself (`bytes`, and fields of its header that name nobody). Every such field is a rule without a function.
A new rule is a new function. The first line of its docstring is its name on the pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]


def width(facts: Facts) -> float | None:
    """Width."""
    return _axis(facts, -1, 2)


def height(facts: Facts) -> float | None:
    """Height."""
    return _axis(facts, -2, 2)


def axis_1(facts: Facts) -> float | None:
    """Voxels along axis 1."""
    return _axis(facts, 0, 3)


def axis_2(facts: Facts) -> float | None:
    """Voxels along axis 2."""
    return _axis(facts, 1, 3)


def axis_3(facts: Facts) -> float | None:
    """Voxels along axis 3."""
    return _axis(facts, 2, 3)


def pixels(facts: Facts) -> float | None:
    """Number of pixels."""
    return math.prod(facts["size"]) if facts.get("size") else None


def aspect(facts: Facts) -> float | None:
    """Width ÷ height."""
    wide, tall = width(facts), height(facts)
    return wide / tall if wide and tall else None


def finest_spacing(facts: Facts) -> float | None:
    """Finest spacing, mm."""
    return min(facts["spacing"]) if facts.get("spacing") else None


def coarsest_spacing(facts: Facts) -> float | None:
    """Coarsest spacing, mm."""
    return max(facts["spacing"]) if facts.get("spacing") else None


def bytes_per_pixel(facts: Facts) -> float | None:
    """Bytes per pixel."""
    size, count = (facts.get("header") or {}).get("bytes"), pixels(facts)
    return size / count if size and count else None


def blocks(facts: Facts) -> float | None:
    """JPEG blocks, as read."""
    return facts.get("blocks")


def lowest(facts: Facts) -> float | None:
    """Lowest value."""
    return facts["range"][0] if facts.get("range") else None


def _axis(facts: Facts, axis: int, axes: int) -> float | None:
    size = facts.get("size") or ()
    return float(size[axis]) if len(size) == axes else None
