from collections.abc import Iterator

import pytest
import torch
from torch import nn

from anomaly_lab.networks.alad import (
    ALADEncoder,
    ALADGenerator,
    CodeDiscriminator,
    ImageDiscriminator,
    PairDiscriminator,
    Pairing,
)


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
    """The authors' sizes: 32×32, 128-256-512 channels, code 100; batch norm has two numbers a channel."""
    size, inner = (32, 32), 16 * (128 * 256 + 256 * 512)
    encoder = 16 * channels * 128 + inner + 3 * (128 + 256 + 512) + 16 * 512 * 100 + 100
    generator = 16 * 100 * 512 + inner + 3 * (128 + 256 + 512) + 16 * 128 * channels + channels
    image = 16 * channels * 128 + 128 + inner + 3 * (256 + 512)
    code = 100 * 512 + 512 * 512 + 2 * 512
    pairs = image + code + (512 * 16 + 512) * 1024 + 1024 + 1024 + 1
    images = 25 * (2 * channels * 64 + 64 * 128) + 64 + 128 + 128 * 64 + 1
    stacked = 25 * (channels * 64 + 64 * 128) + 64 + 128 + 2 * 128 * 64 + 1
    assert count(ALADEncoder(channels, 100, size, spectral=False)) == encoder
    assert count(ALADGenerator(100, channels, size)) == generator
    assert count(PairDiscriminator(channels, 100, size, spectral=False)) == pairs
    assert count(ImageDiscriminator(channels, size, spectral=False)) == images
    assert count(ImageDiscriminator(channels, size, spectral=False, pairing="height")) == stacked
    assert count(CodeDiscriminator(100)) == 200 * 64 + 64 + 64 * 32 + 32 + 32 + 1


@pytest.mark.usefixtures("_weightless")
def test_the_sums_of_the_docstring() -> None:
    size = (32, 32)
    networks = (
        ALADEncoder(3, 100, size, spectral=False),
        ALADGenerator(100, 3, size),
        PairDiscriminator(3, 100, size, spectral=False),
        ImageDiscriminator(3, size, spectral=False),
        CodeDiscriminator(100, spectral=False),
    )
    assert [count(network) for network in networks] == [3_449_572, 3_449_475, 11_859_329, 222_785, 14_977]


def test_spectral_norm_has_no_weights() -> None:
    assert count(PairDiscriminator(1, 5, (8, 8), 4)) == count(PairDiscriminator(1, 5, (8, 8), 4, spectral=False))


@pytest.mark.parametrize("side", [8, 32, 64])
@pytest.mark.parametrize("pairing", ["channels", "height"])
def test_shapes_and_ranges(side: int, pairing: Pairing) -> None:
    image, size = torch.rand(3, 3, side, side) * 2 - 1, (side, side)
    z = ALADEncoder(3, 5, size, 4)(image)
    assert z.shape == (3, 5)
    fake = ALADGenerator(5, 3, size, 4)(z)
    assert fake.shape == image.shape
    assert fake.abs().max() <= 1
    assert PairDiscriminator(3, 5, size, 4)(fake, z).shape == (3,)
    assert ImageDiscriminator(3, size, 4, pairing=pairing)(image, fake).shape == (3,)
    assert CodeDiscriminator(5, 4)(z, z).shape == (3,)


def normalised(network: nn.Module) -> set[str]:
    return {name for name, module in network.named_modules() if hasattr(module, "parametrizations")}


def test_spectral_norm_where_it_belongs_and_on_demand() -> None:
    """On all convolutions and linear layers but the last; never in the generator."""
    for make in (
        lambda on: ALADEncoder(1, 5, (8, 8), 4, on),
        lambda on: PairDiscriminator(1, 5, (8, 8), 4, on),
        lambda on: ImageDiscriminator(1, (8, 8), 4, on),
        lambda on: CodeDiscriminator(5, 4, on),
    ):
        layers = {n for n, m in make(False).named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        assert normalised(make(True)) == layers - {"last"}
        assert not normalised(make(False))
    assert not normalised(ALADGenerator(5, 1, (8, 8), 4))


def test_with_spectral_norm_a_layer_stretches_nothing() -> None:
    network = CodeDiscriminator(5, 32)
    for _ in range(100):  # the power iteration settles
        network(torch.zeros(2, 5), torch.zeros(2, 5))
    first = network.eval().layers[0]
    assert isinstance(first, nn.Linear)
    assert torch.linalg.matrix_norm(first.weight, 2).item() == pytest.approx(1, abs=1e-2)


def test_the_second_image_counts() -> None:
    (x, one, other), network = torch.randn(3, 2, 1, 8, 8), ImageDiscriminator(1, (8, 8), 4).eval()
    assert not torch.equal(network(x, one), network(x, other))
