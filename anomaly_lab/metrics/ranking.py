"""Rank metrics of raw scores: how well a detector separates the classes before any threshold is chosen.

`label` [N] is 0 for normal and 1 for anomalous. `score` [N] is unbounded, higher = more anomalous. Only the order of
the scores matters, and equal scores are ties. If all cases are of one class, the metrics are nan and the curves are
empty. scikit-learn does the ranking, because torchmetrics distorts unbounded scores.
"""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

ROUNDING = 1e-9  # tolerance for rounding in 1 - 0.95 and in sums of weights; far smaller than 1 / number of cases


def auroc(label: Labels, score: Floats) -> float:
    """Return the probability that an anomalous case scores higher than a normal one; a tie counts half. In [0, 1].

    Examples:
        >>> auroc(np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.0, 9.0]))  # 3 of 4 pairs are in the right order
        0.75
    """
    return float(metrics.roc_auc_score(label, score)) if _has_both(label) else math.nan


def average_precision(label: Labels, score: Floats) -> float:
    """Return the mean precision over the anomalous cases, each at its own score as the threshold; in (0, 1].

    The chance level is the share of anomalous cases, so values are comparable only between equal class proportions.

    Examples:
        >>> average_precision(np.array([0, 1, 1]), np.array([2.0, 1.0, 3.0]))  # mean of 1/1 and 2/3
        0.8333333333333333
    """
    return float(metrics.average_precision_score(label, score)) if _has_both(label) else math.nan


def sensitivity_at_specificity(label: Labels, score: Floats, specificity: float = 0.95) -> float:
    """Return the highest sensitivity of any threshold whose specificity is at least `specificity`.

    Only thresholds between these scores are considered; nothing is interpolated.

    Examples:
        >>> label, score = np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.0, 9.0])
        >>> sensitivity_at_specificity(label, score), sensitivity_at_specificity(label, score, 0.5)
        (0.5, 1.0)
    """
    if not _has_both(label):
        return math.nan
    fpr, tpr, _ = metrics.roc_curve(
        label, score, drop_intermediate=False
    )  # points on a straight section are thresholds, too
    return float(tpr[fpr <= 1 - specificity + ROUNDING].max())


def roc_curve(label: Labels, score: Floats) -> tuple[Floats, Floats]:
    """Return false and true positive rates at the corners of the ROC curve, from (0, 0) to (1, 1).

    Examples:
        >>> fpr, tpr = roc_curve(np.array([0, 1]), np.array([0.0, 1.0]))
        >>> fpr.tolist(), tpr.tolist()
        ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    """
    if not _has_both(label):
        return np.empty(0), np.empty(0)
    fpr, tpr, _ = metrics.roc_curve(label, score)
    return fpr, tpr


def pr_curve(label: Labels, score: Floats) -> tuple[Floats, Floats]:
    """Return recall and precision at every threshold, in order of increasing recall from 0 to 1.

    Examples:
        >>> recall, precision = pr_curve(np.array([0, 1]), np.array([0.0, 1.0]))
        >>> recall.tolist(), precision.tolist()
        ([0.0, 1.0, 1.0], [1.0, 1.0, 0.5])
    """
    if not _has_both(label):
        return np.empty(0), np.empty(0)
    precision, recall, _ = metrics.precision_recall_curve(label, score)
    return recall[::-1], precision[::-1]


def _has_both(label: Labels) -> bool:
    return 0 < int(label.sum()) < len(label)
