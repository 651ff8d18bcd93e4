"""Distances between sets of features, by hand and against torchmetrics."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from anomaly_lab.metrics.generation import frechet_distance, kernel_distance, spread


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
