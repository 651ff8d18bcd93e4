"""Thresholds from held-out normals, p-values, and what a threshold does to labelled cases.

One rule everywhere: a case is called anomalous when its score is *above* the threshold.
Split-conformal prediction: Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World, §2.2.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.metrics.ranking import ROUNDING, Floats, Labels
from anomaly_lab.types import UserError


class Threshold(NamedTuple):
    """A threshold and what it stands on.

    Attributes:
        value: nan when there were no normals.
        quantile: the share of normals meant to stay at or below it.
        num_normals: held-out normals it was taken from.
        warning: one sentence when the promise doesn't hold, for the record and the report.
    """

    value: float
    quantile: float
    num_normals: int
    warning: str | None = None


def normal_quantile(normals: Floats, quantile: float = 0.95) -> Threshold:
    """The ceil((n + 1) q)-th smallest score of n held-out normals: a new one exceeds it with chance <= 1 - q.

    Too few normals cannot promise that (it takes q / (1 - q), 19 for q = 0.95); then their maximum is taken,
    with a warning.

    Args:
        normals: scores the detector was not trained on, [n].
        quantile: q, between 0 and 1, both excluded.

    Raises:
        UserError: `quantile` is out of range.
    """
    if not 0 < quantile < 1:
        raise UserError(f"the threshold's quantile is {quantile}: give a number between 0 and 1, say 0.95")
    n = len(normals)
    rank = math.ceil((n + 1) * quantile - ROUNDING)
    if n == 0:
        return Threshold(math.nan, quantile, 0, "no held-out normals: no threshold, no p-values")
    if rank <= n:
        return Threshold(float(np.sort(normals)[rank - 1]), quantile, n)
    needed = math.ceil(quantile / (1 - quantile) - ROUNDING)
    warning = (
        f"{n} held-out normals are too few for the {quantile:g} quantile ({needed} needed): their maximum is "
        f"the threshold, which a new normal exceeds with a chance of up to 1 in {n + 1}."
    )
    return Threshold(float(normals.max()), quantile, n, warning)


def conformal_p_values(score: Floats, normals: Floats) -> Floats:
    """Chance of a normal scoring this high: (1 + #{normals >= score}) / (n + 1), in [1 / (n + 1), 1].

    If a case is exchangeable with the normals, its p-value is <= a with probability <= a, for every a. With
    enough normals p <= 1 - q says the same as a score above `normal_quantile(normals, q)`.

    Args:
        score: cases that are not among the normals, [N].
        normals: held-out normals, [n].
    """
    below = np.searchsorted(np.sort(normals), score, side="left")
    return (1 + len(normals) - below) / (len(normals) + 1)


def confusion_metrics(label: Labels, predicted: NDArray[np.bool_]) -> dict[str, float]:
    """The six `rates` of yes/no answers `predicted` [N] to labels [N]."""
    called, anomalous = predicted.astype(bool), label == 1
    outcomes = (called & anomalous, called & ~anomalous, ~called & ~anomalous, ~called & anomalous)
    tp, fp, tn, fn = (np.array([outcome.sum()], np.float64) for outcome in outcomes)
    return {name: value.item() for name, value in rates(tp, fp, tn, fn).items()}


def rates(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> dict[str, Floats]:
    """The six rates of (weighted) counts, all of one shape; a share of nothing is 0, by definition.

    So precision is 0 where nothing is called anomalous, and balanced accuracy at most .5 with one class only.
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
    """The highest F1 any threshold reaches on these labels, and that threshold: an oracle, never a result.

    nan, nan without anomalous cases.
    """
    if not label.any():
        return math.nan, math.nan
    candidates, group = np.unique(score, return_inverse=True)
    tp = np.bincount(group, label)[::-1].cumsum()[::-1]  # if all from this score upwards is called anomalous
    called = np.bincount(group)[::-1].cumsum()[::-1]
    f1 = 2 * tp / (called + label.sum())
    best = int(f1.argmax())
    return float(f1[best]), float(np.nextafter(candidates[best], -np.inf))  # "above" is the rule: just below


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
