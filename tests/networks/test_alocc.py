import pytest
import torch
from torch import nn

from anomaly_lab.networks.alocc import ALOCCDiscriminator, Reconstructor


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("channels", [1, 3])
def test_as_many_weights_as_by_hand(channels: int) -> None:
    inner = 25 * (64 * 128 + 128 * 256)  # of the 5×5 convolutions but the one at the picture
    encoder = 25 * channels * 64 + inner + 2 * (64 + 128 + 256)  # batch norm has two numbers a channel
    decoder = inner + 2 * (128 + 64) + 25 * 64 * channels + channels
    assert count(Reconstructor(channels, (32, 32))) == encoder + decoder
    discriminator = 25 * channels * 64 + 64 + inner + 2 * (128 + 256) + 4 * 4 * 256 + 1
    assert count(ALOCCDiscriminator(channels, (32, 32))) == discriminator


@pytest.mark.parametrize("side", [8, 32, 64])
def test_shapes_and_ranges(side: int) -> None:
    image = torch.rand(4, 3, side, side) * 2 - 1
    reconstruction = Reconstructor(3, (side, side), 2)(image)
    assert reconstruction.shape == image.shape
    assert reconstruction.abs().max() <= 1
    assert ALOCCDiscriminator(3, (side, side), 2)(reconstruction).shape == (4,)


def test_the_bottleneck_is_four_by_four() -> None:
    assert Reconstructor(1, (64, 64), 2).encoder(torch.zeros(1, 1, 64, 64)).shape == (1, 16, 4, 4)
