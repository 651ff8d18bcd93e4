import pytest
import torch
from torch import nn

from anomaly_lab.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from anomaly_lab.networks.stages import stage_widths


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("side", "channels", "generator", "discriminator"),
    # the same layers as GANomaly's decoder and discriminator, whose authors' modules have been counted
    [(32, 1, 1_066_880, 661_248), (32, 3, 1_068_928, 663_296), (64, 1, 3_574_656, 2_763_520)],
)
def test_as_many_weights_as_published(side: int, channels: int, generator: int, discriminator: int) -> None:
    assert count(DCGANGenerator(100, channels, (side, side))) == generator
    assert count(DCGANDiscriminator(channels, (side, side))) == discriminator


@pytest.mark.parametrize("side", [8, 32, 128])
def test_shapes_and_ranges(side: int) -> None:
    generator, discriminator = DCGANGenerator(5, 3, (side, side), 2), DCGANDiscriminator(3, (side, side), 2)
    fake = generator(torch.randn(4, 5))
    assert fake.shape == (4, 3, side, side)
    assert fake.abs().max() <= 1
    assert discriminator(fake).shape == (4,)
    features = discriminator.features(fake)
    assert features.shape == (4, stage_widths((side, side), 2)[-1] * 16)
    assert torch.equal(discriminator.last(features)[:, 0], discriminator(fake))


def test_drawn_as_dcgan_is() -> None:
    torch.manual_seed(0)
    generator = DCGANGenerator(100, 1, (32, 32))
    assert generator.first.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert generator.norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert generator.norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not generator.norm.bias.any()
