"""What intervals without a closed form are made of: a stratified bootstrap over patients, and the jackknife.

Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 6 and 11. The bootstrap draws patients
with replacement, not cases, because the cases of a patient are correlated. It draws within strata (patients with
normal cases only, with anomalous cases only, with both), so that no replicate loses a class.

A replicate is a column of case weights (how often the case was drawn). The cases are therefore sorted only once, and
every metric of every replicate follows from sums of weights between the scores of the anomalous cases. Replicates are
computed in blocks to limit the memory. With a million cases and nine ratings 2000 replicates take minutes: patients are
drawn as they always are, and only where the anomalous cases have more than FINEST different scores are these first
replaced by FINEST classes of rank.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from anomaly_lab.metrics import joint
from anomaly_lab.metrics.ranking import ROUNDING, Floats, Labels
from anomaly_lab.metrics.thresholds import rates

BLOCK = 320_000  # number of weights per block: few enough for a processor's cache
FINEST = 16_384  # different scores that the replicates tell apart; beyond it an AUROC is wrong by about 1e-7


def bootstrap(
    label: Labels,
    patient: Sequence[str] | NDArray[np.generic],
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
    weighted = {name: WeightedMetrics(label, *rating) for name, rating in ratings.items()}
    blocks = [
        {name: metrics(weight) for name, metrics in weighted.items()}
        for weight in draw_weights(label, patient, replicates, seed)
    ]
    return {
        name: {metric: np.concatenate([block[name][metric] for block in blocks]) for metric in first}
        for name, first in blocks[0].items()
    }


def jackknife_error(without: Floats) -> float:
    """Return the standard error of a metric; nan with fewer than two patients (Efron and Tibshirani 1993, eq. 11.5).

    Args:
        without: the metric with each of the K patients left out, [K].

    Examples:
        >>> round(jackknife_error(np.array([0.4, 0.6])), 3)  # √(1/2 · (0.1² + 0.1²))
        0.1
    """
    k = len(without)
    return math.sqrt((k - 1) / k * float(np.square(without - without.mean()).sum())) if k > 1 else math.nan


def jackknife(
    value: float, without: Floats, level: float = 0.95, patients: int | None = None, least: float = 0.0
) -> tuple[float, float]:
    """Return the interval (low, high) of a metric; nan with fewer than `joint.FEWEST` patients.

    Student's quantile; a share within (0, 1) on the logit scale; where nothing varies, as in `joint.without_spread`.

    Args:
        value: the metric of all patients.
        without: the metric with each of the K patients left out, [K].
        level: coverage of the interval.
        patients: number of patients that matter, if only some of the K do.
        least: smallest value it can have: 0 of a share, -1 of a difference of shares.

    Examples:
        >>> [round(end, 3) for end in jackknife(0.5, np.array([0.45, 0.55, 0.5, 0.5, 0.5, 0.5]))]
        [0.34, 0.66]
        >>> jackknife(0.5, np.array([0.4, 0.6]))  # two patients
        (nan, nan)
    """
    error = jackknife_error(without)
    count = len(without) if patients is None else patients
    if count < joint.FEWEST or math.isnan(error) or math.isnan(value):
        return math.nan, math.nan
    if error < 1e-12:
        return joint.without_spread(value, count, least, level)
    return joint.ends(value, float(stats.t.ppf((1 + level) / 2, count - 1)) * error, least)


def draw_weights(
    label: Labels, patient: Sequence[str] | NDArray[np.generic], replicates: int, seed: int
) -> Iterator[NDArray[np.int32]]:
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


class WeightedMetrics:
    """Computes the metrics of `ranking` and `thresholds` under case weights; the cases are sorted once.

    Every rank metric is a sum over the scores of the anomalous cases, the highest first. For each of them, `above` is
    the weight of the normal cases with a higher score, `reached` that of the normal cases with at least the same score,
    and `detected` that of the anomalous cases with at least the same score.

    Args:
        label: [N], 0 normal, 1 anomalous.
        score: [N], higher = more anomalous.
        threshold: a case is called anomalous above it; nan makes the metrics at the threshold nan.

    Examples:
        >>> weight = np.array([[1, 1], [1, 3], [1, 1]], np.int32)  # the second column counts case 1 three times
        >>> metrics = WeightedMetrics(np.array([0, 0, 1]), np.array([1.0, 3.0, 2.0]), 2.5)(weight)
        >>> metrics["auroc"].tolist(), metrics["specificity"].tolist()
        ([0.5, 0.25], [0.5, 0.25])
    """

    def __init__(self, label: Labels, score: Floats, threshold: float) -> None:
        self._undecided = math.isnan(threshold)
        (anomalous,), (normal,) = np.nonzero(label == 1), np.nonzero(label == 0)
        depth = -(score if len(np.unique(score[anomalous])) <= FINEST else _classes_of_rank(score))
        levels, level = np.unique(depth[anomalous], return_inverse=True)
        self._levels = len(levels)
        before, at_least = (np.searchsorted(levels, depth[normal], side) for side in ("left", "right"))
        # row 2j: normal cases between the levels j - 1 and j; row 2j + 1: those that tie with j
        row = np.empty(len(label), np.int32)
        row[anomalous], row[normal] = level, self._levels + before + at_least
        # sums of weights are whole numbers: exact in single precision up to 2^24
        kind = self._kind = np.float32 if len(label) < 2**22 else np.float64
        cases = np.arange(len(label), dtype=np.int32)
        self._sums = sparse.csc_array((np.ones(len(label), kind), (row, cases)), (3 * self._levels + 1, len(label)))
        self._called: NDArray[Any] = np.stack([(label == value) & (score > threshold) for value in (1, 0)]).astype(kind)

    def __call__(self, weight: NDArray[np.int32]) -> dict[str, Floats]:
        """Return metric -> [R].

        Args:
            weight: how often each case counts in each of R replicates, [N, R].
        """
        counts: NDArray[Any] = weight.astype(self._kind)
        w, between = np.split((self._sums @ counts).astype(np.float64), [self._levels])
        tp, fp = (self._called @ counts).astype(np.float64)
        passed, detected = np.cumsum(between, axis=0), np.cumsum(w, axis=0)
        above, reached = passed[:-1:2], passed[1::2]
        p, n = w.sum(0), passed[-1]
        allowed = np.floor((0.05 + ROUNDING) * n)
        precision = detected / np.maximum(detected + reached, 1)  # where this is 0 / 0, w is 0 as well
        with np.errstate(invalid="ignore", divide="ignore"):  # with one class only, 0 / 0 = nan, as in `ranking`
            ranks = {
                "auroc": 1 - (w * (above + reached)).sum(0) / (2 * p * n),
                "average_precision": n * (w * precision).sum(0) / (n * p),
                "sensitivity_at_95_specificity": n * (w * (reached <= allowed)).sum(0) / (n * p),
            }
        decisions = rates(tp, fp, n - fp, p - tp)
        return ranks | (dict.fromkeys(decisions, np.full_like(p, np.nan)) if self._undecided else decisions)


def _classes_of_rank(score: Floats) -> Floats:
    """Return for each score [N] the number of its class, of FINEST that hold about equally many; ties stay ties."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    classes = (np.cumsum(counts) - counts) * FINEST // len(score)
    numbers: Floats = classes[place].astype(np.float64)
    return numbers


def _draw_with_replacement(random: np.random.Generator, n: int, size: int) -> NDArray[np.int64]:
    """Return how often each of n items is drawn in n draws with replacement, [n, size]."""
    drawn = random.integers(n, size=(n, size), dtype=np.int32)
    drawn *= np.int32(size)  # no overflow: n * size is at most BLOCK, or n
    drawn += np.arange(size, dtype=np.int32)
    return np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size)
