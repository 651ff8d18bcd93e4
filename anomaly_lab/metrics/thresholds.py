"""Thresholds from validation normals, p-values, and metrics of the decisions at a threshold.

Validation normals are normal cases held out of training. A case is called anomalous when its score is *above* the
threshold. Split-conformal prediction: Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World, §2.2.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from anomaly_lab.metrics.ranking import ROUNDING, Floats, Labels
from anomaly_lab.types import UserError

FEW = 20  # normals: with fewer, one of them decides alone, and the whole set says more
LARGEST_Z = 10.0  # standard deviations that no mean of normals is off
STEPS = 4001  # of the integral over s / σ
ALIKE = 1e-12  # range of logarithms, as a share of them, that is rounding
MAX_LOG = 700.0  # of the largest float
LEVEL = 0.95  # of the range of the true specificity
Method = Literal["order_statistic", "log_normal", "logit_normal"]


class Threshold(NamedTuple):
    """A threshold and the data it is based on.

    Attributes:
        value: nan if there were no normals.
        quantile: intended share of normals at or below the threshold.
        num_normals: number of validation normals it was computed from.
        warning: one sentence for the record and the report if the guarantee does not hold.
        method: one of the normals' scores ("order_statistic"), or a bound from the mean and standard deviation of their
            logarithms ("log_normal") or log-odds ("logit_normal"); None without normals, or if it was not set on
            normals.
        num_patients: of the normals: the number of independent values.
        specificity: 95 % range of the true specificity, (low, high); None where nothing is known of it.
    """

    value: float
    quantile: float
    num_normals: int
    warning: str | None = None
    method: Method | None = None
    num_patients: int = 0
    specificity: tuple[float, float] | None = None


def from_normals(
    normals: Floats, quantile: float = 0.95, patient: Sequence[str] | None = None, probabilities: bool = False
) -> Threshold:
    """Set a threshold that a new normal exceeds with a probability of about 1 - q.

    From 20 scores on it is `normal_quantile`, of which only the order of the scores is asked. With fewer, which are all
    positive, it is `log_normal_bound`, because the highest of eight scores is a matter of luck.

    Args:
        normals: scores of validation normals, [n].
        quantile: q, in (0, 1).
        patient: patient of each normal; None for n patients. Scores of one patient are alike, so the range of the
            specificity, and the bound, count patients.
        probabilities: whether scores are probabilities, of which nothing lies above 1: their log-odds are taken.

    Raises:
        UserError: `quantile` is out of range.

    Examples:
        >>> from_normals(np.exp(np.arange(8.0)), 0.8).method, from_normals(np.arange(8.0), 0.8).method
        ('log_normal', 'order_statistic')
        >>> low, high = from_normals(np.arange(8.0) - 4, 0.95).specificity  # the highest of eight
        >>> round(low, 2), round(high, 3)
        (0.63, 0.997)
    """
    found, n = normal_quantile(normals, quantile), len(normals)
    if n == 0:
        return found
    patients = n if patient is None else len(set(patient))
    if n >= FEW or patients < 2 or normals.min() <= 0 or (probabilities and normals.max() >= 1):
        rank = min(n, max(1, math.ceil((n + 1) * quantile - ROUNDING)))
        range_ = order_statistic_range(rank, n, patients)
        return found._replace(method="order_statistic", num_patients=patients, specificity=range_)
    value, range_ = log_normal_bound(normals, quantile, patients, probabilities)
    warning = found.warning and (
        f"{_too_few(n, quantile)}: the threshold is a prediction bound, which is right as far as the "
        f"{'log-odds' if probabilities else 'logarithms'} of normal scores have a normal distribution."
    )
    method: Method = "logit_normal" if probabilities else "log_normal"
    return Threshold(value, quantile, n, warning, method, patients, range_)


def log_normal_bound(
    normals: Floats, quantile: float, patients: int, probabilities: bool = False
) -> tuple[float, tuple[float, float]]:
    """Return the upper prediction bound of log-normal scores, and the 95 % range of its true specificity.

    The bound is exp(m + c·s), with m and s the mean and standard deviation of the n logarithms and
    c = t(q; P - 1)·√(1 + 1/P): a new normal exceeds it with probability 1 - q (Hahn and Meeker 1991, Statistical
    Intervals, §4.2). Its specificity is Φ(z), z = (m + c·s - μ)/σ, with m - μ normal and s²/σ² a scaled χ².

    Args:
        normals: positive scores, [n].
        quantile: q, in (0, 1).
        patients: P, number of patients among them, at least 2.
        probabilities: take log-odds instead of logarithms; scores are then in (0, 1), and so is the bound.

    Examples:
        >>> value, (low, high) = log_normal_bound(np.exp(np.arange(8.0)), 0.95, 8)  # m 3.5, s 2.449, c 2.009
        >>> round(math.log(value), 3), round(low, 2), round(high, 3)
        (8.422, 0.77, 0.999)
    """
    logs = special.logit(normals) if probabilities else np.log(normals)
    factor, range_ = _bound(quantile, patients)
    bound = float(logs.mean() + factor * logs.std(ddof=1))
    value = float(special.expit(bound)) if probabilities else math.exp(min(bound, MAX_LOG))
    if np.ptp(logs) <= ALIKE * max(1.0, abs(bound)):  # equal but for rounding, which may put the bound below them
        value = max(value, float(normals.max()))
    return value, range_


@cache
def _bound(quantile: float, patients: int) -> tuple[float, tuple[float, float]]:
    """Return c of `log_normal_bound` and the range of its true specificity, which depend on no score."""
    factor = float(stats.t.ppf(quantile, patients - 1)) * math.sqrt(1 + 1 / patients)
    spread = np.sqrt(stats.chi2.ppf((np.arange(STEPS) + 0.5) / STEPS, patients - 1) / (patients - 1))  # of s / σ
    farthest = abs(factor) * spread[-1] + LARGEST_Z

    def beyond(z: float, tail: float) -> float:
        """Return the probability that the bound lies less than z standard deviations above the mean, minus `tail`."""
        return float(stats.norm.cdf(math.sqrt(patients) * (z - factor * spread)).mean()) - tail

    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    low, high = (float(stats.norm.cdf(optimize.brentq(beyond, -farthest, farthest, (tail,)))) for tail in tails)
    return factor, (low, high)


def order_statistic_range(rank: int, n: int, patients: int | None = None) -> tuple[float, float]:
    """Return the 95 % range of the true specificity of a threshold at the k-th smallest of n scores.

    The share of all normals at or below it has the distribution Beta(k, n + 1 - k), whatever that of the scores (David
    and Nagaraja 2003, Order Statistics, §2.3). If the n scores are of P < n patients, both parameters are multiplied by
    (P + 1) / (n + 1), as if there were P scores.

    Args:
        rank: k, in [1, n].
        n: number of scores.
        patients: P; None for n.

    Examples:
        >>> [round(end, 2) for end in order_statistic_range(8, 8)]
        [0.63, 1.0]
        >>> [round(end, 2) for end in order_statistic_range(76, 79, patients=7)]
        [0.74, 1.0]
    """
    scale = 1.0 if patients is None else (patients + 1) / (n + 1)
    low, high = stats.beta.interval(LEVEL, rank * scale, (n + 1 - rank) * scale)
    return float(low), float(high)


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
    rank = max(1, math.ceil((n + 1) * quantile - ROUNDING))
    if n == 0:
        return Threshold(math.nan, quantile, 0, "no validation normals: no threshold, no p-values")
    if rank <= n:
        return Threshold(float(np.sort(normals)[rank - 1]), quantile, n)
    warning = (
        f"{_too_few(n, quantile)}: their maximum is the threshold, which a new normal exceeds with a probability of up "
        f"to 1 in {n + 1}."
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
    """Return balanced accuracy, recall, specificity, precision, accuracy and F1 of (weighted) counts of one shape.

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
        "balanced_accuracy": (recall + specificity) / 2,
        "recall": recall,
        "specificity": specificity,
        "precision": _share(tp, tp + fp),
        "accuracy": _share(tp + tn, tp + fp + tn + fn),
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


def fewest(quantile: float) -> int:
    """Return how many normals a threshold at a quantile needs, if it is one of their scores.

    Examples:
        >>> fewest(0.95), fewest(0.8)
        (19, 4)
    """
    return math.ceil(quantile / (1 - quantile) - ROUNDING)


def _too_few(n: int, quantile: float) -> str:
    return f"{n} validation normals are too few for the {quantile:g} quantile ({fewest(quantile)} needed)"


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
