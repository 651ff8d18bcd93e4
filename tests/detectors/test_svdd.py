"""Spheres whose centre is known, and the Gaussian kernel's against the one-class SVM."""

import pytest
import torch
from sklearn.svm import OneClassSVM
from torch import Tensor
from toys import Fit, Toy, smooth

from anomaly_lab.detectors.svdd import SVDD

TOY = Toy({"samples": 256, "batch_size": 16})


def learnt(rows: Tensor, **changes: object) -> SVDD:
    """A description of these rows [n, 4], as if they were gathered pixels."""
    detector = SVDD(**{"patch_size": (2, 2), "samples": len(rows), **changes})
    detector.machine.gather(rows)
    detector.learn()
    return detector


def image(row: Tensor) -> dict[str, Tensor]:
    return {"image": (row * 2 - 1).view(-1, 1, 2, 2)}


def test_the_smallest_sphere_about_all_by_hand() -> None:
    """nu = 1/n leaves none outside: of 0, .1, .3 and 1 on a line the centre is .5, of a square's corners the middle."""
    line = torch.zeros(4, 4)
    line[:, 0] = torch.tensor([0.0, 0.1, 0.3, 1.0])
    score = learnt(line, nu=0.25).score(image(line)).anomaly_score
    torch.testing.assert_close(score, torch.tensor([0.25, 0.16, 0.04, 0.25]), rtol=0, atol=1e-3)
    square = torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    score = learnt(square, nu=0.25).score(image(square)).anomaly_score
    torch.testing.assert_close(score, torch.full((4,), 0.5), rtol=0, atol=1e-3)


def test_a_row_far_out_is_given_up() -> None:
    """nu near 1 weighs all alike, which makes the centre the mean; less lets the centre leave outliers behind."""
    torch.manual_seed(0)
    rows = torch.rand(40, 4) * 0.1
    rows[-1] = 1.0
    mean = learnt(rows, nu=0.9999)
    torch.testing.assert_close(
        mean.score(image(rows)).anomaly_score, (rows - rows.mean(0)).square().sum(1), rtol=1e-2, atol=1e-4
    )
    hard, soft = learnt(rows, nu=0.025), learnt(rows, nu=0.2)
    assert soft.score(image(rows[-1:])).anomaly_score > hard.score(image(rows[-1:])).anomaly_score


def test_the_gaussian_spheres_order_is_the_one_class_svms(fit: Fit) -> None:
    detector = fit(SVDD(samples=60, batch_size=20, kernel="rbf", nu=0.3), smooth(200, seed=1), batch_size=20)
    rows = detector.machine.rows.double().numpy()
    svm = OneClassSVM(nu=0.3, gamma="scale", tol=1e-6).fit(rows)
    others = smooth(50, seed=2)
    decision = torch.from_numpy(svm.decision_function((others.flatten(1).double() + 1) / 2))
    # |φ|² - 2 φ·c + |c|² with c = Σ alpha φ_i / (nu · n), where the decision is Σ alpha k + intercept
    alpha = torch.from_numpy(svm.dual_coef_[0]) / svm.dual_coef_.sum()
    support = torch.from_numpy(svm.support_vectors_)
    norm = alpha @ (-svm._gamma * torch.cdist(support, support).square()).exp() @ alpha
    expected = 1 - 2 * (decision - svm.intercept_[0]) / svm.dual_coef_.sum() + norm
    score = detector.score({"image": others}).anomaly_score
    torch.testing.assert_close(score.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_most_normals_are_within_the_sphere(fit: Fit, kernel: str) -> None:
    """Those with the largest weight are outside, those without one inside, and at most nu of all are outside."""
    detector = fit(SVDD(samples=100, batch_size=50, kernel=kernel, nu=0.2), smooth(150, 1), batch_size=50)
    gathered = (detector.machine.rows * 2 - 1).view(-1, 1, 32, 32)
    score, weights = detector.score({"image": gathered}).anomaly_score, detector.machine.weights.abs()
    bounded = weights > weights.max() * 0.999
    on_it = (weights > 0) & ~bounded
    assert bounded.float().mean() <= 0.2
    assert score[weights == 0].max() <= score[on_it].mean() * 1.01
    assert score[bounded].min() >= score[on_it].mean() * 0.99
