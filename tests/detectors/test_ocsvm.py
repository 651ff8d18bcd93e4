"""The one-class SVM in torch against scikit-learn."""

import pytest
import torch
from sklearn.svm import OneClassSVM
from toys import Fit, Toy, smooth

from anomaly_lab.detectors.ocsvm import OCSVM

TOY = Toy({"samples": 256, "batch_size": 16})


@pytest.mark.parametrize("gamma", [None, 0.02])
@pytest.mark.parametrize("nu", [0.1, 0.5])
def test_scores_are_scikit_learns(fit: Fit, nu: float, gamma: float | None) -> None:
    detector = fit(OCSVM(samples=60, batch_size=20, nu=nu, gamma=gamma), smooth(200, seed=1), batch_size=20)
    gathered = detector.machine.rows.double().numpy()
    judge = OneClassSVM(nu=nu, gamma=gamma or "scale").fit(gathered)
    others = smooth(50, seed=2)
    expected = -torch.from_numpy(judge.decision_function((others.flatten(1).double() + 1) / 2))
    score = detector.score({"image": others}).anomaly_score
    torch.testing.assert_close(score.double(), expected, rtol=1e-5, atol=1e-5)


def test_nu_lies_between_the_outliers_and_the_support_vectors(fit: Fit) -> None:
    """Schölkopf et al. 2001, proposition 3: a fraction <= nu has the largest weight, a fraction >= nu has one."""
    detector = fit(OCSVM(samples=100, batch_size=50, nu=0.2), smooth(150, seed=1), batch_size=50)
    weights = detector.machine.weights
    assert (weights > 1 - 1e-6).float().mean() <= 0.2 <= (weights > 0).float().mean()


@pytest.mark.parametrize("nu", [0.0, 1.0])
def test_a_nu_that_is_no_fraction_is_refused(nu: float) -> None:
    with pytest.raises(ValueError, match="nu"):
        OCSVM(nu=nu)
