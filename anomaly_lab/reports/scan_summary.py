"""Facts of many scans summed up: their sizes and spacings, and their numbers as read and as stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 64  # of a histogram on a common axis
TAIL = 0.0005  # share left out at each end of the axis of what was read: one burnt pixel would squeeze all others

Floats = NDArray[np.float64]


class Extent(NamedTuple):
    """One axis over all scans: least, median and greatest, in pixels, voxels or mm."""

    axis: str
    least: float
    median: float
    most: float


class Mixture:
    """Distribution of the numbers of many scans, each of which weighs the same.

    Attributes:
        count: scans in it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._parts: dict[tuple[float, float], Floats] = {}  # scans of one range share an entry

    def add(self, counts: Sequence[int], low: float, high: float) -> None:
        """Add a scan by its histogram over [low, high]."""
        shares = np.asarray(counts, np.float64) / max(1, sum(counts))
        key = (low, high if high > low else low + 1)
        self._parts[key] = self._parts.get(key, 0) + shares
        self.count += 1

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest number of any scan."""
        return min(low for low, _ in self._parts), max(high for _, high in self._parts)

    def below(self, x: Floats) -> Floats:
        """Share of the numbers below each of x; within a bin they are taken as evenly spread."""
        shares = np.zeros(len(x))
        for (low, high), counts in self._parts.items():
            edges = np.linspace(low, high, len(counts) + 1)
            shares += np.interp(x, edges, np.concatenate([[0], np.cumsum(counts)]))
        return shares / self.count

    def histogram(self, edges: Floats) -> Floats:
        """Share of the numbers in each bin."""
        shares: Floats = np.diff(self.below(edges))
        return shares


def common_axis(mixtures: Sequence[Mixture]) -> Floats:
    """Edges of BINS bins that hold all numbers of all mixtures but TAIL at each end."""
    low, high = (f(mixture.range[end] for mixture in mixtures) for end, f in enumerate((min, max)))
    x = np.linspace(low, high, 4096)
    weights = np.array([mixture.count for mixture in mixtures], np.float64)
    below = np.stack([mixture.below(x) for mixture in mixtures], 1) @ (weights / weights.sum())
    first, last = x[np.searchsorted(below, TAIL, "right") - 1], x[np.searchsorted(below, 1 - TAIL)]
    return np.linspace(first, last, BINS + 1)


@dataclass
class ScanSummary:
    """What the scans of a data set are like.

    Attributes:
        volumes: whether they are volumes.
        sizes: how often each size came, axes in the file's order.
        spacings: the same of voxel edges, mm.
        read: numbers as the files have them, by class of the scan.
        stored: numbers after preprocessing, as fractions of full scale, by class of the scan.
        clipped: of each scan, the share of its foreground that fell outside the range that is kept.
        lesions: scans with a known lesion.
        barren: scans of which no window was kept.
    """

    volumes: bool = False
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    spacings: Counter[tuple[float, ...]] = field(default_factory=Counter)
    read: dict[str, Mixture] = field(default_factory=dict)
    stored: dict[str, Mixture] = field(default_factory=dict)
    clipped: list[tuple[float, str]] = field(default_factory=list)
    lesions: int = 0
    barren: int = 0

    def add(self, fact: dict[str, Any], kind: str) -> None:
        """Add the store's facts of a scan of the class `kind`; histograms where it has them."""
        self.sizes[tuple(fact["size"])] += 1
        if fact["spacing"]:
            self.volumes = True
            self.spacings[tuple(fact["spacing"])] += 1
        self.lesions += bool(fact["lesion"])
        self.barren += fact["windows"] == 0
        self.clipped.append((fact["clipped"], fact["case"]))
        if "histogram" in fact:
            self.read.setdefault(kind, Mixture()).add(fact["histogram"], *fact["range"])
            self.stored.setdefault(kind, Mixture()).add(fact["stored_histogram"], 0, 1)

    @property
    def sampled(self) -> bool:
        """Whether the histograms are those of some of the scans only."""
        return sum(mixture.count for mixture in self.read.values()) < len(self.clipped)

    def extents(self, counts: Counter[Any]) -> list[Extent]:
        """Least, median and greatest of each axis of `sizes` or `spacings`; of volumes where there are pictures too."""
        axes = max(map(len, counts), default=0)
        alike = {value: times for value, times in counts.items() if len(value) == axes}
        if not alike:
            return []
        values = np.repeat(np.array(list(alike)), list(alike.values()), axis=0)
        names = ("axis 1", "axis 2", "axis 3") if values.shape[1] == 3 else ("height", "width")
        summed = zip(names, values.min(0).tolist(), np.median(values, 0).tolist(), values.max(0).tolist(), strict=True)
        return [Extent(*axis) for axis in summed]
