"""Distances between sets of features, by hand and against torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from anomaly_lab.metrics import generation
from anomaly_lab.metrics.generation import (
    frechet_distance,
    kernel_distance,
    kernel_distance_and_error,
    precision_and_recall,
    spread,
)


class Rows(nn.Module):
    """Images that are features already."""

    num_features = 5

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def two_sets(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 5)), rng.normal(0.5, 2.0, size=(n, 5)) @ rng.normal(size=(5, 5))


@pytest.mark.parametrize("n", [4, 50])  # fewer images than features as well
def test_they_equal_torchmetrics(n: int) -> None:
    sets = two_sets(n)
    frechet = FrechetInceptionDistance(Rows()).set_dtype(torch.float64)
    kernel = KernelInceptionDistance(Rows(), subsets=1, subset_size=n)
    for metric in (frechet, kernel):
        for features, real in zip(sets, (True, False), strict=True):
            metric.update(torch.from_numpy(features).view(n, 5, 1, 1), real=real)
    assert frechet_distance(*sets) == pytest.approx(float(frechet.compute()), rel=1e-4)
    assert kernel_distance(*sets) == pytest.approx(float(kernel.compute()[0]), rel=1e-4)


def test_frechet_distance_by_hand() -> None:
    """Of one-dimensional Gaussians: (difference of means)² + (difference of deviations)²."""
    x, y = np.array([[-1.0], [1.0]]), np.array([[0.0], [6.0]])
    assert frechet_distance(x, y) == pytest.approx(9 + (np.sqrt(2) - np.sqrt(18)) ** 2)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_kernel_distance_by_hand() -> None:
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    assert kernel_distance(x, y) == pytest.approx(1 + 7**3 - 2 * (1 + 1 + 3**3 + 4**3) / 4)


def test_kernel_distance_of_equal_distributions_is_0_on_average() -> None:
    rng = np.random.default_rng(1)
    values = [kernel_distance(rng.normal(size=(8, 3)), rng.normal(size=(12, 3))) for _ in range(500)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(500)
    assert min(values) < 0


def test_spread_by_hand() -> None:
    assert spread(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx(10 / 3)
    assert spread(np.ones((4, 2))) == 0


def test_frechet_distance_is_that_of_the_matrix_square_root() -> None:
    x, y = two_sets(60)
    of_x, of_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(of_x + of_y - 2 * sqrtm(of_x @ of_y).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)


def pairwise_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Bińkowski et al. 2018, eq. 4, pair by pair."""

    def mean(one: np.ndarray, other: np.ndarray, skip: bool) -> float:
        values = []
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                if not (skip and i == j):
                    values.append((sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3)
        return sum(values) / len(values)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (13, 9), (30, 22)])
def test_kernel_distance_and_its_jackknife_pair_by_pair(n: int, m: int) -> None:
    x, y = two_sets(30)
    x, y = x[:n], y[:m]
    groups = min(10, n // 2, m // 2)
    without = []
    for i in range(groups):
        kept = [np.concatenate([part for j, part in enumerate(np.array_split(z, groups)) if j != i]) for z in (x, y)]
        without.append(pairwise_kernel_distance(*kept))
    value, error = kernel_distance_and_error(x, y)
    assert value == pytest.approx(pairwise_kernel_distance(x, y))
    assert value == pytest.approx(kernel_distance(x, y))
    assert error == pytest.approx(np.sqrt((groups - 1) * np.var(without)))


@pytest.mark.parametrize(("shift", "factor"), [(0.0, np.sqrt(2)), (0.5, 1.0)])
def test_the_error_of_the_kernel_distance_is_its_deviation_over_samples(shift: float, factor: float) -> None:
    """Or larger: of equal distributions the linear part of the statistic, which the jackknife relies on, vanishes."""
    rng = np.random.default_rng(0)
    found = [kernel_distance_and_error(rng.normal(size=(60, 3)), rng.normal(shift, 1, (60, 3))) for _ in range(300)]
    values, errors = np.array(found).T
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(factor * values.std(), rel=0.15)


def in_a_ball(x: np.ndarray, members: np.ndarray, k: int) -> float:
    """Kynkäänniemi et al. 2019, eq. 1, member by member."""
    inside = 0
    for point in x:
        for i, member in enumerate(members):
            others = sorted(np.linalg.norm(member - other) for j, other in enumerate(members) if j != i)
            if np.linalg.norm(point - member) <= others[k - 1]:
                inside += 1
                break
    return inside / len(x)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("block", [7, 1024])
def test_precision_and_recall_member_by_member(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "BLOCK", block)
    real, fake = two_sets(40)
    fake = fake[:25] / 4 + 100
    real = real + 100
    expected = in_a_ball(fake, real, k), in_a_ball(real, fake, k)
    assert precision_and_recall(real, fake, k) == pytest.approx(expected)
    assert 0 < min(expected) < 1


def test_precision_and_recall_of_a_collapsed_and_of_a_perfect_generator() -> None:
    real, _ = two_sets(50)
    assert precision_and_recall(real, np.repeat(real[:1], 50, 0) + 1e-9) == (1.0, 0.0)
    assert precision_and_recall(real, real) == (1.0, 1.0)
    assert precision_and_recall(real, real + 1000) == (0.0, 0.0)
