"""Thresholds from validation normals, p-values, and metrics of the decisions at a threshold.

Validation normals are normal cases held out of training. A case is called anomalous when its score is *above* the
threshold. Split-conformal prediction: Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World, §2.2.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.metrics.ranking import ROUNDING, Floats, Labels
from anomaly_lab.types import UserError


class Threshold(NamedTuple):
    """A threshold and the data it is based on.

    Attributes:
        value: nan if there were no normals.
        quantile: intended share of normals at or below the threshold.
        num_normals: number of validation normals it was computed from.
        warning: one sentence for the record and the report if the guarantee does not hold.
    """

    value: float
    quantile: float
    num_normals: int
    warning: str | None = None


def normal_quantile(normals: Floats, quantile: float = 0.95) -> Threshold:
    """Return the ceil((n + 1) q)-th smallest of n scores: a new normal exceeds it with a probability of at most 1 - q.

    The guarantee requires n >= q / (1 - q), 19 normals for q = 0.95. With fewer, the threshold is their maximum and
    carries a warning.

    Args:
        normals: scores of validation normals, [n].
        quantile: q, in (0, 1).

    Raises:
        UserError: `quantile` is out of range.

    Examples:
        >>> normal_quantile(np.arange(1.0, 20.0)).value  # 19 normals: the 19th smallest
        19.0
        >>> normal_quantile(np.arange(1.0, 4.0), 0.5).value  # 3 normals: the second smallest
        2.0
    """
    if not 0 < quantile < 1:
        raise UserError(f"the threshold's quantile is {quantile}: give a number between 0 and 1, for example 0.95")
    n = len(normals)
    rank = math.ceil((n + 1) * quantile - ROUNDING)
    if n == 0:
        return Threshold(math.nan, quantile, 0, "no validation normals: no threshold, no p-values")
    if rank <= n:
        return Threshold(float(np.sort(normals)[rank - 1]), quantile, n)
    needed = math.ceil(quantile / (1 - quantile) - ROUNDING)
    warning = (
        f"{n} validation normals are too few for the {quantile:g} quantile ({needed} needed): their maximum is "
        f"the threshold, which a new normal exceeds with a probability of up to 1 in {n + 1}."
    )
    return Threshold(float(normals.max()), quantile, n, warning)


def conformal_p_values(score: Floats, normals: Floats) -> Floats:
    """Return conformal p-values, (1 + #{normals >= score}) / (n + 1), in [1 / (n + 1), 1].

    If a case is exchangeable with the normals, its p-value is <= a with a probability of at most a, for every a. With
    enough normals, p <= 1 - q is equivalent to a score above `normal_quantile(normals, q)`.

    Args:
        score: scores of cases that are not among the normals, [N].
        normals: scores of validation normals, [n].

    Examples:
        >>> conformal_p_values(np.array([0.0, 2.5, 9.0]), np.array([1.0, 2.0, 3.0])).tolist()
        [1.0, 0.5, 0.25]
    """
    below = np.searchsorted(np.sort(normals), score, side="left")
    return (1 + len(normals) - below) / (len(normals) + 1)


def confusion_metrics(label: Labels, predicted: NDArray[np.bool_]) -> dict[str, float]:
    """Return the six `rates` of decisions against labels.

    Args:
        label: [N], 0 normal, 1 anomalous.
        predicted: [N], whether the case was called anomalous.

    Examples:
        >>> result = confusion_metrics(np.array([0, 0, 1, 1]), np.array([False, True, True, True]))
        >>> result["recall"], result["specificity"], result["balanced_accuracy"]
        (1.0, 0.5, 0.75)
    """
    called, anomalous = predicted.astype(bool), label == 1
    outcomes = (called & anomalous, called & ~anomalous, ~called & ~anomalous, ~called & anomalous)
    tp, fp, tn, fn = (np.array([outcome.sum()], np.float64) for outcome in outcomes)
    return {name: value.item() for name, value in rates(tp, fp, tn, fn).items()}


def rates(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> dict[str, Floats]:
    """Return accuracy, balanced accuracy, precision, recall, specificity and F1 of (weighted) counts of one shape.

    A share of nothing is defined as 0: precision is 0 if nothing is called anomalous, and balanced accuracy is at most
    0.5 if there is only one class.

    Args:
        tp: true positives.
        fp: false positives.
        tn: true negatives.
        fn: false negatives.

    Examples:
        >>> tp, fp, tn, fn = (np.array([count]) for count in (3.0, 1.0, 5.0, 1.0))
        >>> {name: value.item() for name, value in rates(tp, fp, tn, fn).items()}["precision"]
        0.75
    """
    recall, specificity = _share(tp, tp + fn), _share(tn, tn + fp)
    return {
        "accuracy": _share(tp + tn, tp + fp + tn + fn),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": _share(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": _share(2 * tp, 2 * tp + fp + fn),
    }


def best_f1(label: Labels, score: Floats) -> tuple[float, float]:
    """Return the highest F1 that any threshold reaches on these labels, and the threshold: an oracle, not a result.

    Both are nan without anomalous cases.

    Examples:
        >>> f1, threshold = best_f1(np.array([0, 0, 1]), np.array([1.0, 2.0, 3.0]))
        >>> f1, 2 < threshold < 3  # just below the score of the anomalous case
        (1.0, True)
    """
    if not label.any():
        return math.nan, math.nan
    candidates, group = np.unique(score, return_inverse=True)
    tp = np.bincount(group, label)[::-1].cumsum()[::-1]  # if all cases with at least this score are called anomalous
    called = np.bincount(group)[::-1].cumsum()[::-1]
    f1 = 2 * tp / (called + label.sum())
    best = int(f1.argmax())
    return float(f1[best]), float(
        np.nextafter(candidates[best], -np.inf)
    )  # just below the score, because only cases above count


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
