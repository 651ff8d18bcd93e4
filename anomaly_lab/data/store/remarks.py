"""What the files of a data set suggest: that a setting is wrong, though every one of them could be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

FAINT = 1 / 8  # of the range of a picture's type, which the brightest pixel of all pictures should reach
LARGE = 0.5  # share of a picture; where most lesions are larger, the masks are suspected to be inverted
NAMED = 5  # scans that are named


def remarks(scans: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what a user should know of a data set before believing any number.

    Args:
        scans: facts of every scan, as a store has them.

    Examples:
        >>> scan = {"case": "a.png", "label": 1, "lesion": 0, "white": 255, "range": [0, 250], "size": [8, 8]}
        >>> remarks([scan])[0][:43]
        '1 anomalous scan with an empty mask (a.png)'
    """
    scans = [scan for scan in scans if "skipped" not in scan]
    empty, brightest, shares = list[str](), list[float](), list[float]()
    for scan in scans:
        if scan["lesion"] == 0 and scan["label"] == 1:
            empty.append(scan["case"])
        elif scan["lesion"]:
            shares.append(scan["lesion"] / np.prod(scan["size"]))
        if scan["white"]:
            brightest.append(scan["range"][1] / scan["white"])
    found = []
    if empty:
        some = ", ".join(empty[:NAMED]) + " …" * (len(empty) > NAMED)
        found.append(
            f"{_counted(len(empty), 'anomalous scan')} with an empty mask ({some}): every pixel of it counts as "
            "healthy. Correct the mask; if it is a picture, say which values mean lesion (data.picture.mask_values)."
        )
    if brightest and max(brightest) < FAINT:
        found.append(
            f"No picture is brighter than {max(brightest):.1%} of what its type can hold. If fewer bits are used, as "
            "12 in files of 16, say what is white (data.picture.range=4095)."
        )
    if shares and np.mean(np.array(shares) > LARGE) > 0.5:
        found.append(
            f"Most lesions cover more than half of their scan ({np.median(shares):.0%} in the middle). If the masks "
            "are black on white, say so (data.picture.mask_values=[0])."
        )
    return found + _not_cropped([scan["case"] for scan in scans if scan.get("uncropped")])


def _not_cropped(cases: list[str]) -> list[str]:
    """Return which scans were to be cropped and stayed whole."""
    if not cases:
        return []
    some = ", ".join(cases[:NAMED]) + " …" * (len(cases) > NAMED)
    return [
        f"{_counted(len(cases), 'scan')} not cropped ({some}): nothing that data.crop looks for was found, and they "
        "stay whole. Look at them, or choose another crop."
    ]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
