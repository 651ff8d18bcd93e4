"""Boxes drawn from anomaly maps against the boxes of known lesions: average precision and pointing.

A map gives boxes around the regions in which it exceeds a share of its highest value (Zhou et al. 2016, Learning Deep
Features for Discriminative Localization, §3.2, for class activation maps: a fifth). A box is found if a region's box
overlaps it by an intersection over union of at least .5 and no stronger region's box has taken it (Everingham et al.
2010, The Pascal Visual Object Classes Challenge, §4.4).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anomaly_lab.metrics.ranking import Floats

SHARE = 0.2  # of the highest value of a map
OVERLAP = 0.5  # intersection over union of boxes that match

Boxes = NDArray[np.int64]  # [n, 4]: first row, first column, and the row and column after the last


class Localisation(NamedTuple):
    """How well boxes are found in images.

    Attributes:
        average_precision: of the boxes from the maps, the most certain first; nan without a known box.
        pointing: share of the images with a lesion whose map is highest within it; nan without such an image.
        known: number of known boxes.
    """

    average_precision: float
    pointing: float
    known: int


def localise(anomaly_map: Floats, mask: NDArray[np.bool_], score: Floats) -> Localisation:
    """Compare the boxes of maps with those of lesions; lesions that touch are one, as are regions of a map.

    Args:
        anomaly_map: [N, H, W], non-negative.
        mask: lesions, of the same shape.
        score: of each image, [N]; boxes are as certain as their image, within an image by the highest value in them.

    Examples:
        >>> mask = np.zeros((2, 8, 8), bool)
        >>> mask[0, 2:6, 2:6] = True  # the second image is normal
        >>> maps = np.where(mask, 1.0, 0.0)
        >>> maps[1, 0, 0] = 1.0
        >>> localise(maps, mask, np.array([0.9, 0.1]))
        Localisation(average_precision=1.0, pointing=1.0, known=1)
    """
    claimed: list[tuple[float, float, bool]] = []
    known, pointed = 0, []
    for values, lesion, certain in zip(anomaly_map, mask, score, strict=True):
        truth, found = _boxes(lesion), _boxes(values > max(0.0, SHARE * values.max()))
        peaks = np.array([values[top:bottom, left:right].max() for top, left, bottom, right in found])
        known += len(truth)
        if len(truth):
            pointed.append(bool(lesion.ravel()[values.argmax()]))
        free = np.ones(len(truth), bool)
        for place in np.argsort(-peaks, kind="stable"):
            overlaps = np.where(free, _overlap(found[place], truth), 0.0)
            hit = bool(len(truth)) and bool(overlaps.max() >= OVERLAP)
            if hit:
                free[overlaps.argmax()] = False
            claimed.append((float(certain), float(peaks[place]), hit))
    return Localisation(_average_precision(claimed, known), float(np.mean(pointed)) if pointed else math.nan, known)


def _boxes(region: NDArray[np.bool_]) -> Boxes:
    """Return the boxes of the connected regions of [H, W]; corners connect."""
    labelled, _ = ndimage.label(region, np.ones((3, 3)))
    slices = ndimage.find_objects(labelled)
    return np.array([[r.start, c.start, r.stop, c.stop] for r, c in slices], np.int64).reshape(-1, 4)


def _overlap(box: NDArray[np.int64], others: Boxes) -> Floats:
    """Return the intersection over union of a box with each of others [n, 4]."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (high - low).clip(0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    overlap: Floats = shared / (areas - shared)
    return overlap


def _average_precision(claimed: list[tuple[float, float, bool]], known: int) -> float:
    """Return the area under precision over recall, at each recall the highest precision from there on (VOC 2010)."""
    if not known:
        return math.nan
    hits = np.array([hit for *_, hit in sorted(claimed, key=lambda claim: (-claim[0], -claim[1]))], bool)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / known)
