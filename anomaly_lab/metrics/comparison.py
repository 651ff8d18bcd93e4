"""Comparison of methods and of tables: paired tests over repeats, DeLong's test on one split, rank agreement.

Two methods are paired by repeat (the same seed, so the same split). With k repeats, the p-value of a Wilcoxon test is
at least 2^(1-k): five pairs never reach p < .05, three never get below .25. Effect sizes are then more informative.

Both say something of the patients at hand: seeds draw their test splits from one set of patients, so that Student's
interval over five seeds holds what it says of new patients in 71 of 100 cases instead of 95, and a paired t-test calls
two methods that are equally good different in 25. Intervals and tests for new patients are in `joint`.

Repeats may be folds, which share most of their training cases, so that they vary less than repeats with other training
cases would: the variance of the mean over n repeats is not s²/n but s²/n + s²·r, where r is the number of test cases
over that of training cases (Nadeau and Bengio 2003, Inference for the Generalization Error, Machine Learning 52, eq. 9;
for repeated folds Bouckaert and Frank 2004).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from anomaly_lab.metrics import joint
from anomaly_lab.metrics.joint import Patients, Sample
from anomaly_lab.metrics.ranking import Floats, Labels


class Summary(NamedTuple):
    """Repeats of one metric: number, mean, sample standard deviation, interval of the mean; nan where undefined."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


class Paired(NamedTuple):
    """Comparison of A with B over n repeats. p-values are two-sided, positive effects favour A; nan where undefined.

    Attributes:
        n: number of pairs.
        difference: mean of A - B.
        effect: Cohen's d_z, the mean difference divided by the standard deviation of the differences.
        rank_biserial: share of the rank sum that favours A minus the share that favours B, in [-1, 1].
        t: p-value of the paired t-test; nan if all differences are the same, for want of a spread to judge them by.
        wilcoxon: p-value of the signed-rank test, exact if no two differences tie and none is 0.
    """

    n: int
    difference: float
    effect: float
    rank_biserial: float
    t: float
    wilcoxon: float


class DeLong(NamedTuple):
    """AUROC of A and B on the same cases, interval of A - B and its two-sided p-value.

    p is 1 if both rank all cases alike, and nan if one of the classes has fewer than `joint.FEWEST` patients.
    """

    a: float
    b: float
    low: float
    high: float
    p: float


class Agreement(NamedTuple):
    """Rank agreement of two columns of n values: Spearman's rho and Kendall's tau-b with their p-values."""

    n: int
    spearman: float
    spearman_p: float
    kendall: float
    kendall_p: float


def summary(values: Sequence[float], level: float = 0.95, overlap: float = 0.0) -> Summary:
    """Return the mean of repeats with Student's interval, clipped to [0, 1], the range of every rank metric.

    Args:
        values: of the repeats.
        level: coverage of the interval.
        overlap: number of test cases over that of training cases, if the repeats are folds; 0 if they are independent.

    Examples:
        >>> result = summary([0.7, 0.8, 0.9])
        >>> round(result.mean, 3), round(result.low, 3), round(result.high, 3)
        (0.8, 0.552, 1.0)
    """
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Summary(n, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    half = _half(sd, n, overlap, level)
    return Summary(n, mean, sd, max(0.0, mean - half), min(1.0, mean + half))


def paired(a: Sequence[float], b: Sequence[float], overlap: float = 0.0) -> Paired:
    """Compare two methods on the same repeats; a[i] and b[i] have the same seed and fold.

    Args:
        a: values of the one method.
        b: values of the other.
        overlap: as in `summary`; with folds, the t-test is the corrected resampled t-test, and there is no Wilcoxon
            test, because it needs independent repeats.

    Raises:
        ValueError: the two differ in length.

    Examples:
        >>> result = paired([0.9, 0.8, 0.9], [0.7, 0.7, 0.6])
        >>> round(result.difference, 3), round(result.effect, 3), result.rank_biserial, result.wilcoxon
        (0.2, 2.0, 1.0, 0.25)
    """
    if len(a) != len(b):
        raise ValueError(
            f"{len(a)} repeats of one and {len(b)} of the other can't be paired: give the same seeds of both"
        )
    difference = np.subtract(a, b, dtype=np.float64)
    n = len(difference)
    if n < 2:
        return Paired(n, float(difference.mean()) if n else math.nan, *[math.nan] * 4)
    mean, sd = float(difference.mean()), float(difference.std(ddof=1))
    biserial = _rank_biserial(difference)
    if not difference.any():
        return Paired(n, 0.0, 0.0, biserial, 1.0, 1.0)
    if sd < 1e-12 * abs(mean):  # the same difference in all repeats: d_z is infinite, and a t-test has no answer
        return Paired(n, mean, math.inf * mean, biserial, math.nan, math.nan if overlap else _wilcoxon(difference))
    if overlap:
        t = 2 * float(stats.t.sf(abs(mean) / (sd * math.sqrt(1 / n + overlap)), n - 1))
        return Paired(n, mean, mean / sd, biserial, t, math.nan)
    return Paired(n, mean, mean / sd, biserial, float(stats.ttest_rel(a, b).pvalue), _wilcoxon(difference))


def mean_interval(values: Sequence[float], level: float = 0.95, overlap: float = 0.0) -> tuple[float, float]:
    """Return Student's interval of a mean that is not clipped, such as that of differences; nan for fewer than two.

    Arguments as in `summary`.

    Examples:
        >>> low, high = mean_interval([0.1, 0.3])  # 0.2 ± 12.7 · 0.1
        >>> round(low, 2), round(high, 2)
        (-1.07, 1.47)
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    mean, half = float(np.mean(values)), _half(float(np.std(values, ddof=1)), n, overlap, level)
    return mean - half, mean + half


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method (Holm 1979); nan stays nan and is not counted.

    Examples:
        >>> holm([0.01, 0.04, math.nan, 0.03])
        [0.03, 0.06, nan, 0.06]
    """
    adjusted = [math.nan] * len(p)
    defined = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    highest = 0.0
    for rank, (value, i) in enumerate(defined):
        highest = max(highest, min(1.0, (len(defined) - rank) * value))
        adjusted[i] = highest
    return adjusted


def auroc_interval(
    label: Labels, score: Floats, patient: Patients | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Return DeLong's interval of one AUROC on the logit scale; nan if a class has fewer than `joint.FEWEST` patients.

    Arguments as in `delong`.

    Examples:
        >>> low, high = auroc_interval(np.repeat([0, 1], 10), np.r_[np.arange(10.0), np.arange(5.0, 15)])  # AUROC .875
        >>> round(low, 2), round(high, 2)
        (0.62, 0.97)
    """
    found = joint.auroc([Sample(label, score, patient)], level)
    return found.low, found.high


def delong(label: Labels, a: Floats, b: Floats, patient: Patients | None = None, level: float = 0.95) -> DeLong:
    """Test the difference of two AUROCs measured on the same cases.

    DeLong, DeLong and Clarke-Pearson 1988, eq. 4–5. Cases of one patient may be correlated, whatever their class
    (Obuchowski 1997, Biometrics 53, 567-578); with one case per patient this is DeLong's own variance. See `joint` for
    the quantile, and for what is done where nothing varies.

    Args:
        label: [N], 0 normal, 1 anomalous.
        a, b: [N], raw scores, higher = more anomalous.
        patient: [N], patient of each case; None if each case is a patient of its own.
        level: coverage of the interval.

    Examples:
        >>> label, score = np.repeat([0, 1], 10), np.r_[np.arange(10.0), np.arange(5.0, 15)]
        >>> result = delong(label, score, 10 * score)  # the same ranking
        >>> result.a, result.b, result.p
        (0.875, 0.875, 1.0)
    """
    return delong_of_folds([Sample(label, a, patient, b)], level)


def delong_of_folds(folds: Sequence[Sample], level: float = 0.95) -> DeLong:
    """Test the difference of two methods' mean AUROC over folds, each case being tested in one fold.

    The trained models are taken as given: how good are they on other cases (LeDell, Petersen and van der Laan 2015)?

    Args:
        folds: the test cases of each fold, with `score` of A and `other` of B.
        level: coverage of the interval.

    Examples:
        >>> label, a = np.repeat([0, 1], 10), np.r_[np.arange(10.0), np.arange(5.0, 15)]
        >>> result = delong_of_folds([Sample(label, a, None, np.arange(20.0)), Sample(label, 10 * a, None, a)])
        >>> result.a, result.b
        (0.875, 0.9375)
    """
    of_a, of_b = (
        joint.auroc([fold._replace(score=fold.score if first or fold.other is None else fold.other) for fold in folds])
        for first in (True, False)
    )
    difference = joint.auroc_difference(folds, level, trainings=False)
    return DeLong(of_a.value, of_b.value, difference.low, difference.high, difference.p)


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
    """Compute how well two tables agree on the order of the same methods; nan with fewer than three or if all tie.

    Examples:
        >>> result = agreement([0.7, 0.8, 0.9, 0.95], [0.6, 0.65, 0.8, 0.7])
        >>> round(result.kendall, 3)  # 5 of 6 pairs agree: (5 - 1) / 6
        0.667
    """
    n = len(ours)
    if n < 3 or len(set(ours)) == 1 or len(set(theirs)) == 1:
        return Agreement(n, *[math.nan] * 4)
    rho, tau = stats.spearmanr(ours, theirs), stats.kendalltau(ours, theirs)
    return Agreement(n, float(rho.statistic), float(rho.pvalue), float(tau.statistic), float(tau.pvalue))


def _half(sd: float, n: int, overlap: float, level: float) -> float:
    """Return half the width of Student's interval of a mean."""
    quantile = float(stats.t.ppf((1 + level) / 2, n - 1))
    return quantile * sd * math.sqrt(1 / n + overlap) if overlap else quantile * sd / math.sqrt(n)


def _rank_biserial(difference: Floats) -> float:
    """Return the matched-pairs rank-biserial correlation (simple difference formula of Kerby 2014); 0 if all are 0."""
    nonzero = difference[difference != 0]
    ranks: NDArray[np.float64] = stats.rankdata(np.abs(nonzero))
    return float((np.sign(nonzero) * ranks).sum() / ranks.sum()) if len(nonzero) else 0.0


def _wilcoxon(difference: ArrayLike) -> float:
    return float(stats.wilcoxon(difference).pvalue)
