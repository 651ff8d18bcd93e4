import pytest
import torch

from anomaly_lab.networks.unet import UNet


@pytest.mark.parametrize(
    ("side", "channels", "expected"), [(32, 3, 16_659_075), (64, 1, 29_237_889), (128, 3, 41_828_995)]
)
def test_as_many_weights_as_skip_ganomalys_generator(side: int, channels: int, expected: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(channels, (side, side)).parameters()) == expected


@pytest.mark.parametrize("side", [8, 16, 64])
def test_shapes_and_ranges(side: int) -> None:
    image = torch.rand(4, 3, side, side) * 2 - 1
    reconstruction = UNet(3, (side, side), 2)(image)
    assert reconstruction.shape == image.shape
    assert reconstruction.abs().max() <= 1


def test_every_level_reaches_the_result() -> None:
    """Each stage down has two ways to the picture; without the one below it the other is still there."""
    torch.manual_seed(0)
    network = UNet(1, (16, 16), 4).eval()
    for up in network.ups:  # nothing comes up from below
        up[1].weight.data.zero_()
    network(torch.rand(2, 1, 16, 16)).sum().backward()
    first, *deeper = [any(p.grad.abs().sum() > 0 for p in down.parameters()) for down in network.downs]
    assert first
    assert not any(deeper)


def test_all_weights_learn() -> None:
    torch.manual_seed(0)
    network = UNet(1, (16, 16), 4)
    network(torch.rand(2, 1, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("size", [(32,), (32, 64), (48, 48), (4, 4)])
def test_other_sizes_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="power of two"):
        UNet(1, size)
