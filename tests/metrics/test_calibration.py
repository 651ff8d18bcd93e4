"""Calibration: hand tables, parity with torchmetrics and scikit-learn, and temperatures that are found again."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from anomaly_lab.metrics.calibration import BINS, HOTTEST, claims, fit_temperature, log_loss, reliability, tempered

RANDOM = np.random.default_rng(5)
N, K = 400, 3
LOGITS = RANDOM.normal(size=(N, K)) * 2
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
LOGISTIC = 1 / (1 + np.exp(-LOGITS))
ONE_OF = np.array([RANDOM.multinomial(1, p) for p in SOFTMAX], np.int8)
SEVERAL = (RANDOM.random((N, K)) < LOGISTIC).astype(np.int8)


def test_the_hand_table():
    """Bins (0, .5] and (.5, 1]: confidences .25 and .7 (mean of .6, .8), shares 1 and 1/2; error (.75 + 2 · .2) / 3."""
    curve = reliability(np.array([0.25, 0.6, 0.8]), np.array([True, False, True]), bins=2)
    assert curve.claims.tolist() == [1, 2]
    assert curve.confidence.tolist() == pytest.approx([0.25, 0.7])
    assert curve.share.tolist() == [1.0, 0.5]
    assert curve.error == pytest.approx((0.75 + 2 * 0.2) / 3)


def test_the_ends_of_the_range_have_their_bins():
    assert reliability(np.array([0.0, 1.0]), np.array([False, True])).error == 0.0
    assert reliability(np.array([0.0, 1.0]), np.array([True, False])).error == 1.0


def test_expected_calibration_errors_equal_torchmetrics():
    ours = reliability(*claims(ONE_OF, SOFTMAX, exclusive=True)).error
    theirs = multiclass_calibration_error(torch.tensor(SOFTMAX), torch.tensor(ONE_OF).argmax(1), K, n_bins=BINS)
    assert ours == pytest.approx(theirs.item(), abs=1e-6)
    ours = reliability(*claims(SEVERAL, LOGISTIC, exclusive=False)).error
    theirs = binary_calibration_error(torch.tensor(LOGISTIC).ravel(), torch.tensor(SEVERAL).ravel().long(), n_bins=BINS)
    assert ours == pytest.approx(theirs.item(), abs=1e-6)


def test_log_losses_equal_scikit_learn():
    assert log_loss(ONE_OF, SOFTMAX, exclusive=True) == pytest.approx(metrics.log_loss(ONE_OF, SOFTMAX))
    assert log_loss(SEVERAL, LOGISTIC, exclusive=False) == pytest.approx(
        metrics.log_loss(SEVERAL.ravel(), LOGISTIC.ravel())
    )


def test_unknown_cells_count_nowhere():
    target, probability = SEVERAL.copy(), LOGISTIC.copy()
    target[::3, 0] = -1
    rows = np.arange(N) % 3 > 0
    known = np.concatenate([target[rows, 0], target[:, 1], target[:, 2]])[:, None]
    same = np.concatenate([probability[rows, 0], probability[:, 1], probability[:, 2]])[:, None]
    assert log_loss(target, probability, exclusive=False) == pytest.approx(log_loss(known, same, exclusive=False))
    assert len(claims(target, probability, exclusive=False)[0]) == len(known)
    temperatures = [fit_temperature(*each, exclusive=False) for each in ((target, probability), (known, same))]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-4)


def test_tempering_divides_the_logits():
    for exclusive, probability in ((True, SOFTMAX), (False, LOGISTIC)):
        hot = tempered(probability, 3.0, exclusive)
        logits = LOGITS / 3
        theirs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) if exclusive else 1 / (1 + np.exp(-logits))
        assert hot == pytest.approx(theirs)
        assert tempered(probability, 1.0, exclusive) == pytest.approx(probability)
        assert np.array_equal(hot.argmax(1), probability.argmax(1))  # no decision between classes changes


@pytest.mark.parametrize("wrong", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_wrong_temperature_is_found_and_undone(wrong, exclusive):
    probability, target = (SOFTMAX, ONE_OF) if exclusive else (LOGISTIC, SEVERAL)
    distorted = tempered(probability, wrong, exclusive)
    found = fit_temperature(target, distorted, exclusive)
    assert found == pytest.approx(fit_temperature(target, probability, exclusive) / wrong, rel=1e-3)
    assert log_loss(target, tempered(distorted, found, exclusive), exclusive) <= log_loss(target, distorted, exclusive)
    assert found * wrong == pytest.approx(1, abs=0.2)  # the probabilities were true to begin with


def test_the_temperature_is_that_of_a_logistic_regression_without_an_intercept():
    fitted = LogisticRegression(C=1e9, fit_intercept=False).fit(LOGITS[:, :1] * 2.5, SEVERAL[:, 0])
    ours = fit_temperature(SEVERAL[:, :1], 1 / (1 + np.exp(-LOGITS[:, :1] * 2.5)), exclusive=False)
    assert 1 / ours == pytest.approx(fitted.coef_.item(), rel=1e-3)


def test_certain_and_impossible_claims_stay_finite():
    sure, target = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1, 0], [1, 0]], np.int8)
    for exclusive in (True, False):
        assert np.isfinite(tempered(sure, 5.0, exclusive)).all()
        assert math.isfinite(log_loss(target, sure, exclusive))
        assert fit_temperature(target, sure, exclusive) == pytest.approx(HOTTEST)
        assert 1 / HOTTEST <= fit_temperature(sure.astype(np.int8), sure * 0.8 + 0.1, exclusive) < 1.2 / HOTTEST
        assert fit_temperature(target, np.full((2, 2), 0.5), exclusive) == 1.0  # none is better


def test_nothing_known_has_no_temperature():
    empty, unknown = np.empty((0, 2)), np.full((3, 2), -1, np.int8)
    assert math.isnan(fit_temperature(empty.astype(np.int8), empty, exclusive=True))
    assert math.isnan(fit_temperature(unknown, np.full((3, 2), 0.5), exclusive=False))
    assert math.isnan(reliability(np.empty(0), np.empty(0, bool)).error)
