"""Confidence intervals: a stratified bootstrap over patients, and the jackknife.

Efron and Tibshirani 1993, An Introduction to the Bootstrap, §13.3 (percentile interval). The bootstrap draws patients
with replacement, not cases, because the cases of a patient are correlated. It draws within strata (patients with
normal cases only, with anomalous cases only, with both), so that no replicate loses a class.

A replicate is a column of case weights (how often the case was drawn). The cases are therefore sorted only once, and
every metric of every replicate is a sum over the sorted cases. Replicates are computed in blocks to limit the memory.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anomaly_lab.metrics.ranking import ROUNDING, Floats, Labels
from anomaly_lab.metrics.thresholds import rates

BLOCK = 320_000  # number of weights per block: few enough for a processor's cache


def bootstrap(
    label: Labels,
    patient: Sequence[str],
    ratings: Mapping[str, tuple[Floats, float]],
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Floats]]:
    """Compute every metric of every rating on the same replicates, so that differences between ratings are paired.

    Args:
        label: [N], 0 normal, 1 anomalous.
        patient: group key of each of the N cases.
        ratings: name -> (score [N], threshold); a threshold of nan makes the metrics at the threshold nan.
        replicates: number of replicates.
        seed: seed of the draws.

    Returns:
        rating -> metric -> [replicates].

    Examples:
        >>> label, score = np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0])
        >>> samples = bootstrap(label, ["a", "b", "c", "d"], {"detector": (score, 2.5)}, replicates=3)
        >>> samples["detector"]["auroc"].tolist()  # the classes are separated in every replicate
        [1.0, 1.0, 1.0]
    """
    blocks = [
        {name: weighted_metrics(label, *rating, weight) for name, rating in ratings.items()}
        for weight in draw_weights(label, patient, replicates, seed)
    ]
    return {
        name: {metric: np.concatenate([block[name][metric] for block in blocks]) for metric in first}
        for name, first in blocks[0].items()
    }


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval (low, high) that covers the middle `level` of the replicates; nan if any is nan.

    Examples:
        >>> low, high = interval(np.arange(101.0), level=0.9)
        >>> round(low, 6), round(high, 6)
        (5.0, 95.0)
    """
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def jackknife(value: float, without: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the normal-theory interval (low, high) of a metric; nan with fewer than two patients.

    Efron and Tibshirani 1993, eq. 11.5.

    Args:
        value: the metric of all patients.
        without: the metric with each of the K patients left out, [K].
        level: coverage of the interval.

    Examples:
        >>> low, high = jackknife(0.5, np.array([0.4, 0.6]))  # standard error √(1/2 · (0.1² + 0.1²)) = 0.1
        >>> round(low, 3), round(high, 3)
        (0.304, 0.696)
    """
    k = len(without)
    if k < 2:
        return math.nan, math.nan
    error = math.sqrt((k - 1) / k * float(np.square(without - without.mean()).sum()))
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    return value - half, value + half


def draw_weights(label: Labels, patient: Sequence[str], replicates: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Yield how often each case is drawn, in blocks [N, R] with `replicates` columns in total.

    Examples:
        >>> (weight,) = draw_weights(np.array([0, 0, 1]), ["a", "a", "b"], replicates=2, seed=0)
        >>> weight.tolist()  # one patient per stratum: each is drawn once in every replicate
        [[1, 1], [1, 1], [1, 1]]
    """
    random = np.random.default_rng(seed)
    names, row = np.unique(np.asarray(patient), return_inverse=True)
    # The stratum of each patient: 1 normal cases only, 2 anomalous cases only, 3 both.
    stratum = 2 * (np.bincount(row, label == 1) > 0) + (np.bincount(row, label == 0) > 0)
    members = [np.flatnonzero(stratum == value) for value in np.unique(stratum)]
    step = max(1, BLOCK // len(label))
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        drawn = np.empty((len(names), size), np.int32)
        for rows in members:
            drawn[rows] = _draw_with_replacement(random, len(rows), size)
        yield drawn[row]


def weighted_metrics(label: Labels, score: Floats, threshold: float, weight: NDArray[np.int32]) -> dict[str, Floats]:
    """Compute the metrics of `ranking` and `thresholds` under case weights.

    Every rank metric is a sum over the anomalous cases in order of decreasing score. For each of them, `above` is the
    weight of the normal cases with a higher score, `reached` that of the normal cases with at least the same score, and
    `detected` that of the anomalous cases with at least the same score.

    Args:
        label: [N], 0 normal, 1 anomalous.
        score: [N], higher = more anomalous.
        threshold: a case is called anomalous above it; nan makes the metrics at the threshold nan.
        weight: how often each case counts in each of R replicates, [N, R].

    Returns:
        metric -> [R].

    Examples:
        >>> weight = np.array([[1, 1], [1, 3], [1, 1]], np.int32)  # the second column counts case 1 three times
        >>> metrics = weighted_metrics(np.array([0, 0, 1]), np.array([1.0, 3.0, 2.0]), 2.5, weight)
        >>> metrics["auroc"].tolist(), metrics["specificity"].tolist()
        ([0.5, 0.25], [0.5, 0.25])
    """
    order = np.argsort(-score, kind="stable")
    anomalous, normal = order[label[order] == 1], order[label[order] == 0]
    w, w_normal = weight[anomalous], weight[normal]
    depth, depth_normal = -score[anomalous], -score[normal]  # ascending, as searchsorted requires
    above = _weight_before(w_normal, np.searchsorted(depth_normal, depth, side="left"))
    reached = _weight_before(w_normal, np.searchsorted(depth_normal, depth, side="right"))
    detected = _weight_before(w, np.searchsorted(depth, depth, side="right"))

    p, n = w.sum(0, dtype=np.float64), w_normal.sum(0, dtype=np.float64)
    allowed = np.floor((0.05 + ROUNDING) * n).astype(np.int32)
    precision = detected / np.maximum(detected + reached, 1)  # where this is 0 / 0, w is 0 as well
    with np.errstate(invalid="ignore", divide="ignore"):  # with one class only, 0 / 0 = nan, as in `ranking`
        ranks = {
            "auroc": 1 - (w * (above + reached)).sum(0) / (2 * p * n),
            "average_precision": n * (w * precision).sum(0) / (n * p),
            "sensitivity_at_95_specificity": n * (w * (reached <= allowed)).sum(0) / (n * p),
        }
    tp = (score[anomalous] > threshold).astype(np.float64) @ w
    fp = (score[normal] > threshold).astype(np.float64) @ w_normal
    decisions = rates(tp, fp, n - fp, p - tp)
    return ranks | (dict.fromkeys(decisions, np.full_like(p, np.nan)) if np.isnan(threshold) else decisions)


def _draw_with_replacement(random: np.random.Generator, n: int, size: int) -> NDArray[np.int64]:
    """Return how often each of n items is drawn in n draws with replacement, [n, size]."""
    drawn = random.integers(n, size=(n, size), dtype=np.int32)
    drawn *= np.int32(size)  # no overflow: n * size is at most BLOCK, or n
    drawn += np.arange(size, dtype=np.int32)
    return np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size)


def _weight_before(weight: NDArray[np.int32], count: NDArray[np.intp]) -> NDArray[np.int32]:
    """Return the sum of the first `count[i]` weights of each column: [n, R] and [m] -> [m, R]."""
    total = np.zeros((len(weight) + 1, weight.shape[1]), np.int32)
    np.cumsum(weight, axis=0, out=total[1:])
    return total[count]
