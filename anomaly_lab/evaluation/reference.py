"""What the score of a new scan is compared with: scores of validation normals that came about as its own does.

The score of a scan that is cut into windows is the maximum of its windows. That of a normal scan lies above most of its
windows, so a run that was evaluated window by window is a reference for scans only by the maxima of its validation
scans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from anomaly_lab.evaluation.protocol import threshold_of
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.config import Evaluation
from anomaly_lab.metrics.ranking import Floats
from anomaly_lab.metrics.thresholds import fewest

_FIRST_VOXEL = re.compile(r"@\d+(,\d+)+~?\Z")


@dataclass(frozen=True)
class Reference:
    """Scores of validation normals, and the threshold that they set.

    Attributes:
        normals: their scores, [n].
        threshold: as `threshold` of metrics.json; its `value` is None where there is no label.
        scale: scores of single windows that a map of scores shows as 0 and 1; None for the scan's own range.
        unit: "normals", as the run evaluated them; "scans" of a run that evaluated windows: maxima of their windows.
        lacking: why there is no label, or neither label nor p-value, in a sentence; empty if nothing is lacking.

    Examples:
        >>> str(Reference(np.arange(12.0), {"value": 3.0}, unit="scans"))
        '12 validation scans'
        >>> str(Reference(np.arange(1.0), {"value": None}, unit="scans", lacking="They are too few."))
        '1 validation scan (no label)'
    """

    normals: Floats
    threshold: Mapping[str, Any]
    scale: tuple[float, float] | None = None
    unit: Literal["normals", "scans"] = "normals"
    lacking: str = ""

    @classmethod
    def of(cls, scores: Scores, metrics: Mapping[str, Any], evaluation: Evaluation, part: str = "") -> Reference:
        """Return what a run's scores.csv has to compare new scans with.

        Args:
            scores: of the run.
            metrics: content of its metrics.json: its threshold, and by which rule patches became cases, if they did.
            evaluation: rule and purpose of the threshold.
            part: the setting by which only some windows of the validation scans were scored; empty for none.

        Examples:
            >>> names = ["a@0,0", "a@0,8", "b@0,0", "b@0,8"]
            >>> scores = Scores(names, [*"aabb"], ["val"] * 4, np.zeros(4, int), np.array([0.1, 0.4, 0.3, 0.2]))
            >>> metrics = {"threshold": {"value": 0.4}, "unit": {"rule": "none"}}
            >>> Reference.of(scores, metrics, Evaluation()).normals.tolist()
            [0.4, 0.3]
        """
        rule, threshold = metrics["unit"]["rule"], metrics["threshold"]
        normals = scores.score[scores.normals]
        known = len(normals) > 0 and threshold["value"] is not None
        found = cls(normals, threshold, (float(normals.min()), threshold["value"]) if known else None)
        if not len(normals):
            return found
        if part and rule != "mean":
            key = part.partition("=")[0]
            lacking = (
                f"No p-value and no label: by {part} only some windows of the validation scans were scored, and their "
                f"highest score is not that of a whole scan. Train with {key}={'null' if '.limits.' in key else 0}."
            )
            return replace(found, normals=normals[:0], threshold={**threshold, "value": None}, lacking=lacking)
        of = [scan_of(id) for id in scores.id]
        if rule != "none" or of == scores.id:  # cases, or whole pictures; data.cut=null cuts volumes all the same
            return found
        scans, _ = scores.by_case(np.array(of), "max", 1)
        threshold = threshold_of(scans, evaluation.purpose, evaluation.threshold)
        found = replace(found, normals=scans.score[scans.normals], threshold=threshold, unit="scans")
        if threshold["warning"] and threshold["method"] in (None, "order_statistic"):
            number, quantile = len(found.normals), threshold["quantile"]
            lacking = (
                f"No label: {number} validation {'scan is' if number == 1 else 'scans are'} too few for a threshold at "
                f"the {quantile:g} quantile, which needs {fewest(quantile)}. Train with more normal scans or a higher "
                "data.split.val_fraction."
            )
            return replace(found, threshold={**threshold, "value": None}, lacking=lacking)
        return found

    @property
    def words(self) -> str:
        """What the normals are, without their number."""
        return f"validation {'and cross-fitted ' if self.threshold.get('num_cross_fitted') else ''}{self.unit}"

    def __str__(self) -> str:
        if not len(self.normals):
            return "none"
        words = self.words.removesuffix("s") if len(self.normals) == 1 else self.words
        return f"{len(self.normals)} {words}{' (no label)' if self.lacking else ''}"


def scan_of(id: str) -> str:
    """Return the scan that a window was cut from, or a whole picture itself.

    Args:
        id: of the window, as the store makes it: the scan, `@`, the first voxel, and `~` if it was drawn at random.

    Examples:
        >>> scan_of("ward@2/a.nii.gz@3,0,16~"), scan_of("ward@2/a.png")
        ('ward@2/a.nii.gz', 'ward@2/a.png')
    """
    return _FIRST_VOXEL.sub("", id)
