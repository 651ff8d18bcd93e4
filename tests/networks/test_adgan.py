"""Sizes and properties of the strided networks."""

import pytest
import torch
from torch import nn

from anomaly_lab.networks.adgan import AdGANCritic, AdGANGenerator, layer_widths


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("channels", "generator", "critic"), [(1, 1_555_073, 3_124_225), (3, 1_558_275, 3_127_425)])
def test_parameter_counts_are_the_papers(channels: int, generator: int, critic: int) -> None:
    """METHODS §7.1, computed by hand there from figure 1."""
    assert count(AdGANGenerator(128, channels, (32, 32))) == generator
    assert count(AdGANCritic(channels, (32, 32))) == critic


@pytest.mark.parametrize(
    ("side", "widths"),
    [(8, [64, 128]), (32, [64, 128, 256, 512]), (64, [64, 128, 256, 512, 512]), (128, [64, 128, 256, 512, 512, 512])],
)
def test_widths_are_counted_from_the_picture(side: int, widths: list[int]) -> None:
    assert layer_widths((side, side), 64) == widths


@pytest.mark.parametrize("patch_size", [(4, 4), (48, 48), (32, 64), (32,), (32, 32, 32)])
def test_other_sizes_are_refused(patch_size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="power of two"):
        layer_widths(patch_size, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 32, 64])
def test_shapes_and_ranges(side: int, channels: int) -> None:
    image = AdGANGenerator(16, channels, (side, side), 4)(torch.randn(2, 16))
    assert image.shape == (2, channels, side, side)
    assert image.abs().max() <= 1
    critic = AdGANCritic(channels, (side, side), 4)
    assert critic(image).shape == (2,)
    assert critic.features(image).shape == (2, critic.num_features)


def test_the_critic_mixes_no_samples_even_in_training() -> None:
    critic = AdGANCritic(1, (32, 32), 4).train()
    image = torch.randn(3, 1, 32, 32)
    alone = torch.cat([critic(one[None]) for one in image])
    torch.testing.assert_close(critic(image), alone)


def test_weights_are_scaled_as_in_the_authors_code() -> None:
    """√(4/(fan_in+fan_out)) before a rectifier, √(2/…) of the last; the coarse side's fan divided by stride²."""
    critic, generator = AdGANCritic(1, (32, 32)), AdGANGenerator(128, 1, (32, 32))
    second, up, whole = critic.layers[2], generator.layers[2], critic.layers[6]
    assert second.weight.std().item() == pytest.approx((4 / (25 * 64 + 25 * 128 / 4)) ** 0.5, rel=0.02)
    assert up.weight.std().item() == pytest.approx((4 / (25 * 256 / 4 + 25 * 128)) ** 0.5, rel=0.02)
    assert whole.weight.std().item() == pytest.approx((4 / (16 * 256 + 16 * 512)) ** 0.5, rel=0.02)
    assert generator.last.weight.std().item() == pytest.approx((2 / (25 * 64 / 4 + 25)) ** 0.5, rel=0.05)
    assert not any(m.bias.any() for m in generator.modules() if isinstance(m, nn.ConvTranspose2d | nn.Linear))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 32])
def test_its_slope_is_autograds_and_so_is_the_penaltys_gradient(side: int, channels: int) -> None:
    torch.manual_seed(0)
    critic = AdGANCritic(channels, (side, side), 4).double()
    for bias in (p for name, p in critic.named_parameters() if name.endswith("bias")):
        nn.init.normal_(bias, 0, 0.1)
    image = torch.randn(5, channels, side, side, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(critic(image).sum(), image, create_graph=True)
    slope = critic.slope(image.detach())
    torch.testing.assert_close(slope, expected)
    weights = list(critic.parameters())
    ours, theirs = (
        torch.autograd.grad((s.flatten(1).norm(dim=1) - 1).square().mean(), weights, materialize_grads=True)
        for s in (slope, expected)
    )
    torch.testing.assert_close(ours, theirs)
    assert any(gradient.abs().max() > 0 for gradient in ours)
