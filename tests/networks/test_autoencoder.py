from collections.abc import Iterator

import pytest
import torch
from torch import nn

from anomaly_lab.networks.autoencoder import Autoencoder, ConvolutionalDecoder, ConvolutionalEncoder


@pytest.fixture
def _weightless() -> Iterator[None]:
    """Networks of full size that have shapes only."""
    with torch.device("meta"):
        yield


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.usefixtures("_weightless")
def test_as_many_weights_as_by_hand(channels: int) -> None:
    """64×64, width 16, code 16: 16-32-64-64 channels, 1024 numbers before and behind the code."""
    convolutions = 16 * (channels * 16 + 16 * 32 + 32 * 64 + 64 * 64)
    dense = 1024 * 1024 + 1024 + 2 * 1024  # with its batch norm, which has two numbers a unit
    encoder = convolutions + 2 * (16 + 32 + 64 + 64) + dense + 1024 * 16 + 16
    decoder = 16 * 1024 + 1024 + dense + convolutions + 2 * (64 + 32 + 16)
    assert count(ConvolutionalEncoder(channels, 16, (64, 64))) == encoder
    assert count(ConvolutionalDecoder(16, channels, (64, 64))) == decoder


@pytest.mark.usefixtures("_weightless")
def test_the_sums_of_the_docstring() -> None:
    assert count(ConvolutionalEncoder(1, 16, (64, 64))) == 1_175_152
    assert count(ConvolutionalDecoder(16, 1, (64, 64))) == 1_176_032


def test_a_variational_one_says_mean_and_variance() -> None:
    """Its encoder's last layer is twice as wide, nothing else differs."""
    plain, variational = (Autoencoder(1, 16, (64, 64), variational=v) for v in (False, True))
    assert count(variational) - count(plain) == 1024 * 16 + 16


@pytest.mark.parametrize("side", [8, 32, 128])
@pytest.mark.parametrize("variational", [False, True])
def test_shapes(side: int, variational: bool) -> None:
    image = torch.rand(4, 3, side, side) * 2 - 1
    reconstruction, mean, log_variance = Autoencoder(3, 5, (side, side), 2, variational)(image)
    assert reconstruction.shape == image.shape
    assert mean.shape == log_variance.shape == (4, 5)


def test_a_variational_one_draws_in_training_only() -> None:
    image, network = torch.rand(4, 1, 8, 8), Autoencoder(1, 5, (8, 8), 4, variational=True)
    assert not torch.equal(network(image)[0], network(image)[0])
    network.eval()
    assert torch.equal(network(image)[0], network(image)[0])
    torch.testing.assert_close(network(image)[0], network.decoder(network(image)[1]))


def test_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Autoencoder(1, 5, (24, 24))
