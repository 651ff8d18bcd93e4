"""Threshold and p-values from normals, and the rates at a threshold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
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
    assert thresholds.normal_quantile(normals, quantile)[:4] == (rank, quantile, n, None)


@pytest.mark.parametrize("score", [0.1, 0.3, 7e-40, 2.3e200, 1.0000000000000002])
@pytest.mark.parametrize("n", [2, 7, 12])
def test_equal_normals_are_not_above_their_bound(n, score):
    found = thresholds.from_normals(np.full(n, score), 0.95)
    assert found.method == "log_normal"
    assert found.value >= score
    assert found.value == pytest.approx(score, rel=1e-9)


def test_normals_equal_but_for_rounding_are_not_above_their_bound():
    normals = np.exp(np.random.default_rng(0).permutation([-90.1, np.nextafter(-90.1, 0), np.nextafter(-90.1, -91)]))
    assert thresholds.from_normals(normals, 0.5).value >= normals.max()


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


def draws(kind: str, n: int, times: int, seed: int = 0) -> np.ndarray:
    """Positive scores of normals, [times, n]."""
    random = np.random.default_rng(seed)
    return {
        "normal": lambda: random.normal(10, 2, (times, n)).clip(0.01),
        "log-normal": lambda: random.lognormal(0, 0.7, (times, n)),
        "gamma": lambda: random.gamma(4, 1, (times, n)),
    }[kind]()


def true_specificity(kind: str, values: np.ndarray) -> np.ndarray:
    distribution = {"normal": stats.norm(10, 2), "log-normal": stats.lognorm(0.7), "gamma": stats.gamma(4)}[kind]
    return distribution.cdf(values)


@pytest.mark.parametrize("kind", ["normal", "log-normal", "gamma"])
def test_the_bound_of_eight_normals_is_nearer_the_purpose_than_their_maximum(kind: str) -> None:
    normals = draws(kind, 8, 400)
    bound = true_specificity(kind, np.array([thresholds.from_normals(row).value for row in normals]))
    maximum = true_specificity(kind, normals.max(1))
    assert abs(bound.mean() - 0.95) < 0.02  # the maximum's mean is 8/9
    assert abs(maximum.mean() - 8 / 9) < 0.02
    assert bound.std() < maximum.std()


@pytest.mark.parametrize("kind", ["normal", "log-normal", "gamma"])
@pytest.mark.parametrize(("n", "quantile"), [(25, 0.95), (25, 0.8), (100, 0.95)])
def test_the_range_of_a_rank_covers_the_true_specificity(kind: str, n: int, quantile: float) -> None:
    found = [thresholds.from_normals(row, quantile) for row in draws(kind, n, 600)]
    assert {each.method for each in found} == {"order_statistic"}
    true = true_specificity(kind, np.array([each.value for each in found]))
    low, high = found[0].specificity  # the same for all: it asks for no score
    assert 0.93 <= ((low <= true) & (true <= high)).mean() <= 0.97


@pytest.mark.parametrize("n", [3, 8, 19])
@pytest.mark.parametrize("quantile", [0.5, 0.8, 0.95])
def test_the_range_of_the_bound_covers_where_logarithms_are_normal(n: int, quantile: float) -> None:
    found = [thresholds.from_normals(row, quantile) for row in draws("log-normal", n, 300)]
    true = true_specificity("log-normal", np.array([each.value for each in found]))
    low, high = found[0].specificity
    assert 0.91 <= ((low <= true) & (true <= high)).mean() <= 0.98
    assert true.mean() == pytest.approx(quantile, abs=0.05)


def test_scores_of_one_patient_count_as_one() -> None:
    normals, patients = np.exp(np.random.default_rng(0).normal(size=40)), [f"p{i // 8}" for i in range(40)]
    alone, together = thresholds.from_normals(normals), thresholds.from_normals(normals, patient=patients)
    assert (alone.value, alone.num_patients) == (together.value, 40)
    assert together.num_patients == 5
    assert together.specificity[0] < alone.specificity[0] - 0.1
    few = thresholds.from_normals(normals[:16], patient=patients[:16])  # two patients: nearly nothing is known
    assert few.value > 10 * thresholds.from_normals(normals[:16]).value
    one = thresholds.from_normals(normals[:8], patient=["p"] * 8)  # no variance between patients
    assert (one.method, one.value) == ("order_statistic", normals[:8].max())


def test_a_probability_never_has_a_threshold_above_one() -> None:
    normals = np.array([0.02, 0.03, 0.04, 0.1, 0.2, 0.45])
    assert thresholds.from_normals(normals).value > 1
    bounded = thresholds.from_normals(normals, probabilities=True)
    assert normals.max() < bounded.value < 1
    assert bounded.method == "logit_normal"
    certain = thresholds.from_normals(np.append(normals, 1.0), probabilities=True)
    assert (certain.method, certain.value) == ("order_statistic", 1.0)


@pytest.mark.parametrize("normals", [[0.0, 1.0, 2.0], [-3.0, 1.0, 2.0], [5.0], [1e300, 1e-300, 1.0], [2.0, 2.0, 2.0]])
@pytest.mark.parametrize("quantile", [1e-30, 0.5, 0.95, 1 - 1e-12])
def test_any_normals_have_a_finite_threshold_and_a_range(normals: list[float], quantile: float) -> None:
    found = thresholds.from_normals(np.array(normals), quantile)
    assert math.isfinite(found.value)
    assert 0 <= found.specificity[0] <= found.specificity[1] <= 1


def test_a_quantile_near_zero_is_the_lowest_normal() -> None:
    assert thresholds.normal_quantile(np.arange(1.0, 31.0), 1e-30).value == 1.0
