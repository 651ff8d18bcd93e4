"""pSp's encoder: sizes counted by hand, which map each style is from, and where it begins."""

import pytest
import torch
from torch import Tensor, nn

from anomaly_lab.networks.psp import Backbone, BackboneName, MapToStyle, Pointwise, SqueezedBlock, StyleEncoder
from anomaly_lab.networks.stylegan2 import StyleGenerator, channels_at


def made(name: BackboneName = "resnet18", side: int = 64, channels: int = 1, num_styles: int = 10) -> StyleEncoder:
    torch.manual_seed(0)
    return StyleEncoder(Backbone(name, channels, width=2), side, num_styles, w_dim=8)


def pictures(n: int, channels: int = 1, side: int = 64) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_irse50_is_as_large_as_published() -> None:
    """Per block: two convolutions, three batch norms or two, PReLU, and two layers of a sixteenth of the channels."""
    with torch.device("meta"):
        backbone = Backbone("irse50", in_channels=3)
    expected, before = 3 * 64 * 9 + 2 * 64 + 64, 64
    for channels, blocks in ((64, 3), (128, 4), (256, 14), (512, 3)):
        for _ in range(blocks):
            expected += 2 * before + 9 * before * channels + channels + 9 * channels**2 + 2 * channels
            expected += 2 * channels * (channels // 16)
            expected += (before * channels + 2 * channels) * (before != channels)
            before = channels
    assert sum(weight.numel() for weight in backbone.parameters()) == expected


def test_three_maps_at_256_pixels_are_those_of_psp() -> None:
    with torch.device("meta"):
        taps = Backbone("irse50", in_channels=3)(torch.zeros(1, 3, 256, 256))
        encoder = StyleEncoder(Backbone("irse50", 3), 256, num_styles=14, w_dim=512)
    assert [tuple(tap.shape[1:]) for tap in taps] == [(128, 64, 64), (256, 32, 32), (512, 16, 16)]
    convs = [sum(isinstance(layer, nn.Conv2d) for layer in head.convs) for head in encoder.heads]
    assert convs == [4] * 3 + [5] * 4 + [6] * 7


@pytest.mark.parametrize("name", ["irse50", "resnet18"])
@pytest.mark.parametrize(("side", "num_styles"), [(32, 8), (64, 10)])
@pytest.mark.parametrize("channels", [1, 3])
def test_styles_of_every_size(name: BackboneName, side: int, num_styles: int, channels: int) -> None:
    encoder = made(name, side, channels, num_styles)
    assert encoder(pictures(2, channels, side)).shape == (2, num_styles, 8)


def test_a_large_image_is_reduced_to_256() -> None:
    encoder = made(side=512, num_styles=16).eval()
    image = pictures(1, side=512)
    small = nn.functional.avg_pool2d(image, 2)
    torch.testing.assert_close(encoder(image), encoder(small))


def test_styles_are_from_coarse_to_fine_maps() -> None:
    """Without the larger maps, only the later styles change."""
    encoder, image = made().eval(), pictures(2)
    before = encoder(image)
    for layer, changed in ((encoder.lateral1, range(7, 10)), (encoder.lateral2, range(3, 10))):
        nn.init.zeros_(layer.weight)
        after = encoder(image)
        assert [i for i in range(10) if not torch.equal(before[:, i], after[:, i])] == list(changed)
        before = after


def test_with_zero_heads_it_returns_the_mean_style_and_the_generators_mean_image() -> None:
    encoder = made()
    generator = StyleGenerator(8, 1, channels_at((64, 64), width=2))
    encoder.mean.copy_(generator.mapping(torch.ones(1, 8))[0])
    for head in encoder.heads:
        nn.init.zeros_(head.last.weight)
    styles = encoder(pictures(2))
    assert torch.equal(styles, encoder.mean.expand(2, 10, 8))
    assert torch.equal(generator.synthesis(styles), generator.synthesis(encoder.mean.expand(2, 10, 8)))


def test_a_block_without_change_of_channels_adds_its_input() -> None:
    block = SqueezedBlock(16, 16, stride=2).eval()
    nn.init.zeros_(block.body[3].weight)
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(block(x), x[:, :, ::2, ::2])


@pytest.mark.parametrize("side", [1, 2, 16])
def test_a_head_ends_in_one_pixel(side: int) -> None:
    assert MapToStyle(4, w_dim=6, side=side)(torch.zeros(3, 4, side, side)).shape == (3, 6)


def test_every_weight_gets_a_gradient() -> None:
    for name in ("irse50", "resnet18"):
        encoder = made(name)
        encoder(pictures(4)).square().sum().backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in encoder.parameters())


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(("channels", "stride"), [(3, 1), (4, 2), (16, 2)])
def test_a_strided_1x1_convolution_is_torchs(channels: int, stride: int, side: int) -> None:
    """Outputs and gradients, channels last; torch's own is asked contiguous, where it is right on any processor."""
    mine = Pointwise(channels, 5, stride).to(memory_format=torch.channels_last)
    image = torch.randn(2, channels, side, side)
    results = []
    torchs = nn.Conv2d(channels, 5, 1, stride, bias=False)
    torchs.load_state_dict(mine.state_dict())
    for layer, x in ((mine, image.to(memory_format=torch.channels_last)), (torchs, image)):
        x = x.clone().requires_grad_()
        y = layer(x)
        y.sin().sum().backward()
        results.append([y.detach(), x.grad, layer.weight.grad])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_few_channels_do_not_reach_torchs_strided_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *_: pytest.fail("torch's own"))
    for channels in range(1, 8):
        Pointwise(channels, 5, stride=2)(torch.zeros(2, channels, 8, 8))
    with pytest.raises(pytest.fail.Exception):
        Pointwise(8, 5, stride=2)(torch.zeros(2, 8, 8, 8))
