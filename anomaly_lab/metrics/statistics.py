"""How far the numbers could be from the truth: a stratified bootstrap by patient.

Efron and Tibshirani 1993, An Introduction to the Bootstrap, §13.3 (percentile interval). Patients are drawn
with replacement, not cases, since the cases of a patient resemble each other; within strata (patients with
normal cases only, with anomalous cases only, with both), so that no replicate loses a class.

A replicate is a column of case weights (how often the case was drawn), so that the cases are sorted once and
every metric of every replicate is a sum over the sorted cases. Replicates come in blocks to bound the memory.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anomaly_lab.metrics.ranking import ROUNDING, Floats, Labels
from anomaly_lab.metrics.thresholds import rates

BLOCK = 320_000  # weights handled at once: few enough for a processor's cache


def bootstrap(
    label: Labels,
    patient: Sequence[str],
    ratings: Mapping[str, tuple[Floats, float]],
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Floats]]:
    """Every metric of every rating on the same replicates, so that differences between ratings are paired.

    Args:
        label: [N], 0 normal, 1 anomalous.
        patient: group key of each case, N of them.
        ratings: name -> (score [N], threshold); a threshold of nan leaves the metrics at the threshold nan.
        replicates: how many.
        seed: the same seed draws the same replicates.

    Returns:
        rating -> metric -> [replicates].
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
    """The middle `level` of the replicates, (low, high); nan when any replicate is."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def jackknife(value: float, without: Floats, level: float = 0.95) -> tuple[float, float]:
    """Normal interval of a figure from its values without each of K patients, [K]; nan with fewer than two patients.

    Efron and Tibshirani 1993, eq. 11.5.
    """
    k = len(without)
    if k < 2:
        return math.nan, math.nan
    error = math.sqrt((k - 1) / k * float(np.square(without - without.mean()).sum()))
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    return value - half, value + half


def draw_weights(label: Labels, patient: Sequence[str], replicates: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """How often each case is drawn: blocks [N, R] with `replicates` columns in all."""
    random = np.random.default_rng(seed)
    names, row = np.unique(np.asarray(patient), return_inverse=True)
    # each patient's stratum: 1 only normal cases, 2 only anomalous ones, 3 both
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
    """The metrics of `ranking` and `thresholds` under case weights [N, R]: metric -> [R].

    Every rank metric is a sum over the anomalous cases, highest first, of how much weight of normals lies
    above the case (`above`) or at least as high (`reached`), and of anomalous cases that high (`found`).
    """
    order = np.argsort(-score, kind="stable")
    anomalous, normal = order[label[order] == 1], order[label[order] == 0]
    w, w_normal = weight[anomalous], weight[normal]
    depth, depth_normal = -score[anomalous], -score[normal]  # ascending, as searchsorted wants them
    above = _weight_before(w_normal, np.searchsorted(depth_normal, depth, side="left"))
    reached = _weight_before(w_normal, np.searchsorted(depth_normal, depth, side="right"))
    found = _weight_before(w, np.searchsorted(depth, depth, side="right"))

    p, n = w.sum(0, dtype=np.float64), w_normal.sum(0, dtype=np.float64)
    allowed = np.floor((0.05 + ROUNDING) * n).astype(np.int32)
    precision = found / np.maximum(found + reached, 1)  # where it is 0 / 0, w is 0 as well
    with np.errstate(invalid="ignore", divide="ignore"):  # one class only: 0 / 0 = nan, as in `ranking`
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
    """How often each of n things is drawn in n draws, [n, size]."""
    drawn = random.integers(n, size=(n, size), dtype=np.int32)
    drawn *= np.int32(size)  # n * size stays below BLOCK, or below n
    drawn += np.arange(size, dtype=np.int32)
    return np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size)


def _weight_before(weight: NDArray[np.int32], count: NDArray[np.intp]) -> NDArray[np.int32]:
    """Sum of the first `count[i]` weights of each column: [n, R] and [m] -> [m, R]."""
    total = np.zeros((len(weight) + 1, weight.shape[1]), np.int32)
    np.cumsum(weight, axis=0, out=total[1:])
    return total[count]
