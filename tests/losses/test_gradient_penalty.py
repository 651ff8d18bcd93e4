"""The penalty against closed forms and finite differences."""

import pytest
import torch
from torch import Tensor, nn

from anomaly_lab.losses.gradient_penalty import gradient_penalty


def test_of_a_linear_critic_is_exact() -> None:
    """D(x) = <a, x> has slope a everywhere: (|a| - 1)²."""
    a = torch.randn(1, 4, 4)
    real, fake = torch.randn(2, 5, 1, 4, 4)
    penalty = gradient_penalty(lambda x: (x * a).flatten(1).sum(1), real, fake)
    assert penalty.item() == pytest.approx((a.norm().item() - 1) ** 2, rel=1e-5)


def test_of_a_unit_slope_is_zero() -> None:
    a = nn.functional.normalize(torch.randn(16), dim=0).reshape(1, 4, 4)
    real, fake = torch.randn(2, 5, 1, 4, 4)
    assert gradient_penalty(lambda x: (x * a).flatten(1).sum(1), real, fake).item() == pytest.approx(0, abs=1e-10)


def test_equals_finite_differences() -> None:
    """Slope by central differences of a smooth critic, in float64, at the same points between real and fake."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 1)).double()
    real, fake = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    torch.manual_seed(1)
    t = torch.rand(3, 1, 1, 1).double()
    between, h = torch.lerp(real, fake, t), 1e-5
    slopes = []
    for pixel in torch.eye(4, dtype=torch.float64).reshape(4, 1, 1, 2, 2):
        slopes.append((critic(between + h * pixel) - critic(between - h * pixel)).squeeze(1) / (2 * h))
    expected = (torch.stack(slopes, 1).norm(dim=1) - 1).square().mean().item()

    torch.manual_seed(1)
    found = gradient_penalty(lambda x: critic.float()(x).squeeze(1), real, fake)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_gradient_reaches_the_critics_weights() -> None:
    """d/da of (|a| - 1)² is 2 (|a| - 1) a / |a|."""
    a = torch.randn(1, 4, 4, requires_grad=True)
    real, fake = torch.randn(2, 5, 1, 4, 4)
    gradient_penalty(lambda x: (x * a).flatten(1).sum(1), real, fake).backward()
    norm = a.detach().norm()
    torch.testing.assert_close(a.grad, 2 * (norm - 1) * a.detach() / norm)


def test_one_weight_a_sample_between_real_and_fake() -> None:
    seen = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    gradient_penalty(critic, torch.zeros(6, 1, 3, 3), torch.ones(6, 1, 3, 3))
    between = seen[0].flatten(1)
    assert torch.equal(between, between[:, :1].expand(-1, 9))
    assert between[:, 0].unique().numel() == 6
    assert between.min() >= 0
    assert between.max() <= 1


def test_stays_in_float32_under_autocast() -> None:
    kinds = []

    def critic(x: Tensor) -> Tensor:
        kinds.append((x @ torch.ones(3, 3)).dtype)
        return x.flatten(1).sum(1)

    with torch.autocast("cpu", torch.bfloat16):
        penalty = gradient_penalty(critic, torch.rand(2, 1, 3, 3).bfloat16(), torch.rand(2, 1, 3, 3).bfloat16())
    assert kinds == [torch.float32]
    assert penalty.dtype == torch.float32


def test_of_a_flat_critic_has_a_gradient() -> None:
    """At slope 0 the root has no derivative: without the guard this is nan."""
    a = torch.zeros(1, 2, 2, requires_grad=True)
    gradient_penalty(lambda x: (x * a).flatten(1).sum(1), torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)).backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
