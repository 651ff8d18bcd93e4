"""Hand table."""

import torch

from anomaly_lab.losses.reconstruction import mean_squared


def test_mean_squared_is_per_sample() -> None:
    x = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    x_hat = torch.tensor([[[[1.0, 4.0]]], [[[3.0, 1.0]]]])
    assert mean_squared(x, x_hat).tolist() == [2.0, 5.0]
