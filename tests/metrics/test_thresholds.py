"""Threshold and p-values from normals, and the rates at a threshold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from anomaly_lab.metrics import thresholds
from anomaly_lab.types import UserError

normals_and_score = st.tuples(
    st.lists(st.integers(0, 30), min_size=19, max_size=120), st.lists(st.integers(-1, 31), min_size=1)
)


@pytest.mark.parametrize(
    ("n", "quantile", "rank"),
    [(19, 0.95, 19), (20, 0.95, 20), (39, 0.95, 38), (100, 0.95, 96), (99, 0.9, 90), (4, 0.5, 3)],
)
def test_threshold_is_the_conformal_rank(n, quantile, rank):
    normals = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert thresholds.normal_quantile(normals, quantile) == (rank, quantile, n, None)


@pytest.mark.parametrize(("n", "quantile", "needed"), [(18, 0.95, 19), (1, 0.95, 19), (98, 0.99, 99), (8, 0.9, 9)])
def test_too_few_normals_give_their_maximum_and_a_warning(n, quantile, needed):
    threshold = thresholds.normal_quantile(np.arange(1.0, n + 1), quantile)
    assert threshold.value == n
    assert f"{n} validation normals are too few" in threshold.warning
    assert f"({needed} needed)" in threshold.warning
    assert thresholds.normal_quantile(np.arange(1.0, needed + 1), quantile).warning is None


def test_no_normals_no_threshold():
    threshold = thresholds.normal_quantile(np.empty(0))
    assert math.isnan(threshold.value)
    assert "no validation normals" in threshold.warning


@pytest.mark.parametrize("quantile", [0.0, 1.0, 95.0, math.nan])
def test_quantile_out_of_range_is_refused(quantile):
    with pytest.raises(UserError, match="between 0 and 1"):
        thresholds.normal_quantile(np.ones(30), quantile)


def test_p_value_hand_table():
    normals = np.array([1.0, 2.0, 2.0, 3.0])
    p = thresholds.conformal_p_values(np.array([0.0, 2.0, 2.5, 3.0, 9.0]), normals)
    assert p.tolist() == pytest.approx([1.0, 4 / 5, 2 / 5, 2 / 5, 1 / 5])


@settings(deadline=None)
@given(normals_and_score)
def test_p_value_and_threshold_say_the_same(table):
    normals, score = (np.array(values, float) for values in table)
    called = score > thresholds.normal_quantile(normals, 0.95).value
    assert (called == (thresholds.conformal_p_values(score, normals) <= 0.05 + 1e-12)).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=80))
def test_exchangeable_normals_are_never_too_surprising(values):
    # each in turn against the others: exactly the average over all orders, so super-uniform without luck
    values = np.array(values, float)
    p = np.array([thresholds.conformal_p_values(values[[i]], np.delete(values, i))[0] for i in range(len(values))])
    for level in np.arange(1, len(values) + 1) / len(values):
        assert (p <= level + 1e-12).mean() <= level + 1e-12


def test_p_values_without_ties_are_uniform():
    values = np.random.default_rng(0).permutation(50).astype(float)
    p = [thresholds.conformal_p_values(values[[i]], np.delete(values, i))[0] for i in range(50)]
    assert sorted(p) == pytest.approx(np.arange(1, 51) / 50)


def test_confusion_hand_table():
    label = np.array([1, 1, 1, 0, 0, 0, 0])
    predicted = np.array([True, True, False, True, False, False, False])  # tp 2, fn 1, fp 1, tn 3
    assert thresholds.confusion_metrics(label, predicted) == pytest.approx(
        {
            "accuracy": 5 / 7,
            "balanced_accuracy": (2 / 3 + 3 / 4) / 2,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "specificity": 3 / 4,
            "f1": 2 / 3,
        }
    )


def test_a_share_of_nothing_is_zero():
    none_called = thresholds.confusion_metrics(np.array([0, 1]), np.array([False, False]))
    assert (none_called["precision"], none_called["f1"], none_called["balanced_accuracy"]) == (0, 0, 0.5)
    only_normals = thresholds.confusion_metrics(np.zeros(3, int), np.zeros(3, bool))
    assert (only_normals["recall"], only_normals["accuracy"], only_normals["balanced_accuracy"]) == (
        0,
        1,
        0.5,
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1))
def test_confusion_equals_scikit_learn(rows):
    label, predicted = (np.array(column) for column in zip(*rows, strict=True))
    ours = thresholds.confusion_metrics(label, predicted)
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(label, predicted))
    for name in ("precision", "recall", "f1"):
        theirs = getattr(metrics, f"{name}_score")(label, predicted, zero_division=0)
        assert ours[name] == pytest.approx(theirs)
    assert ours["specificity"] == pytest.approx(metrics.recall_score(1 - label, ~predicted, zero_division=0))


def test_best_f1_is_reached_at_its_threshold_and_nowhere_beaten():
    random = np.random.default_rng(0)
    label, score = random.integers(0, 2, 60), random.integers(0, 12, 60) / 7
    value, at = thresholds.best_f1(label, score)
    assert thresholds.confusion_metrics(label, score > at)["f1"] == pytest.approx(value)
    assert value == pytest.approx(max(metrics.f1_score(label, score > cut) for cut in [-1, *score]))
    assert all(map(math.isnan, thresholds.best_f1(np.zeros(3, int), np.arange(3.0))))
