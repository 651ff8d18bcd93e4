"""Rank metrics of raw scores: what a detector knows before any threshold is drawn.

`label` [N] is 0 for normal and 1 for anomalous, `score` [N] is unbounded, higher = more anomalous. Only the
order of the scores counts, and equal scores count as equal. With cases of one class only there is nothing to
rank: the answer is nan, and a curve has no points. scikit-learn ranks; torchmetrics distorts unbounded
scores.
"""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

ROUNDING = 1e-9  # forgives the rounding in 1 - 0.95 and in sums of weights; far below one case's share


def auroc(label: Labels, score: Floats) -> float:
    """Probability that an anomalous case scores higher than a normal one, ties counting half; in [0, 1]."""
    return float(metrics.roc_auc_score(label, score)) if _has_both(label) else math.nan


def average_precision(label: Labels, score: Floats) -> float:
    """Mean precision over the anomalous cases, each at its own score as the threshold; in (0, 1].

    Its chance level is the share of anomalous cases, so it compares only between equal class counts.
    """
    return float(metrics.average_precision_score(label, score)) if _has_both(label) else math.nan


def sensitivity_at_specificity(label: Labels, score: Floats, specificity: float = 0.95) -> float:
    """Highest share of anomalous cases found by a threshold that leaves `specificity` of the normals alone.

    Only thresholds that these scores can reach count: nothing is interpolated.
    """
    if not _has_both(label):
        return math.nan
    fpr, tpr, _ = metrics.roc_curve(label, score, drop_intermediate=False)  # a point on a line is reachable, too
    return float(tpr[fpr <= 1 - specificity + ROUNDING].max())


def roc_curve(label: Labels, score: Floats) -> tuple[Floats, Floats]:
    """False and true positive rate at the thresholds where the curve turns, from (0, 0) to (1, 1)."""
    if not _has_both(label):
        return np.empty(0), np.empty(0)
    fpr, tpr, _ = metrics.roc_curve(label, score)
    return fpr, tpr


def pr_curve(label: Labels, score: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at every threshold, recall rising from 0 to 1."""
    if not _has_both(label):
        return np.empty(0), np.empty(0)
    precision, recall, _ = metrics.precision_recall_curve(label, score)
    return recall[::-1], precision[::-1]


def _has_both(label: Labels) -> bool:
    return 0 < int(label.sum()) < len(label)
