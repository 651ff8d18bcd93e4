"""Intervals for new patients and new trainings, from runs that judged partly the same patients.

Several seeds draw their test splits from one set of patients. Their spread says how the trainings vary on these
patients, and nothing of other patients. The mean over R runs varies with both: by the law of total variance its
variance is the covariance of two runs, which they owe to the patients that both judged, plus the variance of a run
given the patients over R (Obuchowski and Rockette 1995, Communications in Statistics 24, 285-308; runs are what readers
are there).

- The patients' part, for an AUROC: the *placement value* of a case is the share of the other class against which its
  run ranks it correctly. A patient's sum of them, less its expectation, is what the patient adds to the AUROC of a run,
  so that the covariance of two runs is a sum over patients of products of such sums (DeLong et al. 1988 for two scores
  of one split; Obuchowski 1997, Biometrics 53, 567-578, for patients with several cases, of one class or both). Other
  metrics have the covariance of their bootstrap replicates, in which the same patients are drawn for all runs.
- Both together: s²/R + C, with the variance s² of the runs and the mean covariance C of two of them. It is never less
  than what averaging the patients' sums over the runs gives, which would be all if the trainings did not vary. Folds,
  which judge no patient in common, have C = 0, and their least variance is that of LeDell, Petersen and van der Laan
  2015 (Electronic Journal of Statistics 9, 1583-1607).

Scores of different runs are never ranked against each other. A share has its interval on the logit scale, which keeps
it within 0 and 1 and holds what it says near them (Pepe 2003, The Statistical Evaluation of Medical Tests, §5.2.4); a
difference on its own. The quantile is Student's, with Satterthwaite's degrees of freedom (as Hillis 2007, Statistics in
Medicine 26, 596-619): those of the runs, and of the patients of either class.

Where nothing varies, as where the classes are separated, that would be an interval of width 0. In its stead, with k
patients a class: one case each makes k independent pairs, all of which came out alike, which has a probability of more
than α / 2 only if a share of at least q = (α / 2)^(1 / k) of all pairs does; the others may be anything. Classes that
are separated so have [q, 1], Clopper and Pearson's interval for k of k. With fewer than `FEWEST` patients of a class
there is no interval: none of the known ones holds what it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anomaly_lab.metrics.ranking import Floats, Labels

Patients = NDArray[np.generic]  # [N], name or number of the patient of each case
FEWEST = 5  # patients of a class that an interval needs
NOTHING = 1e-24  # a variance below it is one of 0, but for rounding


class Sample(NamedTuple):
    """The test cases of a run.

    Attributes:
        label: [N], 0 normal, 1 anomalous.
        score: [N], higher = more anomalous.
        patient: [N]; None if each case is a patient of its own.
        other: [N], scores of the same cases that `auroc_difference` subtracts the AUROC of.
    """

    label: Labels
    score: Floats
    patient: Patients | None = None
    other: Floats | None = None


class Estimate(NamedTuple):
    """A mean over runs with its interval; nan where undefined.

    Attributes:
        value: the mean over the runs.
        low, high: its interval; nan with fewer than FEWEST patients of a class.
        p: two-sided p-value of a difference against 0; nan if it is none.
        patients: number of normal and of anomalous patients that any of the runs judged.
        error_of_patients: standard error of the mean that is due to the patients.
        error_of_trainings: standard error that is due to the trainings beyond that.
    """

    value: float
    low: float
    high: float
    p: float
    patients: tuple[int, int]
    error_of_patients: float
    error_of_trainings: float


def auroc(samples: Sequence[Sample], level: float = 0.95) -> Estimate:
    """Return the mean AUROC of runs with its interval for new patients and new trainings; of one run, new patients.

    Args:
        samples: the test cases of each run. Patients of equal names are the same.
        level: coverage of the interval.

    Examples:
        >>> label, score = np.repeat([0, 1], 20), np.arange(40.0) % 25  # AUROC .5, as the last 15 begin again
        >>> runs = [Sample(label, score, np.arange(40)), Sample(label, -score, np.arange(40))]
        >>> one, two = auroc(runs[:1]), auroc(runs)
        >>> round(one.value + auroc(runs[1:]).value, 9), one.patients, round(two.value, 9)
        (1.0, (20, 20), 0.5)
        >>> low, high = auroc([Sample(np.repeat([0, 1], 10), np.arange(20.0))])[1:3]  # .025^(1/10)
        >>> round(low, 3), high
        (0.692, 1.0)
    """
    placed = [_placements(sample.label, sample.score) for sample in samples]
    return _estimate(_of_placements(samples, placed), 0.0, level)


def auroc_difference(samples: Sequence[Sample], level: float = 0.95, trainings: bool = True) -> Estimate:
    """Return the mean over runs of the AUROC of `score` minus that of `other`, with interval and test against 0.

    Args:
        samples: the test cases of each run, with both scores.
        level: coverage of the interval.
        trainings: whether the interval is for new trainings, too; otherwise the trained models are taken as given.

    Examples:
        >>> label, score = np.repeat([0, 1], 20), np.arange(40.0)
        >>> worse = np.r_[score[:18], 38.5, 39.5, score[20:]]
        >>> result = auroc_difference([Sample(label, score, None, worse)])
        >>> round(result.value, 3), result.low < 0 < result.high, result.p > 0.05
        (0.098, True, True)
    """
    both = [
        (_placements(label, score), _placements(label, np.zeros(len(label)) if other is None else other))
        for label, score, _, other in samples
    ]
    placed = [(area - other, of_score - of_other) for (area, of_score), (other, of_other) in both]
    found = _estimate(_of_placements(samples, placed), -1.0, level, trainings)
    if samples and all(other is not None and _same_order(score, other) for _, score, _, other in samples):
        return found if math.isnan(found.p) else found._replace(value=0.0, low=0.0, high=0.0, p=1.0)
    return found


def from_replicates(
    values: Sequence[float] | Floats,
    replicated: Floats,
    patients: tuple[int, int],
    least: float = 0.0,
    level: float = 0.95,
) -> Estimate:
    """Return the mean of another metric of runs, or of a difference, with its interval.

    Args:
        values: the metric of each of the R runs.
        replicated: the same under a bootstrap that draws the same patients for all runs, [R, B]; replicates in which
            it is nan for any of them do not count.
        patients: number of normal and of anomalous patients.
        least: smallest value it can have: 0 of a share, -1 of a difference of shares.
        level: coverage of the interval.

    Examples:
        >>> drawn = 0.8 + 0.05 * np.random.default_rng(0).normal(size=(1, 4000))
        >>> low, high = from_replicates([0.8], drawn, (50, 50))[1:3]
        >>> round(low, 2), round(high, 2)
        (0.68, 0.88)
    """
    known = replicated[:, np.isfinite(replicated).all(0)]
    runs = len(values)
    covariance = np.cov(known).reshape(runs, runs) if known.shape[1] > 1 else np.full((runs, runs), math.nan)
    fewest = min(patients)
    return _estimate(
        _Runs(np.array(values, np.float64), [(covariance, max(1, fewest - 1))], patients, fewest), least, level
    )


def too_few(normal: int, anomalous: int) -> str | None:
    """Return the sentence that stands where an interval would, if there are too few patients of a class for one.

    Args:
        normal: number of normal patients.
        anomalous: number of anomalous patients.

    Examples:
        >>> too_few(3, 40)
        'No intervals: 3 normal and 40 anomalous patients were judged, and an interval needs 5 of each.'
        >>> too_few(5, 5) is None
        True
    """
    if min(normal, anomalous) >= FEWEST:
        return None
    judged = f"{normal} normal and {anomalous} anomalous patients were judged"
    return f"No intervals: {judged}, and an interval needs {FEWEST} of each."


def count_patients(label: Labels, patient: Patients) -> tuple[int, int]:
    """Return the number of patients with normal cases, and of those with anomalous ones.

    Examples:
        >>> count_patients(np.array([0, 0, 1, 1]), np.array(["a", "b", "b", "c"]))
        (2, 2)
    """
    normal, anomalous = (len(np.unique(patient[label == value])) for value in (0, 1))
    return normal, anomalous


def without_spread(value: float, patients: int, least: float = 0.0, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a mean that came out alike for all of k patients: [q v + least (1 - q), q v + 1 - q].

    Args:
        value: what came out, v.
        patients: k.
        least: smallest value it can have, as in `from_replicates`.
        level: coverage of the interval, at least.

    Examples:
        >>> [round(end, 3) for end in without_spread(1.0, patients=25)]  # 25 of 25
        [0.863, 1.0]
        >>> [round(end, 3) for end in without_spread(0.0, patients=25, least=-1.0)]
        [-0.137, 0.137]
    """
    q = ((1 - level) / 2) ** (1 / patients)
    return value * q + least * (1 - q), value * q + (1 - q)


def ends(value: float, half: float, least: float = 0.0) -> tuple[float, float]:
    """Return the ends of an interval: of a share within (0, 1) on the logit scale, otherwise cut to [`least`, 1].

    Args:
        value: what was measured.
        half: half of the interval's width, before it is bent.
        least: smallest value it can have, as in `from_replicates`.

    Examples:
        >>> [round(end, 3) for end in ends(0.9, half=0.1)], [round(end, 3) for end in ends(0.9, 0.1, least=-1.0)]
        ([0.748, 0.965], [0.8, 1.0])
    """
    if least == 0 and 0 < value < 1:
        odds, width = value / (1 - value), math.exp(min(half / (value * (1 - value)), 700.0))
        return odds / (odds + width), odds / (odds + 1 / width)
    return max(least, value - half), min(1.0, value + half)


def p_without_spread(difference: float, patients: int) -> float:
    """Return the p-value against 0 of a difference that came out alike for all of k patients.

    If the mean over all patients is 0, at most 1 of 1 + |d| of them have a difference d.

    Args:
        difference: what came out, d.
        patients: k.

    Examples:
        >>> p_without_spread(0.5, 10) < 0.05 < p_without_spread(0.5, 5), p_without_spread(0.0, 10)
        (True, 1.0)
    """
    return min(1.0, 2 * float((1 + abs(difference)) ** -patients)) if difference else 1.0


class _Runs(NamedTuple):
    """Values of runs [R], their covariances [R, R] in parts with degrees of freedom, and who was judged.

    `patients` are the numbers of normal and of anomalous ones, `pairs` that of pairs of both that share no patient.
    """

    values: Floats
    parts: list[tuple[Floats, int]]
    patients: tuple[int, int]
    pairs: int


def _of_placements(samples: Sequence[Sample], placed: Sequence[tuple[float, Floats]]) -> _Runs:
    """Return the runs from each one's value and the placement values of its cases."""
    starts = np.cumsum([0, *(len(sample.label) for sample in samples)])
    names = [
        sample.patient if sample.patient is not None else start + np.arange(len(sample.label))
        for sample, start in zip(samples, starts[:-1], strict=True)
    ]
    everyone, index = np.unique(np.concatenate([np.empty(0, np.intp), *names]), return_inverse=True)
    shape = (len(samples), len(everyone))
    sums, judged = np.zeros((2, *shape)), np.zeros((2, *shape), bool)
    for run, (sample, (_, placements)) in enumerate(zip(samples, placed, strict=True)):
        patient = index[starts[run] : starts[run + 1]]
        for value in (0, 1):
            cases = sample.label == value
            if cases.any():
                deviation = (placements[cases] - placements[cases].mean()) / cases.sum()
                sums[value, run] = np.bincount(patient[cases], deviation, minlength=len(everyone))
                judged[value, run, patient[cases]] = True
    normal, anomalous = (int(of_class.any(0).sum()) for of_class in judged)
    by_anyone = sums * _unbiased(judged.any(0).sum(1))[:, None]
    crossed = by_anyone[0] @ by_anyone[1].T  # of the two classes, from patients with cases of both
    sums *= _unbiased(judged.sum(2))[:, :, None]  # as n / (n - 1) corrects the variance of n patients
    both = (crossed + crossed.T) / 2
    parts = [
        (of_class @ of_class.T + both, count - 1) for of_class, count in zip(sums, (normal, anomalous), strict=True)
    ]
    values = np.array([value for value, _ in placed])
    return _Runs(values, parts, (normal, anomalous), min(normal, anomalous, len(everyone) // 2))


def _unbiased(count: NDArray[np.integer]) -> Floats:
    """Return √(n / (n - 1)) for each n; 1 where a variance cannot be told."""
    factor: Floats = np.sqrt(np.where(count > 1, count / np.maximum(count - 1, 1), 1.0))
    return factor


def _estimate(runs: _Runs, least: float, level: float, trainings: bool = True) -> Estimate:
    """Return the mean of runs with its interval; of the trained models as given, unless `trainings` vary, too."""
    values, parts, patients, pairs = runs
    number, value = len(values), float(values.mean()) if len(values) else math.nan
    means = [float(covariance.mean()) if number else math.nan for covariance, _ in parts]
    if min(patients) < FEWEST or not math.isfinite(value + sum(means)):
        return Estimate(value, math.nan, math.nan, math.nan, patients, math.nan, math.nan)
    of_patients, of_runs, shared = max(0.0, sum(means)), 0.0, 0.0
    if number > 1 and trainings:
        covariance = np.sum([part for part, _ in parts], axis=0)
        of_runs = float(values.var(ddof=1)) / number
        shared = float(covariance.sum() - covariance.trace()) / (number * (number - 1))
    variance = max(of_patients, of_runs + shared)
    if variance < NOTHING:
        p = 1.0 if value == 0 else min(1.0, 2 * (1 + abs(value)) ** -pairs)  # pairs alike, with a mean of 0 over all
        return Estimate(
            value, *without_spread(value, pairs, least, level), p if least else math.nan, patients, 0.0, 0.0
        )
    freedom = _freedom(variance, of_runs, number - 1, means, [freedom for _, freedom in parts])
    low, high = ends(value, float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance), least)
    p = 2 * float(stats.t.sf(abs(value) / math.sqrt(variance), freedom)) if least else math.nan
    return Estimate(value, low, high, p, patients, math.sqrt(of_patients), math.sqrt(variance - of_patients))


def _freedom(variance: float, of_runs: float, runs: int, means: list[float], degrees: list[int]) -> float:
    """Return Satterthwaite's degrees of freedom of a variance: the runs' part, and what is left by the parts' means."""
    rest, total = max(0.0, variance - of_runs), sum(means)
    terms = [
        (max(0.0, mean) / total * rest if total > 0 else 0.0, freedom)
        for mean, freedom in zip(means, degrees, strict=True)
    ]
    squares = sum(term**2 / freedom for term, freedom in [*terms, (of_runs, max(1, runs))])
    return max(1.0, variance**2 / squares) if squares else 1.0


def _placements(label: Labels, score: Floats) -> tuple[float, Floats]:
    """Return the AUROC, and for each case [N] the share of the other class against which it is ranked correctly.

    Computed from mid-ranks in O(N log N) (Sun and Xu 2014), where the definition compares every pair.
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


def _same_order(one: Floats, other: Floats) -> bool:
    """Whether both rank all cases alike, so that they are the same method."""
    return bool((stats.rankdata(one) == stats.rankdata(other)).all())
