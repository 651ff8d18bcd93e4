"""StyleGAN2's penalties against finite differences and linear networks."""

import math

import pytest
import torch
from torch import Tensor, nn

from anomaly_lab.losses.stylegan2 import path_lengths, r1_penalty
from anomaly_lab.networks.stylegan2 import StyleDiscriminator, StyleGenerator, channels_at

WIDTHS = channels_at((8, 8), width=2, channel_cap=4)


def test_r1_of_a_linear_discriminator_is_its_squared_norm() -> None:
    weight = torch.randn(1, 2, 3, 3)
    penalty = r1_penalty(lambda image: (image * weight).flatten(1).sum(1), torch.rand(5, 2, 3, 3))
    torch.testing.assert_close(penalty, weight.square().sum())


def test_r1_by_finite_differences() -> None:
    """The slope at every pixel of every image, and the penalty's own slope along a change of the weights."""
    torch.manual_seed(0)
    discriminator = StyleDiscriminator(1, WIDTHS, group=1).double()
    image, step = torch.randn(2, 1, 8, 8).double(), 1e-5
    total = 0.0
    with torch.no_grad():
        for pixel in torch.eye(64).double().view(64, 1, 8, 8):
            slope = (discriminator(image + step * pixel) - discriminator(image - step * pixel)) / (2 * step)
            total += slope.square().mean().item()
    assert r1_penalty(discriminator, image).item() == pytest.approx(total, rel=1e-6)
    check_slope(discriminator, lambda: r1_penalty(discriminator, image))


def test_path_lengths_by_finite_differences() -> None:
    torch.manual_seed(0)
    synthesis = StyleGenerator(3, 1, WIDTHS).synthesis.double()
    styles, step = torch.randn(2, synthesis.num_styles, 3).double(), 1e-5
    torch.manual_seed(4)
    found = path_lengths(synthesis, styles.clone().requires_grad_())
    torch.manual_seed(4)
    direction = torch.randn(2, 1, 8, 8, dtype=torch.float64) / 8  # √(H W)
    slopes = torch.zeros_like(styles)
    with torch.no_grad():
        for level in range(styles.shape[1]):
            for i in range(3):
                change = torch.zeros_like(styles)
                change[:, level, i] = step
                moved = (synthesis(styles + change) - synthesis(styles - change)) / (2 * step)
                slopes[:, level, i] = (moved * direction).flatten(1).sum(1)
    torch.testing.assert_close(found, slopes.square().sum(2).mean(1).sqrt(), rtol=1e-5, atol=1e-9)

    def penalty() -> Tensor:
        torch.manual_seed(4)
        return (path_lengths(synthesis, styles.clone().requires_grad_()) - 0.3).square().mean()

    check_slope(synthesis, penalty)


def check_slope(network: nn.Module, penalty: object) -> None:
    """The gradient of the penalty, which is a second derivative, along a random change of all weights."""
    assert callable(penalty)
    weights = list(network.parameters())
    slopes = torch.autograd.grad(penalty(), weights, allow_unused=True)
    changes, step = [torch.randn_like(weight) for weight in weights], 1e-5
    expected = sum((s * c).sum() for s, c in zip(slopes, changes, strict=True) if s is not None)
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for weight, change in zip(weights, changes, strict=True):
                weight += sign * step * change
        values.append(penalty().item())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(expected), rel=1e-4)


def test_the_direction_has_length_one_on_average() -> None:
    """An image that equals one style at all pixels: J = √(H W) · |N(0, 1)| / √(H W), whose square has mean 1."""
    styles = torch.zeros(4000, 1, 1, requires_grad=True)
    lengths = path_lengths(lambda w: w[:, :, :, None].expand(-1, 1, 4, 4), styles)
    assert lengths.square().mean().item() == pytest.approx(1, abs=0.1)
    assert lengths.mean().item() == pytest.approx(math.sqrt(2 / math.pi), abs=0.05)
