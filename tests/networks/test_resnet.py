"""Sizes and properties of the residual networks."""

import pytest
import torch

from anomaly_lab.networks.convolution import Conv2d
from anomaly_lab.networks.resnet import ResNetCritic, ResNetEncoder, ResNetGenerator, block_widths


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_are_the_authors() -> None:
    """METHODS §2.1, computed by hand there from the table of layers."""
    assert count(ResNetGenerator(128, 1, (64, 64), 64)) == 8_539_329
    assert count(ResNetCritic(1, (64, 64), 64)) == 7_490_689
    assert count(ResNetEncoder(1, 128, (64, 64), 64)) == 8_531_200


@pytest.mark.parametrize(
    ("side", "widths"),
    [
        (32, [64, 128, 256, 256]),
        (64, [64, 128, 256, 512, 512]),
        (128, [64, 128, 256, 512, 512, 512]),
        (256, [64, 128, 256, 512, 512, 512, 512]),
    ],
)
def test_widths_are_counted_from_the_picture(side: int, widths: list[int]) -> None:
    assert block_widths((side, side), 64) == widths


@pytest.mark.parametrize("patch_size", [(16, 16), (48, 48), (32, 64), (32,), (32, 32, 32)])
def test_other_sizes_are_refused(patch_size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="power of two"):
        block_widths(patch_size, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 128])
def test_shapes_and_ranges(side: int, channels: int) -> None:
    size = (side, side)
    z = torch.randn(2, 16)
    image = ResNetGenerator(16, channels, size, 4)(z)
    assert image.shape == (2, channels, side, side)
    assert image.abs().max() <= 1
    critic = ResNetCritic(channels, size, 4)
    assert critic(image).shape == (2,)
    assert critic.features(image).shape == (2, critic.num_features)
    code = ResNetEncoder(channels, 16, size, 4)(image)
    assert code.shape == (2, 16)
    assert code.abs().max() < 1


def test_the_critic_mixes_no_samples() -> None:
    critic = ResNetCritic(1, (32, 32), 4)
    image = torch.randn(3, 1, 32, 32)
    together = critic(image)
    alone = torch.cat([critic(one[None]) for one in image])
    torch.testing.assert_close(together, alone)


def test_weights_are_scaled_as_in_the_authors_code() -> None:
    """Uniform with standard deviation √(4/(fan_in+fan_out)) before a ReLU, √(2/…) elsewhere; biases 0."""
    critic = ResNetCritic(1, (64, 64), 64)
    block = critic.blocks[2]  # 256 -> 512
    assert block.conv1.weight.std().item() == pytest.approx((4 / (9 * 256 + 9 * 256)) ** 0.5, rel=0.02)
    assert block.shortcut.weight.std().item() == pytest.approx((2 / (256 + 512)) ** 0.5, rel=0.02)
    assert critic.first.weight.std().item() == pytest.approx((2 / (9 + 9 * 64)) ** 0.5, rel=0.1)
    assert not block.conv2.bias.any()


def test_only_a_penaltys_forward_is_made_for_two_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image asks for its gradient and the weights learn; a critic's or a generator's step have one of the two."""
    critic, image, seen = ResNetCritic(1, (32, 32), 4), torch.randn(2, 1, 32, 32), []
    forward = Conv2d.forward
    monkeypatch.setattr(
        Conv2d, "forward", lambda self, x, twice=False: (seen.append(twice), forward(self, x, twice))[1]
    )
    for learns, asks in ((True, False), (False, True), (True, True)):
        seen.clear()
        critic.requires_grad_(learns)(image.requires_grad_(asks))
        assert seen == [learns and asks] * 10  # the first and three a block
