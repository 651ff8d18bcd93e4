"""Hand tables."""

import math

import pytest
import torch

from anomaly_lab.losses.divergence import divergence_from_normal


def test_by_hand() -> None:
    """½ (μ² + σ² - 1 - log σ²): 0 and 2; ½ (4 - 1 - log 4) and ½ (1 + ¼ - 1 + log 4)."""
    mean = torch.tensor([[0.0, 2.0], [0.0, 1.0]])
    log_variance = torch.tensor([[0.0, 0.0], [math.log(4), -math.log(4)]])
    expected = [1.0, ((3 - math.log(4)) / 2 + (0.25 + math.log(4)) / 2) / 2]
    assert divergence_from_normal(mean, log_variance).tolist() == pytest.approx(expected)


def test_as_torch_says_of_distributions() -> None:
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    of, normal = torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(of, normal).mean(1)
    torch.testing.assert_close(divergence_from_normal(mean, log_variance), expected)


def test_in_float32_under_any_precision() -> None:
    half = torch.tensor([[3.0]], dtype=torch.bfloat16)
    assert divergence_from_normal(half, half).dtype == torch.float32
