"""How well anomaly maps point at known lesions: pixel AUROC and PRO, streamed through histograms.

PRO (Bergmann et al. 2021, The MVTec Anomaly Detection Dataset, International Journal of Computer Vision 129):
the share of each lesion that is found, averaged over lesions (so that a small one counts as much as a large
one), as a function of the share of normal pixels called anomalous; its area up to a share of 0.3, divided by
0.3. Intervals are of the jackknife that leaves out one patient at a time (Efron and Tibshirani 1993, §11).
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anomaly_lab.metrics.ranking import Floats


class Pointing(NamedTuple):
    """How well maps point at lesions, of all images and of all but one patient's.

    Attributes:
        figures: "auroc" and "pro".
        without: the same without each patient in turn, [K] of K patients.
        num_masks: images with a lesion.
    """

    figures: dict[str, float]
    without: dict[str, Floats]
    num_masks: int


def pointing(anomaly_map: Floats, mask: NDArray[np.bool_], patient: NDArray[Any]) -> Pointing:
    """Measure maps [N, 1, *S] against lesions of the same shape; `patient` [N] says whose they are."""
    maps, masks = torch.from_numpy(anomaly_map), torch.from_numpy(mask)
    low, high = float(maps.min()), float(maps.max())
    _, whose = np.unique(patient, return_inverse=True)

    def counted(chosen: slice | NDArray[np.intp]) -> PixelHistograms:
        histograms = PixelHistograms(low, high)
        histograms.update(maps[chosen], masks[chosen])
        return histograms

    whole = counted(slice(None))
    left = [whole.without(counted(np.flatnonzero(whose == k))) for k in range(whose.max() + 1)]
    without = {"auroc": np.array([h.auroc() for h in left]), "pro": np.array([h.pro() for h in left])}
    return Pointing({"auroc": whole.auroc(), "pro": whole.pro()}, without, whole.num_masks)


class PixelHistograms:
    """Adds up maps and masks one batch at a time; memory does not grow with the number of images.

    Values within one bin count as equal, so the range should be that of all maps (a first pass tells it);
    what lies outside falls into the outermost bins.

    Args:
        low: the smallest value of the maps.
        high: the largest one.
        bins: how many steps between the two.
    """

    def __init__(self, low: float, high: float, bins: int = 16_384) -> None:
        self.low, self.bins = low, bins
        self.scale = bins / (high - low) if high > low else 0.0
        self.normal = np.zeros(bins)  # pixels outside of every lesion
        self.anomalous = np.zeros(bins)  # pixels of lesions
        self.overlap = np.zeros(bins)  # the same, each lesion weighing 1 in all
        self.num_masks = 0  # images with a lesion

    def update(self, anomaly_map: Tensor, mask: Tensor) -> None:
        """Counts in a batch of maps and masks, [B, 1, *S] with two or three axes S; an empty mask is normal.

        Raises:
            ValueError: shapes differ, or a map has values that are not finite.
        """
        if anomaly_map.shape != mask.shape:
            raise ValueError(f"anomaly_map is {tuple(anomaly_map.shape)}, its mask {tuple(mask.shape)}")
        if not anomaly_map.isfinite().all():
            raise ValueError("anomaly_map has values that are not finite")
        values, lesions = anomaly_map[:, 0].double().cpu().numpy(), mask[:, 0].bool().cpu().numpy()
        for value, lesion in zip(values, lesions, strict=True):
            self._count(((value - self.low) * self.scale).clip(0, self.bins - 1).astype(np.int64), lesion)

    def without(self, part: PixelHistograms) -> PixelHistograms:
        """What is left when a part of what was counted is taken away again; both have the same bins."""
        rest = copy.copy(self)
        rest.normal, rest.anomalous = self.normal - part.normal, self.anomalous - part.anomalous
        rest.overlap = (self.overlap - part.overlap).clip(0)  # sums of fractions: a 0 may come out just below
        rest.num_masks = self.num_masks - part.num_masks
        return rest

    def auroc(self) -> float:
        """Probability that a lesion's pixel has a higher value than a normal one; nan without either."""
        fpr, tpr = _share_above(self.normal), _share_above(self.anomalous)
        return float(np.trapezoid(tpr, fpr))

    def pro(self, limit: float = 0.3) -> float:
        """Per-region overlap, averaged over false positive rates up to `limit`; in [0, 1], nan as `auroc`."""
        fpr, found = _share_above(self.normal), _share_above(self.overlap)
        if np.isnan(fpr).any() or np.isnan(found).any():
            return math.nan
        end = int(np.searchsorted(fpr, limit))  # first point at or beyond the limit: the curve is cut before it
        part = (limit - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
        cut = found[end - 1] + part * (found[end] - found[end - 1])
        area = np.trapezoid(np.append(found[:end], cut), np.append(fpr[:end], limit))
        return float(area / limit)

    def _count(self, index: NDArray[np.int64], lesion: NDArray[np.bool_]) -> None:
        self.normal += np.bincount(index[~lesion], minlength=self.bins)
        if not lesion.any():
            return
        # regions that touch at a corner are one, as in the MVTec evaluation code
        region, _ = ndimage.label(lesion, ndimage.generate_binary_structure(lesion.ndim, lesion.ndim))
        inside = region[lesion]
        self.anomalous += np.bincount(index[lesion], minlength=self.bins)
        self.overlap += np.bincount(index[lesion], 1 / np.bincount(inside)[inside], minlength=self.bins)
        self.num_masks += 1


def _share_above(histogram: Floats) -> Floats:
    """Share of the histogram from each bin upwards, highest bin first, 0 to 1: [bins + 1]; nan when empty."""
    above = np.append(0.0, histogram[::-1].cumsum())
    return above / above[-1] if above[-1] > 0 else np.full_like(above, np.nan)
