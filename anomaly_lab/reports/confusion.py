"""The table of confusion of the test split, and the scores from which a page recounts it at another threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from anomaly_lab.reports.charts import Row

MOST_SCORES = 20_000  # of test cases on a page: about 400 kB


class Confusion(NamedTuple):
    """What a decision made of the test cases.

    Attributes:
        tp, fp, tn, fn: true and false positives and negatives.
        threshold: scores above it were called anomalous.
        normal, anomalous: the test scores of each class, as text that reads back to the same bits; empty if there are
            more than MOST_SCORES.
    """

    tp: int
    fp: int
    tn: int
    fn: int
    threshold: float
    normal: str = ""
    anomalous: str = ""

    @property
    def sensitivity(self) -> float | None:
        """Share of the anomalous cases that were called so; None if there are none."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def specificity(self) -> float | None:
        """Share of the normal cases that were called so; None if there are none."""
        return self.tn / (self.tn + self.fp) if self.tn + self.fp else None


def confusion(scores: Sequence[Row], threshold: float | None) -> Confusion | None:
    """Count the decisions of the test split; None without a threshold or test cases.

    Args:
        scores: rows of scores.csv.
        threshold: of the run.

    Examples:
        >>> scored = [(0, 0.1), (0, 0.7), (1, 0.7)]
        >>> rows = [{"split": "test", "label": label, "score": score} for label, score in scored]
        >>> found = confusion(rows, threshold=0.5)
        >>> (found.tp, found.fp, found.tn, found.fn), found.specificity, found.normal
        ((1, 1, 1, 0), 0.5, '0.1 0.7')
    """
    test = [row for row in scores if row["split"] == "test"]
    if threshold is None or not test:
        return None
    classes = [sorted(float(row["score"]) for row in test if row["label"] == label) for label in (0, 1)]
    fp, tp = (sum(score > threshold for score in of_class) for of_class in classes)
    tn, fn = len(classes[0]) - fp, len(classes[1]) - tp
    texts = (" ".join(map(repr, of_class)) for of_class in classes) if len(test) <= MOST_SCORES else ("", "")
    return Confusion(tp, fp, tn, fn, threshold, *texts)
