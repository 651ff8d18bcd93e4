"""Crop a scan to what it shows: a head, a breast, a fundus, whatever stands out of its background.

Frames and empty margins cost pixels, and differ from one scanner to the next. A scan is cropped to the box of its
largest region above an automatic threshold, before it is padded and resampled; its mask is cropped alike, and maps go
back to the whole scan.

A volume is cropped to one box, so that its slices stay on one grid; pictures and slices in files of their own are
cropped each for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from anomaly_lab.data.readers.scan import Origin, Scan

Crop = Literal["none", "foreground", "head", "breast", "fundus", "margins"]
VERSION = 3  # of the steps below; a store whose pictures were cropped by another version is not reused
FEWEST = 0.02  # share of a scan below which its largest region is not what the scan is about
AIR = -1024.0  # Hounsfield units, the least number of what a CT has measured
SIDE = 256  # pixels; regions are looked for in a picture that is made at most that large


@dataclass(frozen=True)
class _Step:
    """How a region is found.

    Attributes:
        dark: whether the background is black; if not, it is the grey of most of the border.
        logarithmic: whether the threshold is found on the logarithm: what is dim counts as much as what is bright.
        opening: structures narrower than this share of the longer side do not connect regions, such as labels and
            head rests.
        margin: share of the box that is left around it.
    """

    dark: bool = True
    logarithmic: bool = False
    opening: float = 0.01
    margin: float = 0.02


_STEPS: dict[str, _Step] = {
    "foreground": _Step(dark=False),
    "head": _Step(logarithmic=True, opening=0.02),
    "breast": _Step(logarithmic=True, margin=0.0),
    "fundus": _Step(logarithmic=True, margin=0.0),
}


def cropped(scan: Scan, crop: Crop) -> Scan:
    """Return a scan cropped to what it shows; one that shows nothing of the kind stays whole and is marked `uncropped`.

    One whose lesion lay outside of it, all of it, is marked `lesion_cut_away`.

    Args:
        scan: a picture or a volume.
        crop: "foreground", what differs from the grey of the border; "head" and "fundus", the largest region that is
            not black; "breast", the same without a margin around it; "margins" removes rows and columns of white or
            black at the edges; "none" changes nothing.

    Examples:
        >>> pixels = np.zeros((1, 40, 60), np.uint8)
        >>> pixels[0, 10:30, 20:40] = 200
        >>> pixels[0, 2:4, 2:4] = 255  # a mark
        >>> scan = cropped(Scan(pixels), "breast")
        >>> scan.shape, scan.origin.rows[0], scan.origin.columns[0]
        ((20, 20), 10, 20)
        >>> cropped(Scan(0 * pixels), "breast").uncropped
        True
    """
    if crop == "none":
        return scan
    box = _within_margins(scan.pixels) if crop == "margins" else _box(scan.pixels, _STEPS[crop])
    if box is None:
        return replace(scan, uncropped=True)
    window = (slice(None), *(slice(start, stop) for start, stop in box))
    mask, foreground = (None if marked is None else marked[window] for marked in (scan.mask, scan.foreground))
    pixels = np.ascontiguousarray(scan.pixels[window])
    cut_away = scan.mask is not None and mask is not None and bool(scan.mask.any()) and not mask.any()
    part = replace(scan, pixels=pixels, mask=mask, foreground=foreground, lesion_cut_away=cut_away)
    if scan.affine is None:
        return replace(part, origin=_origin(scan, box))
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([start for start, _ in box])
    return replace(part, affine=affine, whole=scan.own_grid)


def _origin(scan: Scan, box: list[tuple[int, int]]) -> Origin:
    """Return where a box of a picture, which may be cropped already, lies in the picture of the file."""
    (top, bottom), (left, right) = box
    height, width = scan.shape
    before = scan.origin or Origin((height, width), range(height), range(width))
    return Origin(before.shape, before.rows[top:bottom], before.columns[left:right])


def _box(pixels: np.ndarray, step: _Step) -> list[tuple[int, int]] | None:
    """Return first and last index + 1 of the largest region along each axis; None if there is none."""
    every = [max(1, -(-side // SIDE)) for side in pixels.shape[1:]]
    grey = pixels.max(0)[tuple(slice(None, None, stride) for stride in every)].astype(np.float32)
    regions = _regions(grey, step)
    if regions is None:
        return None
    spans = []
    for axis, (side, stride) in enumerate(zip(pixels.shape[1:], every, strict=True)):
        there = np.flatnonzero(regions.any(tuple(other for other in range(regions.ndim) if other != axis)))
        start, stop = int(there[0]) * stride, min(side, (int(there[-1]) + 1) * stride)
        room = round(step.margin * (stop - start))
        spans.append((max(0, start - room), min(side, stop + room)))
    return spans


def _regions(grey: np.ndarray, step: _Step) -> np.ndarray | None:
    """Return the largest region of a picture or volume above the threshold, bool [*S]; None if nothing stands out."""
    if grey.min() < AIR < grey.max():  # numbers below it mark what lies outside a CT's field of view
        grey = np.maximum(grey, AIR)
    low, high = float(grey.min()), float(grey.max())
    if not (np.isfinite(low) and high > low):
        return None
    values = np.abs(grey - _border(grey)) if not step.dark else grey - low
    if step.logarithmic:
        values = np.log1p(values * (255 / (high - low)))
    levels = (values * (255 / values.max())).astype(np.uint8)
    flat = levels.reshape(levels.shape[0], -1)  # OpenCV takes pictures; a threshold has no neighbours
    bright = cv2.threshold(flat, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1].reshape(levels.shape)
    region = _largest(bright, max(1, round(step.opening * max(levels.shape))))
    return region if region.mean() >= FEWEST else None


def _largest(bright: np.ndarray, width: int) -> np.ndarray:
    """Return the largest connected region, after structures narrower than `width` are gone."""
    from scipy import ndimage

    opened = ndimage.binary_opening(bright, np.ones((width,) * bright.ndim)) if width > 1 else bright.astype(bool)
    numbers, count = ndimage.label(opened)
    if count == 0:
        return np.zeros(bright.shape, bool)
    return np.asarray(numbers == 1 + np.bincount(numbers.ravel())[1:].argmax())


def _border(grey: np.ndarray) -> float:
    """Return the median grey of the outermost pixels."""
    inner = np.zeros(grey.shape, bool)
    inner[tuple(slice(1, -1) for _ in grey.shape)] = True
    return float(np.median(grey[~inner]))


def _within_margins(pixels: np.ndarray) -> list[tuple[int, int]] | None:
    """Return the box without rows and columns at the edges that are white or black nearly everywhere."""
    low, high = float(pixels.min()), float(pixels.max())
    if not high > low:
        return None
    near = (high - low) / 32
    empty = ((pixels >= high - near) | (pixels <= low + near)).all(0)
    spans = []
    for axis in range(empty.ndim):
        share = empty.mean(tuple(other for other in range(empty.ndim) if other != axis))
        there = np.flatnonzero(share < 0.98)
        if not len(there):
            return None
        spans.append((int(there[0]), int(there[-1]) + 1))
    return spans
