"""Density and choice of the bandwidth against scikit-learn."""

import pytest
import torch
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity
from toys import Fit, Toy, smooth

from anomaly_lab.detectors.kde import BANDWIDTHS, KDE, cross_validated

TOY = Toy({"samples": 256, "batch_size": 16})


@pytest.mark.parametrize("bandwidth", BANDWIDTHS[::3])
def test_scores_are_scikit_learns(fit: Fit, bandwidth: float) -> None:
    detector = fit(KDE(samples=60, batch_size=20, bandwidths=(bandwidth,)), smooth(200, seed=1), batch_size=20)
    judge = KernelDensity(bandwidth=bandwidth).fit(detector.machine.rows.double())
    others = smooth(50, seed=2)
    expected = -torch.from_numpy(judge.score_samples((others.flatten(1).double() + 1) / 2))
    score = detector.score({"image": others}).anomaly_score
    torch.testing.assert_close(score.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_bandwidths_are_the_authors() -> None:
    assert (BANDWIDTHS[0], BANDWIDTHS[-1], len(BANDWIDTHS)) == (2**0.5, 2**5, 10)


def test_log_likelihoods_are_scikit_learns() -> None:
    torch.manual_seed(0)
    rows, widths = torch.randn(50, 3).double(), (0.05, 0.2, 0.5, 1.0, 4.0)
    torch.manual_seed(1)
    found = cross_validated(rows, widths)
    torch.manual_seed(1)
    shuffled = torch.unique(rows, dim=0)[torch.randperm(50)]
    search = GridSearchCV(KernelDensity(), {"bandwidth": widths}, cv=KFold(5)).fit(shuffled)
    expected = torch.from_numpy(search.cv_results_["mean_test_score"] * 5)
    torch.testing.assert_close(found, expected)
    assert widths[int(found.argmax())] == search.best_params_["bandwidth"]


def test_twins_do_not_narrow_the_density() -> None:
    rows = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)).double()
    widths = (1e-3, 0.1, 0.5, 1.0)
    torch.manual_seed(0)
    once = cross_validated(rows, widths)
    torch.manual_seed(0)
    torch.testing.assert_close(cross_validated(rows.repeat(3, 1), widths), once)
    assert widths[int(once.argmax())] > 0.1


def test_too_few_images_take_the_first_bandwidth(fit: Fit) -> None:
    pictures = smooth(3, seed=0)
    detector = fit(KDE(samples=8, batch_size=4), pictures)
    assert detector.machine.gamma.item() == pytest.approx(0.25)
    assert detector.score({"image": pictures}).anomaly_score.isfinite().all()
