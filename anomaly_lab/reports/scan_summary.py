"""Summarise many scans: sizes, spacings, and intensities as read and as stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 64  # bins of a histogram on a common axis
TAIL = 0.0005  # fraction of values cut off at each end of the axis, so that a single outlier does not stretch it

Floats = NDArray[np.float64]


class Extent(NamedTuple):
    """Minimum, median and maximum along one axis over all scans, in pixels, voxels or mm."""

    axis: str
    least: float
    median: float
    most: float


class Mixture:
    """Distribution of the intensities of many scans; each scan has the same weight.

    Attributes:
        count: number of scans.

    Examples:
        >>> mixture = Mixture()
        >>> mixture.add([3, 1], low=0, high=2)  # three values in [0, 1), one in [1, 2]
        >>> mixture.add([0, 8], low=0, high=2)
        >>> mixture.histogram(np.array([0.0, 1.0, 2.0])).tolist()
        [0.375, 0.625]
    """

    def __init__(self) -> None:
        self.count = 0
        self._parts: dict[
            tuple[float, float], Floats
        ] = {}  # histograms by range; scans with the same range share an entry

    def add(self, counts: Sequence[int], low: float, high: float) -> None:
        """Add a scan, given by its histogram over [low, high] with equal bins."""
        shares = np.asarray(counts, np.float64) / max(1, sum(counts))
        key = (low, high if high > low else low + 1)
        self._parts[key] = self._parts.get(key, 0) + shares
        self.count += 1

    @property
    def range(self) -> tuple[float, float]:
        """Minimum and maximum over all scans."""
        return min(low for low, _ in self._parts), max(high for _, high in self._parts)

    def below(self, x: Floats) -> Floats:
        """Return the fraction of values below each x; values are taken as evenly spread within a bin."""
        shares = np.zeros(len(x))
        for (low, high), counts in self._parts.items():
            edges = np.linspace(low, high, len(counts) + 1)
            shares += np.interp(x, edges, np.concatenate([[0], np.cumsum(counts)]))
        return shares / self.count

    def histogram(self, edges: Floats) -> Floats:
        """Return the fraction of values in each bin."""
        shares: Floats = np.diff(self.below(edges))
        return shares


def common_axis(mixtures: Sequence[Mixture]) -> Floats:
    """Return the edges of BINS equal bins that hold all values of all mixtures except a fraction TAIL at each end.

    Examples:
        >>> mixture = Mixture()
        >>> mixture.add([1] * 100, low=0, high=100)
        >>> edges = common_axis([mixture])
        >>> len(edges), round(edges[0]), round(edges[-1])
        (65, 0, 100)
    """
    low, high = (f(mixture.range[end] for mixture in mixtures) for end, f in enumerate((min, max)))
    x = np.linspace(low, high, 4096)
    weights = np.array([mixture.count for mixture in mixtures], np.float64)
    below = np.stack([mixture.below(x) for mixture in mixtures], 1) @ (weights / weights.sum())
    first, last = x[np.searchsorted(below, TAIL, "right") - 1], x[np.searchsorted(below, 1 - TAIL)]
    return np.linspace(first, last, BINS + 1)


@dataclass
class ScanSummary:
    """Summary of the scans of a data set.

    Attributes:
        volumes: whether the scans are volumes.
        sizes: number of scans of each size, axes in the file's order.
        spacings: number of scans of each voxel spacing, mm.
        read: intensities as read from the files, by class of the scan.
        stored: intensities after preprocessing, as fractions of full scale, by class of the scan.
        clipped: for each scan, the fraction of its foreground that preprocessing clipped, and its id.
        lesions: number of scans with a known lesion.
        barren: number of scans without any kept window.

    Examples:
        >>> scans = ScanSummary()
        >>> fact = {"spacing": None, "lesion": False, "windows": 1, "clipped": 0.0}
        >>> scans.add(fact | {"case": "a", "size": (64, 48)}, kind="normal")
        >>> scans.add(fact | {"case": "b", "size": (64, 80)}, kind="anomalous")
        >>> scans.extents(scans.sizes)[1]
        Extent(axis='width', least=48, median=64.0, most=80)
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
        """Add a scan.

        Args:
            fact: the store's facts about the scan: case, size, spacing, lesion, windows, clipped; optionally histogram,
                range and stored_histogram.
            kind: "normal" or "anomalous".
        """
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
        """Whether the histograms cover only a sample of the scans."""
        return sum(mixture.count for mixture in self.read.values()) < len(self.clipped)

    def extents(self, counts: Counter[Any]) -> list[Extent]:
        """Summarise each axis of `sizes` or `spacings`; if there are volumes and images, only the volumes."""
        axes = max(map(len, counts), default=0)
        same_axes = {value: times for value, times in counts.items() if len(value) == axes}
        if not same_axes:
            return []
        values = np.repeat(np.array(list(same_axes)), list(same_axes.values()), axis=0)
        names = ("axis 1", "axis 2", "axis 3") if values.shape[1] == 3 else ("height", "width")
        extents = zip(names, values.min(0).tolist(), np.median(values, 0).tolist(), values.max(0).tolist(), strict=True)
        return [Extent(*axis) for axis in extents]
