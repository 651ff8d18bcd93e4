"""Localisation metrics of anomaly maps: pixel AUROC and PRO, computed from streaming histograms.

PRO (per-region overlap; Bergmann et al. 2021, The MVTec Anomaly Detection Dataset, International Journal of Computer
Vision 129) is the share of each lesion that is found, averaged over lesions, as a function of the false positive rate
over normal pixels. A small lesion counts as much as a large one. The metric is the area under this curve up to a rate
of 0.3, divided by 0.3. Its intervals are from a jackknife that leaves out one patient at a time (Efron and Tibshirani
1993, §11).
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
    """Localisation metrics of all images, and of all images but those of one patient.

    Attributes:
        figures: "auroc" and "pro".
        without: the same metrics with each of the K patients left out in turn, [K].
        num_masks: number of images with a lesion.
    """

    figures: dict[str, float]
    without: dict[str, Floats]
    num_masks: int


def pointing(anomaly_map: Floats, mask: NDArray[np.bool_], patient: NDArray[Any]) -> Pointing:
    """Compute the localisation metrics of anomaly maps.

    Args:
        anomaly_map: [N, 1, *S].
        mask: lesions, of the same shape.
        patient: patient of each image, [N].

    Examples:
        >>> mask = np.array([[[[True, False], [False, False]]], [[[False, False], [False, False]]]])
        >>> result = pointing(mask.astype(np.float64), mask, np.array(["a", "b"]))  # maps equal to the masks
        >>> result.figures, result.num_masks
        ({'auroc': 1.0, 'pro': 1.0}, 1)
    """
    maps, masks = torch.from_numpy(anomaly_map), torch.from_numpy(mask)
    low, high = float(maps.min()), float(maps.max())
    _, patient_index = np.unique(patient, return_inverse=True)

    def counted(chosen: slice | NDArray[np.intp]) -> PixelHistograms:
        histograms = PixelHistograms(low, high)
        histograms.update(maps[chosen], masks[chosen])
        return histograms

    whole = counted(slice(None))
    rest = [whole.without(counted(np.flatnonzero(patient_index == k))) for k in range(patient_index.max() + 1)]
    without = {"auroc": np.array([h.auroc() for h in rest]), "pro": np.array([h.pro() for h in rest])}
    return Pointing({"auroc": whole.auroc(), "pro": whole.pro()}, without, whole.num_masks)


class PixelHistograms:
    """Histograms of map values inside and outside lesions, accumulated batch by batch.

    Memory does not grow with the number of images. Values within one bin are ties, so [low, high] should be the range
    of all maps, found in a first pass. Values outside it are counted in the outermost bins.

    Args:
        low: smallest value of the maps.
        high: largest value of the maps.
        bins: number of bins between the two.

    Examples:
        >>> histograms = PixelHistograms(low=0.0, high=1.0)
        >>> histograms.update(torch.tensor([[[[0.9, 0.1], [0.2, 0.8]]]]), torch.tensor([[[[1, 0], [0, 0]]]]))
        >>> histograms.auroc()
        1.0
    """

    def __init__(self, low: float, high: float, bins: int = 16_384) -> None:
        self.low, self.bins = low, bins
        self.scale = bins / (high - low) if high > low else 0.0
        self.normal = np.zeros(bins)  # pixels outside of all lesions
        self.anomalous = np.zeros(bins)  # pixels inside lesions
        self.overlap = np.zeros(bins)  # pixels inside lesions, weighted so that each lesion has a total weight of 1
        self.num_masks = 0  # number of images with a lesion

    def update(self, anomaly_map: Tensor, mask: Tensor) -> None:
        """Add a batch of maps and masks, [B, 1, *S] with two or three spatial axes; an empty mask marks a normal image.

        Raises:
            ValueError: the shapes differ, or a map has values that are not finite.
        """
        if anomaly_map.shape != mask.shape:
            raise ValueError(f"anomaly_map has shape {tuple(anomaly_map.shape)}, its mask {tuple(mask.shape)}")
        if not anomaly_map.isfinite().all():
            raise ValueError("anomaly_map has values that are not finite")
        values, lesions = anomaly_map[:, 0].double().cpu().numpy(), mask[:, 0].bool().cpu().numpy()
        for value, lesion in zip(values, lesions, strict=True):
            self._count(((value - self.low) * self.scale).clip(0, self.bins - 1).astype(np.int64), lesion)

    def without(self, part: PixelHistograms) -> PixelHistograms:
        """Return these histograms minus those of a part of the images; both must have the same bins."""
        rest = copy.copy(self)
        rest.normal, rest.anomalous = self.normal - part.normal, self.anomalous - part.anomalous
        rest.overlap = (self.overlap - part.overlap).clip(0)  # sums of fractions: rounding may leave a 0 negative
        rest.num_masks = self.num_masks - part.num_masks
        return rest

    def auroc(self) -> float:
        """Return the probability that a lesion pixel has a higher value than a normal one; nan if either is missing."""
        fpr, tpr = _share_above(self.normal), _share_above(self.anomalous)
        return float(np.trapezoid(tpr, fpr))

    def pro(self, limit: float = 0.3) -> float:
        """Return the mean per-region overlap over false positive rates up to `limit`; in [0, 1], nan as in `auroc`."""
        fpr, overlap = _share_above(self.normal), _share_above(self.overlap)
        if np.isnan(fpr).any() or np.isnan(overlap).any():
            return math.nan
        end = int(np.searchsorted(fpr, limit))  # first point at or beyond the limit
        part = (limit - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
        overlap_at_limit = overlap[end - 1] + part * (overlap[end] - overlap[end - 1])
        area = np.trapezoid(np.append(overlap[:end], overlap_at_limit), np.append(fpr[:end], limit))
        return float(area / limit)

    def _count(self, index: NDArray[np.int64], lesion: NDArray[np.bool_]) -> None:
        self.normal += np.bincount(index[~lesion], minlength=self.bins)
        if not lesion.any():
            return
        # Regions that touch at a corner are one region, as in the MVTec evaluation code.
        region, _ = ndimage.label(lesion, ndimage.generate_binary_structure(lesion.ndim, lesion.ndim))
        inside = region[lesion]
        self.anomalous += np.bincount(index[lesion], minlength=self.bins)
        self.overlap += np.bincount(index[lesion], 1 / np.bincount(inside)[inside], minlength=self.bins)
        self.num_masks += 1


def _share_above(histogram: Floats) -> Floats:
    """Return the share of counts at or above each bin, highest bin first, from 0 to 1: [bins + 1]; nan if empty."""
    above = np.append(0.0, histogram[::-1].cumsum())
    return above / above[-1] if above[-1] > 0 else np.full_like(above, np.nan)
