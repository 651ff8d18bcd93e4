"""Are two methods different, and do two tables agree: paired tests over repeats, DeLong within a split, rank agreement.

A repeat (the same seed, so the same split) pairs two methods; with k repeats a Wilcoxon test can't give less than
2^(1-k), so that five pairs never reach p < .05 and three never get below .25: the effect sizes say more then.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from anomaly_lab.metrics.ranking import Floats, Labels

Patients = NDArray[np.generic]  # [N], a name or number for each case


class Summary(NamedTuple):
    """Repeats of one figure: how many, mean, sample standard deviation, interval of the mean; nan where undefined."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


class Paired(NamedTuple):
    """A against B over n repeats; p-values are two-sided, positive effects favour A; nan where undefined.

    Attributes:
        n: pairs.
        difference: mean of A - B.
        effect: Cohen's d_z, the mean difference in units of the differences' standard deviation.
        rank_biserial: share of the rank sum that favours A minus the share that favours B, in [-1, 1].
        t: p-value of the paired t-test.
        wilcoxon: p-value of the signed-rank test, exact where no two differences tie and none is 0.
    """

    n: int
    difference: float
    effect: float
    rank_biserial: float
    t: float
    wilcoxon: float


class DeLong(NamedTuple):
    """AUROC of A and B on the same cases, the interval of A - B and its two-sided p-value.

    p is 1 where both rank every pair of cases alike, and nan where one of the classes has fewer than two patients.
    """

    a: float
    b: float
    low: float
    high: float
    p: float


class Agreement(NamedTuple):
    """Rank agreement of two columns of n figures: Spearman's rho and Kendall's tau-b with their p-values."""

    n: int
    spearman: float
    spearman_p: float
    kendall: float
    kendall_p: float


def summary(values: Sequence[float], level: float = 0.95) -> Summary:
    """Mean of repeats with Student's interval, cut to [0, 1], where every rank metric lies."""
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Summary(n, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, max(0.0, mean - half), min(1.0, mean + half))


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare two methods on the same repeats, a[i] and b[i] being of one seed.

    Raises:
        ValueError: the two differ in length.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} repeats of one and {len(b)} of the other can't be paired")
    difference = np.subtract(a, b, dtype=np.float64)
    n = len(difference)
    if n < 2:
        return Paired(n, float(difference.mean()) if n else math.nan, *[math.nan] * 4)
    mean, sd = float(difference.mean()), float(difference.std(ddof=1))
    biserial = _rank_biserial(difference)
    if not difference.any():
        return Paired(n, 0.0, 0.0, biserial, 1.0, 1.0)
    if sd < 1e-12 * abs(mean):  # the same difference each time: no spread to measure it by
        return Paired(n, mean, math.inf * mean, biserial, 0.0, _wilcoxon(difference))
    return Paired(n, mean, mean / sd, biserial, float(stats.ttest_rel(a, b).pvalue), _wilcoxon(difference))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values (Holm 1979); nan stays nan and does not count."""
    adjusted = [math.nan] * len(p)
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    highest = 0.0
    for rank, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        adjusted[i] = highest
    return adjusted


def auroc_interval(
    label: Labels, score: Floats, patient: Patients | None = None, level: float = 0.95
) -> tuple[float, float]:
    """DeLong's interval of one AUROC, cut to [0, 1]; nan with fewer than two patients of a class; see `delong`."""
    area, placements = _placements(label, score)
    error = _error(label, placements, patient)
    if math.isnan(error):
        return math.nan, math.nan
    half = _quantile(level) * error
    return max(0.0, area - half), min(1.0, area + half)


def delong(label: Labels, a: Floats, b: Floats, patient: Patients | None = None, level: float = 0.95) -> DeLong:
    """Test two AUROCs measured on the same cases (DeLong, DeLong and Clarke-Pearson 1988, eq. 4–5).

    Cases of one patient need not be independent, whichever class they are of (Obuchowski 1997, Biometrics 53, 567-578);
    with one case a patient that is DeLong's own.

    Args:
        label: [N], 0 normal, 1 anomalous.
        a, b: [N], raw scores, higher = more anomalous.
        patient: [N], who each case is of; None: a patient of its own.
        level: of the interval.
    """
    (area_a, placed_a), (area_b, placed_b) = _placements(label, a), _placements(label, b)
    difference = area_a - area_b
    error = _error(label, placed_a - placed_b, patient)
    half = _quantile(level) * error
    p = 2 * float(stats.norm.sf(abs(difference) / error)) if error else float(difference == 0)
    return DeLong(area_a, area_b, difference - half, difference + half, p)


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
    """Whether two tables put the same methods in the same order; nan with fewer than three or all tied."""
    n = len(ours)
    if n < 3 or len(set(ours)) == 1 or len(set(theirs)) == 1:
        return Agreement(n, *[math.nan] * 4)
    rho, tau = stats.spearmanr(ours, theirs), stats.kendalltau(ours, theirs)
    return Agreement(n, float(rho.statistic), float(rho.pvalue), float(tau.statistic), float(tau.pvalue))


def _placements(label: Labels, score: Floats) -> tuple[float, Floats]:
    """AUROC, and for each case [N] the share of the other class it is ranked rightly against.

    By mid-ranks in O(N log N) (Sun and Xu 2014), where the definition compares every pair.
    """
    anomalous = label == 1
    p, n = int(anomalous.sum()), int((~anomalous).sum())
    placed = np.zeros(len(label))
    if not (p and n):
        return math.nan, placed
    ranks = stats.rankdata(score)
    placed[anomalous] = (ranks[anomalous] - stats.rankdata(score[anomalous])) / n
    placed[~anomalous] = 1 - (ranks[~anomalous] - stats.rankdata(score[~anomalous])) / p
    return float(placed[anomalous].mean()), placed


def _error(label: Labels, placements: Floats, patient: Patients | None) -> float:
    """Standard error of an AUROC, or of a difference of two, from its placements [N]."""
    _, whose = np.unique(np.arange(len(label)) if patient is None else patient, return_inverse=True)
    sums, variance = [], 0.0
    for cases in (label == 1, label == 0):
        patients = len(np.unique(whose[cases]))
        if patients < 2:
            return math.nan
        away = (placements[cases] - placements[cases].mean()) / cases.sum()
        sums.append(np.bincount(whose[cases], away, minlength=whose.max() + 1))
        variance += patients / (patients - 1) * float(np.square(sums[-1]).sum())
    everybody = whose.max() + 1
    variance += 2 * everybody / (everybody - 1) * float(sums[0] @ sums[1])  # patients who have cases of both classes
    return math.sqrt(max(0.0, variance))


def _rank_biserial(difference: Floats) -> float:
    """Kerby 2014's simple difference formula for signed ranks; 0 where nothing differs."""
    moved = difference[difference != 0]
    ranks: NDArray[np.float64] = stats.rankdata(np.abs(moved))
    return float((np.sign(moved) * ranks).sum() / ranks.sum()) if len(moved) else 0.0


def _wilcoxon(difference: ArrayLike) -> float:
    return float(stats.wilcoxon(difference).pvalue)


def _quantile(level: float) -> float:
    return float(stats.norm.ppf((1 + level) / 2))
