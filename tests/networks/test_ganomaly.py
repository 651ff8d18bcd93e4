import pytest
import torch
from torch import nn

from anomaly_lab.networks.ganomaly import (
    EncoderDecoderEncoder,
    GANomalyDiscriminator,
    SkipGANomalyDiscriminator,
    stage_widths,
)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("side", "channels", "counts"),
    [  # whole, encoder, decoder and discriminator, counted of the authors' modules
        (32, 1, (3_200_384, 1_066_752, 1_066_880, 661_248)),
        (32, 3, (3_206_528, 1_068_800, 1_068_928, 663_296)),
        (64, 1, (10_723_712, 3_574_528, 3_574_656, 2_763_520)),
        (64, 3, (10_729_856, 3_576_576, 3_576_704, 2_765_568)),
        (128, 1, (38_353_280, 12_784_384, 12_784_512, 11_162_368)),
        (256, 3, (143_950_208, 47_983_360, 47_983_488, 44_739_328)),
    ],
)
def test_as_many_weights_as_the_authors_modules(side: int, channels: int, counts: tuple[int, ...]) -> None:
    widths = stage_widths((side, side), 64)
    with torch.device("meta"):
        network, discriminator = EncoderDecoderEncoder(channels, 100, widths), GANomalyDiscriminator(channels, widths)
    assert tuple(count(part) for part in (network, network.encoder, network.decoder, discriminator)) == counts
    assert count(network.second_encoder) == count(network.encoder)


@pytest.mark.parametrize(
    ("side", "channels", "expected"), [(32, 3, 1_069_700), (64, 1, 3_575_428), (128, 3, 12_787_332)]
)
def test_as_many_weights_as_skip_ganomalys_discriminator(side: int, channels: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(SkipGANomalyDiscriminator(channels, stage_widths((side, side), 64))) == expected


def test_widths_double_up_to_the_cap() -> None:
    assert stage_widths((256, 256), 64) == [64, 128, 256, 512, 1024, 2048]
    assert stage_widths((256, 256), 64, channel_cap=512) == [64, 128, 256, 512, 512, 512]


@pytest.mark.parametrize("size", [(32,), (32, 64), (48, 48), (4, 4)])
def test_other_sizes_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="power of two"):
        stage_widths(size, 64)


@pytest.mark.parametrize("side", [8, 32, 64])
def test_shapes_and_ranges(side: int) -> None:
    image, widths = torch.rand(4, 3, side, side) * 2 - 1, stage_widths((side, side), 2)
    reconstruction, z_hat, z = EncoderDecoderEncoder(3, 5, widths)(image)
    assert reconstruction.shape == image.shape
    assert reconstruction.abs().max() <= 1
    assert z.shape == z_hat.shape == (4, 5)
    logit, features = GANomalyDiscriminator(3, widths)(reconstruction)
    assert (logit.shape, features.shape) == ((4,), (4, widths[-1] * 16))
    logit, features = SkipGANomalyDiscriminator(3, widths, 7)(reconstruction)
    assert (logit.shape, features.shape) == ((4,), (4, 7))


def test_the_second_code_is_that_of_the_reconstruction() -> None:
    network = EncoderDecoderEncoder(1, 5, stage_widths((16, 16), 2)).eval()
    image = torch.rand(3, 1, 16, 16) * 2 - 1
    reconstruction, z_hat, z = network(image)
    torch.testing.assert_close(z, network.encoder(image))
    torch.testing.assert_close(z_hat, network.second_encoder(reconstruction))
    assert not torch.equal(network.encoder.last.weight, network.second_encoder.last.weight)


def test_skip_ganomaly_judges_by_its_features_alone() -> None:
    """A 3×3 convolution on one pixel is the product with its middle."""
    network = SkipGANomalyDiscriminator(1, stage_widths((16, 16), 2), 7).eval()
    logit, features = network(torch.rand(3, 1, 16, 16))
    torch.testing.assert_close(logit, features @ network.last.weight[0, :, 1, 1])


def test_drawn_as_dcgan_is() -> None:
    torch.manual_seed(0)
    network = EncoderDecoderEncoder(1, 100, stage_widths((32, 32), 64))
    assert network.decoder.first.weight.std().item() == pytest.approx(0.02, rel=0.02)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert torch.cat([norm.weight for norm in norms]).mean().item() == pytest.approx(1, abs=0.01)
    assert not any(norm.bias.any() for norm in norms)
