"""Rank metrics: hand tables with ties, and what must hold for any scores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_lab.metrics import ranking

LABEL = np.array([0, 0, 0, 1, 1, 1])
SCORE = np.array([1.0, 2.0, 3.0, 2.0, 3.0, 4.0])  # two ties across the classes


@st.composite
def rated_cases(draw):
    """Both classes, few distinct scores, so that ties are the rule."""
    label = [0, 1, *draw(st.lists(st.integers(0, 1), max_size=40))]
    score = draw(st.lists(st.integers(-9, 9), min_size=len(label), max_size=len(label)))
    return np.array(label), np.array(score, float)


def test_hand_table_with_ties():
    # pairs won: 2 beats 1, ties 2 (1.5); 3 beats 1, 2, ties 3 (2.5); 4 beats all (3): 7 of 9
    assert ranking.auroc(LABEL, SCORE) == pytest.approx(7 / 9)
    # precision at 4: 1/1, at 3: 2/3, at 2: 3/5
    assert ranking.average_precision(LABEL, SCORE) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # no normal may be called: only the 4 is found; one of three may: the 3 as well
    assert ranking.sensitivity_at_specificity(LABEL, SCORE, 0.95) == pytest.approx(1 / 3)
    assert ranking.sensitivity_at_specificity(LABEL, SCORE, 2 / 3) == pytest.approx(2 / 3)


def test_specificity_met_exactly_counts_as_met():
    label = np.array([0] * 20 + [1])
    score = np.array([*range(19), 99, 50], float)  # one of 20 normals above the anomaly: specificity is .95
    assert ranking.sensitivity_at_specificity(label, score, 0.95) == 1.0
    assert ranking.sensitivity_at_specificity(label, score, 0.96) == 0.0


def test_curves_of_the_hand_table():
    fpr, tpr = ranking.roc_curve(LABEL, SCORE)
    assert np.trapezoid(tpr, fpr) == pytest.approx(7 / 9)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    recall, precision = ranking.pr_curve(LABEL, SCORE)
    assert recall.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert precision.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 5, 1 / 2])


@pytest.mark.parametrize("label", [np.zeros(3, int), np.ones(3, int)])
def test_one_class_has_no_ranking(label):
    score = np.array([1.0, 2.0, 3.0])
    for metric in (ranking.auroc, ranking.average_precision, ranking.sensitivity_at_specificity):
        assert math.isnan(metric(label, score))
    assert len(ranking.roc_curve(label, score)[0]) == len(ranking.pr_curve(label, score)[0]) == 0


@settings(deadline=None, max_examples=50)
@given(rated_cases())
def test_only_the_order_counts(cases):
    label, score = cases
    for metric in (ranking.auroc, ranking.average_precision, ranking.sensitivity_at_specificity):
        assert metric(label, np.exp(score) * 1e6 - 5) == pytest.approx(metric(label, score), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(rated_cases())
def test_a_flipped_sign_flips_the_area(cases):
    label, score = cases
    assert ranking.auroc(label, -score) == pytest.approx(1 - ranking.auroc(label, score))


@settings(deadline=None, max_examples=50)
@given(rated_cases())
def test_area_is_the_share_of_pairs_won(cases):
    label, score = cases
    pairs = [(a > b) + (a == b) / 2 for a in score[label == 1] for b in score[label == 0]]
    assert ranking.auroc(label, score) == pytest.approx(np.mean(pairs))


@settings(deadline=None, max_examples=50)
@given(rated_cases(), st.sampled_from([0.95, 0.8, 0.5]))
def test_sensitivity_is_the_best_over_all_thresholds(cases, specificity):
    label, score = cases
    normal, anomalous = score[label == 0], score[label == 1]
    cuts = [cut for cut in [*score, np.inf] if (normal < cut).mean() >= specificity]
    best = max((anomalous >= cut).mean() for cut in cuts)
    assert ranking.sensitivity_at_specificity(label, score, specificity) == pytest.approx(best)
