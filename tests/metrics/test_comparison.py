"""Comparison: hand tables, DeLong against the definition over all pairs, what must hold for any input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anomaly_lab.metrics import joint, ranking
from anomaly_lab.metrics.comparison import (
    agreement,
    auroc_interval,
    delong,
    delong_of_folds,
    holm,
    mean_interval,
    paired,
    summary,
)
from anomaly_lab.metrics.joint import Sample
from anomaly_lab.metrics.ranking import auroc


def by_all_pairs(label, a, b):
    """DeLong, DeLong and Clarke-Pearson 1988 as they write it: ψ over every pair, then covariances (eq. 3–5)."""
    fields = []
    for score in (a, b):
        x, y = score[label == 1][:, None], score[label == 0][None]
        fields.append((x > y) + 0.5 * (x == y))
    v10 = np.array([psi.mean(1) for psi in fields])
    v01 = np.array([psi.mean(0) for psi in fields])
    contrast = np.array([1, -1])
    parts = [contrast @ np.cov(v) @ contrast / v.shape[1] for v in (v10, v01)]
    freedom = sum(parts) ** 2 / sum(part**2 / (v.shape[1] - 1) for part, v in zip(parts, (v10, v01), strict=True))
    areas = v10.mean(1)
    return areas, contrast @ areas, math.sqrt(sum(parts)), freedom  # Welch and Satterthwaite's degrees of freedom


def made_up(n=60, seed=0, coarse=False):
    random = np.random.default_rng(seed)
    label = (np.arange(n) % 3 == 0).astype(int)
    a, b = random.normal(size=(2, n)) + np.outer([1.5, 0.7], label)
    return (label, a.round(0), b.round(0)) if coarse else (label, a, b)


@pytest.mark.parametrize("coarse", [False, True], ids=["no ties", "many ties"])
def test_delong_is_the_definition_over_all_pairs(coarse):
    label, a, b = made_up(coarse=coarse)
    areas, difference, error, freedom = by_all_pairs(label, a, b)
    result = delong(label, a, b)
    assert (result.a, result.b) == pytest.approx(tuple(areas))
    assert (result.low, result.high) == pytest.approx(stats.t.interval(0.95, freedom, difference, error))
    assert result.p == pytest.approx(2 * stats.t.cdf(-abs(difference) / error, freedom))


def test_delong_agrees_with_the_rank_auroc_and_does_not_ask_who_comes_first():
    label, a, b = made_up(seed=3)
    one, other = delong(label, a, b), delong(label, b, a)
    assert one.a == pytest.approx(auroc(label, a))
    assert one.p == pytest.approx(other.p)
    assert one.low == pytest.approx(-other.high)


def test_delong_of_the_same_order_is_no_difference():
    label, a, _ = made_up()
    assert delong(label, a, np.exp(a)) == (pytest.approx(auroc(label, a)), pytest.approx(auroc(label, a)), 0, 0, 1)


def test_delong_needs_five_cases_of_each_class():
    label = np.repeat([0, 1], [20, 4])
    result = delong(label, np.arange(24.0), -np.arange(24.0))
    assert (result.a, result.b) == (1.0, 0.0)
    assert math.isnan(result.p)
    assert math.isnan(result.low)
    assert math.isnan(delong(np.array([0, 0]), np.zeros(2), np.zeros(2)).a)


def test_interval_of_one_auroc_covers_the_truth_about_as_often_as_it_says():
    truth, hits = 0.7602, 0  # P(N(1, 1) > N(0, 1)) = Φ(1/√2)
    random = np.random.default_rng(0)
    label = np.repeat([0, 1], 80)
    for _ in range(300):
        low, high = auroc_interval(label, random.normal(size=160) + label)
        hits += low < truth < high
    assert 0.91 < hits / 300 < 0.98


def test_cases_of_one_patient_count_as_one_where_they_are_copies():
    label, a, b = made_up(seed=5)
    copied = [np.repeat(x, 4) for x in (label, a, b)]
    patient = np.repeat(np.arange(len(label)), 4)
    assert delong(*copied, patient) == pytest.approx(delong(label, a, b))
    assert auroc_interval(*copied[:2], patient) == pytest.approx(auroc_interval(label, a))
    assert delong(*copied).p < delong(label, a, b).p


def test_names_of_patients_are_as_good_as_numbers_and_one_case_each_is_the_plain_test():
    label, a, b = made_up(seed=6)
    names = np.array([f"patient {i}" for i in range(len(label))])[::-1]
    assert delong(label, a, b, names) == pytest.approx(delong(label, a, b))


def test_variance_over_patients_is_obuchowskis_sums_by_hand(monkeypatch):
    label, score = np.array([1, 1, 0, 0, 1, 0]), np.array([3.0, 1, 0, 2, 5, 4])
    patient = np.array([0, 0, 0, 1, 1, 2])  # anomalous of patients 0 and 1, normal of 0, 1 and 2
    area = (2 + 1 + 3) / 9
    found, spared = {0: (2 + 1) / 3 - 2 * area, 1: 1 - area}, {0: 1 - area, 1: 2 / 3 - area, 2: 1 / 3 - area}
    variance = 2 / (1 * 3**2) * sum(x**2 for x in found.values()) + 3 / (2 * 3**2) * sum(x**2 for x in spared.values())
    variance += 2 * 3 / (2 * 3 * 3) * (found[0] * spared[0] + found[1] * spared[1])
    monkeypatch.setattr(joint, "FEWEST", 2)
    assert joint.auroc([Sample(label, score, patient)]).error_of_patients == pytest.approx(variance**0.5)


def test_interval_over_patients_covers_the_truth_and_over_their_images_does_not():
    truth = 0.691462  # P(N(1, 2) > N(0, 2)) = Φ(1/√4)
    random, hits = np.random.default_rng(1), np.zeros(2)
    patient = np.repeat(np.arange(60), 10)
    label = patient % 2
    for _ in range(300):
        score = random.normal(size=60)[patient] + random.normal(size=600) + label
        intervals = (auroc_interval(label, score, patient), auroc_interval(label, score))
        hits += [low < truth < high for low, high in intervals]
    assert 0.90 < hits[0] / 300 < 0.98
    assert hits[1] / 300 < 0.75


def test_patients_must_be_five_of_each_class():
    label, score = np.repeat([0, 1], 10), np.arange(20.0) % 13
    for few in (label, 1 - label):
        patient = np.where(few == 1, np.arange(20) % 4, 10 + np.arange(20))
        assert math.isnan(auroc_interval(label, score, patient)[0])
        assert math.isnan(delong(label, score, score[::-1], patient).p)
    assert not math.isnan(auroc_interval(label, score, np.arange(20) // 2)[0])


def test_summary_by_hand():
    result = summary([0.90, 0.92, 0.94])
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert result == pytest.approx((3, 0.92, 0.02, 0.92 - half, 0.92 + half))


def test_summary_of_one_has_no_spread_and_of_many_stays_a_share():
    assert summary([0.9])[:2] == (1, 0.9)
    assert all(math.isnan(value) for value in summary([0.9])[2:])
    assert math.isnan(summary([]).mean)
    assert summary([0.99, 1.0]).high == 1.0


def test_paired_by_hand():
    result = paired([0.9, 0.8, 0.95, 0.7], [0.8, 0.85, 0.75, 0.55])  # differences .10, -.05, .20, .15
    assert result.n == 4
    assert result.difference == pytest.approx(0.1)
    sd = math.sqrt((0**2 + 0.15**2 + 0.1**2 + 0.05**2) / 3)
    assert result.effect == pytest.approx(0.1 / sd)
    assert result.rank_biserial == pytest.approx((2 + 4 + 3 - 1) / 10)
    assert result.wilcoxon == pytest.approx(0.25)  # rank sum 1 of 10: (1 + 1) * 2 / 2^4
    t = 0.1 / sd * 2  # Student's distribution with 3 degrees of freedom, in closed form
    assert result.t == pytest.approx(1 - 2 / math.pi * (math.atan(t / 3**0.5) + t * 3**0.5 / (3 + t * t)))


def test_paired_without_spread_or_without_pairs():
    assert paired([0.5, 0.6], [0.5, 0.6]) == (2, 0.0, 0.0, 0.0, 1.0, 1.0)
    same = paired([0.75, 0.875, 0.75], [0.5, 0.625, 0.5])  # no spread to judge the difference by
    assert (same.difference, same.effect) == (0.25, math.inf)
    assert math.isnan(same.t)
    assert math.isnan(paired([0.75] * 3, [0.5] * 3, overlap=0.5).t)
    assert paired([0.9], [0.8])[:2] == (1, pytest.approx(0.1))
    assert math.isnan(paired([0.9], [0.8]).t)
    with pytest.raises(ValueError, match="2 repeats of one and 1"):
        paired([0.9, 0.8], [0.8])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9]) == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(p):
    adjusted = holm(p)
    assert all(low <= high <= 1 for low, high in zip(p, adjusted, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_agreement_by_hand():
    assert agreement([0.9, 0.8, 0.7, 0.6], [0.95, 0.85, 0.9, 0.5]).spearman == pytest.approx(0.8)
    assert agreement([0.9, 0.8, 0.7, 0.6], [0.95, 0.85, 0.9, 0.5]).kendall == pytest.approx(4 / 6)
    assert math.isnan(agreement([0.9, 0.8], [0.1, 0.2]).spearman)
    assert math.isnan(agreement([0.9, 0.8, 0.7], [0.5, 0.5, 0.5]).kendall)


def test_folds_are_corrected_for_the_training_cases_they_share():
    """Five folds: the variance of their mean is s²/5 + s²/4; by hand with Student's 4 degrees of freedom."""
    values = [0.7, 0.8, 0.9, 0.75, 0.85]
    sd, t = math.sqrt(0.025 / 4), 2.776445
    result = summary(values, overlap=1 / 4)
    assert result.low == pytest.approx(0.8 - t * sd * math.sqrt(1 / 5 + 1 / 4))
    assert summary(values, overlap=0.0) == summary(values)
    assert mean_interval(values, overlap=1 / 4) == pytest.approx((result.low, result.high))
    assert all(math.isnan(end) for end in mean_interval([0.7]))


def test_the_corrected_test_of_folds():
    a, b = [0.7, 0.8, 0.9, 0.75, 0.85], [0.6, 0.8, 0.7, 0.75, 0.6]
    plain, folds = paired(a, b), paired(a, b, overlap=1 / 4)
    assert (folds.difference, folds.effect) == (plain.difference, plain.effect)
    statistic = plain.effect / math.sqrt(1 / 5 + 1 / 4)
    assert folds.t == pytest.approx(2 * stats.t.sf(statistic, 4))
    assert folds.t > plain.t
    assert math.isnan(folds.wilcoxon)
    assert paired(a, a, overlap=1 / 4).t == 1.0


def folds_of(seed, k=4, n=30):
    random = np.random.default_rng(seed)
    label = np.arange(n) % 2
    return [Sample(label, random.normal(size=n) + label, None, random.normal(size=n) + 0.5 * label) for _ in range(k)]


def test_one_fold_is_the_plain_test():
    (fold,) = folds_of(0, k=1)
    assert delong_of_folds([fold]) == pytest.approx(delong(fold.label, fold.score, fold.other))
    assert joint.auroc([fold])[1:3] == pytest.approx(auroc_interval(fold.label, fold.score))


def test_folds_are_independent_samples_of_cases():
    """Four copies of a fold, each with other patients: the same means, half the error."""
    fold, *_ = folds_of(1)
    one, four = (joint.auroc_difference([fold] * k, trainings=False) for k in (1, 4))
    assert four.value == pytest.approx(one.value)
    assert four.error_of_patients == pytest.approx(one.error_of_patients / 2)
    assert (delong_of_folds([fold] * 4).low, delong_of_folds([fold] * 4).p) == (four.low, four.p)


def test_scores_of_different_folds_are_never_ranked_against_each_other():
    folds = folds_of(2)
    moved = [fold._replace(score=fold.score + 100 * i, other=fold.other * 10**i) for i, fold in enumerate(folds)]
    assert delong_of_folds(moved) == pytest.approx(delong_of_folds(folds))


def test_no_fold_and_a_fold_of_one_class_have_no_figure():
    assert math.isnan(delong_of_folds([]).a)
    fold = folds_of(3)[0]
    assert math.isnan(joint.auroc([fold._replace(label=np.zeros_like(fold.label)), fold]).value)


def cross_validated(random, folds, n=60, features=6, shift=0.55):
    """AUROC of a linear classifier in each fold, the true AUROC of each trained model, and the scores of the folds.

    Both classes are normal with unit covariance, so that the AUROC of weights w is Φ(w·shift / (√2 ‖w‖)).
    """
    label = np.arange(n) % 2
    direction = np.full(features, shift / math.sqrt(features))
    x = random.normal(size=(n, features)) + label[:, None] * direction
    fold = np.arange(n) // 2 % folds
    aurocs, truths, samples = [], [], []
    for k in range(folds):
        train, test = fold != k, fold == k
        w = x[train & (label == 1)].mean(0) - x[train & (label == 0)].mean(0)
        score = x[test] @ w
        aurocs.append(ranking.auroc(label[test], score))
        truths.append(stats.norm.cdf(w @ direction / math.sqrt(2) / np.linalg.norm(w)))
        samples.append(Sample(label[test], score))
    return aurocs, truths, samples


def coverage(n, times, folds=5):
    """How often intervals hold the method's AUROC: for new patients and trainings, corrected for folds, and plain."""
    random = np.random.default_rng(0)
    truths, intervals = [], []
    for _ in range(times):
        aurocs, of_models, samples = cross_validated(random, folds, n)
        truths.append(np.mean(of_models))
        found = joint.auroc(samples)
        intervals.append(
            [(found.low, found.high), mean_interval(aurocs, overlap=1 / (folds - 1)), mean_interval(aurocs)]
        )
    low, high = np.array(intervals).T  # [3, times] each
    truth = np.mean(truths)  # expected AUROC of the method, trained on so many cases
    return ((low <= truth) & (truth <= high)).mean(1)


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 400])
def test_intervals_of_folds_cover_what_they_say(n):
    for_new_patients, corrected, plain = coverage(n, times=400)
    assert 0.92 < for_new_patients < 0.985
    assert corrected > 0.92
    assert plain < corrected - 0.04
