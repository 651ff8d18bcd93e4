from collections.abc import Iterator

import pytest
import torch
from torch import nn

from anomaly_lab.networks.bigan import BiGANDiscriminator, BiGANEncoder, bigan_generator


@pytest.fixture
def _weightless() -> Iterator[None]:
    """Networks of full size that have shapes only."""
    with torch.device("meta"):
        yield


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (32, 3)])
@pytest.mark.usefixtures("_weightless")
def test_as_many_weights_as_by_hand(side: int, channels: int) -> None:
    """The authors' sizes: 32-64-128 channels, 1024 units, code 200; batch norm has two numbers a channel."""
    pixels = (side // 4) ** 2
    convolutions = 9 * (channels * 32 + 32 * 64 + 64 * 128) + (32 + 64 + 128)
    encoder = convolutions + 2 * (64 + 128) + 128 * pixels * 200 + 200
    dense = 200 * 1024 + 1024 * 128 * pixels + 3 * (1024 + 128 * pixels)
    generator = dense + 16 * (128 * 64 + 64 * channels) + 3 * 64 + channels
    image = 16 * (channels * 64 + 64 * 64) + 64 + 3 * 64
    discriminator = image + 200 * 512 + 512 + (64 * pixels + 512) * 1024 + 1024 + 1024 + 1
    size = (side, side)
    assert count(BiGANEncoder(channels, 200, size)) == encoder
    assert count(bigan_generator(200, channels, size)) == generator
    assert count(BiGANDiscriminator(channels, 200, size)) == discriminator


@pytest.mark.usefixtures("_weightless")
def test_the_sums_of_the_docstring() -> None:
    networks = bigan_generator(200, 1, (28, 28)), BiGANEncoder(1, 200, (28, 28)), BiGANDiscriminator(1, 200, (28, 28))
    assert [count(network) for network in networks] == [6_781_505, 1_347_656, 3_907_329]


@pytest.mark.usefixtures("_weightless")
def test_from_64_on_dcgans_stages() -> None:
    """64-128-256-512 channels down to 4×4."""
    inner = 16 * (64 * 128 + 128 * 256 + 256 * 512)
    encoder = 16 * 64 + inner + 3 * (64 + 128 + 256 + 512) + 512 * 16 * 200 + 200
    image = 16 * 64 + 64 + inner + 3 * (128 + 256 + 512)
    discriminator = image + 200 * 512 + 512 + (512 * 16 + 512) * 1024 + 1024 + 1024 + 1
    assert count(BiGANEncoder(1, 200, (64, 64))) == encoder
    assert count(BiGANDiscriminator(1, 200, (64, 64))) == discriminator


@pytest.mark.parametrize("side", [8, 28, 32, 64, 128])
def test_shapes_and_ranges(side: int) -> None:
    image, size = torch.rand(3, 3, side, side) * 2 - 1, (side, side)
    z = BiGANEncoder(3, 5, size, 2)(image)
    assert z.shape == (3, 5)
    fake = bigan_generator(5, 3, size, 2)(z)
    assert fake.shape == image.shape
    assert fake.abs().max() <= 1
    discriminator = BiGANDiscriminator(3, 5, size, 2)
    assert discriminator(fake, z).shape == (3,)
    assert discriminator.features(fake, z).shape == (3, 32)


def test_the_discriminator_sees_image_and_code() -> None:
    discriminator = BiGANDiscriminator(1, 5, (8, 8), 4).eval()
    (image, other), (z, other_z) = torch.randn(2, 3, 1, 8, 8), torch.randn(2, 3, 5)
    logit = discriminator(image, z)
    assert not torch.equal(logit, discriminator(other, z))
    assert not torch.equal(logit, discriminator(image, other_z))


@pytest.mark.parametrize("size", [(30, 30), (32, 28), (96, 96)])
def test_refuses_other_sizes(size: tuple[int, int]) -> None:
    for make in (lambda: BiGANEncoder(1, 5, size), lambda: bigan_generator(5, 1, size)):
        with pytest.raises(ValueError, match="patch_size"):
            make()
