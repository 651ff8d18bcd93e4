"""Describe what a run is trained on, for its record, from which `ExpectedInput` tells scans of another nature apart."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.expected_input import ExpectedInput as ExpectedInput
from anomaly_lab.data.expected_input import intensities, kind_of, modality_of
from anomaly_lab.types import Case, UserError

HEADERS = 200  # training scans whose headers are read for their modality, evenly spaced
READ = 32  # pictures that are read where no store has the facts of all


def describe(data: PatchDataModule) -> dict[str, Any]:
    """Return the nature of the training scans of a data set, for the record of a run.

    Args:
        data: the data set, set up.

    Returns:
        kinds and modalities with their counts, bits and channels of the stored pixels, and the smallest and largest
        height and width (pictures; the three sizes of volumes, sorted), spacing (mm, sorted) and both ends of the
        intensity range (pictures: as a fraction of white; volumes: in their own unit). Sizes, spacings and ranges are
        missing where the pictures are read on demand.

    Examples:
        >>> describe(data)["kinds"]  # doctest: +SKIP
        {'picture': 120}
    """
    names = data.store.index.columns["case"]
    trained = {names[row] for row in data.rows["train"].tolist()}
    cases = [case for case in data.store_plan.cases if case.id in trained]
    scans = [scan for scan in data.store.scans() if scan["case"] in trained and "skipped" not in scan]
    scans = scans or list(_read(data, _spread(cases, READ)))
    kinds = Counter(kind_of(Path(scan["file"]), scan["spacing"] is not None) for scan in scans)
    facts: dict[str, Any] = {
        "kinds": dict(kinds.most_common()),
        "modalities": dict(Counter(filter(None, map(modality_of, _spread(cases, HEADERS)))).most_common()),
        "bits": 8 * data.store.images.dtype.itemsize,
        "channels": data.in_channels,
    }
    if len({len(scan["size"]) for scan in scans}) != 1:  # nothing was read, or pictures as well as volumes
        return facts
    facts["size"] = _bounds(sorted(scan["size"]) for scan in scans)
    if "picture" not in kinds:
        facts["spacing"] = _bounds(sorted(scan["spacing"]) for scan in scans)
    low, high = np.array([_ends(scan) for scan in scans]).T
    ends = {"low": low, "high": high, "start": low / np.where(high > low, high - low, 1.0)}
    return facts | {"range": {name: [float(values.min()), float(values.max())] for name, values in ends.items()}}


def _ends(scan: Mapping[str, Any]) -> tuple[float, float]:
    """Return the ends of the intensity range in the facts that a store keeps of a scan, as `intensities` does."""
    low, high = scan["range"]
    white = scan.get("white") or 1
    return low / white, high / white


def _read(data: PatchDataModule, cases: Iterable[Case]) -> Iterator[dict[str, Any]]:
    """Yield the facts that a store would have of these pictures; those that cannot be read are passed over."""
    for case in cases:
        with contextlib.suppress(UserError):
            scan = data.read_cropped(case)
            low, high = intensities(scan)
            yield {"file": case.image.name, "size": scan.shape, "spacing": scan.spacing, "range": [low, high]}


def _spread(cases: Sequence[Case], count: int) -> Sequence[Case]:
    """Return at most `count` cases, evenly spaced."""
    return [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, min(count, len(cases))).astype(int)).tolist()]


def _bounds(values: Iterable[Sequence[float]]) -> list[list[float]]:
    """Return the smallest and the largest value at each place."""
    table = np.array(list(values), np.float64)
    return [[low, high] for low, high in zip(table.min(0).tolist(), table.max(0).tolist(), strict=True)]
