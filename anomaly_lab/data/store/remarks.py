"""What the files of a data set suggest: that a setting is wrong, though every one of them could be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

FAINT = 1 / 8  # of the range of a picture's type, which the brightest pixel of all pictures should reach
LARGE = 0.5  # share of a picture; where most lesions are larger, the masks are suspected to be inverted


class Remark(NamedTuple):
    """What a user should know of a data set.

    Attributes:
        text: names no case, so that it may leave the machine.
        cases: that it is about.
    """

    text: str
    cases: tuple[str, ...] = ()


def remarks(scans: Iterable[Mapping[str, Any]]) -> list[Remark]:
    """Return what a user should know of a data set before believing any number.

    Args:
        scans: facts of every scan, as a store has them.

    Examples:
        >>> scan = {"case": "a.png", "label": 1, "lesion": 0, "white": 255, "range": [0, 250], "size": [8, 8]}
        >>> (remark,) = remarks([scan])
        >>> remark.text[:36], remark.cases
        ('1 anomalous scan with an empty mask:', ('a.png',))
    """
    scans = [scan for scan in scans if "skipped" not in scan]
    return [*_of_masks(scans), *_of_brightness(scans), *_not_cropped(scans)]


def _of_masks(scans: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    """Yield where masks and labels contradict each other, or masks look inverted."""
    if normal := [scan["case"] for scan in scans if scan["lesion"] and scan["label"] == 0]:
        text = (
            f"{_counted(len(normal), 'scan')} listed as normal with a lesion in the mask: what is normal trains, sets "
            "the threshold or is judged as normal. Correct the list or the mask."
        )
        yield Remark(text, tuple(normal))
    if vanished := [scan["case"] for scan in scans if scan.get("vanished")]:
        text = (
            f"{_counted(len(vanished), 'scan')} whose lesion is too small for a single pixel at this size: they count "
            "by their label and are left out of the pixel metrics. Raise data.patch_size or cut windows (data.cut) to "
            "keep such lesions."
        )
        yield Remark(text, tuple(vanished))
    if cut_away := [scan["case"] for scan in scans if scan.get("cut_away")]:
        text = (
            f"{_counted(len(cut_away), 'scan')} whose lesion data.crop cut away: they count by their label and are "
            "left out of the pixel metrics. Choose another crop, which keeps what is judged."
        )
        yield Remark(text, tuple(cut_away))
    marked = [scan for scan in scans if not scan.get("cut_away")]
    if empty := [scan["case"] for scan in marked if scan["lesion"] == 0 and scan["label"] == 1]:
        text = (
            f"{_counted(len(empty), 'anomalous scan')} with an empty mask: every pixel of it counts as healthy. "
            "Correct the mask; if it is a picture, say which values mean lesion (data.picture.mask_values)."
        )
        yield Remark(text, tuple(empty))
    shares = np.array([scan["lesion"] / np.prod(scan["size"]) for scan in scans if scan["lesion"]])
    if len(shares) and np.mean(shares > LARGE) > 0.5:
        yield Remark(
            f"Most lesions cover more than half of their scan ({np.median(shares):.0%} in the middle). If the masks "
            "are black on white, say so (data.picture.mask_values=[0])."
        )


def _of_brightness(scans: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    """Yield that no picture fills the range of its type."""
    brightest = max((scan["range"][1] / scan["white"] for scan in scans if scan["white"]), default=1.0)
    if brightest < FAINT:
        yield Remark(
            f"No picture is brighter than {brightest:.1%} of what its type can hold. If fewer bits are used, as "
            "12 in files of 16, say what is white (data.picture.range=4095)."
        )


def _not_cropped(scans: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    """Yield which scans were to be cropped and stayed whole."""
    if whole := [scan["case"] for scan in scans if scan.get("uncropped")]:
        text = (
            f"{_counted(len(whole), 'scan')} not cropped: nothing that data.crop looks for was found, and they stay "
            "whole. Look at them, or choose another crop."
        )
        yield Remark(text, tuple(whole))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
