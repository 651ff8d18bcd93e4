"""Localisation metrics of anomaly maps: pixel AUROC and PRO, computed from streaming histograms of ranks.

PRO (per-region overlap; Bergmann et al. 2021, The MVTec Anomaly Detection Dataset, International Journal of Computer
Vision 129) is the share of each lesion that is found, averaged over lesions, as a function of the false positive rate
over normal pixels. A small lesion counts as much as a large one. The metric is the area under this curve up to a rate
of 0.3, divided by 0.3. Its intervals are from a jackknife that leaves out one patient at a time (Efron and Tibshirani
1993, §11).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anomaly_lab.metrics.ranking import Floats

BINS = 16_384  # at most; half of them by the ranks of normal pixels, half by those of lesions
SAMPLE = 2**19  # pixels of either kind from which the bins are made, 32 a bin; all of them where there are no more


class Pointing(NamedTuple):
    """Localisation metrics of all images, and of all images but those of one patient.

    Attributes:
        figures: "auroc" and "pro".
        without: the same metrics with each of the K patients left out in turn, [K].
        num_masks: number of images with a lesion.
        lesioned: number of patients with a lesion.
    """

    figures: dict[str, float]
    without: dict[str, Floats]
    num_masks: int
    lesioned: int


def pointing(anomaly_map: Floats, mask: NDArray[np.bool_], patient: NDArray[Any]) -> Pointing:
    """Compute the localisation metrics of anomaly maps, image by image.

    Args:
        anomaly_map: [N, 1, *S].
        mask: lesions, of the same shape.
        patient: patient of each image, [N].

    Examples:
        >>> mask = np.array([[[[True, False], [False, False]]], [[[False, False], [False, False]]]])
        >>> result = pointing(mask.astype(np.float64), mask, np.array(["a", "b"]))  # maps equal to the masks
        >>> result.figures, result.num_masks, result.lesioned
        ({'auroc': 1.0, 'pro': 1.0}, 1, 1)
    """
    edges = bin_edges(anomaly_map, mask)
    _, patient_index = np.unique(patient, return_inverse=True)

    def counted(images: Iterable[int]) -> PixelHistograms:
        histograms = PixelHistograms(edges)
        for i in images:
            histograms.update(torch.from_numpy(anomaly_map[i : i + 1]), torch.from_numpy(mask[i : i + 1]))
        return histograms

    whole = counted(range(len(anomaly_map)))
    without: dict[str, list[float]] = {"auroc": [], "pro": []}
    lesioned = 0
    for k in range(patient_index.max() + 1):
        own = counted(np.flatnonzero(patient_index == k).tolist())
        lesioned += own.num_masks > 0
        rest = whole.without(own)
        without["auroc"].append(rest.auroc())
        without["pro"].append(rest.pro())
    figures = {"auroc": whole.auroc(), "pro": whole.pro()}
    return Pointing(figures, {name: np.array(values) for name, values in without.items()}, whole.num_masks, lesioned)


def bin_edges(anomaly_map: Floats, mask: NDArray[np.bool_], bins: int = BINS) -> Floats:
    """Return the lower edges of bins that hold about equal numbers of normal pixels, and of pixels of lesions.

    With equal ranks, not equal values, maps with heavy tails are as well resolved as others: a pixel AUROC is wrong by
    no more than half the share of normal pixels in a bin, about 1e-4. If there are no more than `bins` / 2 values of
    either kind, each has a bin of its own and nothing is lost.

    Args:
        anomaly_map: [N, 1, *S], finite.
        mask: lesions, of the same shape.
        bins: number of bins at most.

    Returns:
        Ascending, [B]; the first is the lowest value of the sample.

    Examples:
        >>> values = np.array([0.0, 1.0, 1.0, 1e9, -1e30]).reshape(1, 1, 5)
        >>> bin_edges(values, values > 5).tolist()
        [-1e+30, 0.0, 1.0, 1000000000.0]
    """
    random = np.random.default_rng(0)
    lesions = int(np.count_nonzero(mask))
    edges = []
    for inside, total in ((False, mask.size - lesions), (True, lesions)):
        rate = SAMPLE / max(total, 1)
        parts = [values[lesion == inside] for values, lesion in zip(anomaly_map, mask.astype(bool), strict=True)]
        drawn = [part if rate >= 1 else part[random.random(len(part)) < rate] for part in parts]
        values, counts = np.unique(np.concatenate(drawn).astype(np.float64), return_counts=True)
        if len(values) > bins // 2:  # a new bin begins where the next of equally many ranks does
            rank = np.cumsum(counts) - counts
            step = rank * (bins // 2) // counts.sum()
            values = values[np.diff(step, prepend=-1) > 0]
        edges.append(values)
    found: Floats = np.union1d(*edges)
    return found


class PixelHistograms:
    """Histograms of map values inside and outside lesions, accumulated batch by batch.

    Memory does not grow with the number of images. Values within one bin are ties. Values below all bins are counted in
    the lowest.

    Args:
        edges: lower edges of the bins, ascending, as `bin_edges` makes them in a first pass.

    Examples:
        >>> histograms = PixelHistograms(np.array([0.0, 0.2, 0.8]))
        >>> histograms.update(torch.tensor([[[[0.9, 0.1], [0.2, 0.8]]]]), torch.tensor([[[[1, 0], [0, 0]]]]))
        >>> round(histograms.auroc(), 4)  # .9 and .8 share the highest bin
        0.8333
    """

    def __init__(self, edges: Floats) -> None:
        self.edges, self.bins = edges, len(edges)
        self.normal = np.zeros(self.bins)  # pixels outside of all lesions
        self.anomalous = np.zeros(self.bins)  # pixels inside lesions
        self.overlap = np.zeros(self.bins)  # the same, weighted so that each lesion has a total weight of 1
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
        for value, lesion in zip(anomaly_map[:, 0], mask[:, 0], strict=True):
            place = np.searchsorted(self.edges, value.double().cpu().numpy(), side="right") - 1
            self._count(place.clip(0), lesion.bool().cpu().numpy())

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
